//! The way of a packet: read, judged, kept track of, and let go on, dropped, or led to the proxy.

use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{
    EndpointEntry, Leg, NodeEventKind, Reason, TrackKey, Tracked, endpoint_flags, mark, protocol,
    state, tcp,
};
use portreeve_ebpf_common::{Direction, ServiceKey, Verdict};

use crate::answer::{answer, turn_round};
use crate::balance::{Found, about, for_workload, has_services, keep, look, settled};
use crate::discovery::stays_on_link;
use crate::judge::{Judged, Policy, identify};
use crate::maps::{ENDPOINTS, OWN};
use crate::packet::{Packet, Role, Turn, put, read};
use crate::proxy::{
    TO_HOST, hand_over, has_socket, is_for_host, listens, mark_of, redirect, set_mark,
};
use crate::report::{count, tell};
use crate::rewrite::{rewrite, rewrite_cited};
use crate::scratch::{Scratch, scratch};
use crate::track::{contained, find, go_on, name, now, open};

/// `TCX_PASS`: no other program is asked.
pub const PASS: i32 = 0;
/// `TCX_DROP`
pub const DROP: i32 = 2;

/// What the workload sends: the host's end of its interface, ingress.
#[classifier]
#[inline(always)]
pub fn portreeve_from_workload(context: TcContext) -> i32 {
    if mark_of(&context) == mark::ANSWER {
        let _ = context.change_type(TO_HOST);
        set_mark(&context, 0);
        return PASS;
    }
    pass(&context, Direction::Egress)
}

/// What is sent to the workload: the same interface, egress.
#[classifier]
#[inline(always)]
pub fn portreeve_to_workload(context: TcContext) -> i32 {
    if mark_of(&context) == mark::ANSWER {
        return PASS;
    }
    pass(&context, Direction::Ingress)
}

#[inline(always)]
fn pass(context: &TcContext, way: Direction) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let interface = unsafe { (*context.skb.skb).ifindex };
    // SAFETY: copied at once.
    let Some(endpoint) = (unsafe { ENDPOINTS.get(&interface) }).copied() else {
        count(Reason::NoEndpoint, way);
        return DROP;
    };
    let Some(scratch) = scratch() else { return DROP };
    if let Err(reason) = read(context, endpoint.endpoint, &mut scratch.packet) {
        count(reason, way);
        return DROP;
    }
    let from_workload = way as u8 == Direction::Egress as u8;
    let packet = &scratch.packet;
    if !packet.is_ip
        || (packet.is_discovery(from_workload)
            && (!from_workload || stays_on_link(context, &endpoint, packet)))
    {
        return PASS;
    }
    let mut reason = match from_workload && !is_own(&endpoint, &scratch.packet) {
        true => Reason::Spoofed,
        false => decide(context, &endpoint, way, scratch),
    };
    if goes_on(reason, way)
        && scratch.packet.turn != Turn::None
        && let Err(failed) = turn(context, &endpoint, way, scratch)
    {
        reason = failed;
    }
    let part = endpoint.flags & endpoint_flags::PART_OF_ANOTHER != 0;
    let bridged = from_workload && (part || !is_for_host(context));
    if reason as u8 == Reason::ToProxy as u8 && from_workload && !bridged {
        reason = match hand_over(context, &scratch.packet, way) {
            Ok(()) => Reason::ToProxy,
            Err(reason) => reason,
        };
    }
    count(reason, way);
    match reason {
        Reason::Forwarded => PASS,
        Reason::ToProxy if bridged => redirect(context, mark::FROM_BRIDGE),
        Reason::ToProxy if from_workload => PASS,
        Reason::ToProxy => redirect(context, mark::TO_PROXY),
        Reason::TurnedBack => back_to_workload(context),
        _ => drop(context, &endpoint, way, reason, scratch),
    }
}

/// Whether a packet goes on with the ends that it is to have: to the workload, or from it.
#[inline(always)]
fn goes_on(reason: Reason, way: Direction) -> bool {
    match reason {
        Reason::Forwarded => true,
        // What comes to the proxy has called whom it says.
        Reason::ToProxy | Reason::TurnedBack => way as u8 == Direction::Egress as u8,
        _ => false,
    }
}

