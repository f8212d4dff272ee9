//! What a packet's headers say. Nothing is believed that was not read, and what can't be read, is
//! dropped.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{FragmentKey, FragmentPorts, Reason, protocol, scope, tcp};
use portreeve_ebpf_common::{Address, Endpoint};

use crate::maps::{FRAGMENTS, FRAGMENTS_OUTSIDE};

/// A packet, as far as anybody here wants to know it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    /// The type, if it is ICMP.
    pub destination_port: u16,
    pub protocol: u8,
    /// Of TCP.
    pub flags: u8,
    pub v4: bool,
    /// Not ARP.
    pub is_ip: bool,
    pub fragment: bool,
    /// IPv4's time to live, IPv6's hop limit.
    pub hops: u8,
    /// Where the header of `protocol` begins.
    pub at: u32,
    /// Of a part of a packet: where it belongs, whether there are more, and what they have in common.
    identification: u32,
    offset: u16,
    more: bool,
    /// What is to become of its ends.
    pub turn: Turn,
}

/// What is to become of a packet's ends when it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Turn {
    /// Nothing.
    None = 0,
    /// It goes to a backend.
    ToBackend = 1,
    /// It comes back from one, if it goes on to who has asked.
    FromBackend = 2,
    /// It is an error about one that has gone to a backend.
    Cited = 3,
}

impl Packet {
    /// Forgets what is not said of every packet that is read.
    #[inline(always)]
    pub fn begin(&mut self) {
        put(&mut self.source_port, 0);
        put(&mut self.destination_port, 0);
        put(&mut self.protocol, 0);
        put(&mut self.flags, 0);
        put(&mut self.v4, false);
        put(&mut self.is_ip, false);
        put(&mut self.fragment, false);
        put(&mut self.hops, 0);
        put(&mut self.offset, 0);
        put(&mut self.more, false);
        put(&mut self.turn, Turn::None);
    }

    /// Whether it has the header of its protocol: it is whole, or the first part.
    #[inline(always)]
    pub fn is_first(&self) -> bool {
        self.offset == 0
    }
}

/// Writes by itself what would be written with its neighbours by a function that goes byte by byte.
#[inline(always)]
pub fn put<T: Copy>(place: &mut T, value: T) {
    // SAFETY: a reference may be written to.
    unsafe { core::ptr::write_volatile(place, value) }
}

/// The same of an address.
#[inline(always)]
pub fn copy(to: &mut Address, from: &Address) {
    for (to, from) in to.0.iter_mut().zip(from.0) {
        put(to, from);
    }
}

/// Who opens, where a packet tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opens a connection.
    Opens,
    /// It belongs to one.
    Continues,
    /// Either.
    Unclear,
}

/// Bytes of an Ethernet header; there are no others.
pub const LINK: usize = 14;
const IPV4: u32 = 0x0800u16.to_be() as u32;
const IPV6: u32 = 0x86ddu16.to_be() as u32;
const ARP: u32 = 0x0806u16.to_be() as u32;

/// Reads the headers; `endpoint` is whose interface it is. What has no protocol number is ARP.
///
/// All that is said of a packet is written to a place that the caller has in a map: the verifier keeps no
/// account of what is there, so that one look at what follows is enough for whatever was read.
#[inline(always)]
pub fn read(context: &TcContext, endpoint: u32, packet: &mut Packet) -> Result<(), Reason> {
    // SAFETY: the context lives as long as the program runs.
    let kind = unsafe { (*context.skb.skb).protocol };
    match kind {
        IPV4 => ipv4(context, endpoint, packet),
        IPV6 => ipv6(context, endpoint, packet),
        ARP => Ok(()),
        _ => Err(Reason::OtherLink),
    }
}

#[inline(always)]
fn ipv4(context: &TcContext, endpoint: u32, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header = load_at::<LINK, 20>(context, &mut room)?;
    let words = (header[0] & 15) as usize;
    if header[0] >> 4 != 4 || words < 5 {
        return Err(Reason::Malformed);
    }
    let place = u16::from_be_bytes([header[6], header[7]]);
    packet.offset = place & 0x1fff;
    packet.more = place & 0x2000 != 0;
    packet.identification = u16::from_be_bytes([header[4], header[5]]) as u32;
    packet.source = Address::v4(word(header, 12));
    packet.destination = Address::v4(word(header, 16));
    packet.protocol = header[9];
    packet.v4 = true;
    packet.is_ip = true;
    packet.fragment = place & 0x3fff != 0;
    packet.hops = header[8];
    packet.at = (LINK + 4 * words) as u32;
    with_ports::<{ LINK + 20 }>(context, endpoint, packet)
}

