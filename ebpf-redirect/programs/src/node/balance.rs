//! Services at the packet. Who has asked for one gets a backend before policy is asked, so that policy
//! judges who is really called; what comes back is the service's again, as the last thing that happens to
//! it. A packet of a connection that goes straight costs nothing here: it is known before this is asked.

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{
    Ends, HAIRPIN_V4, HAIRPIN_V6, Leg, TrackKey, Translation, protocol, scope, state, tcp,
    translation,
};
use portreeve_ebpf_common::{Endpoint, ServiceKey};

use crate::maps::{RELAYED, TRANSLATED};
use crate::packet::{Packet, Role};
use crate::rewrite::cited;
use crate::services::{Balanced, at_random, balance, still_serves};
use crate::track::find;

/// What it is worked out in.
#[repr(C)]
pub struct Balancing {
    /// The packet's, as it came.
    pub ends: Ends,
    /// What becomes of them.
    pub translation: Translation,
    /// What comes back,
    back: Ends,
    /// and what becomes of that.
    reply: Translation,
    /// Not 0: both are to be kept, if the packet may pass.
    pub is_new: u32,
    pad: u32,
}

/// What a packet has to do with services.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// It has a backend.
    Backend,
    /// The workload is the backend.
    Itself,
    /// There is nobody.
    NoBackend,
    /// It can't be kept.
    NoRoom,
}

const SECOND: u64 = 1_000_000_000;
/// For how long who sends datagrams without a word keeps a backend, and stands in another's way.
const IDLE: u64 = 120 * SECOND;
/// How many ports are tried for a client whose own is taken beside a backend.
const TRIES: u32 = 5;

/// Whether a protocol has services.
#[inline(always)]
pub fn has_services(packet: &Packet) -> bool {
    matches!(packet.protocol, protocol::TCP | protocol::UDP)
}

/// Writes down the ends of a packet.
#[inline(always)]
pub fn look(ends: &mut Ends, packet: &Packet, scope: u32) {
    ends.source = Endpoint::new(packet.source, packet.source_port);
    ends.destination = Endpoint::new(packet.destination, packet.destination_port);
    ends.scope = scope;
    ends.protocol = packet.protocol as u32;
}

/// Where translations are kept: those of packets that have not been judged are apart.
#[inline(always)]
fn table<const OUTSIDE: bool>() -> &'static LruHashMap<Ends, Translation, 65_536> {
    if OUTSIDE { &RELAYED } else { &TRANSLATED }
}

/// Where what comes back is met.
#[inline(always)]
const fn opposite(at: u32) -> u32 {
    match at {
        scope::FROM_OUTSIDE => scope::TO_OUTSIDE,
        scope::TO_OUTSIDE => scope::FROM_OUTSIDE,
        endpoint => endpoint,
    }
}

/// What becomes of a packet whose ends are written down, if that was settled before; `service`: what it
/// may have asked for.
#[inline(always)]
pub fn settled<const OUTSIDE: bool>(
    room: &mut Balancing,
    packet: &Packet,
    service: &ServiceKey,
    now: u64,
) -> bool {
    let Some(found) = table::<OUTSIDE>().get_ptr_mut(&room.ends) else { return false };
    // SAFETY: it points into a map's value, which is not freed while the program runs.
    let found = unsafe { &mut *found };
    let role = packet.role();
    let quiet = now.saturating_sub(found.seen);
    if found.flags & translation::TO_BACKEND != 0 && role != Role::Continues {
        let goes_on = match role {
            Role::Opens => found.flags & translation::ENDED == 0,
            _ => quiet <= IDLE,
        };
        // What is open stays where it is, though nobody new is sent there.
        if !goes_on || !still_serves(*service, found.backend, found.destination) {
            return false;
        }
    }
    let ends = packet.flags & (tcp::FIN | tcp::RST) != 0;
    let is_first = found.flags & translation::GOES_ON == 0;
    if found.flags & (translation::TO_BACKEND | translation::RELAYED) != 0
        && (role != Role::Continues || ends || is_first)
        && !tell_other::<OUTSIDE>(room, found, role, ends)
    {
        return false;
    }
    if ends {
        found.flags |= translation::ENDED;
    }
    if quiet > SECOND {
        found.seen = now;
    }
    room.translation = *found;
    true
}

