//! Interfaces: whose they are, and what becomes of them.

use portreeve_ebpf::node::{NodeKernel, endpoint_flags};
use portreeve_ebpf_common::{Direction, Verdict};

use super::Test;
use super::net::{Node, TCP, interface, ip};

pub(crate) const TESTS: &[Test] = &[
    ("a_stranger_with_the_number_of_an_interface_that_is_gone_is_left_alone", stranger),
    ("what_can_not_be_attached_leaves_the_interface_to_whom_it_was", put_back),
    ("an_interface_that_is_put_into_a_bridge_is_to_be_attached_again", bridged),
    ("one_who_follows_another_at_an_interface_keeps_it_when_that_one_is_removed", followed),
    ("what_is_removed_leaves_no_program_no_map_and_no_route", taken_away),
    ("one_who_is_removed_leaves_nothing_behind", removed),
];

fn stranger(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    drop(node.kernel.take());
    ip("link del veth1");
    ip(&format!("link add stranger index {} type veth peer name other", a.interface));
    assert_eq!(interface("stranger"), a.interface);
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it opens"));
    let attached = node.kernel().endpoints().expect("a list");
    assert_eq!(attached.iter().map(|(one, _)| *one).collect::<Vec<_>>(), [b.interface]);
    let links = node.settings.bpffs.join("portreeve-node/node/links");
    let mut links: Vec<_> = std::fs::read_dir(links)
        .expect("a folder")
        .map(|link| link.expect("a link").file_name().to_string_lossy().into_owned())
        .collect();
    links.sort();
    assert_eq!(
        links,
        [
            format!("{}-from", b.interface),
            format!("{}-to", b.interface),
            "device".into(),
            "namespace".into()
        ]
    );
}

fn put_back(node: &mut Node) {
    let a = node.workload(1, 0);
    ip("link del veth1");
    node.kernel().attach(a.interface, 7, 0).expect_err("it is gone");
    let owner = node.kernel().endpoints().expect("a list");
    assert_eq!(owner.iter().map(|(_, entry)| entry.endpoint).collect::<Vec<_>>(), [1]);
}

fn bridged(node: &mut Node) {
    let [a, _b] = [1, 2].map(|number| node.workload(number, 0));
    let kernel = node.kernel();
    let is_part = || {
        let all = kernel.endpoints().expect("a list");
        let own = all.iter().find(|(number, _)| *number == a.interface).expect("attached");
        own.1.flags & endpoint_flags::PART_OF_ANOTHER != 0
    };
    assert!(kernel.moved().expect("told").is_empty());
    ip("link add br9 type bridge");
    for (change, part) in [("master br9", true), ("nomaster", false)] {
        ip(&format!("link set veth1 {change}"));
        assert_eq!(kernel.moved().expect("told"), [a.interface].into(), "{change}");
        kernel.attach(a.interface, 1, 0).expect("attached");
        assert!(kernel.moved().expect("told").is_empty() && is_part() == part, "{change}");
    }
    ip("link del br9");
}

fn followed(node: &mut Node) {
    let a = node.workload(1, 0);
    let kernel = node.kernel();
    let owners = || {
        let all = kernel.endpoints().expect("a list");
        all.into_iter().map(|(number, entry)| (number, entry.endpoint)).collect::<Vec<_>>()
    };
    kernel.remove_policy(1).expect("closed");
    kernel.set_own_addresses(7, &a.both()).expect("room");
    kernel.attach(a.interface, 7, 0).expect("attached");
    assert_eq!(owners(), [(a.interface, 7)]);
    kernel.remove_endpoint(1).expect("removed");
    assert_eq!(owners(), [(a.interface, 7)]);
    assert_eq!(kernel.known_endpoints().expect("a list"), [7].into());
    let addresses = kernel.own_addresses().expect("a list");
    assert_eq!(addresses.into_values().collect::<Vec<_>>(), [7, 7]);
}

fn removed(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let _stream = a.connect((b.v4(), 80)).expect("it may");
    let kernel = node.kernel();
    assert_eq!(kernel.known_endpoints().expect("a list"), [1, 2].into());
    assert_eq!(kernel.known_identities().expect("a list"), [101, 102].into());
    kernel.remove_endpoint(1).expect("removed");
    assert_eq!(kernel.known_endpoints().expect("a list"), [2].into());
    assert!(kernel.connections().expect("a list").iter().all(|(key, _)| key.endpoint == 2));
    // One who has but a policy is known, too.
    kernel.set_policy(9, &super::net::policy(1, &[])).expect("room");
    assert_eq!(kernel.known_endpoints().expect("a list"), [2, 9].into());
}

fn taken_away(node: &mut Node) {
    let error = NodeKernel::remove(&node.settings).expect_err("it runs").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    let a = node.workload(1, 0);
    drop(node.kernel.take());
    let removed = NodeKernel::remove(&node.settings).expect("removed");
    let programs = [format!("{}-from", a.interface), format!("{}-to", a.interface)];
    assert_eq!(
        removed.programs,
        [&programs[..], &["device", "namespace"].map(str::to_owned)].concat()
    );
    assert!(removed.maps.contains(&"TRACKED".to_owned()) && removed.device, "{removed:?}");
    assert_eq!(interface("portreeve0"), 0);
    for family in ["-4", "-6"] {
        let said = |what: &str| {
            let arguments = [family].into_iter().chain(what.split(' '));
            let output = std::process::Command::new("ip").args(arguments).output().expect("ip");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(!said("rule show").contains("0x50520001"), "{}", said("rule show"));
        assert_eq!(said("route show table 20562"), "");
    }
    assert!(NodeKernel::remove(&node.settings).expect("again").is_empty());
    node.kernel = Some(NodeKernel::open(&node.settings).expect("it begins anew"));
    node.kernel().attach(a.interface, 1, 0).expect("it attaches");
}
