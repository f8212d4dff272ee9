use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portreeve_core::carried_out;
use portreeve_policy::fuzz::random::{Dice, Question, Scenario};
use portreeve_policy::{
    Directory, Endpoint, Engine, Features, Identity, IdentityAllocator, Labels, Options, Peer,
    Repository, Source, TrafficDirection,
};

use super::*;

fn judged(protocol: Protocol, verdict: ConnectionVerdict) -> Verdict {
    kernel_verdict(protocol, &carried_out(protocol, verdict))
}

fn table(policy: &EndpointPolicy) -> PolicyTable {
    PolicyTable::new(policy, 7, judged)
}

fn number(protocol: Protocol) -> u8 {
    PROTOCOLS.into_iter().find(|(own, _)| *own == protocol).unwrap().1
}

/// What the engine and the proxy say.
fn expected(policy: &EndpointPolicy, question: Question) -> Answer {
    let Question { direction, address, protocol, port } = question;
    let who = policy.identify(address);
    let verdict = policy.connection(direction, who, protocol, port);
    let rule = verdict.rule.map(|rule| u32::try_from(rule.index()).unwrap());
    Answer { identity: who.get(), verdict: judged(protocol, verdict), rule }
}

fn asked(table: &PolicyTable, question: Question) -> Answer {
    let direction = match question.direction {
        TrafficDirection::Egress => Direction::Egress,
        TrafficDirection::Ingress => Direction::Ingress,
    };
    table.lookup(direction, question.address, number(question.protocol), question.port)
}

fn apply(table: &PolicyTable, changes: &[Change]) -> PolicyTable {
    let mut entries: BTreeMap<_, _> = table.entries().collect();
    for change in changes {
        match change {
            Change::Put(key, value) => {
                entries.insert(*key, *value);
            }
            Change::Remove(key) => assert!(entries.remove(key).is_some(), "{key:?} is not there"),
        }
    }
    PolicyTable { entries: entries.into_iter().collect() }
}

#[test]
fn the_table_answers_as_the_proxy_does() {
    let mut dice = Dice::new(11);
    let mut seen = BTreeSet::new();
    for _ in 0..250 {
        let scenario = Scenario::any(&mut dice);
        let table = table(&scenario.policy);
        for _ in 0..100 {
            let question = scenario.question(&mut dice);
            let found = asked(&table, question);
            let expected = expected(&scenario.policy, question);
            assert_eq!(found, expected, "{question:?}\n{}", scenario.text);
            let Answer { verdict, rule, .. } = found;
            seen.insert(format!("{:?} {verdict:?} {}", question.protocol, rule.is_some()));
        }
    }
    assert_eq!(seen.len(), 10, "all that TCP and UDP can be told: {seen:#?}");
}

#[test]
fn a_table_is_one_tries_entries() {
    let mut dice = Dice::new(12);
    for _ in 0..100 {
        let scenario = Scenario::any(&mut dice);
        let table = table(&scenario.policy);
        for pair in table.entries.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{pair:?}");
        }
        for (key, _) in table.entries() {
            assert_eq!(cut(key, key.prefix_len), key, "bits beyond the prefix");
        }
    }
}

#[test]
fn changes_lead_from_one_table_to_the_other() {
    let mut dice = Dice::new(13);
    let mut old = PolicyTable::empty();
    for _ in 0..100 {
        let new = table(&Scenario::any(&mut dice).policy);
        let changes = old.diff(&new);
        assert_eq!(apply(&old, &changes), new);
        assert_eq!(new.diff(&new), []);
        old = new;
    }
    let gone = apply(&old, &old.diff(&PolicyTable::empty()));
    assert!(gone.is_empty());
}

/// A policy about peers with the labels `app=a`, on these ports.
fn about(ports: &str, peers: Vec<Peer>) -> EndpointPolicy {
    let text = format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: \
         default}}, spec: {{endpointSelector: {{}}, egress: [{{toEndpoints: [{{matchLabels: {{app: \
         a}}}}], toPorts: [{{ports: [{ports}]}}]}}]}}}}"
    );
    let repository = Repository::parse([Source::new("p.yaml", text)]).unwrap();
    let workload = Endpoint::new("w", "default", "app=w".parse().unwrap());
    let directory = Directory::from(peers);
    EndpointPolicy::resolve(&repository, &workload, &directory, &Options::default()).unwrap()
}

fn peer(prefix: &str, labels: &str) -> Peer {
    Peer::new([prefix.parse().unwrap()], labels.parse().unwrap())
}

#[test]
fn what_stands_beside_each_other_and_is_alike_is_one_entry() {
    let ports =
        "{port: '16', endPort: 17, protocol: TCP}, {port: '18', endPort: 31, protocol: TCP}";
    let policy = about(ports, vec![peer("10.0.0.1/32", "app=a")]);
    let class = classes::Numbering::new(&policy);
    let class = class.of(Direction::Egress, policy.identify([10, 0, 0, 1].into()));
    let of_class = PolicyKey::port(class, protocol::TCP, 0, 0).data[..2].to_vec();
    let table = table(&policy);
    let ports: Vec<_> = table.entries().filter(|(key, _)| key.data[..2] == of_class).collect();
    let expected = PolicyKey::port(class, protocol::TCP, 16, 12);
    assert_eq!(ports, [(expected, PolicyValue::verdict(Verdict::Allow, 1))]);
}