#[inline(always)]
fn ipv6(context: &TcContext, endpoint: u32, packet: &mut Packet) -> Result<(), Reason> {
    let mut room = MaybeUninit::uninit();
    let header = load_at::<LINK, 40>(context, &mut room)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    copy(&mut packet.source, &address(header, 8));
    copy(&mut packet.destination, &address(header, 24));
    packet.protocol = header[6];
    packet.is_ip = true;
    packet.hops = header[7];
    packet.at = (LINK + 40) as u32;
    if packet.source.is_v4() || packet.destination.is_v4() {
        // What was said of `10.0.0.1` is not to be had, or evaded, by this name of it.
        return Err(Reason::Malformed);
    }
    extensions(context, packet)?;
    with_ports::<{ LINK + 40 }>(context, endpoint, packet)
}

/// Goes from one extension header to the next: one less than so many at most.
const EXTENSIONS: u32 = 6;

#[inline(always)]
fn extensions(context: &TcContext, packet: &mut Packet) -> Result<(), Reason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const OPTIONS: u8 = 60;
    for _ in 0..EXTENSIONS {
        let length = match packet.protocol {
            HOP_BY_HOP | ROUTING | OPTIONS | AUTHENTICATION | FRAGMENT => {
                let mut room = MaybeUninit::uninit();
                let header: &[u8; 8] = load(context, packet.at as usize, &mut room)?;
                let length = match packet.protocol {
                    FRAGMENT => {
                        let place = u16::from_be_bytes([header[2], header[3]]);
                        packet.offset = place >> 3;
                        packet.more = place & 1 != 0;
                        packet.identification = word(header, 4);
                        packet.fragment = place & !6 != 0;
                        8
                    }
                    AUTHENTICATION => (header[1] as u32 + 2) * 4,
                    _ => (header[1] as u32 + 1) * 8,
                };
                packet.protocol = header[0];
                length
            }
            _ => return Ok(()),
        };
        packet.at += length;
        if packet.offset != 0 {
            // What follows is the middle of something.
            return Ok(());
        }
    }
    Err(Reason::Malformed)
}

/// Adds what only the first fragment says. The later ones have it from what is remembered of that.
#[inline(always)]
fn with_ports<const AT: usize>(
    context: &TcContext,
    endpoint: u32,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let outside = matches!(endpoint, scope::FROM_OUTSIDE | scope::TO_OUTSIDE);
    if packet.offset != 0 {
        let key = packet.fragment_key([packet.source, packet.destination], endpoint);
        // SAFETY: copied at once.
        let found = match outside {
            true => unsafe { FRAGMENTS_OUTSIDE.get(&key) },
            false => unsafe { FRAGMENTS.get(&key) },
        };
        let Some(ports) = found else {
            return Err(Reason::Fragment);
        };
        packet.source_port = ports.source;
        packet.destination_port = ports.destination;
        return Ok(());
    }
    ports::<AT>(context, packet)?;
    if packet.more {
        if packet.role() == Role::Opens && packet.protocol == protocol::TCP {
            // Nobody's SYN is that long, but for who wants to be misread.
            return Err(Reason::Malformed);
        }
        if outside {
            let key = packet.fragment_key([packet.source, packet.destination], endpoint);
            let ports =
                FragmentPorts { source: packet.source_port, destination: packet.destination_port };
            return FRAGMENTS_OUTSIDE.insert(&key, &ports, 0).map_err(|_| Reason::MapFull);
        }
    }
    Ok(())
}

/// Remembers what the later parts of a packet don't say, if this is the first of several. Only of what goes
/// on: who is refused takes nobody's room.
#[inline(always)]
pub fn keep_ports(packet: &Packet, ends: [Endpoint; 2], endpoint: u32) -> Result<(), Reason> {
    if !packet.more || packet.offset != 0 {
        return Ok(());
    }
    let [source, destination] = ends;
    let key = packet.fragment_key([source.address, destination.address], endpoint);
    let ports = FragmentPorts { source: source.port as u16, destination: destination.port as u16 };
    FRAGMENTS.insert(&key, &ports, 0).map_err(|_| Reason::MapFull)
}

/// Reads the ports, from the place that is said, unless a header before it is longer than usual.
#[inline(always)]
fn ports<const AT: usize>(context: &TcContext, packet: &mut Packet) -> Result<(), Reason> {
    let mut long = MaybeUninit::uninit();
    let mut short = MaybeUninit::uninit();
    match packet.protocol {
        protocol::TCP => {
            let header = load_next::<AT, 20>(context, packet, &mut long)?;
            packet.flags = header[13];
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.destination_port = u16::from_be_bytes([header[2], header[3]]);
        }
        protocol::UDP | protocol::SCTP => {
            let header = load_next::<AT, 8>(context, packet, &mut short)?;
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.destination_port = u16::from_be_bytes([header[2], header[3]]);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if packet.v4 != (packet.protocol == protocol::ICMP) {
                return Err(Reason::Malformed);
            }
            let header = load_next::<AT, 8>(context, packet, &mut short)?;
            packet.destination_port = header[0] as u16;
            if packet.is_echo() {
                packet.source_port = u16::from_be_bytes([header[4], header[5]]);
            }
        }
        _ => {}
    }
    Ok(())
}

