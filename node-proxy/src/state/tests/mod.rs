//! From changes to what the datapath is told.

mod addresses;
mod attached;
mod health;
mod restarted;
mod services;
mod shown;

use std::fs;
use std::time::{Duration, Instant};

use portreeve_policy::{Action, Options, Protocol, TrafficDirection};

use super::*;
use crate::datapath::{Call, Recorder, Recording};
use crate::source::Folder;

const LINGER: Duration = Duration::from_secs(60);

struct Bench {
    objects: tempfile::TempDir,
    state: tempfile::TempDir,
    folder: Folder,
    node: Node,
    told: Recorder,
    now: Instant,
}

fn open(state: &std::path::Path, told: &Recorder, now: Instant) -> Node {
    let recording = Recording { recorder: told.clone() };
    open_with(state, told, Box::new(recording), now)
}

fn open_with(
    state: &std::path::Path,
    told: &Recorder,
    proxy: Box<dyn Proxying>,
    now: Instant,
) -> Node {
    let options = NodeOptions {
        name: "node-1".to_owned(),
        policy: Options::default(),
        identity_linger: LINGER,
    };
    let recording = Recording { recorder: told.clone() };
    Node::open(options, state, Box::new(recording), proxy, now).unwrap()
}

impl Bench {
    fn new() -> Self {
        let (objects, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (told, now) = (Recorder::default(), Instant::now());
        let folder = Folder::new(objects.path());
        let node = open(state.path(), &told, now);
        Self { objects, state, folder, node, told, now }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.objects.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.objects.path().join(name)).unwrap();
    }

    /// Takes in what has changed; what the datapath was told.
    fn step(&mut self) -> Vec<String> {
        let batch = self.folder.read().unwrap();
        self.node.apply(batch, self.now);
        self.node.realise(self.now);
        self.told.lines()
    }

    fn wait(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.node.realise(self.now);
        self.told.lines()
    }

    /// Killed and started again.
    fn restart(&mut self) {
        self.folder = Folder::new(self.objects.path());
        self.node = open(self.state.path(), &self.told, self.now);
    }

    fn allows(&self, endpoint: &str, peer: &str) -> bool {
        let policy = self.node.engine.policy(endpoint).unwrap();
        let who = policy.identify(peer.parse().unwrap());
        let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
        !matches!(verdict.action, Action::Deny)
    }
}

fn workload(name: &str, app: &str, spec: &str) -> String {
    format!(
        "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, labels: \
         {{app: {app}}}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn policy(name: &str, subject: &str, from: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: \
         default}}\nspec:\n  endpointSelector: {{matchLabels: {{app: {subject}}}}}\n  ingress: \
         [{{fromEndpoints: [{{matchLabels: {{app: {from}}}}}]}}]\n---\n"
    )
}

const SHOP: &str = "addresses: [10.0.0.7], interface: veth0";
const BANK: &str = "addresses: [10.0.0.8], interface: veth1";

fn two(bench: &Bench) {
    bench.write("shop.yaml", &workload("shop", "shop", SHOP));
    bench.write("bank.yaml", &workload("bank", "bank", BANK));
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_differences_are_told() {
    let mut bench = Bench::new();
    two(&bench);
    let told = bench.step();
    assert_eq!(
        told,
        [
            "endpoint 1 default/bank at veth1 identity 256",
            "proxy policy 1",
            "endpoint 2 default/shop at veth0 identity 257",
            "proxy policy 2",
            "policy 1",
            "policy 2",
            "proxy addresses of 2",
            "ipcache 0.0.0.0/0 9",
            "ipcache 10.0.0.7/32 257",
            "ipcache 10.0.0.8/32 256",
            "ipcache ::/0 10",
            "rejudge",
            "keep endpoints 1,2",
            "keep addresses"
        ]
    );
    assert_eq!(bench.step(), NOTHING);
    bench.write("policy.yaml", &policy("p", "shop", "client"));
    assert_eq!(bench.step(), ["proxy policy 2", "policy 2"]);
    assert!(!bench.allows("default/shop", "10.0.0.8") && bench.allows("default/bank", "10.0.0.7"));
    // A peer that a rule is about: policy first, so that nobody is met by one that doesn't know him.
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.0/24]"));
    let told = bench.step();
    assert_eq!(
        told,
        [
            "proxy policy 2",
            "policy 2",
            "proxy addresses of 2",
            "ipcache 10.1.0.0/24 258",
            "rejudge"
        ]
    );
    assert!(bench.allows("default/shop", "10.1.0.1"));
    // One of the same labels is no other identity.
    bench.write("client2.yaml", &workload("client2", "client", "addresses: [10.1.1.1]"));
    assert_eq!(bench.step(), ["proxy addresses of 2", "ipcache 10.1.1.1/32 258", "rejudge"]);
    bench.remove("client2.yaml");
    let told = bench.step();
    assert_eq!(told, ["proxy addresses of 2", "ipcache 10.1.1.1/32 removed", "rejudge"]);
    bench.remove("shop.yaml");
    assert_eq!(
        bench.step(),
        [
            "proxy endpoint 2 removed",
            "endpoint 2 removed",
            "proxy addresses of 1",
            "ipcache 10.0.0.7/32 removed",
            "rejudge"
        ]
    );
    assert!(bench.node.is_settled());
}

