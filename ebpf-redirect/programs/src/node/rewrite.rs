//! Addresses and ports of a packet that become others, and the checksums with them: they change by what
//! differs, so that what was wrong before stays wrong.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::Address;
use portreeve_ebpf_common::node::{Ends, Reason, Translation, protocol};

use crate::packet::{Packet, address, load, word};

const LINK: u32 = crate::packet::LINK as u32;
/// `BPF_F_PSEUDO_HDR`: what changes is in the pseudo-header, too.
const PSEUDO: u64 = 16;
/// `BPF_F_MARK_MANGLED_0`: 0 is no checksum, and stays so (UDP).
const MANGLED: u64 = 32;
/// `BPF_F_IPV6`: of an address without a checksum of its own. Linux 6.16.
const OF_IPV6: u64 = 128;

/// Where checksums are that cover a change; 0: there is none.
#[derive(Clone, Copy)]
struct Sums {
    /// IPv4's own.
    header: u32,
    /// That of what the packet carries, and how it is changed.
    payload: u32,
    flags: u64,
}

/// Gives a packet with some ends others.
#[inline(always)]
pub fn rewrite(
    context: &TcContext,
    packet: &Packet,
    from: &Ends,
    to: &Translation,
) -> Result<(), Reason> {
    let payload = match packet.protocol {
        _ if !packet.is_first() => 0,
        protocol::UDP => packet.at + 6,
        _ => packet.at + 16,
    };
    // Of TCP, 0 is a sum as any other.
    let zero = if packet.protocol == protocol::UDP { MANGLED } else { 0 };
    let sums = Sums { header: LINK + 10, payload, flags: PSEUDO | zero };
    let (source, destination) = places(packet.v4, LINK);
    turn(context, packet.v4, source, sums, &from.source.address, &to.source.address)?;
    let (before, after) = (&from.destination.address, &to.destination.address);
    turn(context, packet.v4, destination, sums, before, after)?;
    if payload != 0 {
        let sums = Sums { flags: zero, ..sums };
        port(context, packet.at, sums, from.source.port, to.source.port)?;
        port(context, packet.at + 2, sums, from.destination.port, to.destination.port)?;
    }
    Ok(())
}

/// Writes down the ends of what would answer the packet that an ICMP error cites, in `ends`; where the
/// cited header is, and its ports. `None`: it can't be read, or has no ports.
#[inline(always)]
pub fn cited(
    context: &TcContext,
    packet: &Packet,
    ends: &mut Ends,
    scope: u32,
) -> Option<(u32, u32)> {
    let at = packet.at + 8;
    let (mut long, mut short, mut ports) =
        (MaybeUninit::uninit(), MaybeUninit::uninit(), MaybeUninit::uninit());
    let ports_at;
    if packet.v4 {
        let header = load::<20>(context, at as usize, &mut short).ok()?;
        ends.destination.address = Address::v4(word(header, 12));
        ends.source.address = Address::v4(word(header, 16));
        ends.protocol = header[9] as u32;
        ports_at = at + (header[0] & 15) as u32 * 4;
    } else {
        let header = load::<40>(context, at as usize, &mut long).ok()?;
        ends.destination.address = address(header, 8);
        ends.source.address = address(header, 24);
        ends.protocol = header[6] as u32;
        ports_at = at + 40;
    }
    if !matches!(ends.protocol as u8, protocol::TCP | protocol::UDP) {
        return None;
    }
    let header = load::<4>(context, ports_at as usize, &mut ports).ok()?;
    ends.destination.port = u16::from_be_bytes([header[0], header[1]]) as u32;
    ends.source.port = u16::from_be_bytes([header[2], header[3]]) as u32;
    ends.scope = scope;
    Some((at, ports_at))
}

