//! Ports that a client uses again while the proxy's end of the connection before still waits (TIME_WAIT,
//! RFC 9293 §3.6.1). A first packet given to the listening socket would be lost then: what it opens has
//! the waiting socket's ends. The kernel knows how to end such a wait, and asks who listens at the
//! destination when it does: that is answered here.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{bpf_sk_lookup, sk_action};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use portreeve_ebpf_common::node::{Ends, protocol, scope};
use portreeve_ebpf_common::{Endpoint, ListenerSlot};

use crate::lookup::{local, remote};
use crate::maps::{LISTENERS, WAITING};
use crate::packet::Packet;

/// Who listens, asked for whatever belongs to no connection of this host: all but those that were
/// remembered find it as if nobody had asked here.
#[sk_lookup]
#[inline(always)]
pub fn portreeve_again(context: SkLookupContext) -> u32 {
    let ends = ends_asked(context.lookup);
    // SAFETY: only looked at.
    let Some(slot) = (unsafe { WAITING.get(&ends) }).copied() else { return sk_action::SK_PASS };
    let _ = WAITING.remove(&ends);
    match LISTENERS.redirect_sk_lookup(&context, slot, 0) {
        Ok(()) => sk_action::SK_PASS,
        Err(_) => sk_action::SK_DROP,
    }
}

/// Remembers whose listening socket gets a connection whose ends another still has.
#[inline(always)]
pub fn remember(packet: &Packet, slot: ListenerSlot) -> Result<(), i32> {
    let ends = Ends {
        source: Endpoint::new(packet.source, packet.source_port),
        destination: Endpoint::new(packet.destination, packet.destination_port),
        scope: scope::FROM_OUTSIDE,
        protocol: protocol::TCP as u32,
    };
    WAITING.insert(&ends, &(slot as u32), 0)
}

#[inline(always)]
fn ends_asked(lookup: *mut bpf_sk_lookup) -> Ends {
    // SAFETY: the context lives as long as the program runs.
    let protocol = unsafe { read_volatile(&raw const (*lookup).protocol) };
    Ends {
        source: remote(lookup),
        destination: local(lookup),
        scope: scope::FROM_OUTSIDE,
        protocol,
    }
}