#[test]
fn an_interface_that_is_another_is_told_before_the_policy() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("shop.yaml", &workload("shop", "shop", "addresses: [10.0.0.7], interface: veth9"));
    assert_eq!(
        bench.step(),
        [
            "endpoint 2 default/shop at veth9 identity 257",
            "proxy policy 2",
            "policy 2",
            "keep endpoints 1,2"
        ],
        "the interface that it had is let go when all have been told"
    );
    // It moves to another node: a peer under the same name.
    bench.write("shop.yaml", &workload("shop", "shop", "addresses: [10.0.0.7], node: node-2"));
    assert_eq!(bench.step(), ["proxy endpoint 2 removed", "endpoint 2 removed"]);
    bench.write("shop.yaml", &workload("shop", "shop", SHOP));
    assert_eq!(
        bench.step(),
        [
            "endpoint 2 default/shop at veth0 identity 257",
            "proxy policy 2",
            "policy 2",
            "keep endpoints 1,2"
        ]
    );
}

#[test]
fn a_restart_tells_everything_with_the_same_numbers() {
    let mut bench = Bench::new();
    two(&bench);
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    let from = |cidr: &str| {
        policy("p", "shop", "x")
            .replace("fromEndpoints: [{matchLabels: {app: x}}]", &format!("fromCIDR: [{cidr}]"))
    };
    bench.write("policy.yaml", &from("192.0.2.0/24"));
    bench.step();
    bench.write("policy.yaml", &from("198.51.100.0/24, 192.0.2.0/24"));
    bench.step();
    // One comes first in the alphabet that was not there before.
    bench.write(
        "about.yaml",
        &workload("about", "about", "addresses: [10.0.0.9], interface: veth2"),
    );
    bench.restart();
    let told = bench.step();
    for line in [
        "endpoint 1 default/bank at veth1 identity 256",
        "endpoint 2 default/shop at veth0 identity 258",
        "endpoint 3 default/about at veth2 identity 259",
        "ipcache 10.1.0.1/32 257",
        "ipcache 192.0.2.0/24 16777216",
        "ipcache 198.51.100.0/24 16777217",
        "keep endpoints 1,2,3",
        "keep addresses",
    ] {
        assert!(told.iter().any(|told| told == line), "{line} in {told:#?}");
    }
}

#[test]
fn what_fails_is_shown_closed_and_tried_again_later() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.told.fail("policy 2");
    bench.write("policy.yaml", &(policy("p", "shop", "client") + &policy("q", "bank", "client")));
    let told = bench.step();
    assert_eq!(
        told,
        ["proxy policy 1", "proxy policy 2", "policy 1", "policy 2", "endpoint 2 closed"]
    );
    let shop = &bench.node.endpoints()[1];
    assert_eq!(shop.realised, None);
    let error = "told to fail at `policy 2`; the endpoint is closed";
    assert_eq!(shop.error.as_deref(), Some(error));
    assert_eq!(bench.node.status().errors, [format!("endpoint default/shop: {error}")]);
    assert!(!bench.node.is_settled());
    assert_eq!(bench.wait(Duration::from_millis(50)), NOTHING, "not yet");
    assert_eq!(bench.wait(Duration::from_millis(60)).len(), 3, "once more, in vain");
    assert_eq!(bench.wait(Duration::from_millis(150)), NOTHING, "longer than the first time");
    bench.told.mend();
    let next = bench.node.next().unwrap();
    bench.now = next;
    assert_eq!(bench.wait(Duration::ZERO), ["proxy policy 2", "policy 2"]);
    let shop = &bench.node.endpoints()[1];
    assert_eq!((shop.realised, shop.error.as_deref()), (Some(shop.revision), None));
    assert!(bench.node.is_settled());
}

