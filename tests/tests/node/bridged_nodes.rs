//! A node whose workloads are on a bridge, and another node, as [`nodes`](super::nodes) has them: what goes
//! from one to the other leaves the bridge by its gateway, and what stays on it does not, whoever was asked for.

use portreeve_tests::node::NEEDS;
use portreeve_tests::{Need, eventually, trial};

use super::bridged::READ_AT_ITS_SOURCE;
use super::nodes::Flavour::{self, Bridged, Routed};
use super::nodes::{CLIENT_IS_READ, Nodes, SHOP};
use super::services::{CLUSTER, ONE, SERVICES, TWO};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    let beside = |other, check: fn(Flavour), name: &str| trial(name, &needs, move || check(other));
    vec![
        beside(Routed, where_they_come_to, "policy_holds_between_a_bridge_and_a_routed_node"),
        beside(Bridged, where_they_come_to, "policy_holds_from_bridge_to_bridge"),
        beside(
            Routed,
            at_their_source,
            "from_a_bridge_to_a_routed_node_requests_are_read_at_their_source",
        ),
        beside(Bridged, at_their_source, "from_bridge_to_bridge_requests_are_read_at_their_source"),
        beside(
            Routed,
            inside,
            "a_cluster_address_leads_to_backends_on_a_bridge_and_on_a_routed_node",
        ),
        beside(Bridged, inside, "a_cluster_address_leads_to_backends_on_two_bridges"),
        trial("one_service_may_have_backends_on_a_bridge_and_elsewhere", &needs, on_both),
        trial("a_node_port_is_answered_by_who_is_on_a_bridge_and_elsewhere", &needs, outside),
        trial("who_is_on_a_bridge_may_ask_for_a_node_port", &needs, from_a_bridge),
        trial("who_is_on_a_bridge_and_asks_for_himself_is_answered", &needs, himself),
    ]
}

/// Node one has a bridge.
fn beside(other: Flavour, objects: &[(&str, &str)]) -> Nodes {
    Nodes::of([Bridged, other], objects)
}

/// A client, the server that it asks on the other node, and what the server sees of it.
const BETWEEN: [[&str; 3]; 4] = [
    ["client", "10.63.2.3", "10.63.1.2"],
    ["client", "[fd63:2::3]", "fd63:1::2"],
    ["guest", "10.63.1.3", "10.63.2.2"],
    ["guest", "[fd63:1::3]", "fd63:2::2"],
];

/// Who asks as well, and may not.
fn stranger(client: &str) -> &str {
    if client == "client" { "desk" } else { "shop" }
}

fn where_they_come_to(other: Flavour) {
    let nodes = &beside(other, &[]);
    let net = &nodes.net;
    for [client, server, seen] in BETWEEN {
        assert_eq!(net.status(client, server, 8081, "/any"), "200", "{server}");
        assert_eq!(net.status(client, server, 9999, "/any"), "refused", "{server}");
        assert_eq!(net.status(client, server, 8080, "/public/a"), "200", "{server}");
        assert_eq!(net.status(client, server, 8080, "/private"), "403", "{server}");
        for (port, path) in [(8081, "/who"), (8080, "/public/who")] {
            assert_eq!(net.body(client, server, port, path), seen, "{port}");
            assert_eq!(net.status(stranger(client), server, port, path), "refused", "{server}");
            assert_eq!(net.status("away", server, port, path), "refused", "{server}");
        }
    }
}

fn at_their_source(other: Flavour) {
    let nodes = &beside(other, &[]);
    let net = &nodes.net;
    put_into_force(nodes, READ_AT_ITS_SOURCE, 8080);
    for [client, server, seen] in BETWEEN {
        assert_eq!(net.status(client, server, 8081, "/out/a"), "200", "{server}");
        assert_eq!(net.status(client, server, 8081, "/in/a"), "403", "{server}");
        assert_eq!(net.body(client, server, 8081, "/out/who"), seen);
        assert_eq!(net.status(client, server, 9999, "/out/a"), "refused", "{server}");
    }
    // And once more where they come to.
    put_into_force(nodes, CLIENT_IS_READ, 8081);
    for [client, server, seen] in BETWEEN {
        assert_eq!(net.body(client, server, 8080, "/public/out"), seen);
        assert_eq!(net.status(client, server, 8080, "/public/in"), "403", "{server}");
        assert_eq!(net.status(client, server, 8080, "/private/out"), "403", "{server}");
    }
}

/// Has a policy of the clients in force on both nodes, by which they may no longer go to a port.
fn put_into_force(nodes: &Nodes, policy: &str, closed: u16) {
    nodes.one.write("client.yaml", policy);
    nodes.two.write("client.yaml", policy);
    eventually("the new policy", || {
        let refused = |[client, server, _]: [&str; 3]| {
            nodes.net.status(client, server, closed, "/public/a") == "refused"
        };
        BETWEEN.into_iter().all(refused).then_some(())
    });
}

/// The services of the shop, and the same of the stall.
fn services() -> String {
    let stalls = [
        ("shop", "stall"),
        ("front", "counter"),
        ("10.96.0.1", "10.96.0.2"),
        ("fd96::1", "fd96::2"),
        ("30080", "30081"),
        ("10.63.2.3", "10.63.1.3"),
        ("fd63:2::3", "fd63:1::3"),
        ("nodeName: two", "nodeName: one"),
    ];
    let stalls =
        stalls.iter().fold(SERVICES.to_owned(), |all, (shops, its)| all.replace(shops, its));
    format!("{SERVICES}---{stalls}")
}

/// The stall's addresses in the cluster.
const STALLS: [&str; 2] = ["10.96.0.20", "[fd96::20]"];