impl Packet {
    /// By what its later parts find what the first one says; its ends may be others by then.
    #[inline(always)]
    fn fragment_key(&self, [source, destination]: [Address; 2], endpoint: u32) -> FragmentKey {
        FragmentKey {
            source,
            destination,
            identification: self.identification,
            endpoint,
            protocol: self.protocol as u32,
        }
    }

    /// Whether it is an echo's request or reply.
    #[inline(always)]
    pub fn is_echo(&self) -> bool {
        match self.protocol {
            protocol::ICMP => self.destination_port == 8 || self.destination_port == 0,
            protocol::ICMPV6 => self.destination_port == 128 || self.destination_port == 129,
            _ => false,
        }
    }

    /// Whether it says what became of another packet, which it contains.
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        match self.protocol {
            // Unreachable, time exceeded, parameter problem.
            protocol::ICMP => matches!(self.destination_port, 3 | 11 | 12),
            protocol::ICMPV6 => matches!(self.destination_port, 1..=4),
            _ => false,
        }
    }

    /// Whether it is part of finding out who is on the link (RFC 4861). A workload is no router.
    #[inline(always)]
    pub fn is_discovery(&self, from_workload: bool) -> bool {
        if self.protocol != protocol::ICMPV6 || self.fragment {
            return false;
        }
        match self.destination_port {
            133 | 135 | 136 => self.hops == 255,
            134 | 137 => self.hops == 255 && !from_workload,
            // Who listens to which multicast address (RFC 3810).
            130..=132 | 143 => self.hops == 1,
            _ => false,
        }
    }

    /// Whether it opens a connection.
    #[inline(always)]
    pub fn role(&self) -> Role {
        match self.protocol {
            protocol::TCP if self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN => {
                Role::Opens
            }
            protocol::TCP => Role::Continues,
            protocol::ICMP if self.destination_port == 0 => Role::Continues,
            protocol::ICMPV6 if self.destination_port == 129 => Role::Continues,
            protocol::ICMP | protocol::ICMPV6 => Role::Opens,
            _ => Role::Unclear,
        }
    }
}

/// The address in a header of IPv6.
#[inline(always)]
pub fn address(header: &[u8; 40], at: usize) -> Address {
    Address([word(header, at), word(header, at + 4), word(header, at + 8), word(header, at + 12)])
}

/// Four bytes of a header, as they are in memory.
#[inline(always)]
pub fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Bytes of a packet. So aligned, words of them are read as words.
#[repr(C, align(8))]
pub struct Bytes<const N: usize>([u8; N]);

/// Some bytes, from a place on.
#[inline(always)]
pub fn load<'r, const N: usize>(
    context: &TcContext,
    at: usize,
    room: &'r mut MaybeUninit<Bytes<N>>,
) -> Result<&'r [u8; N], Reason> {
    // SAFETY: there is room for as many; the helper writes all of them, or fails.
    unsafe {
        let to = room.as_mut_ptr().cast();
        match bpf_skb_load_bytes(context.skb.skb.cast(), at as u32, to, N as u32) {
            0 => Ok(&room.assume_init_ref().0),
            _ => Err(Reason::Malformed),
        }
    }
}

/// The same from a place that is known: where the packet's beginning is in one piece, as it nearly always is,
/// the kernel need not be asked.
#[inline(always)]
pub fn load_at<'r, const AT: usize, const N: usize>(
    context: &TcContext,
    room: &'r mut MaybeUninit<Bytes<N>>,
) -> Result<&'r [u8; N], Reason> {
    const { assert!(N.is_multiple_of(4)) };
    let (begin, end) = (context.data(), context.data_end());
    if begin + AT + N > end {
        return load(context, AT, room);
    }
    let to: *mut u32 = room.as_mut_ptr().cast();
    for word in 0..N / 4 {
        let from = (begin + AT + 4 * word) as *const u32;
        // SAFETY: both have as many bytes, which the verifier has seen. Words of a packet are read wherever
        // they are: so does the kernel, and it refuses the program where that is not to be had.
        unsafe { to.add(word).write(core::ptr::read_volatile(from)) };
    }
    // SAFETY: all of it was written.
    Ok(unsafe { &room.assume_init_ref().0 })
}

/// The header of a packet's protocol, `AT` being where it usually is.
#[inline(always)]
fn load_next<'r, const AT: usize, const N: usize>(
    context: &TcContext,
    packet: &Packet,
    room: &'r mut MaybeUninit<Bytes<N>>,
) -> Result<&'r [u8; N], Reason> {
    if packet.at as usize == AT {
        load_at::<AT, N>(context, room)
    } else {
        load(context, packet.at as usize, room)
    }
}