#[test]
fn while_the_proxy_is_not_well_nothing_is_settled_and_it_is_said() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    assert!(bench.node.is_settled());
    bench.told.fail("proxy health");
    assert!(!bench.node.is_settled() && !bench.node.status().settled);
    let errors = bench.node.status().errors;
    assert!(errors.len() == 1 && errors[0].starts_with("the shared proxy: "), "{errors:?}");
    bench.told.mend();
    assert!(bench.node.is_settled());
}

#[test]
fn addresses_and_services_that_fail_are_tried_again_alone() {
    let mut bench = Bench::new();
    two(&bench);
    for failing in ["ipcache 10.0.0.7/32", "service default/shop"] {
        bench.told.fail(failing);
    }
    bench.write("service.yaml", SERVICE);
    let told = bench.step();
    assert!(!told.contains(&"keep addresses".to_owned()), "{told:?}");
    let status = bench.node.status();
    assert_eq!((status.addresses_pending, status.settled), (1, false));
    assert_eq!(status.errors.len(), 2, "{:?}", status.errors);
    bench.told.mend();
    assert_eq!(
        bench.wait(Duration::from_millis(150)),
        [
            "proxy addresses of 2",
            "ipcache 10.0.0.7/32 257",
            "rejudge",
            "service default/shop",
            "keep addresses"
        ]
    );
}

#[test]
fn nothing_new_is_told_while_numbers_can_not_be_written() {
    let mut bench = Bench::new();
    two(&bench);
    // Nothing can be renamed over a folder.
    let file = bench.state.path().join("identities.json");
    fs::create_dir(&file).unwrap();
    bench.node.realise(bench.now);
    assert_eq!(bench.step(), NOTHING);
    assert!(bench.node.status().errors[0].starts_with("can't write `"));
    fs::remove_dir(&file).unwrap();
    assert!(bench.wait(Duration::from_millis(150)).contains(&"keep addresses".to_owned()));
}

#[test]
fn a_broken_policy_stays_as_it_was_and_closes_what_it_was_about_after_a_restart() {
    let mut bench = Bench::new();
    two(&bench);
    bench.write("policy.yaml", &policy("p", "shop", "bank"));
    bench.step();
    assert!(bench.allows("default/shop", "10.0.0.8"));
    assert!(!bench.allows("default/shop", "192.0.2.1"));
    bench.write("policy.yaml", &policy("p", "shop", "bank").replace("ingress:", "ingres:"));
    assert_eq!(bench.step(), NOTHING);
    let error = &bench.node.object_errors()[0];
    assert_eq!(error.object.as_deref(), Some("CiliumNetworkPolicy default/p"));
    assert!(error.last_good_in_force && error.line == 6, "{error:?}");
    assert!(bench.allows("default/shop", "10.0.0.8"));

    bench.restart();
    bench.step();
    let error = &bench.node.object_errors()[0];
    assert!(!error.last_good_in_force && error.closed_for_it, "{error:?}");
    assert!(!bench.allows("default/shop", "10.0.0.8"), "it is not known what it would say");
    assert_eq!(bench.node.status().policies, 0);
    bench.write("policy.yaml", &policy("p", "shop", "bank"));
    bench.step();
    assert!(bench.allows("default/shop", "10.0.0.8"));
    assert!(!bench.allows("default/shop", "192.0.2.1"));
    assert!(bench.allows("default/bank", "192.0.2.1"), "open again");
    // One that comes broken while the node runs has never been in force.
    bench.write("other.yaml", &policy("q", "bank", "x").replace("ingress:", "ingres:"));
    assert_eq!(bench.step(), NOTHING);
    assert!(bench.allows("default/bank", "192.0.2.1"));
}

#[test]
fn policies_follow_the_labels_of_namespaces() {
    let mut bench = Bench::new();
    two(&bench);
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  \
                podSelector: {matchLabels: {app: shop}}\n  ingress: [{from: [{namespaceSelector: \
                {matchLabels: {team: red}}}]}]\n";
    bench.write("policy.yaml", text);
    bench.step();
    assert!(!bench.allows("default/shop", "10.0.0.8"));
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {team: red}}\n";
    bench.write("namespace.yaml", namespace);
    let told = bench.step();
    assert!(told.contains(&"policy 2".to_owned()), "{told:?}");
    assert!(bench.allows("default/shop", "10.0.0.8"));
    bench.remove("namespace.yaml");
    bench.step();
    assert!(!bench.allows("default/shop", "10.0.0.8"));
    let by_name = text.replace("team: red", "kubernetes.io/metadata.name: default");
    bench.write("policy.yaml", &by_name);
    bench.step();
    assert!(bench.allows("default/shop", "10.0.0.8"), "every namespace has its name as a label");
}

