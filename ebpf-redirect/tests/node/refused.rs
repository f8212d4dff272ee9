//! Those who are refused, and are to be told so at once.

use std::io::ErrorKind;
use std::time::Instant;

use portreeve_ebpf::node::{Reason, endpoint_flags};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, PATIENCE, TCP, UDP, answers};

pub(crate) const TESTS: &[Test] = &[
    ("who_is_refused_is_told_by_a_reset", told_by_a_reset),
    ("who_sends_datagrams_in_vain_is_told_by_icmp", told_by_icmp),
    ("an_open_connection_that_is_forbidden_is_reset", reset_on_change),
];

fn told_by_a_reset(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, endpoint_flags::TOLD_AT_ONCE));
    b.serve(80);
    let allowed = [(Direction::Egress, 102, TCP, 80, Verdict::Allow)];
    for (side, rules) in [(Direction::Egress, &[][..]), (Direction::Ingress, &allowed[..])] {
        node.rules(&a, 1, rules);
        node.rules(&b, 1, &[]);
        for address in b.both() {
            let begun = Instant::now();
            let error = a.connect((address, 80)).expect_err("it may not");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{side:?} {address}");
            assert!(begun.elapsed() < PATIENCE);
        }
        let counters = node.kernel().counters().expect("counters");
        assert_eq!(counters.get(Reason::Answered, side), 2);
    }
}

fn told_by_icmp(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, endpoint_flags::TOLD_AT_ONCE));
    let allowed = [(Direction::Egress, 102, UDP, 0, Verdict::Allow)];
    for (side, rules) in [(Direction::Egress, &[][..]), (Direction::Ingress, &allowed[..])] {
        node.rules(&a, 1, rules);
        node.rules(&b, 1, &[]);
        for (address, expected) in [(b.v4(), libc::EHOSTUNREACH), (b.v6(), libc::EACCES)] {
            let socket = a.datagrams(0);
            socket.connect((address, 53)).expect("connected");
            socket.send(b"question, and more of it").expect("sent");
            let error = socket.recv(&mut [0; 8]).expect_err("it may not");
            assert_eq!(error.raw_os_error(), Some(expected), "{side:?} {address}: {error}");
        }
    }
}

fn reset_on_change(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, endpoint_flags::TOLD_AT_ONCE));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    for (revision, address) in (2..).zip(b.both()) {
        let mut stream = a.connect((address, 80)).expect("it may");
        assert!(answers(&mut stream));
        node.rules(&b, revision, &[(Direction::Ingress, 101, TCP, 81, Verdict::Allow)]);
        assert!(!answers(&mut stream), "no longer");
        let error = stream.take_error().expect("asked");
        let gone = std::io::Read::read(&mut stream, &mut [0; 1]);
        assert!(error.is_some() || gone.is_ok_and(|read| read == 0), "it was told");
        node.rules(&b, revision + 10, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    }
}
