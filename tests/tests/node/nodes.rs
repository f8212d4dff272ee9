//! Two nodes, each with a daemon of its own that knows the other's workloads as peers elsewhere, and a host that
//! routes between them and is a client, too.
//!
//! ```text
//!  client 10.63.1.2 ──pcl── one ──eth0── n1, away, n2 ──eth0── two ──psh── shop 10.63.2.3
//!  desk   10.63.1.4 ──pde──┘                10.63.9.6
//! ```

use portreeve_tests::node::NEEDS;
use portreeve_tests::node::daemon::Daemon;
use portreeve_tests::node::net::Net;
use portreeve_tests::{Need, eventually, trial};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("policy_holds_from_node_to_node", &needs, from_node_to_node),
        trial("policy_holds_for_clients_from_outside", &needs, from_outside),
        trial("requests_are_read_on_both_nodes", &needs, read_twice),
        trial("while_the_other_nodes_daemon_is_away_its_policy_holds", &needs, without_the_other),
    ]
}

const SHOPS: [&str; 2] = ["10.63.2.3", "[fd63:2::3]"];

fn from_node_to_node() {
    let nodes = Nodes::new();
    for shop in SHOPS {
        assert_eq!(nodes.net.status("client", shop, 8081, "/any"), "200", "{shop}");
        assert_eq!(nodes.net.status("client", shop, 9999, "/any"), "refused", "{shop}");
        assert_eq!(nodes.net.status("desk", shop, 8081, "/any"), "refused", "{shop}");
        assert_eq!(nodes.net.status("client", shop, 8080, "/public/a"), "200", "{shop}");
        assert_eq!(nodes.net.status("client", shop, 8080, "/private"), "403", "{shop}");
    }
    assert_eq!(nodes.net.body("client", SHOPS[0], 8080, "/public/who"), "10.63.1.2");
    assert_eq!(nodes.net.body("client", SHOPS[1], 8080, "/public/who"), "fd63:1::2");
}

fn from_outside() {
    let nodes = Nodes::new();
    for shop in SHOPS {
        assert_eq!(nodes.net.status("away", shop, 8443, "/front/a"), "200", "{shop}");
        assert_eq!(nodes.net.status("away", shop, 8443, "/back"), "403", "{shop}");
        assert_eq!(nodes.net.status("away", shop, 8081, "/any"), "refused", "{shop}");
        assert_eq!(nodes.net.status("away", shop, 8080, "/public/a"), "refused", "{shop}");
    }
    assert_eq!(nodes.net.body("away", SHOPS[0], 8443, "/front/who"), "10.63.9.6");
    assert_eq!(nodes.net.body("away", SHOPS[1], 8443, "/front/who"), "fd63:92::2");
}

fn read_twice() {
    let nodes = Nodes::new();
    nodes.one.write("client.yaml", CLIENT_IS_READ);
    eventually("the new policy", || {
        (nodes.net.status("client", SHOPS[0], 8081, "/any") == "refused").then_some(())
    });
    for shop in SHOPS {
        assert_eq!(nodes.net.status("client", shop, 8080, "/public/out"), "200", "{shop}");
        // The client's node says no, then the shop's.
        assert_eq!(nodes.net.status("client", shop, 8080, "/public/in"), "403", "{shop}");
        assert_eq!(nodes.net.status("client", shop, 8080, "/private/out"), "403", "{shop}");
    }
    assert_eq!(nodes.net.body("client", SHOPS[0], 8080, "/public/out"), "10.63.1.2");
}

fn without_the_other() {
    let mut nodes = Nodes::new();
    nodes.two.signal(rustix::process::Signal::KILL);
    nodes.two.wait();
    for shop in SHOPS {
        assert_eq!(nodes.net.status("client", shop, 8081, "/any"), "200", "{shop}");
        assert_eq!(nodes.net.status("client", shop, 8080, "/public/a"), "refused", "{shop}");
        assert_eq!(nodes.net.status("client", shop, 9999, "/any"), "refused", "{shop}");
    }
    nodes.two.start(&nodes.net);
    assert_eq!(nodes.net.status("client", SHOPS[0], 8080, "/public/a"), "200");
}

