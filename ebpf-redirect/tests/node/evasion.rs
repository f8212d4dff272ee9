//! Ways round a policy that somebody may think of, each closed.

use std::net::{IpAddr, Ipv6Addr};

use portreeve_ebpf::node::{Reason, mark};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, TCP, UDP, policy};
use super::packets::{DROP, ENDPOINT, PASS, icmp, ip, own, prepare, run, tcp, with_ports};

pub(crate) const TESTS: &[Test] = &[
    ("an_error_goes_to_nobody_but_the_sender_of_what_it_cites", error_to_another),
    ("an_error_about_a_connection_that_policy_forbids_by_now_is_dropped", error_forbidden),
    ("discovery_by_a_workload_goes_no_further_than_the_link", discovery),
    ("who_says_that_he_has_the_address_of_another_is_not_heard", impostor),
    ("on_a_bridge_nobody_gets_what_is_for_another", of_another),
    ("an_address_that_another_workload_gets_is_no_longer_to_be_sent_from", given_away),
    ("a_process_of_the_host_with_the_mark_of_answers_is_judged", marked),
    ("a_first_part_that_may_not_pass_takes_nobodys_room", refused_part),
    ("an_interface_without_ethernet_is_not_attached", tunnel),
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
        let about = if from == NOBODY { own } else { from };
        let packet = neighbour_message(from, to, kind, hops, about);
        run(node, true, &packet, 1).0
    };
    // Whether the host is a router, or the interface, is nothing to a workload's neighbours.
    for (kind, router) in
        [SOLICITATION, ADVERTISEMENT].into_iter().flat_map(|kind| [(kind, "1"), (kind, "0")])
    {
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", router).expect("set");
        std::fs::write("/proc/sys/net/ipv6/conf/portreeve0/forwarding", "1").expect("set");
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

/// A message of neighbour discovery about an address.
fn neighbour_message(
    from: [u16; 8],
    to: [u16; 8],
    kind: u16,
    hops: u8,
    about: [u16; 8],
) -> Vec<u8> {
    let mut packet = ip(from.into(), to.into(), 58, [0; 2], &icmp(kind, 0));
    packet[14 + 7] = hops;
    packet[14 + 40 + 8..][..16].copy_from_slice(&Ipv6Addr::from(about).octets());
    packet
}

fn error_forbidden(node: &mut Node) {
    prepare(node, 0);
    let rules = |verdict| [(Direction::Egress, 0, UDP, 53, verdict)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules(Verdict::Allow))).expect("room");
    let peer = IpAddr::from([10, 0, 0, 1]);
    let sent = ip(own(peer), peer, UDP, [0; 2], &with_ports(5, 53));
    let came = ip(peer, own(peer), UDP, [0; 2], &with_ports(53, 5));
    let about = |cited: &[u8]| [&[3, 3, 0, 0, 0, 0, 0, 0], &cited[14..]].concat();
    let errors = [
        (false, ip(peer, own(peer), 1, [0; 2], &about(&sent))),
        (true, ip(own(peer), peer, 1, [0; 2], &about(&came))),
    ];
    assert_eq!(run(node, true, &sent, 1).0, PASS);
    for (verdict, passes) in [(Verdict::Allow, PASS), (Verdict::Deny, DROP)] {
        node.kernel().set_policy(ENDPOINT, &policy(2, &rules(verdict))).expect("room");
        for (egress, error) in &errors {
            assert_eq!(run(node, *egress, error, 1).0, passes, "{verdict:?} {egress}");
        }
    }
}

fn impostor(node: &mut Node) {
    const ADVERTISEMENT: u16 = 136;
    prepare(node, 0);
    let other = "10.99.0.8".parse().expect("an address");
    node.kernel().set_own_addresses(8, &[other]).expect("room");
    let mut said = |egress, sender: [u8; 4]| {
        let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6]].concat();
        frame.extend([0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender);
        frame.resize(60, 0);
        run(node, egress, &frame, 1).0
    };
    assert_eq!(said(true, [10, 99, 0, 1]), PASS);
    assert_eq!(said(true, [0; 4]), PASS, "who asks whether an address is free");
    assert_eq!(said(true, [10, 99, 0, 8]), DROP, "another workload's");
    assert_eq!(said(true, [10, 0, 0, 1]), DROP, "a router's");
    assert_eq!(said(false, [10, 0, 0, 1]), PASS, "what the workload hears");
    let all = [0xff02, 0, 0, 0, 0, 0, 0, 1];
    // Whatever policy says.
    let rules = [(Direction::Egress, 0, 58, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let IpAddr::V6(own) = own(IpAddr::from(all)) else { panic!("of this family") };
    let mut says = |about| {
        let message = neighbour_message(own.segments(), all, ADVERTISEMENT, 255, about);
        run(node, true, &message, 1).0
    };
    assert_eq!(says(own.segments()), PASS);
    assert_eq!(says([0xfd99, 0, 0, 0, 0, 0, 0, 8]), DROP, "an address that is not its own");
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Spoofed, Direction::Egress), 3);
}

