//! Ways round a policy that somebody may think of, each closed.

use std::net::IpAddr;

use portreeve_ebpf::node::Reason;
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, TCP, UDP, policy};
use super::packets::{DROP, ENDPOINT, PASS, icmp, ip, own, prepare, run, tcp, with_ports};

pub(crate) const TESTS: &[Test] = &[
    ("an_error_goes_to_nobody_but_the_sender_of_what_it_cites", error_to_another),
    ("discovery_by_a_workload_goes_no_further_than_the_link", discovery),
    ("an_echo_lets_no_other_message_pass", other_than_echo),
    ("a_closed_endpoint_takes_nothing_on_any_way", closed),
];

fn error_to_another(node: &mut Node) {
    prepare(node, 0);
    let rules = [(Direction::Ingress, 0, UDP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let (peer, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 9]));
    let came = ip(peer, own(peer), UDP, [0; 2], &with_ports(5, 6));
    assert_eq!(run(node, false, &came, 1).0, PASS);
    let about = |to| ip(own(to), to, 1, [0; 2], &[&[3, 3, 0, 0, 0, 0, 0, 0], &came[14..]].concat());
    assert_eq!(run(node, true, &about(peer), 1).0, PASS);
    assert_eq!(run(node, true, &about(other), 1).0, DROP, "whatever is said, to whomever");
}

fn discovery(node: &mut Node) {
    const SOLICITATION: u16 = 135;
    const ADVERTISEMENT: u16 = 136;
    const LINK: [u16; 8] = [0xfe80, 0, 0, 0, 0, 0, 0, 1];
    const ALL: [u16; 8] = [0xff02, 0, 0, 0, 0, 0, 0, 1];
    const ABROAD: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
    const NOBODY: [u16; 8] = [0; 8];
    prepare(node, 0);
    super::net::ip("addr add fd98::1/64 dev lo nodad");
    super::net::ip("link add abroad type veth peer name far");
    super::net::ip("link set far up");
    super::net::ip("link set abroad up");
    super::net::ip("-6 route add default dev abroad");
    node.kernel().set_own_addresses(8, &["fd99::8".parse().expect("an address")]).expect("room");
    let IpAddr::V6(own) = own(IpAddr::from(LINK)) else { panic!("of this family") };
    let own = own.segments();
    let host = [0xfd98, 0, 0, 0, 0, 0, 0, 1];
    let neighbour = [0xfd99, 0, 0, 0, 0, 0, 0, 8];
    let mut sent = |from: [u16; 8], to: [u16; 8], kind, hops| {
        let mut packet = ip(from.into(), to.into(), 58, [0; 2], &icmp(kind, 0));
        packet[14 + 7] = hops;
        run(node, true, &packet, 1).0
    };
    for kind in [SOLICITATION, ADVERTISEMENT] {
        for to in [LINK, ALL, host, neighbour] {
            assert_eq!(sent(own, to, kind, 255), PASS, "{kind} {to:x?}");
            assert_eq!(sent(own, to, kind, 254), DROP, "it may have come from elsewhere");
        }
        assert_eq!(sent(LINK, ALL, kind, 255), PASS);
        assert_eq!(sent(NOBODY, ALL, kind, 255), PASS, "who has no address yet");
        assert_eq!(sent(own, ABROAD, kind, 255), DROP, "{kind}");
        assert_eq!(sent(LINK, ABROAD, kind, 255), DROP);
        assert_eq!(sent(ABROAD, ALL, kind, 255), DROP, "an address of others");
    }
    assert_eq!(sent(LINK, ALL, 134, 255), DROP, "a workload is no router");
}

fn other_than_echo(node: &mut Node) {
    const TIMESTAMP: u16 = 13;
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, 1, 8, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let to = IpAddr::from([10, 0, 0, 1]);
    let mut sent = |kind| run(node, true, &ip(own(to), to, 1, [0; 2], &icmp(kind, 0)), 1).0;
    assert_eq!(sent(8), PASS);
    assert_eq!(sent(TIMESTAMP), DROP, "it has no identifier of an echo's");
}

fn closed(node: &mut Node) {
    prepare(node, 0);
    let rules = |revision| {
        let both = [Direction::Egress, Direction::Ingress];
        policy(revision, &both.map(|way| (way, 0, TCP, 0, Verdict::Allow)))
    };
    node.kernel().set_policy(ENDPOINT, &rules(1)).expect("room");
    let peer = IpAddr::from([10, 0, 0, 1]);
    let sent = ip(own(peer), peer, TCP, [0; 2], &tcp(5, 6, 2));
    let came = ip(peer, own(peer), TCP, [0; 2], &tcp(6, 5, 18));
    let error = ip(peer, own(peer), 1, [0; 2], &[&[3, 4, 0, 0, 0, 0, 0, 0], &sent[14..]].concat());
    for packet in [(true, &sent), (false, &came), (false, &error)] {
        assert_eq!(run(node, packet.0, packet.1, 1).0, PASS);
    }
    node.kernel().remove_policy(ENDPOINT).expect("removed");
    for packet in [(true, &sent), (false, &came), (false, &error)] {
        assert_eq!(run(node, packet.0, packet.1, 1).0, DROP);
    }
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::NoPolicy, Direction::Ingress), 2);
}
