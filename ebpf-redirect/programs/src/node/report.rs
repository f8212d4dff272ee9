//! Events and counters. What finds no room is counted, too.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use portreeve_ebpf_common::node::{NodeEvent, NodeEventKind, Reason};
use portreeve_ebpf_common::{Direction, Endpoint};

use crate::judge::Judged;
use crate::maps::{COUNTERS, EVENTS};
use crate::pace::may_tell;
use crate::packet::Packet;

/// Counts one.
#[inline(always)]
pub fn count(reason: Reason, direction: Direction) {
    if let Some(counted) = COUNTERS.get_ptr_mut(reason.counter(direction)) {
        // SAFETY: the slot is this CPU's, and a program is not interrupted by another of its kind.
        unsafe { *counted += 1 }
    }
}

/// Tells of a packet.
#[inline(always)]
pub fn tell(
    kind: NodeEventKind,
    reason: Reason,
    direction: Direction,
    endpoint: u32,
    packet: &Packet,
    judged: &Judged,
) {
    // SAFETY: the helper takes nothing.
    let time = unsafe { bpf_ktime_get_ns() };
    let room = if may_tell(endpoint, time) { EVENTS.reserve(0) } else { None };
    let Some(mut room) = room else {
        count(Reason::EventLost, direction);
        return;
    };
    room.write(NodeEvent {
        time,
        endpoint,
        kind: kind as u8,
        reason: reason as u8,
        direction: direction as u8,
        protocol: packet.protocol,
        revision: judged.revision,
        identity: judged.identity,
        rule: judged.rule,
        source: Endpoint::new(packet.source, packet.source_port),
        destination: Endpoint::new(packet.destination, packet.destination_port),
        pad: 0,
    });
    room.submit(0);
}
