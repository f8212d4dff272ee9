//! Maps without room: whom that closes, and whom it leaves alone.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use portreeve_ebpf::node::{NodeCapacity, NodeKernel, Reason};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, TCP, UDP, answers, policy};
use super::packets::{DROP, ENDPOINT, PASS, ip, own, prepare, run, with_ports};

pub(crate) const TESTS: &[Test] = &[
    ("map_full_of_endpoints_closes_the_newcomer", of_endpoints),
    ("map_full_of_addresses_refuses_newcomers_and_lets_the_established_go_on", of_addresses),
    ("map_full_of_policy_entries_keeps_the_policy_in_force", of_policy_entries),
    ("map_full_of_connections_lets_active_ones_go_on", of_connections),
    ("map_full_of_connections_lets_idle_ones_go_on_if_somebody_looks", of_idle_connections),
    ("who_opens_very_many_at_once_gets_a_part_of_the_room_before_somebody_looks", at_once),
    ("ring_buffer_full_of_one_workloads_events_has_room_for_anothers", of_events),
];

/// The node anew, with other room.
fn with_room(node: &mut Node, change: impl FnOnce(&mut NodeCapacity)) {
    drop(node.kernel.take());
    NodeKernel::remove(&node.settings).expect("removed");
    change(&mut node.settings.capacity);
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it opens"));
}

/// Entries and room of a map, as its status has them.
fn fill(node: &Node, map: &str) -> (usize, u32) {
    let status = node.kernel().status().expect("a status");
    let fill = status.iter().find(|fill| fill.map == map).expect("it is there");
    (fill.entries, fill.capacity)
}

fn of_addresses(node: &mut Node) {
    with_room(node, |capacity| capacity.hosts = 4);
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    // Another workload, whose labels would let it; but that it has them fits nowhere.
    let c = super::net::Workload::new(3);
    let kernel = node.kernel();
    kernel.set_own_addresses(3, &c.both()).expect("room");
    let error = kernel.set_identity(c.v4().into(), Some(101)).expect_err("no room").to_string();
    assert!(error.contains("HOSTS") && error.contains("full"), "{error}");
    kernel.attach(c.interface, 3, portreeve_ebpf::node::endpoint_flags::ENFORCED).expect("room");
    node.rules(&c, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    c.connect((b.v4(), 80)).expect_err("nobody knows it");
    assert!(answers(&mut stream));
    a.connect((b.v4(), 80)).expect("it may still");
    assert_eq!(fill(node, "HOSTS"), (4, 4));
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::Policy, Direction::Ingress) > 0);
}

fn of_policy_entries(node: &mut Node) {
    with_room(node, |capacity| capacity.policy = 8);
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    b.serve(81);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 0, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    let many: Vec<_> =
        (81..99).map(|port| (Direction::Ingress, 101, TCP, port, Verdict::Allow)).collect();
    let error = node.kernel().set_policy(2, &policy(2, &many)).expect_err("no room").to_string();
    assert!(error.contains("POLICY") && error.contains("full"), "{error}");
    assert!(answers(&mut stream));
    a.connect((b.v4(), 80)).expect("the old policy is in force");
    a.connect((b.v4(), 81)).expect_err("and nothing of the new");
}

/// So many connections have room.
const ROOM: u32 = 1 << 10;