/// Each client with each service, and what a backend sees of it.
fn each(check: impl Fn(&str, &str, &str)) {
    for [client, server, seen] in BETWEEN {
        let family = usize::from(server.contains(':'));
        for service in [CLUSTER[family], STALLS[family]] {
            check(client, service, seen);
        }
    }
}

fn inside(other: Flavour) {
    let nodes = &beside(other, &[("services.yaml", &services())]);
    let net = &nodes.net;
    each(|client, service, seen| {
        assert_eq!(net.body(client, service, 81, "/who"), seen, "{service}");
        assert_eq!(net.body(client, service, 80, "/public/who"), seen, "{service}");
        assert_eq!(net.status(client, service, 80, "/private"), "403", "{client} {service}");
        assert_eq!(net.status(client, service, 82, "/"), "refused", "nobody answers");
        assert_eq!(net.status("desk", service, 81, "/any"), "refused", "{service}");
    });
    put_into_force(nodes, CLIENT_IS_READ, 8081);
    each(|client, service, seen| {
        assert_eq!(net.body(client, service, 80, "/public/out"), seen, "{service}");
        assert_eq!(net.status(client, service, 80, "/public/in"), "403", "{client} {service}");
        assert_eq!(net.status(client, service, 80, "/private/out"), "403", "{client} {service}");
        assert_eq!(net.status(client, service, 81, "/any"), "refused", "{client} {service}");
    });
}

fn on_both() {
    let mut services = SERVICES.to_owned();
    for (shop, stall) in [("10.63.2.3", "10.63.1.3"), ("'fd63:2::3'", "'fd63:1::3'")] {
        let one = format!("- {{addresses: [{stall}], nodeName: one, conditions: {{ready: true}}}}");
        let two = one.replace(stall, shop).replace("one", "two");
        services = services.replace(&two, &format!("{one}\n{two}"));
    }
    let Nodes { net, one, .. } = &beside(Bridged, &[("services.yaml", &services)]);
    // That one backend is beside the client, as its gateway may tell it, is no reason to send there what is for
    // the other.
    for address in CLUSTER.into_iter().cycle().take(40) {
        assert_eq!(net.status("client", address, 81, "/any"), "200", "{address}");
        assert_eq!(net.status("client", address, 80, "/public/a"), "200", "{address}");
    }
    let rows = one.rows("ct");
    for backend in ["10.63.1.3", "10.63.2.3", "[fd63:1::3]", "[fd63:2::3]"] {
        let called = |row: &Vec<String>| row[1] == "egress" && row[4] == format!("{backend}:8081");
        assert!(rows.iter().any(called), "{backend} in {rows:?}");
    }
}

/// The stall is on node one, the shop on node two: their nodes by number, and their node ports.
const BACKENDS: [(usize, u16); 2] = [(0, 30_081), (1, 30_080)];

fn outside() {
    let away = [["10.63.9.2", "10.63.9.6"], ["fd63:91::2", "fd63:92::2"]];
    let nodes = beside(Bridged, &[("services.yaml", &services())]);
    let net = &nodes.net;
    for (family, away) in away.into_iter().enumerate() {
        for (asked, node) in [ONE[family], TWO[family]].into_iter().enumerate() {
            for (at, port) in BACKENDS {
                assert_eq!(net.status("away", node, port, "/front/a"), "200", "{node} {port}");
                assert_eq!(net.status("away", node, port, "/back"), "403", "{node} {port}");
                // To a backend on another node it goes on in the name of the node that was asked.
                let seen = if asked == at { away[asked] } else { node };
                let seen = seen.trim_matches(['[', ']']);
                assert_eq!(net.body("away", node, port, "/front/who"), seen, "{node} {port}");
            }
        }
    }
}

fn from_a_bridge() {
    let nodes = beside(Bridged, &[("services.yaml", &services())]);
    let net = &nodes.net;
    // It is no stranger because of how it asks.
    for (_, port) in BACKENDS {
        assert_eq!(net.status("client", ONE[0], port, "/front/a"), "refused", "{port}");
        assert_eq!(net.status("client", ONE[1], port, "/front/a"), "refused", "{port}");
    }
    let for_all = SHOP.replace("fromEntities: [world]", "fromEntities: [all]");
    for node in [&nodes.one, &nodes.two] {
        node.write("shop.yaml", &for_all);
    }
    for (family, client) in ["10.63.1.2", "fd63:1::2"].into_iter().enumerate() {
        for (asked, node) in [ONE[family], TWO[family]].into_iter().enumerate() {
            for (at, port) in BACKENDS {
                eventually("the new policy", || {
                    (net.status("client", node, port, "/front/a") == "200").then_some(())
                });
                assert_eq!(net.status("client", node, port, "/back"), "403", "{node} {port}");
                // Of its own node it gets the backend itself.
                let seen = if asked == 0 || asked == at { client } else { node };
                let seen = seen.trim_matches(['[', ']']);
                assert_eq!(net.body("client", node, port, "/front/who"), seen, "{node} {port}");
            }
        }
    }
}

fn himself() {
    let Nodes { net, .. } = &beside(Bridged, &[("services.yaml", &services())]);
    for (address, himself) in STALLS.into_iter().zip(["169.254.80.82", "fd50:5265:6576::5052"]) {
        for _ in 0..5 {
            assert_eq!(net.body("stall", address, 81, "/who"), himself);
            assert_eq!(net.body("stall", address, 80, "/private"), himself, "without policy");
        }
        // Others are answered and read as before.
        for client in ["client", "guest"] {
            assert_eq!(net.status(client, address, 81, "/any"), "200", "{client} {address}");
            assert_eq!(net.status(client, address, 80, "/private"), "403", "{client} {address}");
        }
    }
}