fn of_another(node: &mut Node) {
    prepare(node, 0);
    let rules = [(Direction::Ingress, 0, UDP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let (peer, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 99, 0, 8]));
    let to = |to| ip(peer, to, UDP, [0; 2], &with_ports(5, 6));
    assert_eq!(run(node, false, &to(own(peer)), 1).0, PASS);
    assert_eq!(run(node, false, &to(other), 1).0, PASS, "nobody has it: a group's, perhaps");
    node.kernel().set_own_addresses(8, &[other]).expect("room");
    let again = ip(peer, other, UDP, [0; 2], &with_ports(7, 6));
    assert_eq!(run(node, false, &again, 1).0, DROP);
}

fn given_away(node: &mut Node) {
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, UDP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let peer = IpAddr::from([10, 0, 0, 1]);
    let (first, second) = (own(peer), IpAddr::from([10, 99, 0, 77]));
    let v6 = own("fd00::1".parse().expect("an address"));
    let passes = |node: &mut Node, from: IpAddr, number: u8| {
        let packet = ip(from, peer, UDP, [0; 2], &with_ports(u16::from(number), 6));
        run(node, true, &packet, 1).0 == PASS
    };
    assert!(passes(node, first, 1) && !passes(node, second, 1));
    let owns = |node: &Node, endpoint, addresses: &[IpAddr]| {
        node.kernel().set_own_addresses(endpoint, addresses).expect("room");
    };
    owns(node, ENDPOINT, &[first, second, v6]);
    assert!(passes(node, first, 1) && passes(node, second, 1), "either is its own");
    owns(node, 8, &[first]);
    assert!(!passes(node, first, 1), "on a connection that was open, too");
    assert!(!passes(node, first, 2));
    assert!(passes(node, second, 1) && passes(node, second, 2));
    owns(node, 8, &[second]);
    assert!(!passes(node, first, 1), "nobody's");
    assert!(!passes(node, second, 1));
    owns(node, ENDPOINT, &[first]);
    assert!(passes(node, first, 1), "again");
}

fn marked(node: &mut Node) {
    let a = node.workload(1, 0);
    node.rules(&a, 1, &[(Direction::Egress, 0, UDP, 0, Verdict::Allow)]);
    let inside = a.datagrams(5000);
    let from = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
    super::proxied::set(&from, libc::SOL_SOCKET, libc::SO_MARK, mark::ANSWER);
    from.send_to(b"read me", (a.v4(), 5000)).expect("sent");
    inside.recv(&mut [0; 8]).expect_err("policy says no");
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Policy, Direction::Ingress), 1);
}

fn refused_part(node: &mut Node) {
    const MORE: [u8; 2] = [0x20, 0];
    const LATER: [u8; 2] = [0, 1];
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, UDP, 53, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let peer = IpAddr::from([10, 0, 0, 1]);
    for (port, passes, reason) in [(54, DROP, Reason::Fragment), (53, PASS, Reason::Forwarded)] {
        let first = ip(own(peer), peer, UDP, MORE, &with_ports(5, port));
        let later = ip(own(peer), peer, UDP, LATER, &[7; 8]);
        assert_eq!([run(node, true, &first, 1).0, run(node, true, &later, 1).0], [passes; 2]);
        let counters = node.kernel().counters().expect("counters");
        assert!(counters.get(reason, Direction::Egress) > 0, "{reason:?}");
    }
}

fn tunnel(node: &mut Node) {
    super::net::ip("tuntap add mode tun name tunnel");
    let tunnel = super::net::interface("tunnel");
    let error = node.kernel().attach(tunnel, 1, 0).expect_err("its packets begin otherwise");
    assert!(error.to_string().contains("not of Ethernet"), "{error}");
    node.kernel().set_outside(&[tunnel].into()).expect_err("as well");
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
