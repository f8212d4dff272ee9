//! Services at the packet. Who has asked for one gets a backend before policy is asked, so that policy
//! judges who is really called; what comes back is the service's again, as the last thing that happens to
//! it. A packet of a connection that goes straight costs nothing here: it is known before this is asked.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{
    Ends, HAIRPIN_V4, HAIRPIN_V6, Leg, TrackKey, Translation, protocol, scope, state, tcp,
    translation,
};
use portreeve_ebpf_common::{Endpoint, ServiceKey};

use crate::maps::TRANSLATED;
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

/// What becomes of a packet whose ends are written down, if that was settled before; `service`: what it
/// may have asked for.
#[inline(always)]
pub fn settled(room: &mut Balancing, packet: &Packet, service: &ServiceKey, now: u64) -> bool {
    let Some(found) = TRANSLATED.get_ptr_mut(&room.ends) else { return false };
    // SAFETY: it points into a map's value, which is not freed while the program runs.
    let found = unsafe { &mut *found };
    let quiet = now.saturating_sub(found.seen);
    if found.flags & translation::TO_BACKEND != 0 {
        let goes_on = match packet.role() {
            Role::Continues => true,
            Role::Opens => found.flags & translation::ENDED == 0,
            Role::Unclear => quiet <= IDLE,
        };
        // What is open stays where it is, though nobody new is sent there.
        let stays = packet.role() == Role::Continues
            || still_serves(*service, found.backend, found.destination);
        if !goes_on || !stays {
            return false;
        }
    }
    if packet.flags & (tcp::FIN | tcp::RST) != 0 {
        found.flags |= translation::ENDED;
    }
    if quiet > SECOND {
        found.seen = now;
    }
    room.translation = *found;
    true
}

/// What would become of an answer to what an ICMP error cites, and where that is; its ends are written down.
#[inline(always)]
pub fn about(
    context: &TcContext,
    room: &mut Balancing,
    packet: &Packet,
    scope: u32,
) -> Option<(u32, u32)> {
    let places = cited(context, packet, &mut room.ends, scope)?;
    // SAFETY: copied at once.
    room.translation = unsafe { TRANSLATED.get(&room.ends) }.copied()?;
    Some(places)
}

/// A backend for what a workload opens; `key` is where its connection would be kept. `taken`: one of a
/// service has the ports with which it goes straight to a backend, so that it needs others.
#[inline(always)]
pub fn for_workload(
    room: &mut Balancing,
    packet: &Packet,
    key: &mut TrackKey,
    endpoint: u32,
    taken: bool,
    now: u64,
) -> Found {
    look(&mut room.ends, packet, endpoint);
    let service = ServiceKey::internal(room.ends.destination, packet.protocol);
    if settled(room, packet, &service, now) {
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
    for _ in 0..TRIES {
        if (itself || is_free(room, key, now)) && keep_reply(room, endpoint, now) {
            return match keep(room) {
                true if itself => Found::Itself,
                true => Found::Backend,
                false => Found::NoRoom,
            };
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

/// Keeps what becomes of what comes back, unless that is another's.
#[inline(always)]
fn keep_reply(room: &mut Balancing, at: u32, now: u64) -> bool {
    room.back.source = room.translation.destination;
    room.back.destination = room.translation.source;
    room.reply.source = room.ends.destination;
    room.reply.destination = room.ends.source;
    room.reply.flags = room.translation.flags & translation::HAIRPIN;
    keep_back(room, at, now)
}

#[inline(always)]
fn keep_back(room: &mut Balancing, at: u32, now: u64) -> bool {
    room.back.scope = at;
    room.back.protocol = room.ends.protocol;
    room.reply.backend = 0;
    room.reply.seen = now;
    if TRANSLATED.insert(&room.back, &room.reply, BPF_NOEXIST as u64).is_ok() {
        return true;
    }
    // SAFETY: only looked at.
    let Some(other) = (unsafe { TRANSLATED.get(&room.back) }) else { return false };
    let same = other.source == room.reply.source && other.destination == room.reply.destination;
    let over = other.flags & translation::ENDED != 0
        || (room.ends.protocol == protocol::UDP as u32 && now.saturating_sub(other.seen) > IDLE);
    (same || over) && TRANSLATED.insert(&room.back, &room.reply, 0).is_ok()
}

/// Keeps what becomes of the packet and all that follow it.
#[inline(always)]
fn keep(room: &Balancing) -> bool {
    TRANSLATED.insert(&room.ends, &room.translation, 0).is_ok()
}

/// Keeps what was chosen for a client outside: packets get their destination where they come in. If the
/// backend is on another node, `node` says who is to send them on, or that nobody is known; they get that
/// source where they leave, and what comes back gets the client where it comes in.
#[inline(always)]
pub fn keep_outside(room: &mut Balancing, node: Option<Endpoint>, now: u64) -> Found {
    let (client, backend) = (room.ends.source, room.translation.destination);
    if !keep_reply(room, scope::TO_OUTSIDE, now) {
        return Found::NoRoom;
    }
    let Some(mut node) = node else {
        return if keep(room) { Found::Backend } else { Found::NoRoom };
    };
    for _ in 0..TRIES {
        // SAFETY: the helper takes nothing.
        let random = unsafe { bpf_get_prandom_u32() };
        // Beyond those that the kernel gives to sockets of its own.
        node.port = FIRST_PORT + portreeve_ebpf_common::choose(random, 0x1_0000 - FIRST_PORT);
        (room.back.source, room.back.destination) = (backend, node);
        (room.reply.source, room.reply.destination) = (backend, client);
        if keep_back(room, scope::FROM_OUTSIDE, now) {
            (room.back.source, room.back.destination) = (client, backend);
            (room.reply.source, room.reply.destination) = (node, backend);
            room.back.scope = scope::TO_OUTSIDE;
            let kept = TRANSLATED.insert(&room.back, &room.reply, 0).is_ok() && keep(room);
            return if kept { Found::Backend } else { Found::NoRoom };
        }
    }
    Found::NoRoom
}

/// `net.ipv4.ip_local_port_range` ends before it, unless somebody has changed that.
const FIRST_PORT: u32 = 61_000;