#[test]
fn a_new_peer_of_a_known_kind_is_one_entry_more() {
    let mut peers = vec![peer("10.0.0.1/32", "app=a"), peer("10.0.0.2/32", "app=b")];
    let old = table(&about("{port: '80'}", peers.clone()));
    peers.push(peer("10.0.0.3/32", "app=a"));
    let new = table(&about("{port: '80'}", peers));
    let [Change::Put(key, _)] = old.diff(&new)[..] else { panic!("{:?}", old.diff(&new)) };
    assert_eq!(key, prefix_key("10.0.0.3/32".parse().unwrap()));
}

/// Gives out numbers from the greatest downwards.
struct Greatest(u32);

impl IdentityAllocator for Greatest {
    fn acquire(&mut self, _: &Labels) -> Option<Identity> {
        self.0 -= 1;
        Some(Identity::new(self.0 + 1))
    }

    fn release(&mut self, _: &Labels) {}

    fn acquire_prefix(&mut self, _: IpNet, _: &[String]) -> Option<Identity> {
        self.acquire(&Labels::default())
    }

    fn release_prefix(&mut self, _: IpNet, _: &[String], _: Identity) {}
}

#[test]
fn classes_are_told_apart_whatever_numbers_identities_have() {
    // The last identities have the last numbers that are numbers of classes, too.
    for greatest in [u32::MAX, (1 << 31) + 2, (1 << 31) + 1, 1 << 31, (1 << 31) - 1] {
        let allocator = Box::new(Greatest(greatest));
        let mut engine = Engine::with_allocator(Options::default(), Features::default(), allocator);
        let entry = |way: &str, app: &str, port: u16| {
            let ports = format!("toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]");
            format!("{{{way}Endpoints: [{{matchLabels: {{app: {app}}}}}], {ports}}}")
        };
        let (apps, mut ingress, mut egress) = (["a", "b", "c"], Vec::new(), Vec::new());
        for (app, port) in apps.into_iter().zip(1..) {
            ingress.push(entry("from", app, port));
            egress.push(entry("to", app, port + 10));
        }
        let (ingress, egress) = (ingress.join(", "), egress.join(", "));
        let text = format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: \
             default}}, spec: {{endpointSelector: {{}}, ingress: [{ingress}], egress: [{egress}]}}}}"
        );
        engine.apply([Source::new("p.yaml", text)]).unwrap();
        engine.upsert_endpoint(Endpoint::new("w", "default", "app=w".parse().unwrap()));
        for (app, prefix) in apps.iter().zip(["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"]) {
            engine.upsert_peer(app, peer(prefix, &format!("app={app}")));
        }
        let policy = engine.policy("w").unwrap();
        let table = table(&policy);
        for direction in [TrafficDirection::Ingress, TrafficDirection::Egress] {
            for host in 0..5 {
                for port in 0..20 {
                    let address = [10, 0, 0, host].into();
                    let question = Question { direction, address, protocol: Protocol::Tcp, port };
                    assert_eq!(asked(&table, question), expected(&policy, question));
                }
            }
        }
    }
}

#[test]
fn an_empty_table_denies_and_one_without_policy_gives_the_proxy_all_of_tcp() {
    let address = [192, 0, 2, 1].into();
    let empty = PolicyTable::empty().lookup(Direction::Egress, address, protocol::TCP, 80);
    assert_eq!(empty, Answer { identity: 0, verdict: Verdict::Deny, rule: None });
    let all = PolicyTable::everything_inspected();
    for address in [address, "2001:db8::1".parse().unwrap(), "::".parse().unwrap()] {
        let verdict = |direction, protocol| all.lookup(direction, address, protocol, 9).verdict;
        assert_eq!(verdict(Direction::Egress, protocol::TCP), Verdict::Inspect);
        assert_eq!(verdict(Direction::Egress, protocol::UDP), Verdict::Allow);
        assert_eq!(verdict(Direction::Ingress, protocol::TCP), Verdict::Allow);
        assert_eq!(verdict(Direction::Ingress, protocol::UDP), Verdict::Allow);
        assert_eq!(verdict(Direction::Egress, 132), Verdict::Deny);
    }
}

#[test]
fn a_hundred_thousand_peers_are_a_table_at_once() {
    let peer = |number: u32| {
        let prefix = IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let labels = format!("app={},n=n{number}", ["a", "b"][number as usize % 2]);
        Peer::new([prefix], labels.parse().unwrap())
    };
    let policy = about("{port: '80', protocol: TCP}", (0..100_000).map(peer).collect());
    let begun = Instant::now();
    let table = table(&policy);
    let taken = begun.elapsed();
    assert!(table.len() > 100_000);
    let allowed = table.lookup(Direction::Egress, [10, 0, 0, 4].into(), protocol::TCP, 80);
    assert_eq!(allowed.verdict, Verdict::Allow);
    let denied = table.lookup(Direction::Egress, [10, 0, 0, 5].into(), protocol::TCP, 80);
    assert_eq!(denied.verdict, Verdict::Deny);
    eprintln!("{} entries in {taken:?}", table.len());
    // Far above what it takes, unoptimised and on a busy machine.
    assert!(taken < Duration::from_secs(5), "{taken:?}");
}