/// Has the way back know what the way there does. Without one, or with one that is over, what opens has
/// nothing to come back by: another is chosen.
#[inline(always)]
fn tell_other<const OUTSIDE: bool>(
    room: &mut Balancing,
    found: &mut Translation,
    role: Role,
    ends: bool,
) -> bool {
    (room.back.source, room.back.destination) = (found.destination, found.source);
    (room.back.scope, room.back.protocol) = (opposite(room.ends.scope), room.ends.protocol);
    let opens = role != Role::Continues && found.flags & translation::TO_BACKEND != 0;
    let Some(other) = table::<OUTSIDE>().get_ptr_mut(&room.back) else { return !opens };
    // SAFETY: as above.
    let other = unsafe { &mut *other };
    if opens {
        return other.flags & translation::ENDED == 0;
    }
    let news = translation::GOES_ON | if ends { translation::ENDED } else { 0 };
    found.flags |= translation::GOES_ON;
    other.flags |= news;
    true
}

/// What would become of an answer to what an ICMP error cites, and where that is; its ends are written down.
#[inline(always)]
pub fn about<const OUTSIDE: bool>(
    context: &TcContext,
    room: &mut Balancing,
    packet: &Packet,
    scope: u32,
) -> Option<(u32, u32)> {
    let places = cited(context, packet, &mut room.ends, scope)?;
    // SAFETY: copied at once.
    room.translation = unsafe { table::<OUTSIDE>().get(&room.ends) }.copied()?;
    Some(places)
}

/// A backend for what a workload opens; `key` is where its connection would be kept. `taken`: one of a
/// service has the ports with which it goes straight to a backend, so that it needs others. What is new is
/// kept only if the packet may pass: with [`keep`].
#[inline(always)]
pub fn for_workload(
    room: &mut Balancing,
    packet: &Packet,
    key: &mut TrackKey,
    endpoint: u32,
    taken: bool,
    now: u64,
) -> Found {
    room.is_new = 0;
    look(&mut room.ends, packet, endpoint);
    let service = ServiceKey::internal(room.ends.destination, packet.protocol);
    if settled::<false>(room, packet, &service, now) {
        return match room.translation.flags & translation::HAIRPIN {
            0 => Found::Backend,
            _ => Found::Itself,
        };
    }
    if packet.role() == Role::Continues {
        return Found::Nothing;
    }
    match balance(service, || room.ends.client(), at_random) {
        Balanced::NotAService if taken => {
            choose(room, room.ends.destination, 0, now);
            room.translation.flags = 0;
        }
        Balanced::NotAService => return Found::Nothing,
        Balanced::NoBackend => return Found::NoBackend,
        Balanced::Backend(backend, number) => choose(room, backend, number, now),
    }
    let itself = room.translation.destination.address == room.ends.source.address;
    if itself {
        room.translation.flags |= translation::HAIRPIN;
        room.translation.source.address = match packet.v4 {
            true => HAIRPIN_V4,
            false => HAIRPIN_V6,
        };
    }
    room.is_new = 1;
    for _ in 0..TRIES {
        if (itself || is_free(room, key, now)) && has_way_back::<false>(room, endpoint, now) {
            return if itself { Found::Itself } else { Found::Backend };
        }
        // SAFETY: the helper takes nothing.
        room.translation.source.port = 0x8000 | (unsafe { bpf_get_prandom_u32() } & 0x7fff);
    }
    Found::NoRoom
}

/// Begins a translation, of the destination alone.
#[inline(always)]
pub fn choose(room: &mut Balancing, backend: Endpoint, number: u32, now: u64) {
    room.translation.source = room.ends.source;
    room.translation.destination = backend;
    room.translation.flags = translation::TO_BACKEND;
    room.translation.backend = number;
    room.translation.seen = now;
}

/// Whether the workload has no connection straight to the backend with the same ports.
#[inline(always)]
fn is_free(room: &Balancing, key: &mut TrackKey, now: u64) -> bool {
    let Translation { source, destination, .. } = &room.translation;
    (key.local, key.remote) = (source.address, destination.address);
    (key.local_port, key.remote_port) = (source.port as u16, destination.port as u16);
    key.leg = Leg::Peer as u8;
    !find(key, now).is_some_and(|one| !one.is_closing() && one.state & state::TRANSLATED == 0)
}

