//! Events and counters. What finds no room is counted, too.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use portreeve_ebpf_common::{Counter, Direction, Endpoint, Event, EventKind, EventReason};

use crate::judge::Judged;
use crate::maps::{COUNTERS, EVENTS};

/// Counts one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(counted) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's, and a program is not interrupted by itself.
        unsafe { *counted += 1 }
    }
}

/// Counts one in a program that others of its kind can interrupt: one that a system call runs.
#[inline(always)]
pub fn count_shared(counter: Counter) {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    if let Some(counted) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: it points into a map's value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counted, 1) };
    }
}

/// Who talks to whom.
pub struct Parties {
    pub cookie: u64,
    pub direction: Direction,
    pub protocol: u8,
    pub source: Endpoint,
    pub asked: Endpoint,
    pub destination: Endpoint,
}

/// Tells of something.
#[inline(always)]
pub fn tell(kind: EventKind, reason: EventReason, parties: &Parties, judged: &Judged) {
    let Some(mut room) = EVENTS.reserve(0) else {
        count(Counter::EventsLost);
        return;
    };
    room.write(Event {
        // SAFETY: the helper takes nothing.
        time: unsafe { bpf_ktime_get_ns() },
        cookie: parties.cookie,
        kind: kind as u8,
        reason: reason as u8,
        direction: parties.direction as u8,
        protocol: parties.protocol,
        revision: judged.revision,
        identity: judged.identity,
        rule: judged.rule,
        source: parties.source,
        asked: parties.asked,
        destination: parties.destination,
        pad: 0,
    });
    room.submit(0);
}

/// Tells of a refusal, and counts it.
#[inline(always)]
pub fn refuse(reason: EventReason, parties: &Parties, judged: &Judged) {
    count(match parties.direction {
        Direction::Egress => Counter::EgressDenied,
        Direction::Ingress => Counter::IngressDenied,
    });
    if reason as u8 == EventReason::MapFull as u8 {
        count(Counter::MapFull);
    }
    tell(EventKind::Denied, reason, parties, judged);
}
