//! Who may talk to whom.

use portreeve_ebpf::node::{Reason, endpoint_flags};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, PATIENCE, TCP, UDP, answers};

pub(crate) const TESTS: &[Test] = &[
    ("identity_and_port_decide_in_both_directions", identity_and_port),
    ("without_a_policy_nothing_passes", without_a_policy),
    ("datagrams_pass_and_their_replies_do", datagrams),
    ("where_policy_is_not_enforced_only_addresses_are_looked_at", not_enforced),
    ("what_comes_from_an_address_of_others_is_dropped", spoofed),
];

fn identity_and_port(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    b.serve(81);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 0, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    for address in b.both() {
        let mut stream = a.connect((address, 80)).expect("it may");
        assert!(answers(&mut stream), "{address}");
        a.connect((address, 81)).expect_err("the server's policy has another port");
    }
    let dropped = node.kernel().counters().expect("counters");
    assert!(dropped.get(Reason::Policy, Direction::Ingress) >= 2);
    assert_eq!(dropped.get(Reason::Policy, Direction::Egress), 0);
    node.rules(&a, 2, &[(Direction::Egress, 103, TCP, 0, Verdict::Allow)]);
    for address in b.both() {
        a.connect((address, 80)).expect_err("the client's policy has another peer");
    }
    let dropped = node.kernel().counters().expect("counters");
    assert!(dropped.get(Reason::Policy, Direction::Egress) >= 2);
    let event = node.kernel().events().expect("events").next().expect("it was told");
    assert_eq!((event.endpoint, event.identity, event.reason), (2, 101, Reason::Policy as u8));
    assert_eq!(event.destination.port, 81);
}

fn without_a_policy(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    a.connect((b.v4(), 80)).expect_err("nobody said it may");
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::NoPolicy, Direction::Egress) > 0);
}

fn datagrams(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    node.rules(&a, 1, &[(Direction::Egress, 102, UDP, 53, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, UDP, 53, Verdict::Allow)]);
    let (client, server) = (a.datagrams(4000), b.datagrams(53));
    let mut bytes = [0; 16];
    for address in b.both() {
        client.send_to(b"question", (address, 53)).expect("sent");
        let (_, from) = server.recv_from(&mut bytes).expect("it comes");
        server.send_to(b"answer", from).expect("sent");
        assert_eq!(client.recv(&mut bytes).expect("it comes"), 6);
    }
    // Nobody asked for this.
    let other = a.datagrams(4001);
    server.send_to(b"unasked", (a.v4(), 4001)).expect("sent");
    other.recv(&mut bytes).expect_err("dropped");
}

fn not_enforced(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    for workload in [&a, &b] {
        node.kernel().attach(workload.interface, workload.number, 0).expect("changed");
    }
    b.serve(80);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    assert!(answers(&mut stream));
    node.kernel().set_own_addresses(1, &[a.v6()]).expect("less");
    assert!(!answers(&mut stream), "it is not its address any more");
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::Spoofed, Direction::Egress) > 0);
    // Enforcement takes hold of what is open.
    node.kernel().set_own_addresses(1, &a.both()).expect("room");
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    node.rules(&b, 1, &[]);
    node.kernel().attach(b.interface, 2, endpoint_flags::ENFORCED).expect("changed");
    assert!(!answers(&mut stream), "nobody may");
}

fn spoofed(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    node.rules(&a, 1, &[(Direction::Egress, 102, UDP, 0, Verdict::Allow)]);
    node.rules(
        &b,
        1,
        &[
            (Direction::Ingress, 101, UDP, 0, Verdict::Allow),
            (Direction::Ingress, 0, UDP, 0, Verdict::Allow),
        ],
    );
    let server = b.datagrams(53);
    a.run(|| super::net::ip("addr add 10.0.1.3/24 dev eth0"));
    let to = (b.v4(), 53);
    a.run(move || {
        let socket = std::net::UdpSocket::bind("10.0.1.3:0").expect("its address, it thinks");
        socket.send_to(b"spoofed", to).expect("sent");
    });
    server.set_read_timeout(Some(PATIENCE)).expect("a time");
    server.recv(&mut [0; 8]).expect_err("dropped");
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Spoofed, Direction::Egress), 1);
}
