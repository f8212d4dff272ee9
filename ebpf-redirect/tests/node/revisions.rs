//! What makes open connections be judged once more.

use portreeve_ebpf::node::{NodeKernel, Reason};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, TCP, answers};

pub(crate) const TESTS: &[Test] = &[
    ("another_policy_after_a_restart_is_in_force_for_open_connections", restarted),
    ("a_policy_that_was_taken_away_before_a_restart_leaves_nothing_open", taken_away),
    ("another_identity_of_an_address_is_in_force_for_open_connections", identity),
];

fn reopen(node: &mut Node) {
    drop(node.kernel.take());
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it takes over"));
}

fn restarted(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    let allowed = [(Direction::Egress, 102, TCP, 80, Verdict::Allow)];
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    node.rules(&a, 1, &allowed);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    assert!(answers(&mut stream));
    reopen(node);
    // As many policies as before: if numbers began anew, this would be the same one.
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    node.rules(&a, 1, &allowed);
    assert!(answers(&mut stream), "the same policies");
    reopen(node);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    node.rules(&a, 1, &[]);
    assert!(!answers(&mut stream), "not any more");
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::Policy, Direction::Egress) > 0);
}

fn taken_away(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    // Now only the connections say which numbers there were.
    node.kernel().remove_policy(1).expect("removed");
    node.kernel().remove_policy(2).expect("removed");
    reopen(node);
    for _ in 0..3 {
        node.rules(&a, 1, &[]);
        assert!(!answers(&mut stream), "nobody may");
    }
}

fn identity(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let [mut to_v4, mut to_v6] = b.both().map(|address| a.connect((address, 80)).expect("it may"));
    assert!(answers(&mut to_v4) && answers(&mut to_v6));
    node.kernel().set_identity(b.v4().into(), Some(103)).expect("room");
    node.kernel().rejudge().expect("room");
    assert!(!answers(&mut to_v4), "who is there now, it may not talk to");
    assert!(answers(&mut to_v6), "there, nobody else is");
    let revisions = || {
        let entries = node.kernel().endpoints().expect("a list").into_iter();
        entries.map(|(_, entry)| entry.revision).collect::<Vec<_>>()
    };
    let before = revisions();
    node.kernel().remove_policy(1).expect("removed");
    node.kernel().rejudge().expect("room");
    assert!(revisions().contains(&0), "one without policy has none by that");
    assert!(revisions().iter().any(|now| before.iter().all(|before| now > before)));
    a.connect((b.v6(), 80)).expect_err("it has no policy");
}
