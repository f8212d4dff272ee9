//! What a packet costs, with a full policy and all addresses known.

use std::net::IpAddr;

use aya::programs::Program;
use portreeve_ebpf_common::node::NodePolicyKey;
use portreeve_ebpf_common::{PolicyValue, Verdict};
use portreeve_policy::Protocol;

use super::Test;
use super::net::Node;
use super::packets::{ENDPOINT, ip, own, packet, prepare, run, tcp};

pub(crate) const TESTS: &[Test] = &[
    ("a_full_policy_judges_and_says_what_a_packet_takes", cost),
    ("the_verifier_is_done_long_before_it_gives_up", verified),
];

const ADDRESSES: u32 = 50_000;
const ENTRIES: u32 = 100_000;
const PORT: u16 = 4711;

fn address(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + number).to_be_bytes())
}

/// Other kernels look at some more, or less.
fn verified(node: &mut Node) {
    /// `BPF_COMPLEXITY_LIMIT_INSNS`
    const GIVES_UP: u32 = 1_000_000;
    let kernel = node.kernel.as_mut().expect("it runs");
    for name in ["portreeve_from_workload", "portreeve_to_workload", "portreeve_from_outside"] {
        let Some(Program::SchedClassifier(program)) = kernel.program(name) else {
            panic!("no program `{name}`")
        };
        let info = program.info().expect("the kernel tells");
        let looked_at = info.verified_instruction_count().expect("Linux 5.16");
        println!("{name}: {looked_at} instructions looked at");
        assert!(looked_at < GIVES_UP / 2, "{name}: {looked_at}");
    }
}

/// Each identity of a class of its own, with a port of its own.
fn cost(node: &mut Node) {
    prepare(node, 0);
    let known = (0..ADDRESSES).map(|number| (address(number).into(), 256 + number));
    node.kernel().sync_identities(known).expect("room");
    let port = |number: u32| u16::try_from(number % 60_000).expect("a port");
    let classes = (0..ENTRIES / 2).map(|number| {
        let class = 256 + number;
        (NodePolicyKey::identity(class), PolicyValue::identity(class, class, 1 << 31 | class))
    });
    let ports = (0..ENTRIES / 2).map(|number| {
        let key = NodePolicyKey::port(256 + number, 6, port(number), 16);
        (key, PolicyValue::verdict(Verdict::Allow, 1))
    });
    let header = (NodePolicyKey::HEADER, PolicyValue::header(1, true, true));
    let table = [header].into_iter().chain(classes).chain(ports).collect();
    node.kernel().set_policy(ENDPOINT, &table).expect("room");

    let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 5]);
    node.kernel().set_identity(six.into(), Some(256 + 4711)).expect("room");
    [address(4711), six].into_iter().for_each(|to| measure(node, to));
}

fn measure(node: &mut Node, to: IpAddr) {
    const ACK: u8 = 16;
    let from = own(to);
    let opens = packet(from, to, Protocol::Tcp, 40_000, PORT);
    assert_eq!(run(node, true, &opens, 1).0, 0, "it may");
    let goes_on = ip(from, to, 6, [0, 0], &tcp(40_000, PORT, ACK));
    let replies = ip(to, from, 6, [0, 0], &tcp(PORT, 40_000, ACK));
    for (name, egress, packet) in [("sent", true, &goes_on), ("received", false, &replies)] {
        let (verdict, time) = run(node, egress, packet, 1_000_000);
        assert_eq!(verdict, 0);
        println!("{name}, of a connection with {to} that is tracked: {time:?}");
    }
}
