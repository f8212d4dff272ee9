//! Packets for the proxy: its sockets have other hosts' addresses, so that the mark leads them to a
//! local route, and the first packet of a connection is given to the listening socket.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_map_lookup_elem, bpf_redirect, bpf_sk_assign, bpf_sk_release, bpf_skc_lookup_tcp,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{Reason, mark, protocol};
use portreeve_ebpf_common::{Address, Direction, ListenerSlot};

use crate::maps::{CONFIG, LISTENERS};
use crate::packet::{Packet, Role, read};
use crate::report::count;
use crate::scratch::scratch;
use crate::waiting::remember;
use crate::workload::{DROP, PASS};

/// `PACKET_HOST`: it is for us, whatever its destination on the link.
pub const TO_HOST: u32 = 0;
const BPF_F_INGRESS: u64 = 1;
const BPF_F_CURRENT_NETNS: u64 = u64::MAX;
/// `TCP_LISTEN`
const LISTENING: u32 = 10;
/// `TCP_TIME_WAIT`
const WAITING: u32 = 6;

/// The ingress of the device that takes what was on its way to a workload, for on egress no socket can be
/// assigned; and what a bridge would have sent past the host.
#[classifier]
#[inline(always)]
pub fn portreeve_to_proxy(context: TcContext) -> i32 {
    let way = match mark_of(&context) {
        mark::TO_PROXY => Direction::Ingress,
        mark::FROM_BRIDGE => Direction::Egress,
        _ => return DROP,
    };
    let _ = context.change_type(TO_HOST);
    let Some(scratch) = scratch() else { return DROP };
    let packet = &mut scratch.packet;
    let handed = read(&context, 0, packet).and_then(|()| hand_over(&context, packet, way));
    match handed {
        Ok(()) => PASS,
        Err(reason) => {
            count(reason, way);
            DROP
        }
    }
}

/// Whether a packet on ingress is for this host, or to be routed by it. A bridge has others.
#[inline(always)]
pub fn is_for_host(context: &TcContext) -> bool {
    // SAFETY: the context lives as long as the program runs.
    unsafe { read_volatile(&raw const (*context.skb.skb).pkt_type) == TO_HOST }
}

/// Leads a packet to the device; `mark` says where it was found.
#[inline(always)]
pub fn redirect(context: &TcContext, mark: u32) -> i32 {
    // SAFETY: only looked at.
    let Some(config) = (unsafe { CONFIG.get(&0) }) else {
        count(Reason::ProxyAway, Direction::Ingress);
        return DROP;
    };
    let device = config.device;
    set_mark(context, mark);
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(device, BPF_F_INGRESS) as i32 }
}

/// Makes a packet on ingress the proxy's: that of a connection which is there its socket's, another the
/// listening socket's, which opens one, or answers a SYN cookie. What has a socket goes nowhere else,
/// though the rule that leads it to this host be lost. One that opens a connection with the ends of
/// another that is over gets there by way of `waiting.rs`.
#[inline(always)]
pub fn hand_over(context: &TcContext, packet: &Packet, way: Direction) -> Result<(), Reason> {
    set_mark(context, mark::TO_PROXY);
    if packet.protocol != protocol::TCP || packet.fragment {
        return Ok(());
    }
    let slot = slot(way, packet.v4);
    let opens = packet.role() == Role::Opens;
    // One that was asked to open a connection leaves its place to the one that is open then: twice.
    for _ in 0..2 {
        match assign(context, packet) {
            Assigned::Yes(WAITING) if opens => {
                return remember(packet, slot).map_err(|_| Reason::MapFull);
            }
            Assigned::Yes(_) => return Ok(()),
            Assigned::Nobody => break,
            Assigned::Gone => {}
        }
    }
    let Some(socket) = listener(slot) else { return Err(Reason::ProxyAway) };
    // SAFETY: the socket is given back.
    let failed = unsafe {
        let failed = bpf_sk_assign(context.skb.skb.cast(), socket.cast(), 0);
        bpf_sk_release(socket.cast());
        failed
    };
    if failed == 0 { Ok(()) } else { Err(Reason::ProxyAway) }
}

/// What became of a packet that was to be a socket's.
enum Assigned {
    /// It is; the socket's state.
    Yes(u32),
    /// There is none but those that listen.
    Nobody,
    /// That socket went at this moment.
    Gone,
}