/// Has an ICMP error cite what its receiver has sent. `from` is as [`cited`] has it, and `to` is what
/// becomes of such an answer; so the ends change places.
#[inline(always)]
pub fn rewrite_cited(
    context: &TcContext,
    packet: &Packet,
    (header, ports): (u32, u32),
    from: &Ends,
    to: &Translation,
) -> Result<(), Reason> {
    let sum = packet.at + 2;
    let v4 = packet.v4;
    // IPv4's header with its checksum adds up to the same, whatever its addresses are.
    let inner = match v4 {
        true => Sums { header: header + 10, payload: 0, flags: 0 },
        false => Sums { header: 0, payload: sum, flags: 0 },
    };
    let (source, destination) = places(v4, header);
    turn(context, v4, source, inner, &from.destination.address, &to.destination.address)?;
    turn(context, v4, destination, inner, &from.source.address, &to.source.address)?;
    let sums = Sums { header: 0, payload: sum, flags: 0 };
    port(context, ports, sums, from.destination.port, to.destination.port)?;
    port(context, ports + 2, sums, from.source.port, to.source.port)?;
    let outer = match v4 {
        true => Sums { header: LINK + 10, payload: 0, flags: 0 },
        false => Sums { header: 0, payload: sum, flags: PSEUDO },
    };
    let (source, destination) = places(v4, LINK);
    if packet.source == from.source.address {
        turn(context, v4, source, outer, &from.source.address, &to.source.address)?;
    }
    if packet.destination == from.destination.address {
        let (before, after) = (&from.destination.address, &to.destination.address);
        turn(context, v4, destination, outer, before, after)?;
    }
    Ok(())
}

/// Where addresses are in a header.
#[inline(always)]
const fn places(v4: bool, header: u32) -> (u32, u32) {
    if v4 { (header + 12, header + 16) } else { (header + 8, header + 24) }
}

/// One address.
#[inline(always)]
fn turn(
    context: &TcContext,
    v4: bool,
    place: u32,
    sums: Sums,
    from: &Address,
    to: &Address,
) -> Result<(), Reason> {
    if from == to {
        return Ok(());
    }
    let (skb, sum) = (context.skb.skb, sums.payload);
    // SAFETY: the addresses have as many bytes as is said.
    let failed = unsafe {
        if v4 {
            let (before, after) = (from.0[3] as u64, to.0[3] as u64);
            if sum != 0 && bpf_l4_csum_replace(skb, sum, before, after, sums.flags | 4) != 0 {
                return Err(Reason::Malformed);
            }
            if bpf_l3_csum_replace(skb, sums.header, before, after, 4) != 0 {
                return Err(Reason::Malformed);
            }
            bpf_skb_store_bytes(skb, place, (&raw const to.0[3]).cast(), 4, 0)
        } else {
            let (before, after) = ((&raw const from.0).cast_mut(), (&raw const to.0).cast_mut());
            let differs = bpf_csum_diff(before.cast(), 16, after.cast(), 16, 0) as u64;
            if sum != 0
                && bpf_l4_csum_replace(skb, sum, 0, differs, sums.flags | OF_IPV6) != 0
                && bpf_l4_csum_replace(skb, sum, 0, differs, sums.flags) != 0
            {
                return Err(Reason::Malformed);
            }
            bpf_skb_store_bytes(skb, place, after.cast(), 16, 0)
        }
    };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}

#[inline(always)]
fn port(context: &TcContext, place: u32, sums: Sums, from: u32, to: u32) -> Result<(), Reason> {
    if from == to {
        return Ok(());
    }
    let (before, after) = ((from as u16).to_be(), (to as u16).to_be());
    let skb = context.skb.skb;
    // SAFETY: there are as many bytes.
    let failed = unsafe {
        let (before, flags) = (before as u64, sums.flags | 2);
        if bpf_l4_csum_replace(skb, sums.payload, before, after as u64, flags) != 0 {
            return Err(Reason::Malformed);
        }
        bpf_skb_store_bytes(skb, place, (&raw const after).cast(), 2, 0)
    };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}
