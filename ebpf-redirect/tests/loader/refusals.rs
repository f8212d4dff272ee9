//! What is not set up, and what is said about it.

use std::fs;

use portreeve_ebpf::{Capacity, Outbound, SetupError, prepare};

use crate::Test;
use crate::host::Host;

pub(crate) const TESTS: &[Test] = &[
    ("what_is_missing_is_told_at_once", what_is_missing_is_told_at_once),
    ("a_process_of_the_workload_can_not_be_its_proxy", inside),
    ("a_proxy_of_another_make_is_not_part_of_the_workload", foreign_inside),
    ("an_instance_stays_with_its_cgroup", another_cgroup),
    ("another_layout_is_not_taken_over", another_layout),
    ("less_room_than_is_asked_for_is_not_taken_over", less_room),
    ("what_a_workload_listens_on_has_to_be_seen", unseen),
];

fn said(error: &SetupError) -> String {
    error.to_string()
}

fn what_is_missing_is_told_at_once(host: &Host) {
    let mut settings = host.settings("one");
    settings.cgroup = std::env::temp_dir();
    settings.bpffs = host.bpffs().with_file_name("nothing");
    let said = said(&prepare(&settings).expect_err("two things are missing"));
    assert!(said.contains("it is not of cgroup v2"), "{said}");
    assert!(said.contains("`mount -t bpf bpf "), "{said}");
    assert_eq!(host.pinned(), Vec::<String>::new());
}

fn inside(host: &Host) {
    let mut workload = host.workload("one");
    let said = workload.ask(&format!("prepare one {}", host.bpffs().display()));
    assert!(said.contains("runs inside of the cgroup"), "{said}");
    assert!(said.contains("start the proxy outside"), "{said}");
}

fn foreign_inside(host: &Host) {
    let mut settings = host.settings("one");
    let to = vec!["127.0.0.1:15001".parse().expect("an address")];
    settings.outbound =
        Outbound::Foreign { to: to.clone(), proxy_cgroup: host.cgroup("one/proxy") };
    let said = said(&prepare(&settings).expect_err("it is inside"));
    assert!(said.contains("is inside of the workload's"), "{said}");
    fs::remove_dir(host.cgroup("one/proxy")).expect("nobody is in it");

    settings.outbound = Outbound::Foreign { to, proxy_cgroup: host.cgroup("proxy") };
    drop(prepare(&settings).expect("prepared").attach().expect("attached"));
    assert!(host.pinned().iter().any(|path| path.ends_with("portreeve_getsockopt")));
}

fn another_cgroup(host: &Host) {
    let mut settings = host.settings("one");
    drop(prepare(&settings).expect("prepared").attach().expect("attached"));
    settings.cgroup = host.cgroup("two");
    let error = prepare(&settings).expect_err("it is another's");
    assert!(matches!(error, SetupError::OtherCgroup { .. }), "{error}");
    assert!(said(&error).contains("redirect detach --instance one"), "{error}");
}

fn another_layout(host: &Host) {
    let settings = host.settings("one");
    drop(prepare(&settings).expect("prepared").attach().expect("attached"));
    let config = host.bpffs().join("portreeve/one/maps/CONFIG");
    let map = aya::maps::MapData::from_pin(&config).expect("pinned");
    let mut map: aya::maps::HashMap<_, u32, [u8; 56]> =
        aya::maps::Map::HashMap(map).try_into().expect("a hash");
    let mut bytes = map.get(&0, 0).expect("an entry");
    bytes[8] += 1;
    map.insert(0, bytes, 0).expect("written");
    let error = prepare(&settings).expect_err("another layout");
    assert!(matches!(error, SetupError::Layout { .. }), "{error}");
    assert!(said(&error).contains("redirect detach --instance one"), "{error}");
}

fn less_room(host: &Host) {
    let mut settings = host.settings("one");
    drop(prepare(&settings).expect("prepared").attach().expect("attached"));
    settings.capacity = Capacity { services: 1 << 20, ..Capacity::default() };
    let error = prepare(&settings).expect_err("less room");
    assert!(matches!(error, SetupError::Capacity { map: "SERVICES", .. }), "{error}");
}

fn unseen(host: &Host) {
    let mut workload = host.workload("one");
    assert_eq!(workload.ask("listen 127.0.0.1:7020"), "ok");
    let said = host.blind("one");
    assert!(said.contains("1 of the workload's processes run already"), "{said}");
    assert_eq!(host.pinned(), Vec::<String>::new());
    // Once somebody has looked, it need not be seen again.
    drop(prepare(&host.settings("one")).expect("prepared").attach().expect("attached"));
    assert_eq!(host.blind("one"), "attached");
    assert_eq!(host.blind("two"), "attached", "nobody is in that one");
}