/// Whether a client outside has a connection straight to the backend from the same port: what comes back
/// would be taken for the service's.
#[inline(always)]
pub fn is_direct(room: &mut Balancing, key: &mut TrackKey, endpoint: u32, now: u64) -> bool {
    let Translation { source, destination, .. } = &room.translation;
    (key.local, key.remote) = (destination.address, source.address);
    (key.local_port, key.remote_port) = (destination.port as u16, source.port as u16);
    (key.endpoint, key.protocol) = (endpoint, room.ends.protocol as u8);
    (key.leg, key.pad) = (Leg::Peer as u8, 0);
    (room.back.source, room.back.destination) = (*destination, *source);
    (room.back.scope, room.back.protocol) = (scope::TO_OUTSIDE, room.ends.protocol);
    // SAFETY: only looked at.
    unsafe { RELAYED.get(&room.back) }.is_none()
        && find(key, now).is_some_and(|one| !one.is_closing() && one.state & state::BY_SERVICE == 0)
}

/// Works out what comes back, and whether that is nobody else's.
#[inline(always)]
fn has_way_back<const OUTSIDE: bool>(room: &mut Balancing, at: u32, now: u64) -> bool {
    room.back.source = room.translation.destination;
    room.back.destination = room.translation.source;
    room.reply.source = room.ends.destination;
    room.reply.destination = room.ends.source;
    room.reply.flags = room.translation.flags & translation::HAIRPIN;
    is_nobodys::<OUTSIDE>(room, at, now)
}

#[inline(always)]
fn is_nobodys<const OUTSIDE: bool>(room: &mut Balancing, at: u32, now: u64) -> bool {
    room.back.scope = at;
    room.back.protocol = room.ends.protocol;
    room.reply.backend = 0;
    room.reply.seen = now;
    // SAFETY: only looked at.
    let Some(other) = (unsafe { table::<OUTSIDE>().get(&room.back) }) else { return true };
    let same = other.source == room.reply.source && other.destination == room.reply.destination;
    same || other.is_over(room.ends.protocol, now)
}

/// Keeps what becomes of what comes back.
#[inline(always)]
fn keep_back<const OUTSIDE: bool>(room: &Balancing) -> bool {
    table::<OUTSIDE>().insert(&room.back, &room.reply, 0).is_ok()
}

/// Keeps what becomes of the packet and all that follow it, and of what comes back: whether there was room.
#[inline(always)]
pub fn keep<const OUTSIDE: bool>(room: &Balancing) -> bool {
    keep_back::<OUTSIDE>(room)
        && table::<OUTSIDE>().insert(&room.ends, &room.translation, 0).is_ok()
}

/// Keeps what was chosen for a client outside: packets get their destination where they come in. If the
/// backend is on another node, `node` says who is to send them on; they get that source where they leave,
/// and what comes back gets the client where it comes in. That is kept first: what follows finds no half.
#[inline(always)]
pub fn keep_outside(room: &mut Balancing, node: Option<Endpoint>, now: u64) -> Found {
    if !has_way_back::<true>(room, scope::TO_OUTSIDE, now) {
        return Found::NoRoom;
    }
    if let Some(node) = node
        // The second is worked out where the first was.
        && !(keep_relayed(room, node, now) && has_way_back::<true>(room, scope::TO_OUTSIDE, now))
    {
        return Found::NoRoom;
    }
    match keep::<true>(room) {
        true => Found::Backend,
        false => Found::NoRoom,
    }
}

/// Keeps in whose name packets go on to another node, and for whom what comes back is.
#[inline(always)]
fn keep_relayed(room: &mut Balancing, mut node: Endpoint, now: u64) -> bool {
    let (client, backend) = (room.ends.source, room.translation.destination);
    for _ in 0..TRIES {
        // SAFETY: the helper takes nothing.
        let random = unsafe { bpf_get_prandom_u32() };
        // Beyond those that the kernel gives to sockets of its own.
        node.port = FIRST_PORT + portreeve_ebpf_common::choose(random, 0x1_0000 - FIRST_PORT);
        (room.back.source, room.back.destination) = (backend, node);
        (room.reply.source, room.reply.destination) = (backend, client);
        room.reply.flags = 0;
        if is_nobodys::<true>(room, scope::FROM_OUTSIDE, now) {
            if !keep_back::<true>(room) {
                return false;
            }
            (room.back.source, room.back.destination) = (client, backend);
            (room.reply.source, room.reply.destination) = (node, backend);
            room.reply.flags = translation::RELAYED;
            room.back.scope = scope::TO_OUTSIDE;
            return keep_back::<true>(room);
        }
    }
    false
}

/// `net.ipv4.ip_local_port_range` ends before it, unless somebody has changed that.
const FIRST_PORT: u32 = 61_000;
