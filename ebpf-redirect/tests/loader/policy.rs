//! Policies in the kernel: what is allowed, what is told, and how one takes another's place.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::maps::{ArrayOfMaps, Map, MapData};
use portreeve_ebpf::{Capacity, EventKind, EventReason, MapError, PolicyTable, prepare, status};
use portreeve_ebpf_common::{Address, PolicyKey, PolicyValue, Verdict, protocol};

use crate::Test;
use crate::host::{Hammers, Host, name, server};

pub(crate) const TESTS: &[Test] = &[
    ("a_workload_reaches_what_policy_allows", a_workload_reaches_what_policy_allows),
    ("a_refusal_is_an_event_and_is_counted", a_refusal_is_an_event_and_is_counted),
    ("no_connection_sees_a_mixture_of_two_policies", no_mixture),
    ("one_entry_of_many_changes_in_place", one_entry_of_many_changes_in_place),
    ("a_policy_without_room_leaves_the_one_before", a_policy_without_room),
];

/// Entries that a test changes.
type Entries = BTreeMap<PolicyKey, PolicyValue>;

fn table(entries: &Entries) -> PolicyTable {
    entries.iter().map(|(key, value)| (*key, *value)).collect()
}

/// Everybody may reach these ports over TCP, and the workload's own.
pub(crate) fn allowing(revision: u32, ports: &[u16]) -> PolicyTable {
    table(&entries(revision, ports))
}

/// The same, to be changed.
fn entries(revision: u32, ports: &[u16]) -> Entries {
    let allow = PolicyValue::verdict(Verdict::Allow, 1);
    let mut entries = Entries::from([
        (PolicyKey::HEADER, PolicyValue::header(revision, true, true)),
        (PolicyKey::address(Address::UNSPECIFIED, 0), PolicyValue::identity(7, 1, 2)),
        (PolicyKey::port(2, protocol::TCP, 0, 0), allow),
    ]);
    entries.extend(ports.iter().map(|port| (PolicyKey::port(1, protocol::TCP, *port, 16), allow)));
    entries
}

fn a_workload_reaches_what_policy_allows(host: &Host) {
    let (allowed, denied) = (server(), server());
    let mut workload = host.workload("one");
    let mut prepared = prepare(&host.settings("one")).expect("prepared");
    assert_eq!(workload.connect(denied), "ok", "nothing is attached yet");
    prepared.set_policy(&allowing(1, &[allowed.port()])).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    assert_eq!(workload.connect(allowed), "ok");
    assert_eq!(workload.connect(denied), "1", "EPERM");
    assert!(std::net::TcpStream::connect(denied).is_ok(), "this process is no workload");
    redirect.set_policy(&allowing(2, &[allowed.port(), denied.port()])).expect("a policy");
    assert_eq!(workload.connect(denied), "ok");
    redirect.set_policy(&PolicyTable::empty()).expect("no policy");
    assert_eq!(workload.connect(allowed), "1", "an empty policy allows nothing");
}

fn a_refusal_is_an_event_and_is_counted(host: &Host) {
    let denied = server();
    let mut workload = host.workload("one");
    let mut prepared = prepare(&host.settings("one")).expect("prepared");
    prepared.set_policy(&allowing(3, &[])).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let mut events = redirect.events().expect("a ring buffer");
    assert_eq!(events.next(), None);
    assert_eq!(workload.connect(denied), "1");
    let mut descriptors = [rustix::event::PollFd::new(&events, rustix::event::PollFlags::IN)];
    let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut descriptors, Some(&second)), Ok(1), "it is readable");
    let event = events.next().expect("an event");
    assert_eq!((event.kind, event.reason), (EventKind::Denied as u8, EventReason::Policy as u8));
    assert_eq!((event.revision, event.identity), (3, 7));
    assert_eq!(event.asked.port, u32::from(denied.port()));
    assert_eq!(events.next(), None);
    let counters = redirect.counters().expect("counters");
    assert_eq!((counters.egress_denied, counters.egress_allowed), (1, 0));
    assert!(redirect.events().expect("another reader").as_fd().try_clone_to_owned().is_ok());
}

