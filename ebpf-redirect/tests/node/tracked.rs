//! Connections: who has opened them, and what belongs to them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use portreeve_ebpf::node::Reason;
use portreeve_ebpf_common::{Direction, Verdict};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use super::Test;
use super::net::{Node, PATIENCE, TCP, UDP, Workload, answers, policy};
use super::packets::{DROP, ENDPOINT, PASS, ip, own, prepare, run, tcp, with_ports};

pub(crate) const TESTS: &[Test] = &[
    ("another_policy_is_in_force_for_open_connections", policy_change),
    ("echoes_pass_by_their_type_and_replies_do", echo),
    ("parts_of_a_packet_go_where_its_first_goes", fragments),
    ("a_part_whose_first_is_not_known_is_dropped", later_fragment),
    ("extension_headers_are_read_but_not_for_ever", extension_headers),
    ("only_a_syn_opens_and_only_requests_do", openers),
    ("an_error_about_a_connection_passes", error),
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
    node.rules(&a, 5, &allowed);
    let mut stream = a.connect((b.v4(), 80)).expect("it may again");
    node.kernel().remove_policy(1).expect("removed");
    assert!(!answers(&mut stream), "closed");
    assert!(counters().get(Reason::NoPolicy, Direction::Egress) > 0);
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

fn later_fragment(node: &mut Node) {
    const FIRST: [u8; 2] = [0x20, 0];
    const SECOND: [u8; 2] = [0, 2];
    prepare(node, 0);
    let rules = policy(1, &[(Direction::Egress, 0, UDP, 53, Verdict::Allow)]);
    node.kernel().set_policy(ENDPOINT, &rules).expect("room");
    let to = IpAddr::from([10, 0, 0, 1]);
    let first = ip(own(to), to, UDP, FIRST, &[with_ports(4000, 53), vec![0; 8]].concat());
    let second = ip(own(to), to, UDP, SECOND, &[0; 24]);
    assert_eq!(run(node, true, &second, 1).0, DROP);
    assert_eq!(run(node, true, &first, 1).0, PASS);
    assert_eq!(run(node, true, &second, 1).0, PASS);
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Fragment, Direction::Egress), 1);
    let opens = ip(own(to), to, TCP, FIRST, &tcp(4000, 53, 2));
    assert_eq!(run(node, true, &opens, 1).0, DROP, "a SYN in parts");
    for length in [34, 38, 40] {
        assert_eq!(run(node, true, &opens[..length], 1).0, DROP, "{length} bytes of it");
    }
}

fn extension_headers(node: &mut Node) {
    const OPTIONS: u8 = 60;
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, TCP, 80, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let to = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7]);
    // So many headers of 8 bytes, the last of which leads to TCP.
    let behind = |count: usize, port| {
        let mut payload = Vec::new();
        for left in (0..count).rev() {
            let next = if left == 0 { TCP } else { OPTIONS };
            payload.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        payload.extend(tcp(4000 + port, port, 2));
        ip(own(to), to, if count == 0 { TCP } else { OPTIONS }, [0; 2], &payload)
    };
    for (count, expected) in [(0, PASS), (1, PASS), (5, PASS), (6, DROP), (20, DROP)] {
        assert_eq!(run(node, true, &behind(count, 80), 1).0, expected, "{count}");
        assert_eq!(run(node, true, &behind(count, 81), 1).0, DROP, "{count}, another port");
    }
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Policy, Direction::Egress), 3);
    assert_eq!(counters.get(Reason::Malformed, Direction::Egress), 4);
}

fn openers(node: &mut Node) {
    const OTHERS: [u8; 5] = [0, 1, 16, 4, 18];
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, TCP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let to = IpAddr::from([10, 0, 0, 1]);
    let mut sent = |flags| run(node, true, &ip(own(to), to, TCP, [0; 2], &tcp(5, 6, flags)), 1).0;
    for flags in OTHERS {
        assert_eq!(sent(flags), DROP, "{flags}");
    }
    assert_eq!(sent(2), PASS);
    assert_eq!(sent(16), PASS);
    let back = |flags| ip(to, own(to), TCP, [0; 2], &tcp(6, 5, flags));
    assert_eq!(run(node, false, &back(18), 1).0, PASS);
    assert_eq!(run(node, false, &back(2), 1).0, DROP, "that would open another");
}

fn error(node: &mut Node) {
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, UDP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let (to, router) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 7, 7, 7]));
    let sent = ip(own(to), to, UDP, [0; 2], &with_ports(5, 6));
    let about = |cited: &[u8]| {
        ip(router, own(to), 1, [0; 2], &[&[3, 4, 0, 0, 0, 0, 0, 0], &cited[14..]].concat())
    };
    assert_eq!(run(node, false, &about(&sent), 1).0, DROP, "nothing was sent");
    assert_eq!(run(node, true, &sent, 1).0, PASS);
    assert_eq!(run(node, false, &about(&sent), 1).0, PASS);
    let other = ip(own(to), to, UDP, [0; 2], &with_ports(5, 7));
    assert_eq!(run(node, false, &about(&other), 1).0, DROP, "about something else");
    // What it contains is no reason to take it for that.
    let rules = [(Direction::Ingress, 0, UDP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(2, &rules)).expect("room");
    for length in [14, 34, 38, 42] {
        assert_eq!(run(node, false, &about(&other[..length]), 1).0, DROP, "{length} bytes");
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
    assert_eq!((client.opened(), client.identity), (Direction::Egress, 102));
    assert_eq!((server.opened(), server.identity), (Direction::Ingress, 101));
    let entries = node.kernel().endpoints().expect("a list");
    let in_force = |number| entries.iter().find(|(_, entry)| entry.endpoint == number);
    assert_eq!(in_force(1).map(|(_, entry)| entry.revision), Some(client.revision));
    assert_eq!(in_force(2).map(|(_, entry)| entry.revision), Some(server.revision));
    assert_eq!((key.local_port, key.protocol), (80, TCP));
    assert!(server.packets.iter().all(|count| *count >= 2), "{server:?}");
    let fill = node.kernel().status().expect("status");
    let tracked = fill.iter().find(|fill| fill.map == "TRACKED").expect("it is there");
    assert_eq!(tracked.entries, 2);
    drop(stream);
    node.kernel().remove_endpoint(1).expect("removed");
    assert!(node.kernel().connections().expect("a list").iter().all(|(key, _)| key.endpoint == 2));
}
