//! Addresses and ports of a packet that become others, and the checksums with them: they change by what
//! differs, so that what was wrong before stays wrong.

use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::Address;
use portreeve_ebpf_common::node::{Ends, Reason, Translation, protocol};

use crate::packet::Packet;

const LINK: u32 = 14;
/// `BPF_F_PSEUDO_HDR`: what changes is in the pseudo-header, too.
const PSEUDO: u64 = 16;
/// `BPF_F_MARK_MANGLED_0`: 0 is no checksum, and stays so (UDP).
const MANGLED: u64 = 32;
/// `BPF_F_IPV6`: of an address without a checksum of its own. Linux 6.16.
const OF_IPV6: u64 = 128;

/// Gives a packet with some ends others.
#[inline(always)]
pub fn rewrite(
    context: &TcContext,
    packet: &Packet,
    from: &Ends,
    to: &Translation,
) -> Result<(), Reason> {
    let (source, destination) = if packet.v4 { (12, 16) } else { (8, 24) };
    let sum = match packet.protocol {
        protocol::UDP => packet.at + 6,
        _ => packet.at + 16,
    };
    let sum = if packet.is_first() { sum } else { 0 };
    address(context, packet.v4, source, sum, &from.source.address, &to.source.address)?;
    let (before, after) = (&from.destination.address, &to.destination.address);
    address(context, packet.v4, destination, sum, before, after)?;
    if sum != 0 {
        port(context, packet.at, sum, from.source.port, to.source.port)?;
        port(context, packet.at + 2, sum, from.destination.port, to.destination.port)?;
    }
    Ok(())
}

/// `sum` is where the checksum of what the packet carries is; 0: not in this part of it.
#[inline(always)]
fn address(
    context: &TcContext,
    v4: bool,
    place: u32,
    sum: u32,
    from: &Address,
    to: &Address,
) -> Result<(), Reason> {
    if from == to {
        return Ok(());
    }
    let skb = context.skb.skb;
    // SAFETY: the addresses have as many bytes as is said.
    let failed = unsafe {
        if v4 {
            let (before, after) = (from.0[3] as u64, to.0[3] as u64);
            if sum != 0 && bpf_l4_csum_replace(skb, sum, before, after, PSEUDO | MANGLED | 4) != 0 {
                return Err(Reason::Malformed);
            }
            if bpf_l3_csum_replace(skb, LINK + 10, before, after, 4) != 0 {
                return Err(Reason::Malformed);
            }
            bpf_skb_store_bytes(skb, LINK + place, (&raw const to.0[3]).cast(), 4, 0)
        } else {
            let (before, after) = ((&raw const from.0).cast_mut(), (&raw const to.0).cast_mut());
            let differs = bpf_csum_diff(before.cast(), 16, after.cast(), 16, 0) as u64;
            if sum != 0
                && bpf_l4_csum_replace(skb, sum, 0, differs, PSEUDO | MANGLED | OF_IPV6) != 0
                && bpf_l4_csum_replace(skb, sum, 0, differs, PSEUDO | MANGLED) != 0
            {
                return Err(Reason::Malformed);
            }
            bpf_skb_store_bytes(skb, LINK + place, after.cast(), 16, 0)
        }
    };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}

#[inline(always)]
fn port(context: &TcContext, place: u32, sum: u32, from: u32, to: u32) -> Result<(), Reason> {
    if from == to {
        return Ok(());
    }
    let (before, after) = ((from as u16).to_be(), (to as u16).to_be());
    let skb = context.skb.skb;
    // SAFETY: there are as many bytes.
    let failed = unsafe {
        if bpf_l4_csum_replace(skb, sum, before as u64, after as u64, MANGLED | 2) != 0 {
            return Err(Reason::Malformed);
        }
        bpf_skb_store_bytes(skb, place, (&raw const after).cast(), 2, 0)
    };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}