/// Gives a packet of a service the ends that it is to have.
#[inline(always)]
fn turn(
    context: &TcContext,
    endpoint: &EndpointEntry,
    way: Direction,
    scratch: &mut Scratch,
) -> Result<(), Reason> {
    let Scratch { packet, balancing, .. } = scratch;
    if packet.turn == Turn::Cited {
        let found = about::<false>(context, balancing, packet, endpoint.endpoint);
        let Some(places) = found else { return Err(Reason::NotTracked) };
        return rewrite_cited(context, packet, places, &balancing.ends, &balancing.translation);
    }
    if packet.turn == Turn::FromBackend {
        look(&mut balancing.ends, packet, endpoint.endpoint);
        if !settled::<false>(balancing, packet, &ServiceKey::default(), now()) {
            // Nobody knows any more for whom it was.
            return Err(Reason::NotTracked);
        }
    }
    // Only now: what may not pass takes nobody's room.
    if packet.turn == Turn::ToBackend && balancing.is_new != 0 && !keep::<false>(balancing) {
        return Err(Reason::MapFull);
    }
    rewrite(context, packet, &balancing.ends, &balancing.translation)?;
    count(Reason::Translated, way);
    Ok(())
}

/// Sends a packet of a workload back to it.
#[inline(always)]
fn back_to_workload(context: &TcContext) -> i32 {
    if turn_round(context).is_err() {
        return DROP;
    }
    set_mark(context, mark::ANSWER);
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect((*context.skb.skb).ifindex, 0) as i32 }
}

/// Whether the workload may send from the address that it does.
#[inline(always)]
pub fn is_own(endpoint: &EndpointEntry, packet: &Packet) -> bool {
    // SAFETY: only looked at.
    unsafe { OWN.get(&packet.source) }.is_some_and(|owner| *owner == endpoint.endpoint)
}

/// Drops a packet that was counted, tells of it, and answers it if that is wanted.
#[inline(always)]
fn drop(
    context: &TcContext,
    endpoint: &EndpointEntry,
    way: Direction,
    reason: Reason,
    scratch: &mut Scratch,
) -> i32 {
    let Scratch { packet, judged, room, .. } = scratch;
    tell(NodeEventKind::Dropped, reason, way, endpoint.endpoint, packet, judged);
    let judged = matches!(
        reason,
        Reason::Policy
            | Reason::PolicyChanged
            | Reason::NoPolicy
            | Reason::ProxyAway
            | Reason::NoBackend
            | Reason::Crowded
    );
    if !judged || endpoint.flags & endpoint_flags::TOLD_AT_ONCE == 0 {
        return DROP;
    }
    match answer(context, packet, way, room) {
        Ok(redirected) => {
            count(Reason::Answered, way);
            redirected
        }
        Err(_) => DROP,
    }
}