/// What the latest policy of an endpoint says of an identity.
fn latest(calls: &[Call], id: u32) -> &portreeve_policy::EndpointPolicy {
    let policy = calls.iter().rev().find_map(|call| match call {
        Call::PolicySet(of, policy) if *of == id => Some(policy),
        _ => None,
    });
    policy.expect("a policy was set")
}

#[test]
fn an_identity_that_nobody_has_is_known_for_a_while_and_then_given_up() {
    let mut bench = Bench::new();
    two(&bench);
    bench.write("policy.yaml", &policy("p", "shop", "client"));
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    bench.step();
    let client = portreeve_policy::Identity::new(257);
    assert_eq!(bench.node.identities()[1].labels[0], "k8s:app=client");
    bench.remove("client.yaml");
    // Its address goes, and no policy changes: packets on the way are still his.
    assert_eq!(bench.step(), ["proxy addresses of 2", "ipcache 10.1.0.1/32 removed", "rejudge"]);
    assert_eq!(bench.wait(LINGER / 2), NOTHING);
    bench.now += LINGER;
    bench.node.realise(bench.now);
    let calls = bench.told.calls();
    let shop = latest(&calls, 2);
    let verdict = shop.connection(TrafficDirection::Ingress, client, Protocol::Tcp, 80);
    assert!(matches!(verdict.action, Action::Deny));
    assert_eq!(bench.node.identities().len(), 3, "its number is not anybody else's yet");
    bench.now += LINGER;
    bench.node.realise(bench.now);
    assert_eq!(bench.node.identities().len(), 2);
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    let told = bench.step();
    assert!(told.contains(&"ipcache 10.1.0.1/32 259".to_owned()), "{told:?}");
}

#[test]
fn no_number_is_given_up_while_something_is_not_in_force() {
    let mut bench = Bench::new();
    two(&bench);
    bench.write("client.yaml", &workload("client", "client", "addresses: [10.1.0.1]"));
    bench.step();
    bench.told.fail("ipcache 10.1.0.1/32 removed");
    bench.remove("client.yaml");
    bench.step();
    for _ in 0..5 {
        bench.wait(LINGER);
    }
    assert_eq!(bench.node.identities().len(), 3, "the kernel may still have it");
    bench.told.mend();
    for _ in 0..3 {
        bench.wait(LINGER);
    }
    assert_eq!(bench.node.identities().len(), 2);
}

#[test]
fn whatever_fails_the_next_try_is_never_at_once() {
    let mut bench = Bench::new();
    two(&bench);
    bench.write("service.yaml", SERVICE);
    let file = bench.state.path().join("identities.json");
    for failing in ["keep", "rejudge", "endpoint 2", "ipcache 10.0.0.7", "service", "policy 1"] {
        bench.told.fail(failing);
        bench.step();
        for _ in 0..20 {
            let next = bench.node.next().expect("tried again");
            assert!(next > bench.now, "{failing}");
            bench.now = next;
            bench.node.realise(bench.now);
        }
        if failing == "service" {
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
            bench.write("more.yaml", &workload("more", "more", "addresses: [10.1.0.9]"));
        }
    }
    fs::remove_dir(&file).unwrap();
    bench.told.mend();
    for _ in 0..3 {
        bench.wait(Duration::from_secs(31));
    }
    assert!(bench.node.is_settled() && bench.node.leftovers.is_synced);
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  clusterIP: 10.96.0.10
  selector: {app: shop}
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP}]
";

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, namespace: default, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.0.0.7], nodeName: node-1}
- {addresses: [10.0.0.9], conditions: {ready: false, serving: true, terminating: true}}
";

#[test]
fn nothing_is_remembered_of_an_endpoint_whose_number_is_given_up() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.remove("shop.yaml");
    bench.step();
    assert_eq!(bench.wait(LINGER / 2), NOTHING, "events may still come");
    let told: Vec<String> = (0..3).flat_map(|_| bench.wait(LINGER)).collect();
    assert!(told.contains(&"numbers [2] given up".to_owned()), "{told:?}");
}
