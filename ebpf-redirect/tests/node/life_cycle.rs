//! What stays, what goes, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portreeve_ebpf::InstanceName;
use portreeve_ebpf::node::{
    Neighbour, NodeCapacity, NodeError, NodeKernel, NodeSettings, Reason, host_end,
};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, TCP, Workload, answers, ip};

pub(crate) const TESTS: &[Test] = &[
    ("the_kernel_is_left_with_the_grace_periods_that_it_had", grace_periods),
    ("an_interface_is_found_by_the_namespace_that_it_leads_to", found),
    ("a_restart_under_traffic_is_not_seen", restart),
    ("an_interface_that_is_gone_is_forgotten", interface_gone),
    ("what_could_not_be_set_up_leaves_nothing_and_what_was_there_before_stays", taken_back),
    ("instances_beside_one_are_known_with_who_has_them", neighbours),
    ("a_full_map_is_closed_and_says_so", full),
    ("one_who_opens_very_many_connections_leaves_the_others_theirs", crowded),
    ("what_has_less_room_is_not_taken_over", less_room),
];

fn restart(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let traffic = std::thread::spawn(move || {
        let mut rounds = 0;
        while !stopped.load(Ordering::Relaxed) {
            assert!(answers(&mut stream), "after {rounds}");
            rounds += 1;
        }
        rounds
    });
    for _ in 0..3 {
        drop(node.kernel.take());
        a.connect((b.v4(), 81)).expect_err("judged while nobody runs");
        node.kernel = Some(NodeKernel::open(&node.settings).expect("it takes over"));
        a.connect((b.v4(), 80)).expect("it may");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(traffic.join().expect("it goes on") > 100);
    assert_eq!(node.kernel().endpoints().expect("a list").len(), 2);
}

fn interface_gone(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    ip("link del veth1");
    node.kernel().detach(a.interface).expect("what is gone is gone");
    ip("link del veth2");
    drop(node.kernel.take());
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it opens"));
    assert_eq!(node.kernel().endpoints().expect("a list"), []);
    node.kernel().remove_endpoint(b.number).expect("removed");
    node.kernel().attach(b.interface, 2, 0).expect_err("there is none");
    assert_eq!(node.kernel().endpoints().expect("a list"), []);
}

fn taken_back(node: &mut Node) {
    let root = node.settings.bpffs.join("portreeve-node");
    let instances = || std::fs::read_dir(&root).map_or(0, Iterator::count);
    let mut blue = NodeSettings { instance: name("blue"), ..node.settings.clone() };
    // Maps are pinned one by one, and one of them can't be made.
    blue.capacity.hosts = 0;
    NodeKernel::open(&blue).expect_err("a map without room");
    assert_eq!(instances(), 1);
    blue.capacity = node.settings.capacity;
    let opened = NodeKernel::open(&blue).expect("it opens");
    let removed = opened.take_back().expect("removed").expect("there was none before");
    assert!(!removed.programs.is_empty() && !removed.maps.is_empty() && !removed.device);
    assert_eq!((removed.neighbours, instances()), (vec![name("node")], 1));
    drop(opened);
    // One that was there before is not taken back, however often it is opened.
    let a = node.workload(1, 0);
    drop(node.kernel.take());
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it takes over"));
    assert_eq!(node.kernel().take_back().expect("nothing to do"), None);
    assert_eq!(node.kernel().endpoints().expect("a list")[0].0, a.interface);
    // Nor when it can't be taken over.
    drop(node.kernel.take());
    let more = NodeCapacity { own: node.settings.capacity.own * 2, ..node.settings.capacity };
    NodeKernel::open(&NodeSettings { capacity: more, ..node.settings.clone() }).expect_err("less");
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it takes over"));
    assert_eq!(node.kernel().endpoints().expect("a list").len(), 1);
}

fn neighbours(node: &mut Node) {
    let blue = NodeSettings { instance: name("blue"), ..node.settings.clone() };
    let seen = |node: &Node| node.kernel().neighbours().expect("a list");
    assert_eq!(seen(node), []);
    let other = NodeKernel::open(&blue).expect("it opens");
    let path = node.settings.bpffs.join("portreeve-node/blue");
    let holder = Some(std::process::id());
    let neighbour = Neighbour { instance: name("blue"), path, holder };
    assert_eq!(seen(node), std::slice::from_ref(&neighbour));
    drop(other);
    assert_eq!(seen(node), [Neighbour { holder: None, ..neighbour }]);
    NodeKernel::remove(&blue).expect("removed");
    assert_eq!(seen(node), []);
}

fn name(instance: &str) -> InstanceName {
    instance.parse().expect("a name")
}

fn full(node: &mut Node) {
    drop(node.kernel.take());
    NodeKernel::remove(&node.settings).expect("removed");
    node.settings.capacity.hosts = 4;
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it opens"));
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    a.connect((b.v4(), 80)).expect("it may");
    let kernel = node.kernel();
    let another = "10.0.9.9/32".parse().expect("a prefix");
    let error = kernel.set_identity(another, Some(7)).expect_err("no room").to_string();
    assert!(error.contains("HOSTS") && error.contains("full"), "{error}");
    let many = (0..9_u8).map(|last| (std::net::IpAddr::from([10, 0, 9, last]).into(), 7));
    kernel.sync_identities(many).expect_err("no room");
    a.connect((b.v4(), 80)).expect("nothing has changed");
    let status = kernel.status().expect("status");
    let hosts = status.iter().find(|fill| fill.map == "HOSTS").expect("it is there");
    assert_eq!((hosts.entries, hosts.capacity), (4, 4));
    kernel.sync_identities([]).expect("less");
    a.connect((b.v4(), 80)).expect_err("nobody known");
    let counters = kernel.counters().expect("counters");
    assert!(counters.get(Reason::Policy, Direction::Egress) > 0);
}

fn less_room(node: &mut Node) {
    node.workload(1, 0);
    drop(node.kernel.take());
    node.settings.capacity.own *= 2;
    match NodeKernel::open(&node.settings).expect_err("it has less") {
        error @ NodeError::Layout { .. } => assert!(error.to_string().contains("OWN"), "{error}"),
        other => panic!("{other}"),
    }
    NodeKernel::remove(&node.settings).expect("removed");
    NodeKernel::open(&node.settings).expect("it begins anew");
}

fn found(_: &mut Node) {
    let workloads = [1, 2, 3].map(Workload::new);
    for workload in &workloads {
        let found = host_end(&workload.namespace).expect("it has one cable");
        assert_eq!(found, workload.interface);
    }
    let own = host_end("/proc/thread-self/ns/net".as_ref()).expect_err("it leads nowhere");
    assert_eq!(own.to_string(), "no interface of this host leads there");
    host_end("/proc/self/status".as_ref()).expect_err("no namespace");
    let thread = workloads[0].namespace.components().rev().nth(2).expect("its number");
    let thread = thread.as_os_str().to_string_lossy();
    ip(&format!("link add second type veth peer name eth1 netns {thread}"));
    let several = host_end(&workloads[0].namespace).expect_err("which?");
    assert_eq!(several.to_string(), "several interfaces of this host lead there");
}

fn crowded(node: &mut Node) {
    use std::net::IpAddr;

    use super::packets::{DROP, ENDPOINT, PASS, own, packet, prepare, run};
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    prepare(node, 0);
    let all = super::net::policy(1, &[(Direction::Egress, 0, TCP, 0, Verdict::Allow)]);
    node.kernel().set_policy(ENDPOINT, &all).expect("room");
    let to = IpAddr::from([10, 7, 0, 1]);
    let opens = |port| packet(own(to), to, portreeve_policy::Protocol::Tcp, port, 80);
    let look = |node: &Node| {
        let census = node.kernel().census().expect("counted");
        node.kernel().share_out(&census).expect("written")
    };
    // As many as there is room for, if nobody looked; somebody does every few hundred.
    let (mut port, mut refused) = (1000, 0);
    for _ in 0..16 {
        for _ in 0..256 {
            port += 1;
            refused += i32::from(run(node, true, &opens(port), 1).0 == DROP);
        }
        look(node);
    }
    assert!(refused > 256, "{refused}");
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(
        counters.get(Reason::Crowded, Direction::Egress),
        u64::from(refused.cast_unsigned())
    );
    assert!(answers(&mut stream), "the others keep theirs");
    assert!(a.connect((b.v6(), 80)).is_ok(), "and get more");
    // Once they are gone, more may come.
    node.kernel().remove_endpoint(ENDPOINT).expect("removed");
    prepare(node, 0);
    node.kernel().set_policy(ENDPOINT, &all).expect("room");
    assert!(look(node).is_empty());
    assert_eq!(run(node, true, &opens(1), 1).0, PASS);
}

fn grace_periods(node: &mut Node) {
    const EXPEDITED: &str = "/sys/kernel/rcu_expedited";
    let set = || std::fs::read_to_string(EXPEDITED).expect("read").trim().to_owned();
    let before = set();
    let a = node.workload(1, 0);
    node.rules(&a, 1, &[]);
    assert_eq!(set(), before);
    // One who was killed while they were short.
    drop(node.kernel.take());
    let marker = node.settings.bpffs.join("portreeve-node/node/expedited");
    std::fs::create_dir(&marker).expect("made");
    std::fs::write(EXPEDITED, "1").expect("root may");
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it opens"));
    assert_eq!((set().as_str(), marker.exists()), ("0", false));
}