#[inline(always)]
fn decide(
    context: &TcContext,
    endpoint: &EndpointEntry,
    way: Direction,
    scratch: &mut Scratch,
) -> Reason {
    let Scratch { packet, key, judged, balancing, .. } = scratch;
    let now = now();
    let bytes = context.len() as u64;
    let from_workload = way as u8 == Direction::Egress as u8;
    name(key, endpoint.endpoint, way, packet);
    if endpoint.is_closed() {
        // What the proxy sends is no exception.
        return Reason::NoPolicy;
    }
    if packet.is_icmp_error() && contained(context, way, packet, key) {
        if let Some(tracked) = find(key, now) {
            if !from_workload && tracked.state & state::TRANSLATED != 0 {
                put(&mut packet.turn, Turn::Cited);
            }
            return Reason::Forwarded;
        }
        key.leg = Leg::Proxy as u8;
        if from_workload && find(key, now).is_some() {
            return Reason::ToProxy;
        }
        let ports = [key.remote_port, key.local_port];
        if !from_workload
            && key.protocol == protocol::TCP
            && has_socket(context, key.remote, key.local, ports)
        {
            return Reason::ToProxy;
        }
    }
    if is_icmp(packet.protocol) && !packet.is_echo() {
        // It is of no connection, and judged as what it is: nothing of what it contains stands in the key,
        // whether it could be read or not, and no echo's identifier, which it has none of.
        name(key, endpoint.endpoint, way, packet);
        return fresh(context, endpoint, key, packet, way, now, bytes, judged);
    }
    let mut found = find(key, now);
    // What the workload sends to a service has the service's address here, and is not found.
    let taken = found.as_ref().is_some_and(|one| one.state & state::TRANSLATED != 0);
    if from_workload && (found.is_none() || taken) && has_services(packet) {
        match for_workload(balancing, packet, key, endpoint.endpoint, taken, now) {
            Found::Nothing => found = None,
            Found::Backend => {
                packet.source_port = balancing.translation.source.port as u16;
                packet.destination = balancing.translation.destination.address;
                packet.destination_port = balancing.translation.destination.port as u16;
                put(&mut packet.turn, Turn::ToBackend);
            }
            Found::Itself => {
                if balancing.is_new != 0 {
                    if endpoint.flags & endpoint_flags::CROWDED_OUT != 0 {
                        return Reason::Crowded;
                    }
                    count(Reason::Opened, way);
                }
                put(&mut packet.turn, Turn::ToBackend);
                return Reason::TurnedBack;
            }
            Found::NoBackend => return Reason::NoBackend,
            Found::NoRoom => return Reason::MapFull,
        }
        name(key, endpoint.endpoint, way, packet);
        if packet.turn != Turn::None {
            found = find(key, now);
        }
    }
    // What opens is another one, judged by the ports that it has.
    if taken && !from_workload && packet.role() != Role::Opens {
        put(&mut packet.turn, Turn::FromBackend);
    }
    let packet = &*packet;
    let opens = packet.role() == Role::Opens;
    if !from_workload && mark_of(context) == mark::FROM_PROXY {
        return match found {
            // In the name of the peer whom the workload has called.
            Some(tracked) if tracked.state & state::INGRESS == 0 => {
                go_on(tracked, now, packet, bytes, way);
                Reason::Forwarded
            }
            _ => in_a_clients_name(endpoint, key, packet, now, bytes, judged),
        };
    }
    if from_workload && !opens {
        let proxys = match &found {
            None => true,
            Some(tracked) => tracked.is_inspected() && tracked.state & state::INGRESS != 0,
        };
        if proxys {
            key.leg = Leg::Proxy as u8;
            if let Some(tracked) = find(key, now) {
                go_on(tracked, now, packet, bytes, way);
                return Reason::ToProxy;
            }
            key.leg = Leg::Peer as u8;
        }
    }
    match found {
        Some(tracked)
            if !opens || (tracked.opened() as u8 == way as u8 && !tracked.is_closing()) =>
        {
            known(context, endpoint, key, tracked, packet, way, now, bytes, judged)
        }
        _ => fresh(context, endpoint, key, packet, way, now, bytes, judged),
    }
}

/// The proxy goes on to a workload, in the name of the client. It has read what was to be read; who may
/// come at all is asked here once more. What began before anybody here could see it ends.
#[inline(always)]
fn in_a_clients_name(
    endpoint: &EndpointEntry,
    key: &mut TrackKey,
    packet: &Packet,
    now: u64,
    bytes: u64,
    judged: &mut Judged,
) -> Reason {
    key.leg = Leg::Proxy as u8;
    let opens = packet.role() == Role::Opens;
    match find(key, now) {
        Some(tracked) if !opens || !tracked.is_closing() => {
            go_on(tracked, now, packet, bytes, Direction::Ingress);
            return Reason::Forwarded;
        }
        _ if packet.role() == Role::Continues => return Reason::NotTracked,
        _ => {}
    }
    if endpoint.flags & endpoint_flags::ENFORCED != 0 {
        let Some(policy) = Policy::of(endpoint.endpoint) else {
            return Reason::NoPolicy;
        };
        *judged = policy.judge(Direction::Ingress, key.remote, key.protocol, key.local_port);
        if let Verdict::Deny = judged.verdict {
            return Reason::Policy;
        }
    }
    match open(key, state::INGRESS, now, bytes, Direction::Ingress, judged) {
        true => Reason::Forwarded,
        false => Reason::MapFull,
    }
}

