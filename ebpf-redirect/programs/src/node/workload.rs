//! The way of a packet: read, judged, kept track of, and let go on, dropped, or led to the proxy.

use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{
    EndpointEntry, Leg, NodeEventKind, Reason, TrackKey, endpoint_flags, mark, protocol, state,
};
use portreeve_ebpf_common::{Address, Direction, Endpoint, ServiceKey};

use crate::answer::{answer, turn_round};
use crate::balance::{Found, about, for_workload, has_services, keep, look, settled};
use crate::connection::{fresh, in_a_clients_name, is_icmp, judge_again, known};
use crate::discovery::{advertises_itself, speaks_for_itself, stays_on_link};
use crate::maps::{ENDPOINTS, OWN};
use crate::pace::may_open;
use crate::packet::{Role, Turn, keep_ports, put, read};
use crate::proxy::{TO_HOST, hand_over, has_socket, is_for_host, mark_of, redirect, set_mark};
use crate::report::{count, tell};
use crate::rewrite::{rewrite, rewrite_cited};
use crate::scratch::{Scratch, scratch_of};
use crate::track::{contained, find, go_on, name, now};

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
    if mark_of(&context) == mark::ANSWER && has_come_by(&context) {
        return PASS;
    }
    pass(&context, Direction::Ingress)
}

/// Whether a packet has come in where it goes out, as answers do: nobody here has sent it, whatever mark he
/// could set.
#[inline(always)]
fn has_come_by(context: &TcContext) -> bool {
    // SAFETY: the context lives as long as the program runs.
    unsafe { (*context.skb.skb).ingress_ifindex == (*context.skb.skb).ifindex }
}

#[inline(always)]
fn pass(context: &TcContext, way: Direction) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let interface = unsafe { (*context.skb.skb).ifindex };
    // SAFETY: copied at once.
    let Some(found) = (unsafe { ENDPOINTS.get(&interface) }) else {
        count(Reason::NoEndpoint, way);
        return DROP;
    };
    let Some((endpoint, scratch)) = scratch_of(found) else { return DROP };
    if let Err(reason) = read(context, endpoint.endpoint, &mut scratch.packet) {
        count(reason, way);
        return DROP;
    }
    let from_workload = way as u8 == Direction::Egress as u8;
    let packet = &scratch.packet;
    if packet.is_discovery(from_workload) {
        if from_workload && !advertises_itself(context, endpoint, packet) {
            count(Reason::Spoofed, way);
            return DROP;
        }
        if !from_workload || stays_on_link(context, endpoint, packet) {
            return PASS;
        }
    }
    if !packet.is_ip {
        if !from_workload || speaks_for_itself(context, endpoint) {
            return PASS;
        }
        count(Reason::Spoofed, way);
        return DROP;
    }
    let mut reason = match from_workload && !belongs_to(endpoint, scratch.packet.source) {
        true => Reason::Spoofed,
        false => decide(context, endpoint, way, scratch),
    };
    if matches!(reason, Reason::Forwarded | Reason::ToProxy | Reason::TurnedBack) {
        let Scratch { packet, balancing, .. } = &*scratch;
        let ends = match packet.turn {
            // It had others.
            Turn::ToBackend => [balancing.ends.source, balancing.ends.destination],
            _ => [
                Endpoint::new(packet.source, packet.source_port),
                Endpoint::new(packet.destination, packet.destination_port),
            ],
        };
        if let Err(failed) = keep_ports(packet, ends, endpoint.endpoint) {
            reason = failed;
        }
    }
    if goes_on(reason, way)
        && scratch.packet.turn != Turn::None
        && let Err(failed) = turn(context, endpoint, way, scratch)
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
        _ => drop(context, endpoint, way, reason, scratch),
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

/// Whether the workload has an address, and may send from it.
#[inline(always)]
pub fn belongs_to(endpoint: &EndpointEntry, address: Address) -> bool {
    // SAFETY: only looked at.
    endpoint.is_known_to_have(address)
        || unsafe { OWN.get(&address) }.is_some_and(|owner| *owner == endpoint.endpoint)
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
        let mut found = find(key, now);
        if let Some(tracked) = &mut found
            && let Err(reason) = judge_again(endpoint, key, tracked, judged)
        {
            return reason;
        }
        // Of what is read the proxy has sent what the error is about, in the name of one end or the other.
        let may_be_proxys = match &found {
            Some(tracked) => tracked.is_inspected(),
            None => !from_workload,
        };
        if may_be_proxys && is_proxys(context, key, way) {
            return Reason::ToProxy;
        }
        if let Some(tracked) = found {
            if !from_workload && tracked.state & state::TRANSLATED != 0 {
                put(&mut packet.turn, Turn::Cited);
            }
            return Reason::Forwarded;
        }
        key.leg = Leg::Proxy as u8;
        if from_workload && find(key, now).is_some() {
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
                    if endpoint.flags & endpoint_flags::CROWDED_OUT != 0
                        || !may_open(endpoint.endpoint, now)
                    {
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

/// Whether the proxy has a connection, of which a packet that goes one way would come to it.
#[inline(always)]
fn is_proxys(context: &TcContext, key: &TrackKey, way: Direction) -> bool {
    let (local, remote) = (key.local_port, key.remote_port);
    let (source, destination, ports) = match way {
        Direction::Egress => (key.local, key.remote, [local, remote]),
        Direction::Ingress => (key.remote, key.local, [remote, local]),
    };
    key.protocol == protocol::TCP && has_socket(context, source, destination, ports)
}
