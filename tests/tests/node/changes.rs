//! Interfaces that go and come again, and addresses that change hands.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portreeve_tests::node::NEEDS;
use portreeve_tests::{Need, eventually, trial};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use super::routed::{Node, SHOP, WORKLOADS};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("interface_gone_is_shown_and_the_others_go_on", &needs, interface_gone),
        trial("workload_restarted_is_judged_again_within_a_second", &needs, restarted),
        trial("address_reused_by_another_has_none_of_the_old_permissions", &needs, address_reused),
        trial("address_named_by_two_stays_the_firsts_and_the_other_is_closed", &needs, two_of_one),
        trial("address_reused_under_other_labels_ends_connections", &needs, other_labels),
        trial("who_is_denied_is_denied_when_he_comes_after_the_policy", &needs, comes_later),
    ]
}

fn interface_gone() {
    let node = Node::new();
    node.net.ip("node", "link del pcl\n");
    let client = || row(&node, "default/client");
    eventually("what is wrong", || {
        client()["error"].as_str().is_some_and(|error| error.contains("pcl")).then_some(())
    });
    assert!(!node.daemon.is_settled());
    // The others are judged as before, and by new policies.
    assert_eq!(node.status("away", "10.60.0.3", 8081, "/"), "refused");
    let opened =
        SHOP.replace("fromEndpoints: [{matchLabels: {app: client}}]", "fromEntities: [world]");
    node.daemon.write("shop.yaml", &opened);
    eventually("the new policy", || {
        (node.status("away", "10.60.0.3", 8081, "/") == "200").then_some(())
    });
    assert_eq!(node.status("away", "10.60.0.3", 8080, "/private"), "403");
    assert_eq!(row(&node, "default/shop")["error"], Value::Null);
}

fn comes_later() {
    let node = Node::new();
    let others = |status: &str, what: &str| {
        eventually(what, || (node.status("away", "10.60.0.3", 8081, "/") == status).then_some(()));
    };
    node.daemon.write("shop.yaml", ALL_BUT_SOME);
    others("200", "the policy");
    for (labels, port) in [("'reserved:remote-node': ''", 1), ("app: bad", 20)] {
        let peer = PEER.replace("LABELS", labels);
        for port in [port, port + 1].map(|port: u16| port.to_string()) {
            node.daemon.write("away.yaml", &peer);
            others("refused", labels);
            node.daemon.write("away.yaml", "");
            others("200", "nobody special");
            // It is put in force while nobody is called so.
            let again = ALL_BUT_SOME.replace("'9'", &format!("'{port}'"));
            node.daemon.write("shop.yaml", &again);
            eventually("the policy", || {
                let rows = node.daemon.rows("policy");
                rows.iter().any(|row| row[3] == port).then_some(())
            });
        }
    }
}

const ALL_BUT_SOME: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEntities: [all]
  ingressDeny:
  - fromEntities: [remote-node]
  - fromEndpoints: [{matchLabels: {app: bad}}]
  - fromEndpoints: [{}]
    toPorts: [{ports: [{port: '9', protocol: TCP}]}]
";

const PEER: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: away, namespace: default, labels: {LABELS}}
spec: {addresses: [10.61.0.9], node: elsewhere}
";

fn restarted() {
    let mut node = Node::new();
    let allowed = |node: &Node| {
        assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
        assert_eq!(node.status("client", "[fd60::3]", 8080, "/public/a"), "200");
        assert_eq!(node.status("client", "[fd60::3]", 8080, "/private"), "403");
    };
    allowed(&node);
    for _ in 0..3 {
        // Namespace, cable and all; the same names and addresses.
        node.net.ip("node", "link del pcl\n");
        node.net.remove("client");
        node.net.add("client");
        node.net.routed("node", "pcl", "client", "10.60.0.2", "fd60::2");
        let began = Instant::now();
        // Who is not judged yet may go where the client may not; who is closed still, nowhere.
        let judged = || node.status("client", "10.61.0.9", 8081, "/") == "refused";
        while !judged() || node.status("client", "10.60.0.3", 8081, "/any") != "200" {
            assert!(began.elapsed() < Duration::from_secs(2), "not judged as before");
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("judged after {:?}", began.elapsed());
        allowed(&node);
        let error = row(&node, "default/client")["error"].clone();
        assert_eq!(error, Value::Null);
    }
}

/// Another workload has the client's addresses.
const DESK: &str = "metadata: {name: desk, namespace: default, labels: {app: desk}}\n\
                    spec: {addresses: [10.60.0.2, 'fd60::2'], interface: pde}";

fn address_reused() {
    let mut node = Node::new();
    let mut open = stream(&node, 8081);
    assert_eq!(get(&mut open, "/any"), Some(200));
    let port = open.local_addr().expect("an address").port();
    assert!(arrives(&node, "client", port), "a segment of its own");
    node.net.ip("node", "link del pcl\n");
    node.net.add("desk");
    node.net.routed("node", "pde", "desk", "10.60.0.2", "fd60::2");
    node.daemon.write("workloads.yaml", &WORKLOADS.replace(client(), DESK));
    eventually("the new workload", || {
        (row(&node, "default/desk")["realised"] != Value::Null).then_some(())
    });
    for (shop, away) in [("10.60.0.3", "10.61.0.9"), ("[fd60::3]", "[fd61::9]")] {
        assert_eq!(node.status("desk", shop, 8081, "/any"), "refused", "{shop}");
        assert_eq!(node.status("desk", shop, 8080, "/public/a"), "refused", "{shop}");
        // Nor has it the old one's restrictions.
        assert_eq!(node.status("desk", away, 8081, "/any"), "200", "{away}");
    }
    assert_eq!(row(&node, "default/client"), Value::Null);
    // Nor may it go on where the old one was.
    assert!(!arrives(&node, "desk", port), "a segment of the old one's connection");
}

/// Whether a segment of a connection from this port, as anybody can make one, reaches the shop.
fn arrives(node: &Node, from: &str, port: u16) -> bool {
    let tcp = || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a time");
        socket
    };
    let (from, mut shop) = (node.net.on(from, tcp), node.net.on("shop", tcp));
    let mut segment = [&port.to_be_bytes()[..], &8081_u16.to_be_bytes(), &[0; 8]].concat();
    // Five words of header; ACK and PSH.
    segment.extend([5 << 4, 0x18, 1, 0, 0, 0, 0, 0]);
    segment.extend(b"of another");
    let to: SocketAddr = "10.60.0.3:0".parse().expect("an address");
    from.send_to(&segment, &to.into()).expect("sent");
    let mut buffer = [0; 256];
    while let Ok(length) = shop.read(&mut buffer) {
        if buffer[..length].ends_with(b"of another") {
            return true;
        }
    }
    false
}

