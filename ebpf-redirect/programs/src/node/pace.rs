//! How fast a workload may open connections: the daemon counts everybody's now and then and refuses those
//! who have too many; in between nobody takes more than a part of the room. And how much is told of it.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_ringbuf_query;
use portreeve_ebpf_common::node::Opened;

use crate::maps::{EVENTS, OPENED};

/// `BPF_RB_AVAIL_DATA`, `BPF_RB_RING_SIZE`.
const TAKEN: u64 = 0;
const SIZE: u64 = 1;

/// Counts a connection that an endpoint opens; whether it may.
#[inline(always)]
pub fn may_open(endpoint: u32, now: u64) -> bool {
    // Of whom nothing is kept, nobody has said how fast is too fast.
    let Some(opened) = OPENED.get_ptr_mut(&endpoint) else { return true };
    // SAFETY: it points into a map's value, which is not freed while the program runs.
    let opened = unsafe { &mut *opened };
    let window = Opened::window(now);
    if opened.window != window {
        // Another CPU may do so, too, and forget the few that were counted in between.
        opened.window = window;
        opened.count = 0;
    }
    // SAFETY: as above. What the addition returns is not what was there: the instruction does not fetch it.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut opened.count, 1);
        read_volatile(&raw const opened.count) <= read_volatile(&raw const opened.limit)
    }
}

/// Counts an event of an endpoint; whether it may be told: where little room is left, nobody takes all of it.
#[inline(always)]
pub fn may_tell(endpoint: u32, now: u64) -> bool {
    let Some(opened) = OPENED.get_ptr_mut(&endpoint) else { return true };
    // SAFETY: it points into a map's value, which is not freed while the program runs.
    let opened = unsafe { &mut *opened };
    let window = Opened::window(now);
    if opened.told_window != window {
        opened.told_window = window;
        opened.told = 0;
    }
    // SAFETY: as above, in `may_open`.
    let told = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut opened.told, 1);
        read_volatile(&raw const opened.told)
    };
    told <= Opened::SHARE_OF_EVENTS || !is_half_full()
}

#[inline(always)]
fn is_half_full() -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the map is a ring buffer, and the helper only reads what it says of itself.
    unsafe { bpf_ringbuf_query(ring, TAKEN) > bpf_ringbuf_query(ring, SIZE) / 2 }
}