/// Two policies, each of which allows one port by the class that it gives to everybody, and denies the
/// other; of half of each, the denied one would be allowed or the allowed one denied.
fn no_mixture(host: &Host) {
    let (allowed, denied) = (server(), server());
    let allow = PolicyValue::verdict(Verdict::Allow, 1);
    let deny = PolicyValue::verdict(Verdict::Deny, 1);
    let policy = |revision: u32| {
        let class = 10 + revision % 2;
        let other = 10 + (revision + 1) % 2;
        let port = |class, port| PolicyKey::port(class, protocol::TCP, port, 16);
        let mut entries = entries(revision, &[]);
        entries.insert(
            PolicyKey::address(Address::UNSPECIFIED, 0),
            PolicyValue::identity(7, class, 2),
        );
        entries.insert(port(class, allowed.port()), allow);
        entries.insert(port(class, denied.port()), deny);
        entries.insert(port(other, allowed.port()), deny);
        entries.insert(port(other, denied.port()), allow);
        table(&entries)
    };
    let mut prepared = prepare(&host.settings("one")).expect("prepared");
    prepared.set_policy(&policy(0)).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let hammers = Hammers::start(host, "one", allowed, denied);
    let (end, mut revision) = (Instant::now() + Duration::from_secs(2), 0);
    while Instant::now() < end {
        revision += 1;
        redirect.set_policy(&policy(revision)).expect("a policy");
    }
    hammers.check();
    assert!(revision > 20, "{revision}");
}

fn one_entry_of_many_changes_in_place(host: &Host) {
    let address = server();
    let mut prepared = prepare(&host.settings("one")).expect("prepared");
    let mut policy = entries(1, &[]);
    for number in 0..50_000_u32 {
        let key = PolicyKey::address(Address::v4((0x0a00_0000 + number).to_be()), 128);
        policy.insert(key, PolicyValue::identity(number, 1, 2));
    }
    prepared.set_policy(&table(&policy)).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let mut workload = host.workload("one");
    assert_eq!(workload.connect(address), "1");
    let in_force = |host: &Host| {
        let status = status(&host.bpffs(), &name("one")).expect("a status");
        let revision = status.policy.and_then(|policy| policy.revision);
        (status.maps.iter().find(|map| map.map == "POLICY").and_then(|map| map.entries), revision)
    };
    let trie = trie_in_force(host);
    redirect.set_policy(&table(&policy)).expect("the same policy");
    let mut changed = policy.clone();
    let port = PolicyKey::port(1, protocol::TCP, address.port(), 16);
    changed.insert(port, PolicyValue::verdict(Verdict::Allow, 1));
    changed.insert(PolicyKey::HEADER, PolicyValue::header(2, true, true));
    redirect.set_policy(&table(&changed)).expect("a policy");
    assert_eq!(workload.connect(address), "ok");
    assert_eq!(in_force(host), (Some(changed.len()), Some(2)));
    changed.remove(&port);
    changed.insert(PolicyKey::HEADER, PolicyValue::header(3, true, true));
    redirect.set_policy(&table(&changed)).expect("a policy");
    assert_eq!(workload.connect(address), "1");
    assert_eq!(in_force(host), (Some(policy.len()), Some(3)));
    assert_eq!(trie_in_force(host), trie);
    redirect.set_policy(&allowing(4, &[])).expect("a policy");
    assert_ne!(trie_in_force(host), trie, "too much has changed");
}

/// The kernel's number for the trie in force.
fn trie_in_force(host: &Host) -> u32 {
    let path = host.bpffs().join("portreeve/one/maps/POLICY");
    let outer = Map::ArrayOfMaps(MapData::from_pin(path).expect("pinned"));
    let outer: ArrayOfMaps<_, MapData> = outer.try_into().expect("a map of maps");
    outer.get(&0, 0).expect("a trie").info().expect("its number").id()
}

fn a_policy_without_room(host: &Host) {
    let address = server();
    let mut settings = host.settings("one");
    settings.capacity = Capacity { policy: 8, ..Capacity::default() };
    let mut prepared = prepare(&settings).expect("prepared");
    prepared.set_policy(&allowing(1, &[address.port()])).expect("a policy");
    let redirect = prepared.attach().expect("attached");
    let ports: Vec<u16> = (1..20).collect();
    match redirect.set_policy(&allowing(2, &ports)).expect_err("too many") {
        MapError::Full { entries, capacity, .. } => assert_eq!((entries, capacity), (22, 8)),
        other => panic!("{other}"),
    }
    assert_eq!(host.workload("one").connect(address), "ok");
    let policy = status(&host.bpffs(), &name("one")).expect("a status").policy;
    assert_eq!(policy.and_then(|policy| policy.revision), Some(1));
}