fn two_of_one() {
    let mut node = Node::new();
    let mut read = stream(&node, 8080);
    assert_eq!(get(&mut read, "/public/a"), Some(200));
    node.net.add("desk");
    node.net.routed("node", "pde", "desk", "10.60.0.4", "fd60::4");
    // Somebody has written the client's address where he meant another.
    let typing_error = format!("{WORKLOADS}\n---\n{}", workload(DESK));
    node.daemon.write("workloads.yaml", &typing_error);
    eventually("the trouble", || {
        let error = row(&node, "default/desk")["error"].clone();
        error.as_str().is_some_and(|error| error.contains("default/client's already")).then_some(())
    });
    assert_eq!(get(&mut read, "/public/b"), Some(200), "it is open still");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    let nothing = || node.status("desk", "10.61.0.9", 8081, "/any") != "200";
    assert!(nothing(), "it has an interface, and it is judged");
    node.daemon.write(
        "workloads.yaml",
        &typing_error
            .replace(&workload(DESK), &workload(&DESK.replace("0.2, 'fd60::2'", "0.4, 'fd60::4'"))),
    );
    eventually("the mend", || (!nothing()).then_some(()));
    assert_eq!(get(&mut read, "/public/c"), Some(200));
    assert_eq!(row(&node, "default/desk")["error"], Value::Null);
}

/// An object of its own.
fn workload(text: &str) -> String {
    format!("apiVersion: portreeve.dev/v1alpha1\nkind: Workload\n{text}\n")
}

fn other_labels() {
    let node = Node::new();
    let (mut straight, mut read) = (stream(&node, 8081), stream(&node, 8080));
    assert_eq!(get(&mut straight, "/any"), Some(200));
    assert_eq!(get(&mut read, "/public/a"), Some(200));
    // The same addresses at the same interface are somebody else's now.
    let other = client().replace("app: client", "app: desk");
    node.daemon.write("workloads.yaml", &WORKLOADS.replace(client(), &other));
    eventually("the new labels", || {
        (node.status("client", "10.60.0.3", 8081, "/any") == "refused").then_some(())
    });
    assert_eq!(get(&mut straight, "/any"), None);
    assert_ne!(get(&mut read, "/public/a"), Some(200));
}

/// The client, as it stands among the workloads.
fn client() -> &'static str {
    let begin = WORKLOADS.find("metadata").expect("one");
    let end = WORKLOADS.find("\n---").expect("another");
    &WORKLOADS[begin..end]
}

/// The line of an endpoint, or nothing.
fn row(node: &Node, name: &str) -> Value {
    let endpoints = node.daemon.json(&["endpoint", "list"]);
    let rows = endpoints.as_array().expect("a list");
    rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
}

/// A connection of the client to the shop, which stays open.
fn stream(node: &Node, port: u16) -> TcpStream {
    let shop: IpAddr = "10.60.0.3".parse().expect("an address");
    let stream = node.net.on("client", || TcpStream::connect((shop, port))).expect("it may");
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
    stream
}

/// The status of an answer on an open connection, if there is one.
fn get(stream: &mut TcpStream, path: &str) -> Option<u16> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    // nginx answers with the client's address, and nothing after it; whoever refuses, with less.
    while !answer.ends_with(b"10.60.0.2") && !answer.ends_with(b"denied\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
    }
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}
