//! Connections: who has opened them, and what belongs to them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use portreeve_ebpf::node::Reason;
use portreeve_ebpf_common::{Direction, Verdict};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use super::Test;
use super::net::{Node, PATIENCE, TCP, UDP, Workload, answers};

pub(crate) const TESTS: &[Test] = &[
    ("another_policy_is_in_force_for_open_connections", policy_change),
    ("echoes_pass_by_their_type_and_replies_do", echo),
    ("parts_of_a_packet_go_where_its_first_goes", fragments),
    ("a_connection_shows_in_the_list", listed),
];

fn policy_change(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    let allowed = [(Direction::Egress, 102, TCP, 80, Verdict::Allow)];
    node.rules(&a, 1, &allowed);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut streams = b.both().map(|address| a.connect((address, 80)).expect("it may"));
    streams.iter_mut().for_each(|stream| assert!(answers(stream)));
    node.rules(&a, 2, &allowed);
    streams.iter_mut().for_each(|stream| assert!(answers(stream), "another, but the same"));
    node.rules(&a, 3, &[]);
    streams.iter_mut().for_each(|stream| assert!(!answers(stream), "not any more"));
    node.rules(&a, 4, &[(Direction::Egress, 102, TCP, 80, Verdict::Inspect)]);
    let counters = || node.kernel().counters().expect("counters");
    for stream in &mut streams {
        let _ = stream.write_all(b"x");
        stream.read(&mut [0]).expect_err("the proxy has not seen it begin");
    }
    assert!(counters().get(Reason::PolicyChanged, Direction::Egress) > 0);
}

fn echo(node: &mut Node) {
    const REQUESTS: [(u8, u16); 2] = [(1, 8), (58, 128)];
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    for (address, (protocol, kind)) in b.both().into_iter().zip(REQUESTS) {
        assert!(!pings(&a, address), "{address}");
        node.rules(&a, 1, &[(Direction::Egress, 102, protocol, kind, Verdict::Allow)]);
        node.rules(&b, 1, &[(Direction::Ingress, 101, protocol, kind, Verdict::Allow)]);
        assert!(pings(&a, address), "{address}");
        node.rules(&b, 2, &[(Direction::Ingress, 101, protocol, kind + 1, Verdict::Allow)]);
        assert!(!pings(&a, address), "another type");
    }
}

/// Whether an echo comes back.
fn pings(from: &Workload, to: IpAddr) -> bool {
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let open = move || socket(family, SocketType::DGRAM, Some(protocol)).expect("a socket");
    let socket = UdpSocket::from(from.run(open));
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    socket.connect(SocketAddr::from((to, 0))).expect("connected");
    socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]).expect("sent");
    socket.recv(&mut [0; 64]).is_ok()
}

fn fragments(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    node.rules(&a, 1, &[(Direction::Egress, 102, UDP, 53, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, UDP, 53, Verdict::Allow)]);
    let (client, server) = (a.datagrams(4000), b.datagrams(53));
    let other = b.datagrams(54);
    for address in b.both() {
        client.send_to(&[7; 5000], (address, 53)).expect("sent");
        let (length, from) = server.recv_from(&mut [0; 6000]).expect("all of it comes");
        assert_eq!(length, 5000);
        server.send_to(&[8; 5000], from).expect("sent");
        assert_eq!(client.recv(&mut [0; 6000]).expect("all of it comes"), 5000);
        client.send_to(&[7; 5000], (address, 54)).expect("sent");
        other.recv(&mut [0; 6000]).expect_err("that port it may not");
    }
}

fn listed(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 7, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 8, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    assert!(answers(&mut stream));
    let of = |endpoint| {
        let all = node.kernel().connections().expect("a list");
        let found = all.into_iter().find(|(key, _)| key.endpoint == endpoint);
        found.expect("it is there")
    };
    let ((_, client), (key, server)) = (of(1), of(2));
    assert_eq!((client.opened(), client.revision, client.identity), (Direction::Egress, 7, 102));
    assert_eq!((server.opened(), server.revision, server.identity), (Direction::Ingress, 8, 101));
    assert_eq!((key.local_port, key.protocol), (80, TCP));
    assert!(server.packets.iter().all(|count| *count >= 2), "{server:?}");
    let fill = node.kernel().status().expect("status");
    let tracked = fill.iter().find(|fill| fill.map == "TRACKED").expect("it is there");
    assert_eq!(tracked.entries, 2);
    drop(stream);
    node.kernel().remove_endpoint(1).expect("removed");
    assert!(node.kernel().connections().expect("a list").iter().all(|(key, _)| key.endpoint == 2));
}