/// A third workload opens ten times as many as there is room for; `between` runs now and then.
fn flood(node: &Node, to: IpAddr, mut between: impl FnMut()) {
    let c = node.workload(3, 0);
    node.rules(&c, 1, &[(Direction::Egress, 102, UDP, 0, Verdict::Allow)]);
    let socket: UdpSocket = c.datagrams(4000);
    for number in 0..ROOM * 10 {
        let port = u16::try_from(1000 + number).expect("a port");
        // Twice: who is asked for again is not the first to be forgotten.
        for _ in 0..2 {
            let _ = socket.send_to(b"x", (to, port));
        }
        if number % 50 == 0 {
            between();
            // Nobody opens more than so many at once.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn of_connections(node: &mut Node) {
    with_room(node, |capacity| capacity.connections = ROOM);
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut streams = b.both().map(|address| a.connect((address, 80)).expect("it may"));
    flood(node, b.v4(), || streams.iter_mut().for_each(|stream| assert!(answers(stream))));
    let (entries, capacity) = fill(node, "TRACKED");
    assert!(capacity == ROOM && entries * 2 > ROOM as usize, "{entries} of {capacity}");
    a.connect((b.v4(), 80)).expect("there is room for it");
}

fn of_idle_connections(node: &mut Node) {
    with_room(node, |capacity| capacity.connections = ROOM);
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let mut stream = a.connect((b.v4(), 80)).expect("it may");
    // As the daemon does, now and then.
    flood(node, b.v4(), || {
        let census = node.kernel().census().expect("counted");
        node.kernel().share_out(&census).expect("written");
    });
    assert!(answers(&mut stream), "it was there first");
    a.connect((b.v4(), 80)).expect("there is room for others");
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::Crowded, Direction::Egress) > 0, "who gets no more is counted");
}

fn at_once(node: &mut Node) {
    with_room(node, |capacity| capacity.connections = ROOM);
    prepare(node, 0);
    let rules = [(Direction::Egress, 0, UDP, 0, Verdict::Allow)];
    node.kernel().set_policy(ENDPOINT, &policy(1, &rules)).expect("room");
    let limit = node.kernel().room_between_looks();
    let peer = IpAddr::from([10, 0, 0, 1]);
    // A test that is held up may see another quarter of a second, but not as many as these.
    let passed = (0..limit * 8).filter(|number| {
        let port = u16::try_from(1000 + number).expect("a port");
        run(node, true, &ip(own(peer), peer, UDP, [0; 2], &with_ports(port, 53)), 1).0 == PASS
    });
    let passed = passed.count() as u64;
    assert!((limit..limit * 8).contains(&passed), "{passed} of {limit} at a time");
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Crowded, Direction::Egress), limit * 8 - passed);
}

fn of_events(node: &mut Node) {
    const FLOOD: u32 = 30_000;
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    prepare(node, 0);
    let peer = IpAddr::from([10, 0, 0, 1]);
    let denied = ip(own(peer), peer, UDP, [0; 2], &with_ports(1000, 53));
    assert_eq!(run(node, true, &denied, FLOOD).0, DROP);
    a.connect((b.v4(), 80)).expect_err("nothing lets it");
    let mut events = node.kernel().events().expect("events");
    let told: Vec<u32> = std::iter::from_fn(|| events.next()).map(|event| event.endpoint).collect();
    let of_flood = told.iter().filter(|endpoint| **endpoint == ENDPOINT).count();
    assert!(told.contains(&1), "the other's own event");
    // Half of the room, and what its share is for each of the moments that it took.
    assert!((5000..12_000).contains(&of_flood), "{of_flood}");
    let counters = node.kernel().counters().expect("counters");
    let lost = counters.get(Reason::EventLost, Direction::Egress);
    assert_eq!(lost, u64::from(FLOOD) - of_flood as u64, "what is not told is counted");
}

fn of_endpoints(node: &mut Node) {
    with_room(node, |capacity| capacity.endpoints = 1);
    let a = node.workload(1, 0);
    a.serve(80);
    node.rules(&a, 1, &[(Direction::Ingress, 0, TCP, 80, Verdict::Allow)]);
    let b = super::net::Workload::new(2);
    let flags = portreeve_ebpf::node::endpoint_flags::ENFORCED;
    let error = node.kernel().attach(b.interface, 2, flags).expect_err("no room").to_string();
    assert!(error.contains("ENDPOINTS") && error.contains("full"), "{error}");
    assert_eq!(fill(node, "ENDPOINTS"), (1, 1));
    b.connect((a.v4(), 80)).expect_err("nothing says that it may");
}
