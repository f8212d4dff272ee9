//! How fast a workload may open connections: the daemon counts everybody's now and then and refuses those
//! who have too many; in between nobody takes more than a part of the room.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::read_volatile;

use portreeve_ebpf_common::node::Opened;

use crate::maps::OPENED;

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
