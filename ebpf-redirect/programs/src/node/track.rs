//! Connections: found, made, and gone on with.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{Leg, TrackKey, Tracked, protocol};
use portreeve_ebpf_common::{Address, Direction};

use crate::judge::Judged;
use crate::maps::TRACKED;
use crate::packet::{Packet, address, load, word};

/// Now, on the monotonic clock, to some milliseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Makes of `key` the connection that a packet belongs to, or would open.
#[inline(always)]
pub fn name(key: &mut TrackKey, endpoint: u32, way: Direction, packet: &Packet) {
    let icmp = matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6);
    let (to, from) = match icmp {
        // An echo's request and its reply have but their identifier in common.
        true => (0, packet.source_port),
        false => (packet.destination_port, packet.source_port),
    };
    let (local, remote, local_port, remote_port) = match way {
        Direction::Egress => (packet.source, packet.destination, from, to),
        Direction::Ingress if icmp => (packet.destination, packet.source, from, to),
        Direction::Ingress => (packet.destination, packet.source, to, from),
    };
    (key.local, key.remote) = (local, remote);
    (key.local_port, key.remote_port) = (local_port, remote_port);
    key.endpoint = endpoint;
    key.protocol = packet.protocol;
    key.leg = Leg::Peer as u8;
    key.pad = 0;
}

/// What is known of a connection.
#[inline(always)]
pub fn find(key: &TrackKey, now: u64) -> Option<&'static mut Tracked> {
    let tracked = TRACKED.get_ptr_mut(key)?;
    // SAFETY: it points into a map's value, which is not freed while the program runs. Others may write
    // to it meanwhile: each word is one of those that were written.
    let tracked = unsafe { &mut *tracked };
    tracked.is_alive(now, key.protocol).then_some(tracked)
}

/// Keeps a connection; whether there was room for it.
#[inline(always)]
pub fn open(
    key: &TrackKey,
    state: u32,
    now: u64,
    bytes: u64,
    way: Direction,
    judged: &Judged,
) -> bool {
    let (out, back) = match way {
        Direction::Egress => (1, 0),
        Direction::Ingress => (0, 1),
    };
    let tracked = Tracked {
        since: now,
        seen: now,
        packets: [out, back],
        bytes: [out * bytes, back * bytes],
        state,
        revision: judged.revision,
        rule: judged.rule,
        identity: judged.identity,
    };
    TRACKED.insert(key, &tracked, 0).is_ok()
}

/// Another packet of a connection.
#[inline(always)]
pub fn go_on(tracked: &mut Tracked, now: u64, packet: &Packet, bytes: u64, way: Direction) {
    if tracked.seen != now {
        tracked.seen = now;
    }
    let after = tracked.after(way, packet.flags);
    if after != tracked.state {
        tracked.state = after;
    }
    let (packets, bytes_so_far) = match way {
        Direction::Egress => (&raw mut tracked.packets[0], &raw mut tracked.bytes[0]),
        Direction::Ingress => (&raw mut tracked.packets[1], &raw mut tracked.bytes[1]),
    };
    // SAFETY: both point into a map's value.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(packets, 1);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(bytes_so_far, bytes);
    }
}

/// Makes of `key` the connection of the packet that an ICMP error contains; whether it can be read.
#[inline(always)]
pub fn contained(context: &TcContext, way: Direction, error: &Packet, key: &mut TrackKey) -> bool {
    let at = error.at as usize + 8;
    let (mut long, mut short, mut ports) =
        (MaybeUninit::uninit(), MaybeUninit::uninit(), MaybeUninit::uninit());
    let (source, destination, ports_at);
    if error.v4 {
        let Ok(header) = load::<20>(context, at, &mut short) else { return false };
        (source, destination) = (Address::v4(word(header, 12)), Address::v4(word(header, 16)));
        key.protocol = header[9];
        ports_at = at + (header[0] & 15) as usize * 4;
    } else {
        let Ok(header) = load::<40>(context, at, &mut long) else { return false };
        (source, destination) = (address(header, 8), address(header, 24));
        key.protocol = header[6];
        ports_at = at + 40;
    }
    if error.destination != source {
        // Who hears of a packet is who has sent it. Else whatever is said could be sent to anybody.
        return false;
    }
    let Ok(header) = load::<8>(context, ports_at, &mut ports) else { return false };
    let icmp = matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
    let (from, to) = match icmp {
        true => (u16::from_be_bytes([header[4], header[5]]), 0),
        false => {
            let from = u16::from_be_bytes([header[0], header[1]]);
            (from, u16::from_be_bytes([header[2], header[3]]))
        }
    };
    // What it contains went the other way.
    if way as u8 == Direction::Ingress as u8 {
        (key.local, key.remote) = (source, destination);
        (key.local_port, key.remote_port) = (from, to);
    } else {
        (key.local, key.remote) = (destination, source);
        (key.local_port, key.remote_port) = if icmp { (from, 0) } else { (to, from) };
    }
    true
}