/// A packet of a connection that is kept track of.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "all of what is known of a packet")]
fn known(
    context: &TcContext,
    endpoint: &EndpointEntry,
    key: &TrackKey,
    tracked: &mut Tracked,
    packet: &Packet,
    way: Direction,
    now: u64,
    bytes: u64,
    judged: &mut Judged,
) -> Reason {
    let opened = tracked.opened();
    let enforced = endpoint.flags & endpoint_flags::ENFORCED != 0;
    if enforced && endpoint.revision != tracked.revision {
        let Some(policy) = Policy::of(endpoint.endpoint) else {
            return Reason::NoPolicy;
        };
        let port = judged_port(key, opened);
        *judged = policy.judge(opened, key.remote, key.protocol, port);
        match judged.verdict {
            Verdict::Allow => {}
            Verdict::Inspect if tracked.is_inspected() => {}
            Verdict::Inspect if key.protocol == protocol::TCP => return Reason::PolicyChanged,
            _ => return Reason::Policy,
        }
        tracked.rule = judged.rule;
        tracked.identity = judged.identity;
        tracked.revision = judged.revision;
    }
    go_on(tracked, now, packet, bytes, way);
    if !tracked.is_inspected() {
        return Reason::Forwarded;
    }
    if opened as u8 == way as u8 {
        return Reason::ToProxy;
    }
    // What the proxy sends is marked: this comes from the peer, whom the proxy calls from the same port.
    let ports = [packet.source_port, packet.destination_port];
    match way {
        Direction::Ingress if has_socket(context, packet.source, packet.destination, ports) => {
            Reason::ToProxy
        }
        // A host without a socket for it says so.
        _ if packet.flags & tcp::RST != 0 => Reason::Forwarded,
        // Nobody has read it.
        _ => Reason::ProxyAway,
    }
}

/// A packet of no connection that is known.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "all of what is known of a packet")]
fn fresh(
    context: &TcContext,
    endpoint: &EndpointEntry,
    key: &TrackKey,
    packet: &Packet,
    way: Direction,
    now: u64,
    bytes: u64,
    judged: &mut Judged,
) -> Reason {
    let enforced = endpoint.flags & endpoint_flags::ENFORCED != 0;
    if packet.role() == Role::Continues {
        let ports = [packet.source_port, packet.destination_port];
        if way as u8 == Direction::Ingress as u8
            && packet.protocol == protocol::TCP
            && has_socket(context, packet.source, packet.destination, ports)
        {
            return Reason::ToProxy;
        }
        if enforced {
            return Reason::NotTracked;
        }
    }
    match enforced {
        true => {
            let Some(policy) = Policy::of(endpoint.endpoint) else {
                return Reason::NoPolicy;
            };
            let port = match is_icmp(key.protocol) {
                true => packet.destination_port,
                false => judged_port(key, way),
            };
            *judged = policy.judge(way, key.remote, key.protocol, port);
        }
        false => {
            judged.identity = identify(key.remote);
            judged.verdict = Verdict::Allow;
        }
    }
    let mut state = match way {
        Direction::Egress => 0,
        Direction::Ingress => state::INGRESS,
    };
    if packet.turn != Turn::None {
        state |= state::TRANSLATED;
    }
    match judged.verdict {
        Verdict::Allow => {}
        Verdict::Inspect if key.protocol == protocol::TCP => {
            if !listens(way, packet.v4) {
                return Reason::ProxyAway;
            }
            state |= state::INSPECTED;
        }
        _ => return Reason::Policy,
    }
    if is_icmp(key.protocol) && !packet.is_echo() {
        return Reason::Forwarded;
    }
    let crowded = match way {
        Direction::Egress => endpoint_flags::CROWDED_OUT,
        Direction::Ingress => endpoint_flags::CROWDED_IN,
    };
    if endpoint.flags & crowded != 0 {
        return Reason::Crowded;
    }
    if !open(key, state, now, bytes, way, judged) {
        return Reason::MapFull;
    }
    count(Reason::Opened, way);
    if endpoint.flags & endpoint_flags::TELL_FLOWS != 0 {
        tell(NodeEventKind::Opened, Reason::Opened, way, endpoint.endpoint, packet, judged);
    }
    match state & state::INSPECTED {
        0 => Reason::Forwarded,
        _ => Reason::ToProxy,
    }
}

/// The port that policy is asked about, of a connection that was opened one way.
#[inline(always)]
fn judged_port(key: &TrackKey, opened: Direction) -> u16 {
    match (key.protocol, opened) {
        // What opens one is a request.
        (protocol::ICMP, _) => 8,
        (protocol::ICMPV6, _) => 128,
        (_, Direction::Egress) => key.remote_port,
        (_, Direction::Ingress) => key.local_port,
    }
}

#[inline(always)]
fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}
