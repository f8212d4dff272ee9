//! Changes, and whom they concern.

use super::*;
use crate::{Action, Protocol, TrafficDirection};

fn engine() -> Engine {
    let mut engine = Engine::new(Options::default());
    for (name, labels) in [("shop", "app=shop"), ("bank", "app=bank")] {
        engine.upsert_endpoint(Endpoint::new(name, "default", labels.parse().unwrap()));
    }
    engine.upsert_peer("a", peer("10.0.0.1/32", "app=a"));
    engine.upsert_peer("b", peer("10.0.0.2/32", "app=b"));
    engine
}

fn peer(prefix: &str, labels: &str) -> Peer {
    Peer::new([prefix.parse().unwrap()], labels.parse().unwrap())
}

fn policy(name: &str, subject: &str, direction: &str, entry: &str) -> Source {
    Source::new(
        "p.yaml",
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, \
             namespace: default}}\nspec:\n  endpointSelector: {{matchLabels: {{app: {subject}}}}}\n  \
             {direction}: [{entry}]\n"
        ),
    )
}

fn allows(engine: &Engine, endpoint: &str, direction: TrafficDirection, peer: &str) -> bool {
    let policy = engine.policy(endpoint).unwrap();
    let who = policy.identify(peer.parse().unwrap());
    !matches!(policy.connection(direction, who, Protocol::Tcp, 80).action, Action::Deny)
}

fn name(name: &str) -> PolicyName {
    let namespace = Some("default".to_owned());
    PolicyName { kind: "CiliumNetworkPolicy", namespace, name: name.to_owned() }
}

const INGRESS: TrafficDirection = TrafficDirection::Ingress;
const EGRESS: TrafficDirection = TrafficDirection::Egress;

#[test]
fn a_policy_concerns_the_workloads_that_it_selects() {
    let mut engine = engine();
    let source = policy("p", "shop", "ingress", "{fromEndpoints: [{matchLabels: {app: a}}]}");
    assert_eq!(engine.apply([source]).unwrap().endpoints, ["shop"]);
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.1"));
    assert!(!allows(&engine, "shop", INGRESS, "10.0.0.2"));
    assert!(allows(&engine, "bank", INGRESS, "10.0.0.2"));
    // Another subject under the same name: both are concerned.
    let source = policy("p", "bank", "ingress", "{}");
    assert_eq!(engine.apply([source]).unwrap().endpoints, ["bank", "shop"]);
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.2"));
    assert!(!allows(&engine, "bank", INGRESS, "10.0.0.2"));
    assert_eq!(engine.remove(&name("p")).endpoints, ["bank"]);
    assert!(allows(&engine, "bank", INGRESS, "10.0.0.2"));
}

#[test]
fn a_batch_is_computed_once_and_says_what_single_changes_say() {
    let change = |engine: &mut Engine| {
        let source = policy("p", "shop", "ingress", "{fromEndpoints: [{matchLabels: {app: c}}]}");
        engine.apply([source]).unwrap();
        engine.upsert_peer("c", peer("10.0.0.3/32", "app=c"));
        engine.upsert_endpoint(Endpoint::new("shop-2", "default", "app=shop".parse().unwrap()));
        engine.remove_peer("a");
        engine.remove_endpoint("bank");
        let again = policy("q", "shop", "ingress", "{fromEndpoints: [{matchLabels: {app: b}}]}");
        engine.apply([again]).unwrap();
        engine.remove(&name("q"));
    };
    let (mut single, mut batched) = (engine(), engine());
    let told = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = told.clone();
    batched.subscribe(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    change(&mut single);
    let before = batched.revision();
    batched.begin_batch();
    change(&mut batched);
    assert!(allows(&batched, "shop", INGRESS, "10.0.0.2"), "policies are what they were");
    assert!(!allows(&batched, "shop-2", INGRESS, "10.0.0.3"), "who is new may do nothing");
    let change = batched.end_batch();
    assert_eq!(change.endpoints, ["shop", "shop-2"]);
    assert_eq!((change.revision, batched.revision()), (before + 1, before + 1));
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
    for endpoint in ["shop", "shop-2"] {
        for peer in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            let expected = allows(&single, endpoint, INGRESS, peer);
            assert_eq!(allows(&batched, endpoint, INGRESS, peer), expected, "{endpoint} {peer}");
            assert_eq!(expected, peer == "10.0.0.3");
        }
    }
    assert!(batched.policy("bank").is_none());
    // Nothing is no change.
    batched.begin_batch();
    assert_eq!(batched.end_batch().revision, before + 1);
    batched.upsert_peer("d", peer("10.0.0.4/32", "app=d"));
    assert_eq!(batched.revision(), before + 2, "and single changes are complete again");
}

