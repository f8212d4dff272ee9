//! Refusals that are told: the packet itself becomes the answer, and goes back where it came from.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::Direction;
use portreeve_ebpf_common::node::{Reason, mark, protocol, tcp};

use crate::packet::{Packet, load};
use crate::proxy::set_mark;

/// Answers a packet: TCP by a reset, others by "administratively prohibited". What the program returns.
///
/// Those with options or extension headers, and fragments, are dropped without an answer; as are resets,
/// errors, and what goes to many.
#[inline(always)]
pub fn answer(
    context: &TcContext,
    packet: &Packet,
    way: Direction,
    room: &mut Room,
) -> Result<i32, Reason> {
    const PLAIN: Reason = Reason::Malformed;
    let plain = packet.at == if packet.v4 { LINK + 20 } else { LINK + 40 };
    let first = packet.destination.to_bytes();
    let to_many = if packet.v4 { first[12] >= 224 } else { first[0] == 0xff };
    if !plain || packet.fragment || to_many || packet.is_icmp_error() {
        return Err(PLAIN);
    }
    match (packet.protocol, packet.v4) {
        (protocol::TCP, _) if packet.flags & tcp::RST != 0 => return Err(PLAIN),
        (protocol::TCP, true) => reset_v4(context, room)?,
        (protocol::TCP, false) => reset_v6(context, room)?,
        (_, true) => prohibited_v4(context, room)?,
        (_, false) => prohibited_v6(context, room)?,
    }
    turn_round(context)?;
    set_mark(context, mark::ANSWER);
    let flags = match way {
        Direction::Egress => 0,
        // As if the workload had sent it.
        Direction::Ingress => BPF_F_INGRESS,
    };
    // SAFETY: the helper takes numbers.
    Ok(unsafe { bpf_redirect((*context.skb.skb).ifindex, flags) as i32 })
}

/// Where an answer is made: it is more than a program's stack has left.
#[repr(C)]
pub struct Room {
    /// What is answered, from its IP header on.
    cited: [u8; 48],
    /// A header of IPv6.
    long: [u8; 40],
    /// What a checksum covers besides what is sent.
    pseudo: [u8; 40],
    /// A header of IPv4.
    short: [u8; 20],
    /// A header of TCP.
    segment: [u8; 20],
}

/// Swaps the addresses of the link.
#[inline(always)]
pub fn turn_round(context: &TcContext) -> Result<(), Reason> {
    let mut ends = MaybeUninit::uninit();
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *load::<12>(context, 0, &mut ends)?;
    store(context, 0, &[g, h, i, j, k, l, a, b, c, d, e, f])
}

#[inline(always)]
fn reset_v4(context: &TcContext, room: &mut Room) -> Result<(), Reason> {
    // It may end here: 20 bytes each.
    load_into(context, LINK, &mut room.short)?;
    load_into(context, LINK + 20, &mut room.segment)?;
    room.cited[..20].copy_from_slice(&room.short);
    let length = u16::from_be_bytes([room.short[2], room.short[3]]) as u32;
    room.segment = reset(&room.segment, length.wrapping_sub(20));
    let partial = is_partial(context, LINK + 20 + 16)?;
    shorten(context, LINK + 40)?;
    head_v4(context, room, 40, protocol::TCP)?;
    room.pseudo = [0; 40];
    room.pseudo[..8].copy_from_slice(&room.short[12..]);
    (room.pseudo[9], room.pseudo[11]) = (protocol::TCP, 20);
    store_segment(context, room, LINK + 20, partial)
}

#[inline(always)]
fn reset_v6(context: &TcContext, room: &mut Room) -> Result<(), Reason> {
    load_into(context, LINK + 40, &mut room.short)?;
    load_into(context, LINK, &mut room.cited)?;
    let length = u16::from_be_bytes([room.cited[4], room.cited[5]]) as u32;
    room.segment = reset(&room.short, length);
    let partial = is_partial(context, LINK + 40 + 16)?;
    shorten(context, LINK + 60)?;
    head_v6(context, room, 20, protocol::TCP)?;
    store_segment(context, room, LINK + 40, partial)
}

/// Writes the header of an answer over IPv4, to who has sent what is cited.
#[inline(always)]
fn head_v4(context: &TcContext, room: &mut Room, length: u8, number: u8) -> Result<(), Reason> {
    room.short = [0x45, 0, 0, length, 0, 0, 0x40, 0, 64, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    room.short[12..16].copy_from_slice(&room.cited[16..20]);
    room.short[16..].copy_from_slice(&room.cited[12..16]);
    let [high, low] = complement(fold(add(&room.short, 0))).to_ne_bytes();
    (room.short[10], room.short[11]) = (high, low);
    store(context, LINK, &room.short)
}

/// The same over IPv6; the pseudo-header is prepared, too.
#[inline(always)]
fn head_v6(context: &TcContext, room: &mut Room, length: u8, number: u8) -> Result<(), Reason> {
    room.long = [0; 40];
    (room.long[0], room.long[5], room.long[6], room.long[7]) = (0x60, length, number, 64);
    room.long[8..24].copy_from_slice(&room.cited[24..40]);
    room.long[24..].copy_from_slice(&room.cited[8..24]);
    room.pseudo = [0; 40];
    room.pseudo[..32].copy_from_slice(&room.long[8..]);
    (room.pseudo[35], room.pseudo[39]) = (length, number);
    store(context, LINK, &room.long)
}

/// The reset that answers a segment of so many bytes (RFC 9293, 3.10.7.1).
#[inline(always)]
fn reset(segment: &[u8; 20], length: u32) -> [u8; 20] {
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, words, flags, ..] = *segment;
    let (sequence, acknowledged, flags) = match flags & tcp::ACK {
        0 => {
            let data = length.wrapping_sub((words >> 4) as u32 * 4);
            let counted = data + (flags & tcp::SYN != 0) as u32 + (flags & tcp::FIN != 0) as u32;
            let next = u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(counted);
            ([0; 4], next.to_be_bytes(), tcp::RST | tcp::ACK)
        }
        _ => ([a0, a1, a2, a3], [0; 4], tcp::RST),
    };
    let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (sequence, acknowledged);
    [d0, d1, s0, s1, q0, q1, q2, q3, a0, a1, a2, a3, 5 << 4, flags, 0, 0, 0, 0, 0, 0]
}

