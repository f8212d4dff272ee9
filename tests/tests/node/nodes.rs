//! Two nodes, each with a daemon of its own that knows the other's workloads as peers elsewhere, and a host that
//! routes between them and is a client, too.
//!
//! ```text
//!  client 10.63.1.2 ──pcl── one ──eth0── n1, away, n2 ──eth0── two ──psh── shop  10.63.2.3
//!  stall  10.63.1.3 ──pst──┤                10.63.9.6           └──pgu── guest 10.63.2.2
//!  desk   10.63.1.4 ──pde──┘
//! ```
//!
//! The client and the guest are clients of the shop and the stall; nobody else is.

use portreeve_tests::node::NEEDS;
use portreeve_tests::node::daemon::Daemon;
use portreeve_tests::node::net::{MUCH, Net};
use portreeve_tests::{Need, eventually, trial};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("policy_holds_from_node_to_node", &needs, from_node_to_node),
        trial("policy_holds_for_clients_from_outside", &needs, from_outside),
        trial("requests_are_read_on_both_nodes", &needs, read_twice),
        trial("much_comes_by_a_way_that_is_narrow_only_in_between", &needs, narrow),
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

fn narrow() {
    for flavour in [Flavour::Routed, Flavour::Bridged] {
        let Nodes { net, .. } = &Nodes::of([flavour; 2], &[]);
        // Neither end knows it. Who sends is told by a router: the proxy, where it has read what was asked.
        net.ip("away", "link set dev n1 mtu 1300\n");
        net.ip("one", "link set dev eth0 mtu 1300\n");
        for shop in SHOPS {
            for port in [8080, 8081] {
                let said = net.body("client", shop, port, "/public/much");
                assert_eq!(said.len(), MUCH, "{flavour:?} {shop} {port}");
            }
        }
    }
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

/// Who there is, what it is, on which node, and which of that node's addresses it has.
const WORKLOADS: [(&str, &str, u8, u8); 5] = [
    ("client", "client", 1, 2),
    ("stall", "shop", 1, 3),
    ("desk", "desk", 1, 4),
    ("guest", "client", 2, 2),
    ("shop", "shop", 2, 3),
];

pub(super) const SHOP: &str = "
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

/// How a node's workloads are connected with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flavour {
    Routed,
    Bridged,
}

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
        Self::of([Flavour::Routed, Flavour::Routed], objects)
    }

    /// Of these flavours.
    pub(super) fn of([one, two]: [Flavour; 2], objects: &[(&str, &str)]) -> Self {
        let mut net = Net::new(&["one", "two", "away"]);
        for place in ["one", "two", "away"] {
            net.forward(place);
        }
        for (node, number, flavour) in [("one", 1, one), ("two", 2, two)] {
            uplink(&net, node, number);
            connect(&mut net, node, number, flavour);
        }
        let start = |node: &str, number: u8| {
            let mut daemon = Daemon::new(node, &format!("node: {node}"));
            daemon.write("workloads.yaml", &workloads(number));
            daemon.write("shop.yaml", SHOP);
            for (file, text) in objects {
                daemon.write(file, text);
            }
            daemon.start(&net);
            daemon
        };
        let (one, two) = (start("one", 1), start("two", 2));
        for shop in ["shop", "stall"] {
            net.nginx(shop, two.folder(), &[8080, 8081, 8443, 9999]);
        }
        Self { one, two, net }
    }
}

/// Gives a node its workloads.
fn connect(net: &mut Net, node: &str, number: u8, flavour: Flavour) {
    let (v4, v6) = (format!("10.63.{number}"), format!("fd63:{number}:"));
    if let Flavour::Bridged = flavour {
        net.bridge(node, &v4, &v6);
    }
    for (place, _, _, last) in WORKLOADS.into_iter().filter(|workload| workload.2 == number) {
        net.add(place);
        let cable = cable(place);
        match flavour {
            Flavour::Routed => {
                net.routed(node, &cable, place, &format!("{v4}.{last}"), &format!("{v6}:{last}"));
            }
            Flavour::Bridged => net.bridged(node, &cable, place, (&v4, &v6), last),
        }
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
fn workloads(here: u8) -> String {
    let workload = |(place, app, node, last): (&str, &str, u8, u8)| {
        let at = match node == here {
            true => format!("interface: {}", cable(place)),
            false => "node: elsewhere".to_owned(),
        };
        format!(
            "---\napiVersion: portreeve.dev/v1alpha1\nkind: Workload\n\
             metadata: {{name: {place}, namespace: default, labels: {{app: {app}}}}}\n\
             spec: {{addresses: [10.63.{node}.{last}, 'fd63:{node}::{last}'], {at}}}\n"
        )
    };
    WORKLOADS.into_iter().map(workload).collect()
}

fn cable(place: &str) -> String {
    format!("p{}", &place[..2])
}