#[test]
fn a_peer_concerns_the_workloads_whose_rules_are_about_it() {
    let mut engine = engine();
    let source = policy("p", "shop", "ingress", "{fromEndpoints: [{matchLabels: {app: c}}]}");
    engine.apply([source]).unwrap();
    let source = policy("q", "bank", "ingress", "{fromEndpoints: [{matchLabels: {app: d}}]}");
    engine.apply([source]).unwrap();
    assert_eq!(engine.upsert_peer("c", peer("10.0.0.3/32", "app=c")).endpoints, ["shop"]);
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.3"));
    assert!(!allows(&engine, "bank", INGRESS, "10.0.0.3"));
    // A second one of the same labels is the same identity: nobody is concerned.
    let second = engine.upsert_peer("c2", peer("10.0.0.4/32", "app=c"));
    assert!(second.endpoints.is_empty());
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.4"));
    assert!(engine.remove_peer("c2").endpoints.is_empty());
    assert!(!allows(&engine, "shop", INGRESS, "10.0.0.4"));
    assert_eq!(engine.remove_peer("c").endpoints, ["shop"]);
    assert!(!allows(&engine, "shop", INGRESS, "10.0.0.3"));
}

#[test]
fn a_change_that_makes_no_sense_leaves_the_old_policy_in_force() {
    let mut engine = engine();
    let port = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules:";
    let source = policy("p", "shop", "ingress", &format!("{{{port} {{http: [{{path: /a}}]}}}}]}}"));
    engine.apply([source]).unwrap();
    let source =
        policy("q", "shop", "ingress", &format!("{{{port} {{kafka: [{{topic: t}}]}}}}]}}"));
    let change = engine.apply([source]).unwrap();
    assert_eq!(change.errors.len(), 1);
    assert!(engine.error("shop").unwrap().to_string().contains("rules of different protocols"));
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.1"), "still inspected as HTTP");
    // A new workload has no old policy: it is closed.
    let change =
        engine.upsert_endpoint(Endpoint::new("shop2", "default", "app=shop".parse().unwrap()));
    assert!(change.errors.iter().any(|(name, _)| name == "shop2"), "{:?}", change.errors);
    assert!(!allows(&engine, "shop2", INGRESS, "10.0.0.1"));
    assert!(!allows(&engine, "shop2", EGRESS, "10.0.0.1"));
    let change = engine.remove(&name("q"));
    assert_eq!(change.endpoints, ["shop", "shop2"]);
    assert!(engine.error("shop").is_none());
}

#[test]
fn what_mends_a_policy_that_made_no_sense_need_not_be_a_policy() {
    let mut engine = engine();
    let named = |name: &str, number| {
        let mut peer = peer(&format!("10.0.1.{number}/32"), &format!("app={name}"));
        let port = u16::from(number);
        peer.named_ports =
            vec![crate::NamedPort { name: "http".to_owned(), port, protocol: Protocol::Tcp }];
        peer
    };
    engine.upsert_peer("x", named("x", 80_u8));
    engine.upsert_peer("y", named("y", 81_u8));
    let entry = "{toPorts: [{ports: [{port: http, protocol: TCP}]}]}";
    let change = engine.apply([policy("p", "shop", "egress", entry)]).unwrap();
    assert!(change.errors[0].1.to_string().contains("80 or 81"), "{:?}", change.errors);
    assert_eq!(engine.remove_peer("y").endpoints, ["shop"]);
    assert!(engine.error("shop").is_none());
    assert!(allows(&engine, "shop", EGRESS, "10.0.1.80"));
}

