//! The programs by themselves (`BPF_PROG_TEST_RUN`), with a full policy and all addresses known.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use aya::programs::{Program, TestRun, TestRunOptions};
use portreeve_ebpf::node::{
    NodeCapacity, NodeKernel, NodePolicyTable, NodeSettings, endpoint_flags,
};
use portreeve_ebpf_common::node::NodePolicyKey;
use portreeve_ebpf_common::{PolicyValue, Verdict};

use crate::Failure;

/// The endpoint is on the loopback interface, where a program is that is run by itself.
const LOOPBACK: u32 = 1;
const ENDPOINT: u32 = 9;
const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PORT: u16 = 4711;
/// A timestamp request (RFC 792), which nobody keeps track of.
const MESSAGE: u8 = 13;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What programs say (`TCX_PASS`, `TCX_DROP`).
const PASS: u32 = 0;
const DROP: u32 = 2;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub enum Packet {
    /// Nobody is known behind the interface: one look, a count, and it is dropped. The least that a program
    /// does, to compare machines by.
    Nobodys,
    /// Of no connection, and never of one: the policy is asked each time. An ICMP message that is no echo.
    Judged,
    /// Sent on a connection that is tracked.
    Sent,
    /// Received on one.
    Received,
}

/// A datapath with one endpoint.
pub struct Verdicts {
    kernel: NodeKernel,
    peer: Ipv4Addr,
}

impl Verdicts {
    /// Nobody is known.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn of_nobody(bpffs: &Path) -> Result<Self, Failure> {
        Ok(Self { kernel: open(bpffs)?, peer: address(0) })
    }

    /// With a policy of so many entries, and so many addresses known: each an identity of its own, of a class
    /// of its own with a port of its own.
    ///
    /// # Errors
    /// When it does not fit, or the kernel refuses.
    pub fn new(bpffs: &Path, entries: u32, addresses: u32) -> Result<Self, Failure> {
        let kernel = open(bpffs)?;
        kernel.set_own_addresses(ENDPOINT, &[OWN.into()])?;
        kernel.attach(LOOPBACK, ENDPOINT, endpoint_flags::ENFORCED)?;
        let known =
            (0..addresses).map(|number| (IpAddr::from(address(number)).into(), 256 + number));
        kernel.sync_identities(known)?;
        // Each class has three.
        let classes = entries.div_ceil(3);
        kernel.set_policy(ENDPOINT, &table(classes))?;
        // One in the middle.
        let mut verdicts = Self { kernel, peer: address(classes.min(addresses) / 2) };
        let opens = tcp(OWN, verdicts.peer, [40_000, port_of(verdicts.peer)], SYN);
        verdicts.test("portreeve_from_workload", &opens, 1, PASS)?;
        Ok(verdicts)
    }

    /// How long a packet takes, so often in one go.
    ///
    /// # Errors
    /// When it may not pass, or may and is nobody's.
    pub fn run(&mut self, packet: Packet, repeat: u32) -> Result<Duration, Failure> {
        let name = match packet {
            Packet::Received => "portreeve_to_workload",
            Packet::Nobodys | Packet::Judged | Packet::Sent => "portreeve_from_workload",
        };
        let (own, peer) = (OWN, self.peer);
        let port = port_of(self.peer);
        let bytes = match packet {
            Packet::Judged => ipv4(own, peer, 1, &[MESSAGE, 0, 0, 0, 0, 0, 0, 0]),
            Packet::Nobodys | Packet::Sent => tcp(own, peer, [40_000, port], ACK),
            Packet::Received => tcp(peer, own, [port, 40_000], ACK),
        };
        let expected = if matches!(packet, Packet::Nobodys) { DROP } else { PASS };
        self.test(name, &bytes, repeat, expected)
    }

    fn test(
        &mut self,
        name: &str,
        bytes: &[u8],
        repeat: u32,
        expected: u32,
    ) -> Result<Duration, Failure> {
        let Some(Program::SchedClassifier(program)) = self.kernel.program(name) else {
            return Err(format!("no program `{name}`").into());
        };
        let options = TestRunOptions { data_in: Some(bytes), repeat, ..TestRunOptions::default() };
        let result = program.test_run(options)?;
        match result.return_value {
            said if said == expected => Ok(result.duration),
            other => Err(format!("`{name}` says {other} of {bytes:x?}").into()),
        }
    }
}

fn open(bpffs: &Path) -> Result<NodeKernel, Failure> {
    let instance = "verdict".parse()?;
    let capacity = NodeCapacity::default();
    Ok(NodeKernel::open(&NodeSettings { instance, bpffs: bpffs.to_owned(), capacity })?)
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + number)
}

fn port_of(peer: Ipv4Addr) -> u16 {
    port(u32::from(peer) - 0x0a00_0000)
}

fn port(number: u32) -> u16 {
    PORT + u16::try_from(number % 50_000).unwrap_or_default()
}

fn table(classes: u32) -> NodePolicyTable {
    const INGRESS: u32 = 1 << 31;
    let identities = (256..256 + classes).map(|class| {
        (NodePolicyKey::identity(class), PolicyValue::identity(class, class, INGRESS | class))
    });
    let entry = |number: u32, protocol, port| {
        let key = NodePolicyKey::port(256 + number, protocol, port, 16);
        (key, PolicyValue::verdict(Verdict::Allow, 1))
    };
    let ports = (0..classes).flat_map(|n| [entry(n, 6, port(n)), entry(n, 1, u16::from(MESSAGE))]);
    let header = (NodePolicyKey::HEADER, PolicyValue::header(1, true, true));
    [header].into_iter().chain(identities).chain(ports).collect()
}

fn tcp(from: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], flags: u8) -> Vec<u8> {
    let mut header: Vec<u8> = ports.into_iter().flat_map(u16::to_be_bytes).collect();
    header.extend([0; 8]);
    header.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    ipv4(from, to, 6, &header)
}

/// An Ethernet frame with headers and nothing behind them.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, header: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let length = 20 + u8::try_from(header.len()).unwrap_or_default();
    frame.extend([8, 0, 0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(header);
    frame
}