/// Who there is, and on which node. `WHERE-…` is where a workload is, which its own node says otherwise.
const WORKLOADS: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: client, namespace: default, labels: {app: client}}
spec: {addresses: [10.63.1.2, 'fd63:1::2'], WHERE-client}
---
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: desk, namespace: default, labels: {app: desk}}
spec: {addresses: [10.63.1.4, 'fd63:1::4'], WHERE-desk}
---
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: shop, namespace: default, labels: {app: shop}}
spec: {addresses: [10.63.2.3, 'fd63:2::3'], WHERE-shop}
";

const SHOP: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: '/public/.*'}]}
    - ports: [{port: '8081', protocol: TCP}]
  - fromEntities: [world]
    toPorts:
    - ports: [{port: '8443', protocol: TCP}]
      rules: {http: [{method: GET, path: '/front/.*'}]}
";

pub(super) const CLIENT_IS_READ: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: shop}}]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: '/.*/out'}]}
";

/// Two nodes and a host.
pub(super) struct Nodes {
    pub(super) one: Daemon,
    pub(super) two: Daemon,
    pub(super) net: Net,
}

impl Nodes {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With more objects, by the name of their file.
    pub(super) fn with(objects: &[(&str, &str)]) -> Self {
        let mut net = Net::new(&["one", "two", "away", "client", "desk", "shop"]);
        for place in ["one", "two", "away"] {
            net.forward(place);
        }
        for (node, number) in [("one", 1), ("two", 2)] {
            uplink(&net, node, number);
        }
        net.routed("one", "pcl", "client", "10.63.1.2", "fd63:1::2");
        net.routed("one", "pde", "desk", "10.63.1.4", "fd63:1::4");
        net.routed("two", "psh", "shop", "10.63.2.3", "fd63:2::3");
        let start = |node: &str, here: &[(&str, &str)]| {
            let mut daemon = Daemon::new(node, &format!("node: {node}"));
            daemon.write("workloads.yaml", &workloads(here));
            daemon.write("shop.yaml", SHOP);
            for (file, text) in objects {
                daemon.write(file, text);
            }
            daemon.start(&net);
            daemon
        };
        let one = start("one", &[("client", "pcl"), ("desk", "pde")]);
        let two = start("two", &[("shop", "psh")]);
        net.nginx("shop", two.folder(), &[8080, 8081, 8443, 9999]);
        Self { one, two, net }
    }
}

/// A node's way to the others, and theirs to its workloads.
pub(super) fn uplink(net: &Net, node: &str, number: u8) {
    let cable = format!("n{number}");
    net.cable((node, "eth0"), ("away", &cable));
    let (v4, v6) = (format!("10.63.9.{}", number * 4 - 3), format!("fd63:9{number}::1"));
    let (host4, host6) = (format!("10.63.9.{}", number * 4 - 2), format!("fd63:9{number}::2"));
    net.ip(
        node,
        &format!(
            "addr add {v4}/30 dev eth0\naddr add {v6}/64 dev eth0 nodad\n\
             route add default via {host4}\nroute add ::/0 via {host6}\n"
        ),
    );
    net.ip(
        "away",
        &format!(
            "addr add {host4}/30 dev {cable}\naddr add {host6}/64 dev {cable} nodad\n\
             route add 10.63.{number}.0/24 via {v4}\nroute add fd63:{number}::/64 via {v6}\n"
        ),
    );
}

/// The workloads as a node has them: those that are here, with their cables.
fn workloads(here: &[(&str, &str)]) -> String {
    let mut text = WORKLOADS.to_owned();
    for place in ["client", "desk", "shop"] {
        let cable = here.iter().find(|(name, _)| *name == place);
        let there = cable.map_or("node: elsewhere".to_owned(), |(_, c)| format!("interface: {c}"));
        text = text.replace(&format!("WHERE-{place}"), &there);
    }
    text
}
