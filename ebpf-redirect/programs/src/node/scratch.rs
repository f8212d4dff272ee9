//! Where a program puts what it finds out about a packet: in a map, one place for each CPU. Of what is on
//! the stack, the verifier tries all that it can be; of what is in a map, it knows nothing, and is done
//! sooner. A program is not interrupted by another of its kind, and none calls another.

use portreeve_ebpf_common::node::TrackKey;

use crate::answer::Room;
use crate::balance::Balancing;
use crate::judge::Judged;
use crate::maps::SCRATCH;
use crate::packet::Packet;

/// What a program has for itself.
#[repr(C)]
pub struct Scratch {
    pub packet: Packet,
    pub key: TrackKey,
    pub judged: Judged,
    pub balancing: Balancing,
    pub room: Room,
}

/// Bytes of it that the loader expects.
const _: () = assert!(size_of::<Scratch>() == 504);

/// This CPU's.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: see above.
    let scratch = unsafe { &mut *scratch };
    scratch.packet.begin();
    scratch.judged.begin();
    Some(scratch)
}
