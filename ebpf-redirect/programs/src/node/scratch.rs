//! Where a program puts what it finds out about a packet: in a map, one place for each CPU. Of what is on
//! the stack, the verifier tries all that it can be; of what is in a map, it knows nothing, and is done
//! sooner. A program is not interrupted by another of its kind, and none calls another.

use portreeve_ebpf_common::node::{EndpointEntry, TrackKey};

use crate::answer::Room;
use crate::balance::Balancing;
use crate::judge::Judged;
use crate::maps::SCRATCH;
use crate::packet::{Packet, copy, put};

/// What a program has for itself.
#[repr(C)]
pub struct Scratch {
    pub packet: Packet,
    pub key: TrackKey,
    pub judged: Judged,
    pub balancing: Balancing,
    pub room: Room,
}

/// A place in the map.
#[repr(C)]
pub struct Place {
    scratch: Scratch,
    endpoint: EndpointEntry,
    pad: u32,
}

/// Bytes of it that the loader expects.
const _: () = assert!(size_of::<Place>() == 552);

/// This CPU's.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    place().map(|place| &mut place.scratch)
}

/// This CPU's, and in it whose interface it is.
#[inline(always)]
pub fn scratch_of(found: &EndpointEntry) -> Option<(&'static EndpointEntry, &'static mut Scratch)> {
    let Place { scratch, endpoint, .. } = place()?;
    for (to, from) in endpoint.addresses.iter_mut().zip(&found.addresses) {
        copy(to, from);
    }
    put(&mut endpoint.endpoint, found.endpoint);
    put(&mut endpoint.flags, found.flags);
    put(&mut endpoint.revision, found.revision);
    Some((endpoint, scratch))
}

#[inline(always)]
fn place() -> Option<&'static mut Place> {
    let place = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: see above.
    let place = unsafe { &mut *place };
    place.scratch.packet.begin();
    place.scratch.judged.begin();
    Some(place)
}