#[test]
fn who_leaves_a_shared_address_does_not_take_it_with_him() {
    let mut engine = engine();
    let source = policy("p", "shop", "ingress", "{fromEndpoints: [{matchLabels: {app: c}}]}");
    engine.apply([source]).unwrap();
    // A new pod has the address before the old one is reported gone; both have the same labels.
    engine.upsert_peer("old", peer("10.0.0.9/32", "app=c"));
    engine.upsert_peer("new", peer("10.0.0.9/32", "app=c"));
    engine.remove_peer("old");
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.9"));
    // The latest has it; when he goes, the one before is still there.
    engine.upsert_peer("other", peer("10.0.0.9/32", "app=d"));
    assert!(!allows(&engine, "shop", INGRESS, "10.0.0.9"));
    engine.remove_peer("other");
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.9"));
    engine.remove_peer("new");
    assert!(!allows(&engine, "shop", INGRESS, "10.0.0.9"));
}

#[test]
fn a_peer_with_a_namespace_is_in_the_cluster_too() {
    let mut engine = engine();
    engine.apply([policy("p", "shop", "ingress", "{fromEntities: [cluster]}")]).unwrap();
    engine.upsert_peer("c", peer("10.0.0.9/32", "io.kubernetes.pod.namespace=prod,app=c"));
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.9"));
}

#[test]
fn which_listener_has_a_connection_depends_on_who_is_called() {
    let mut engine = engine();
    engine.upsert_peer("c", peer("10.0.0.3/32", "app=c,team=x"));
    engine.upsert_peer("d", peer("10.0.0.4/32", "app=d,team=x"));
    let listener = |name: &str, priority: u8| {
        format!("listener: {{name: {name}, priority: {priority}, envoyConfig: {{name: e}}}}")
    };
    let (strong, weak) = (listener("strong", 5), listener("weak", 6));
    let entries = format!(
        "{{toEndpoints: [{{matchLabels: {{team: x}}}}], toPorts: [{{ports: [{{port: '80', endPort: 90, \
         protocol: TCP}}], {strong}}}]}}, {{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], \
         {weak}}}]}}, {{toEndpoints: [{{matchLabels: {{app: d}}}}], toPorts: [{{ports: [{{port: '80', \
         protocol: TCP}}], rules: {{http: [{{path: /a}}]}}}}]}}"
    );
    engine.apply([policy("p", "shop", "egress", &entries)]).unwrap();
    let shop = engine.policy("shop").unwrap();
    let listener = |address: &str| {
        let who = shop.identify(address.parse().unwrap());
        match shop.connection(EGRESS, who, Protocol::Tcp, 80).action {
            Action::Inspect(crate::Inspection::Listener(listener)) => listener.name.clone(),
            other => panic!("{other:?}"),
        }
    };
    // For `d`, its own most specific entry asks for HTTP; the one for everybody is stronger.
    assert_eq!([listener("10.0.0.3"), listener("10.0.0.4")], ["strong", "weak"]);
}

#[test]
fn engines_and_policies_may_go_to_other_threads() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync>() {}
    send::<Engine>();
    share::<EndpointPolicy>();
}

#[test]
fn documents_with_errors_change_nothing() {
    let mut engine = engine();
    let before = engine.revision();
    let good = policy("p", "shop", "ingress", "{}");
    let bad = policy("q", "shop", "ingres", "{}");
    assert!(engine.apply([good, bad]).is_err());
    assert_eq!(engine.revision(), before);
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.1"));
}

#[test]
fn names_are_learnt_and_forgotten() {
    let mut engine = engine();
    let source = policy("p", "shop", "egress", "{toFQDNs: [{matchPattern: '*.example'}]}");
    engine.apply([source]).unwrap();
    let address = "198.51.100.1".parse().unwrap();
    assert!(!allows(&engine, "shop", EGRESS, "198.51.100.1"));
    assert_eq!(engine.learn("A.example.", &[address]).endpoints, ["shop"]);
    assert!(allows(&engine, "shop", EGRESS, "198.51.100.1"));
    assert!(engine.learn("a.example", &[address]).endpoints.is_empty());
    engine.learn("other.test", &[address]);
    assert!(allows(&engine, "shop", EGRESS, "198.51.100.1"));
    engine.forget("a.example", &[address]);
    assert!(!allows(&engine, "shop", EGRESS, "198.51.100.1"));
    engine.forget("other.test", &[address]);
    assert!(!allows(&engine, "shop", EGRESS, "198.51.100.1"));
}