#[inline(always)]
fn store_segment(
    context: &TcContext,
    room: &mut Room,
    at: u32,
    partial: bool,
) -> Result<(), Reason> {
    let pseudo = add(&room.pseudo, 0);
    let sum = match partial {
        // The rest is added by whoever sends it out, if it is ever sent out.
        true => fold(pseudo),
        false => complement(fold(add(&room.segment, pseudo))),
    };
    let [high, low] = sum.to_ne_bytes();
    (room.segment[16], room.segment[17]) = (high, low);
    store(context, at, &room.segment)
}

#[inline(always)]
fn prohibited_v4(context: &TcContext, room: &mut Room) -> Result<(), Reason> {
    /// The packet's header and 8 bytes more (RFC 792).
    const CITED: u32 = 28;
    shorten(context, LINK + CITED)?;
    room.cited = [0; 48];
    let mut bytes = MaybeUninit::uninit();
    let bytes = load::<{ CITED as usize }>(context, LINK as usize, &mut bytes)?;
    room.cited[..CITED as usize].copy_from_slice(bytes);
    grow(context, CITED as i32)?;
    head_v4(context, room, 56, protocol::ICMP)?;
    store_message(context, [3, 13], add(&room.cited, 0), LINK + 20)
}

#[inline(always)]
fn prohibited_v6(context: &TcContext, room: &mut Room) -> Result<(), Reason> {
    const CITED: u32 = 48;
    shorten(context, LINK + CITED)?;
    load_into(context, LINK, &mut room.cited)?;
    grow(context, CITED as i32)?;
    head_v6(context, room, 56, protocol::ICMPV6)?;
    store_message(context, [1, 1], add(&room.cited, add(&room.pseudo, 0)), LINK + 40)
}

/// Writes the message's own header; `sum` is of all that its checksum covers besides.
#[inline(always)]
fn store_message(
    context: &TcContext,
    [kind, code]: [u8; 2],
    sum: u32,
    at: u32,
) -> Result<(), Reason> {
    let mut message = [kind, code, 0, 0, 0, 0, 0, 0];
    let [high, low] = complement(fold(add(&message, sum))).to_ne_bytes();
    (message[2], message[3]) = (high, low);
    store(context, at, &message)
}

/// Whether the checksum is yet to be completed by a device: then changes of anything but the
/// pseudo-header leave it as it is.
#[inline(always)]
fn is_partial(context: &TcContext, at: u32) -> Result<bool, Reason> {
    let (mut before, mut after) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let before: &[u8; 2] = load(context, at as usize, &mut before)?;
    // SAFETY: the helper takes numbers.
    let failed = unsafe { bpf_l4_csum_replace(skb(context), at, 0, 0x1234, 2) };
    if failed != 0 {
        return Err(Reason::Malformed);
    }
    Ok(before == load::<2>(context, at as usize, &mut after)?)
}

#[inline(always)]
fn load_into<const N: usize>(
    context: &TcContext,
    at: u32,
    bytes: &mut [u8; N],
) -> Result<(), Reason> {
    // SAFETY: there is room for as many.
    let failed =
        unsafe { bpf_skb_load_bytes(skb(context).cast(), at, bytes.as_mut_ptr().cast(), N as u32) };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}

#[inline(always)]
fn shorten(context: &TcContext, length: u32) -> Result<(), Reason> {
    // SAFETY: the helper takes numbers.
    let failed = unsafe { bpf_skb_change_tail(skb(context), length, 0) };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}

/// Makes room between the link's header and IP's.
#[inline(always)]
fn grow(context: &TcContext, by: i32) -> Result<(), Reason> {
    const BPF_ADJ_ROOM_MAC: u32 = 1;
    // SAFETY: the helper takes numbers.
    let failed = unsafe { bpf_skb_adjust_room(skb(context), by, BPF_ADJ_ROOM_MAC, 0) };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}

#[inline(always)]
fn store<const N: usize>(context: &TcContext, at: u32, bytes: &[u8; N]) -> Result<(), Reason> {
    const BPF_F_RECOMPUTE_CSUM: u64 = 1;
    // SAFETY: there are as many bytes.
    let failed = unsafe {
        let from = bytes.as_ptr().cast();
        bpf_skb_store_bytes(skb(context), at, from, N as u32, BPF_F_RECOMPUTE_CSUM)
    };
    if failed == 0 { Ok(()) } else { Err(Reason::Malformed) }
}

#[inline(always)]
fn skb(context: &TcContext) -> *mut __sk_buff {
    context.skb.skb
}

/// Adds bytes, a multiple of 4 of them, to a sum.
#[inline(always)]
fn add<const N: usize>(bytes: &[u8; N], sum: u32) -> u32 {
    const { assert!(N % 4 == 0) };
    // SAFETY: there are as many bytes.
    unsafe {
        let from = bytes.as_ptr().cast_mut().cast();
        bpf_csum_diff(core::ptr::null_mut(), 0, from, N as u32, sum) as u32
    }
}

#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
fn complement(sum: u16) -> u16 {
    !sum
}

const LINK: u32 = crate::packet::LINK as u32;
const BPF_F_INGRESS: u64 = 1;
