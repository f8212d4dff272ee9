//! Packets as bytes, and programs that are run with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aya::programs::{Program, TestRun, TestRunOptions};
use portreeve_ebpf::node::endpoint_flags;
use portreeve_policy::Protocol;

use super::net::Node;

/// The endpoint on the loopback interface, where a program is that is run by itself.
pub(crate) const ENDPOINT: u32 = 9;
const LOOPBACK: u32 = 1;
const V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);

pub(crate) fn prepare(node: &Node, flags: u32) {
    let kernel = node.kernel();
    kernel.set_own_addresses(ENDPOINT, &[V4.into(), V6.into()]).expect("room");
    kernel.attach(LOOPBACK, ENDPOINT, flags | endpoint_flags::ENFORCED).expect("it attaches");
}

/// The endpoint's address in the family of another.
pub(crate) fn own(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { V4.into() } else { V6.into() }
}

/// What programs say: `TCX_PASS`, `TCX_DROP`.
pub(crate) const PASS: i32 = 0;
pub(crate) const DROP: i32 = 2;

/// What the program says, and how long one run takes.
pub(crate) fn run(node: &mut Node, egress: bool, packet: &[u8], repeat: u32) -> (i32, Duration) {
    let name = if egress { "portreeve_from_workload" } else { "portreeve_to_workload" };
    let program = node.kernel.as_mut().and_then(|kernel| kernel.program(name));
    let Some(Program::SchedClassifier(program)) = program else { panic!("it is there") };
    let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::default() };
    let result = program.test_run(options).expect("it runs");
    (result.return_value.cast_signed(), result.duration)
}

/// A packet that opens a connection, or has what opens one.
pub(crate) fn packet(
    from: IpAddr,
    to: IpAddr,
    protocol: Protocol,
    port: u16,
    asked: u16,
) -> Vec<u8> {
    const SYN: u8 = 2;
    let (number, header) = match protocol {
        Protocol::Tcp => (6, tcp(port, asked, SYN)),
        Protocol::Udp => (17, with_ports(port, asked)),
        Protocol::Sctp => (132, with_ports(port, asked)),
        Protocol::Icmp => (1, icmp(asked, port)),
        Protocol::IcmpV6 => (58, icmp(asked, port)),
        Protocol::Ip(number) => (number, vec![0; 8]),
    };
    ip(from, to, number, [0, 0], &header)
}

pub(crate) fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    (header[12], header[13]) = (5 << 4, flags);
    header
}

pub(crate) fn with_ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat()
}

pub(crate) fn icmp(kind: u16, identifier: u16) -> Vec<u8> {
    let kind = u8::try_from(kind).expect("a type");
    [&[kind, 0, 0, 0][..], &identifier.to_be_bytes(), &[0; 42]].concat()
}

/// With its headers; `place`: which part of a packet it is, as IPv4 has it.
pub(crate) fn ip(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    place: [u8; 2],
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let mut bytes = vec![0; 12];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = (length + 20).to_be_bytes();
            bytes.extend([8, 0, 0x45, 0, high, low, 0, 77, place[0], place[1], 64, protocol, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = length.to_be_bytes();
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => panic!("of one family"),
    }
    bytes.extend(payload);
    bytes
}