#[test]
fn services_with_and_without_pods() {
    let mut engine = engine();
    let entry = "{toServices: [{k8sService: {serviceName: s}}]}";
    engine.apply([policy("p", "shop", "egress", entry)]).unwrap();
    assert!(!allows(&engine, "shop", EGRESS, "10.0.0.1"));
    let mut service =
        Service { namespace: "default".to_owned(), name: "s".to_owned(), ..Service::default() };
    service.selector.insert("app".to_owned(), "a".to_owned());
    assert_eq!(engine.upsert_service(service.clone()).endpoints, ["shop"]);
    assert!(allows(&engine, "shop", EGRESS, "10.0.0.1"));
    service.selector.clear();
    service.backends = vec!["198.51.100.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    engine.upsert_service(service);
    assert!(!allows(&engine, "shop", EGRESS, "10.0.0.1"));
    assert!(allows(&engine, "shop", EGRESS, "198.51.100.1"));
    assert!(!allows(&engine, "shop", EGRESS, "10.0.0.2"), "addresses never select pods");
    engine.remove_service("default", "s");
    assert!(!allows(&engine, "shop", EGRESS, "198.51.100.1"));
}

#[test]
fn groups_of_prefixes_change_under_the_rules_that_name_them() {
    let mut engine = engine();
    let entry = "{toCIDRSet: [{cidrGroupRef: g}]}";
    engine.apply([policy("p", "shop", "egress", entry)]).unwrap();
    let group = |prefix: &str| {
        let text = format!(
            "apiVersion: cilium.io/v2alpha1\nkind: CiliumCIDRGroup\nmetadata: {{name: g}}\nspec: \
             {{externalCIDRs: [{prefix}]}}\n"
        );
        Source::new("g.yaml", text)
    };
    assert!(!allows(&engine, "shop", EGRESS, "192.0.2.1"));
    assert_eq!(engine.apply([group("192.0.2.0/24")]).unwrap().endpoints, ["shop"]);
    assert!(allows(&engine, "shop", EGRESS, "192.0.2.1"));
    engine.apply([group("198.51.100.0/24")]).unwrap();
    assert!(!allows(&engine, "shop", EGRESS, "192.0.2.1"));
    assert!(allows(&engine, "shop", EGRESS, "198.51.100.1"));
    engine.remove_group("g");
    assert!(!allows(&engine, "shop", EGRESS, "198.51.100.1"));
}

#[test]
fn observers_hear_of_every_change() {
    use std::sync::mpsc::channel;
    let mut engine = engine();
    let (send, receive) = channel();
    engine.subscribe(move |change| send.send((change.revision, change.endpoints.clone())).unwrap());
    engine.apply([policy("p", "shop", "ingress", "{}")]).unwrap();
    let before = engine.revision();
    assert_eq!(receive.recv().unwrap(), (before, vec!["shop".to_owned()]));
}

/// What many small changes lead to is what computing everything at once leads to.
#[test]
fn changes_one_by_one_lead_to_the_same_as_all_at_once() {
    let entries = [
        "{fromEndpoints: [{matchLabels: {app: a}}]}",
        "{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}",
        "{fromCIDR: [192.0.2.0/24]}",
        "{fromEntities: [world], toPorts: [{ports: [{port: '81'}]}]}",
        "{fromCIDRSet: [{cidr: 192.0.0.0/16, except: [192.0.2.0/25]}]}",
    ];
    let mut engine = engine();
    let mut seed = 7_u32;
    let mut there = std::collections::BTreeMap::new();
    for step in 0..200 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let pick = (seed >> 16) as usize;
        let key = format!("p{}", pick % 4);
        match pick % 3 {
            0 => {
                engine.remove(&name(&key));
                there.remove(&key);
            }
            _ => {
                let source = policy(&key, "shop", "ingress", entries[pick % entries.len()]);
                engine.apply([source.clone()]).unwrap();
                there.insert(key, source);
            }
        }
        let repository = Repository::parse(there.values().cloned()).unwrap();
        let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
        let peers = vec![peer("10.0.0.1/32", "app=a"), peer("10.0.0.2/32", "app=b")];
        let fresh = EndpointPolicy::resolve(&repository, &shop, &peers.into(), &Options::default())
            .unwrap();
        let kept = engine.policy("shop").unwrap();
        for address in ["10.0.0.1", "10.0.0.2", "192.0.2.1", "192.0.2.200", "192.0.3.1", "1.1.1.1"]
        {
            for port in [80, 81, 82] {
                let answer = |policy: &EndpointPolicy| {
                    let who = policy.identify(address.parse().unwrap());
                    let verdict = policy.connection(INGRESS, who, Protocol::Tcp, port);
                    (matches!(verdict.action, Action::Deny), verdict.reason)
                };
                assert_eq!(answer(&kept), answer(&fresh), "step {step}, {address}:{port}");
            }
        }
    }
}

