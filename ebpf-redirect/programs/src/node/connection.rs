//! Connections, as policy sees them: one that goes on, one that is new, and one of the proxy's.

use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::node::{
    EndpointEntry, Ends, Leg, NodeEventKind, Reason, TrackKey, Tracked, endpoint_flags, protocol,
    scope, state, tcp,
};
use portreeve_ebpf_common::{Address, Direction, Endpoint, Verdict};

use crate::judge::{Judged, identify, judge};
use crate::maps::{OWN, RELAYED};
use crate::pace::may_open;
use crate::packet::{Packet, Role, Turn};
use crate::proxy::{has_socket, listens};
use crate::report::{count, tell};
use crate::track::{find, go_on, open};

/// The proxy goes on to a workload, in the name of the client. It has read what was to be read; who may
/// come at all is asked here once more. What began before anybody here could see it ends.
#[inline(always)]
pub fn in_a_clients_name(
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
        _ if belongs_to_another(endpoint, key.local) => return Reason::NotTracked,
        _ => {}
    }
    if endpoint.flags & endpoint_flags::ENFORCED != 0 {
        let (protocol, port) = (key.protocol, key.local_port);
        match judge(endpoint, Direction::Ingress, key.remote, protocol, port) {
            Some(said) => *judged = said,
            None => return Reason::NoPolicy,
        }
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
pub fn known(
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
    if let Err(reason) = judge_again(endpoint, key, tracked, judged) {
        return reason;
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

/// Whether a connection may go on, if policy is another one than when it was asked last.
#[inline(always)]
pub fn judge_again(
    endpoint: &EndpointEntry,
    key: &TrackKey,
    tracked: &mut Tracked,
    judged: &mut Judged,
) -> Result<(), Reason> {
    let enforced = endpoint.flags & endpoint_flags::ENFORCED != 0;
    if !enforced || endpoint.revision == tracked.revision {
        return Ok(());
    }
    let opened = tracked.opened();
    match judge(endpoint, opened, key.remote, key.protocol, judged_port(key, opened)) {
        Some(said) => *judged = said,
        None => return Err(Reason::NoPolicy),
    }
    match judged.verdict {
        Verdict::Allow => {}
        Verdict::Inspect if tracked.is_inspected() => {}
        Verdict::Inspect if key.protocol == protocol::TCP => return Err(Reason::PolicyChanged),
        _ => return Err(Reason::Policy),
    }
    tracked.rule = judged.rule;
    tracked.identity = judged.identity;
    tracked.revision = judged.revision;
    Ok(())
}

/// A packet of no connection that is known.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "all of what is known of a packet")]
pub fn fresh(
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
    if way as u8 == Direction::Ingress as u8 && belongs_to_another(endpoint, key.local) {
        return Reason::NotTracked;
    }
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
            let port = match is_icmp(key.protocol) {
                true => packet.destination_port,
                false => judged_port(key, way),
            };
            match judge(endpoint, way, key.remote, key.protocol, port) {
                Some(said) => *judged = said,
                None => return Reason::NoPolicy,
            }
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
    let too_many = endpoint.flags & crowded != 0;
    if too_many || way as u8 == Direction::Egress as u8 && !may_open(endpoint.endpoint, now) {
        return Reason::Crowded;
    }
    // Only now: who is refused costs no look at what others have.
    if way as u8 == Direction::Ingress as u8 && came_by_service(key) {
        state |= state::BY_SERVICE;
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
pub fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

/// Whether who is outside has asked for a service of the node, and not for the workload.
#[inline(always)]
fn came_by_service(key: &TrackKey) -> bool {
    let back = Ends {
        source: Endpoint::new(key.local, key.local_port),
        destination: Endpoint::new(key.remote, key.remote_port),
        scope: scope::TO_OUTSIDE,
        protocol: key.protocol as u32,
    };
    // SAFETY: only looked at.
    matches!(key.protocol, protocol::TCP | protocol::UDP) && unsafe { RELAYED.get(&back) }.is_some()
}

/// Whether another workload has it: a bridge shows packets to those whom they are not for.
#[inline(always)]
fn belongs_to_another(endpoint: &EndpointEntry, address: Address) -> bool {
    // SAFETY: only looked at.
    !endpoint.is_known_to_have(address)
        && unsafe { OWN.get(&address) }.is_some_and(|owner| *owner != endpoint.endpoint)
}