/// Makes a packet that of the socket which has its ends.
#[inline(always)]
fn assign(context: &TcContext, packet: &Packet) -> Assigned {
    let ports = [packet.source_port, packet.destination_port];
    let socket = look_up(context, packet.source, packet.destination, ports);
    if socket.is_null() {
        return Assigned::Nobody;
    }
    // SAFETY: the socket was lent, and is given back once.
    let (state, failed) = unsafe {
        let state = read_volatile(&raw const (*socket).state);
        let failed = match state {
            LISTENING => 1,
            _ => bpf_sk_assign(context.skb.skb.cast(), socket.cast(), 0),
        };
        bpf_sk_release(socket.cast());
        (state, failed)
    };
    match (state, failed) {
        (LISTENING, _) => Assigned::Nobody,
        (state, 0) => Assigned::Yes(state),
        _ => Assigned::Gone,
    }
}

/// Whether the proxy listens. Its sockets leave the map when they are closed, however it ended.
#[inline(always)]
pub fn listens(way: Direction, v4: bool) -> bool {
    match listener(slot(way, v4)) {
        Some(socket) => {
            // SAFETY: it was lent.
            unsafe { bpf_sk_release(socket.cast()) };
            true
        }
        None => false,
    }
}

/// Whether a socket of this host has a connection with these ends: nobody but the proxy has one with a
/// workload's address.
#[inline(always)]
pub fn has_socket(
    context: &TcContext,
    source: Address,
    destination: Address,
    ports: [u16; 2],
) -> bool {
    let socket = look_up(context, source, destination, ports);
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket is given back.
    unsafe {
        let state = read_volatile(&raw const (*socket).state);
        bpf_sk_release(socket.cast());
        state != LISTENING
    }
}

/// The socket that a packet with these ends would come to, lent; or null.
#[inline(always)]
fn look_up(
    context: &TcContext,
    source: Address,
    destination: Address,
    ports: [u16; 2],
) -> *mut bpf_sock {
    // SAFETY: any bytes are one.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = match source.is_v4() {
        true => {
            tuple.__bindgen_anon_1.ipv4.saddr = source.0[3];
            tuple.__bindgen_anon_1.ipv4.daddr = destination.0[3];
            tuple.__bindgen_anon_1.ipv4.sport = ports[0].to_be();
            tuple.__bindgen_anon_1.ipv4.dport = ports[1].to_be();
            12
        }
        false => {
            tuple.__bindgen_anon_1.ipv6.saddr = source.0;
            tuple.__bindgen_anon_1.ipv6.daddr = destination.0;
            tuple.__bindgen_anon_1.ipv6.sport = ports[0].to_be();
            tuple.__bindgen_anon_1.ipv6.dport = ports[1].to_be();
            36
        }
    };
    // SAFETY: the tuple has that many bytes; the caller gives the socket back.
    unsafe {
        let context = context.skb.skb.cast();
        bpf_skc_lookup_tcp(context, &raw mut tuple, size, BPF_F_CURRENT_NETNS, 0)
    }
}

#[inline(always)]
fn listener(slot: ListenerSlot) -> Option<*mut bpf_sock> {
    let slot = slot as u32;
    // SAFETY: the caller gives the socket back.
    let socket = unsafe {
        bpf_map_lookup_elem(
            (&raw const LISTENERS).cast_mut().cast(),
            (&raw const slot).cast_mut().cast(),
        )
    };
    if socket.is_null() { None } else { Some(socket.cast()) }
}

#[inline(always)]
fn slot(way: Direction, v4: bool) -> ListenerSlot {
    match (way, v4) {
        (Direction::Egress, true) => ListenerSlot::OutboundV4,
        (Direction::Egress, false) => ListenerSlot::OutboundV6,
        (Direction::Ingress, true) => ListenerSlot::InboundV4,
        (Direction::Ingress, false) => ListenerSlot::InboundV6,
    }
}

#[inline(always)]
pub fn mark_of(context: &TcContext) -> u32 {
    // SAFETY: the context lives as long as the program runs.
    unsafe { read_volatile(&raw const (*context.skb.skb).mark) }
}

#[inline(always)]
pub fn set_mark(context: &TcContext, mark: u32) {
    // SAFETY: the context lives as long as the program runs.
    unsafe { core::ptr::write_volatile(&raw mut (*context.skb.skb).mark, mark) }
}