/// Gives out one number.
struct One(Option<crate::Labels>);

impl crate::IdentityAllocator for One {
    fn acquire(&mut self, labels: &crate::Labels) -> Option<crate::Identity> {
        let own = self.0.get_or_insert_with(|| labels.clone());
        (own == labels).then(|| crate::Identity::new(256))
    }

    fn release(&mut self, labels: &crate::Labels) {
        assert_eq!(self.0.as_ref(), Some(labels), "never given out");
        self.0 = None;
    }

    fn acquire_prefix(&mut self, _: IpNet, _: &[String]) -> Option<Identity> {
        None
    }

    fn release_prefix(&mut self, _: IpNet, _: &[String], _: Identity) {}
}

#[test]
fn who_gets_no_number_is_nobody_known_and_not_the_world() {
    let allocator = Box::new(One(None));
    let mut engine = Engine::with_allocator(Options::default(), Features::default(), allocator);
    engine.upsert_endpoint(Endpoint::new("shop", "default", "app=shop".parse().unwrap()));
    engine.apply([policy("p", "shop", "ingress", "{fromEntities: [world]}")]).unwrap();
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.1"));
    let before = engine.addresses_revision();
    assert_eq!(engine.upsert_peer("a", peer("10.0.0.1/32", "app=a")).errors.len(), 1);
    assert!(engine.addresses_revision() > before);
    assert!(!allows(&engine, "shop", INGRESS, "10.0.0.1"));
    let there = ("10.0.0.1/32".parse().unwrap(), Identity::UNKNOWN);
    assert!(engine.addresses().contains(&there));
    engine.remove_peer("a");
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.1"));
    engine.remove_endpoint("shop");
    assert!(engine.upsert_peer("a", peer("10.0.0.1/32", "app=a")).errors.is_empty());
}

#[test]
fn who_is_denied_services_is_denied_everybody_while_some_are_not_known() {
    let mut engine = engine();
    let service = "{toServices: [{k8sService: {serviceName: s, namespace: default}}]}";
    let denied = policy("p", "shop", "egress: [{toEntities: [all]}]\n  egressDeny", service);
    engine.apply([denied, policy("q", "bank", "egress", service)]).unwrap();
    assert!(allows(&engine, "shop", EGRESS, "10.0.0.1"));
    let change = engine.set_unknown_services(true);
    assert_eq!(change.endpoints, ["bank", "shop"]);
    assert!(!allows(&engine, "shop", EGRESS, "10.0.0.1"));
    assert!(!allows(&engine, "shop", EGRESS, "192.0.2.1"));
    assert!(!allows(&engine, "bank", EGRESS, "10.0.0.1"), "nothing is allowed by it");
    assert!(allows(&engine, "shop", INGRESS, "10.0.0.1"), "this is not about services");
    assert!(engine.set_unknown_services(true).endpoints.is_empty());
    engine.set_unknown_services(false);
    assert!(allows(&engine, "shop", EGRESS, "10.0.0.1"));
}
