//! Datagrams of sockets that are not connected: each is judged, services are translated there and back.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use portreeve_ebpf_common::{Counter, Direction, Endpoint, EventReason, PortKey};

use crate::connect::judged;
use crate::context::{Call, ECONNREFUSED, GO_ON, STOP};
use crate::conversations::{begin, is_answer};
use crate::judge::Judged;
use crate::maps::config;
use crate::report::{Parties, count, refuse};
use crate::services::Balanced;
use crate::sockets::take;
use crate::translation::{backend, remember};

/// `sendmsg()` over IPv4.
#[cgroup_sock_addr(sendmsg4)]
pub fn portreeve_sendmsg4(context: SockAddrContext) -> i32 {
    send(Call::v4(&context))
}

/// `sendmsg()` over IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn portreeve_sendmsg6(context: SockAddrContext) -> i32 {
    send(Call::v6(&context))
}

#[inline(always)]
fn send(call: Call) -> i32 {
    let asked = call.endpoint();
    let mut parties = Parties {
        cookie: call.cookie(),
        direction: Direction::Egress,
        protocol: call.protocol(),
        source: Endpoint::default(),
        asked,
        destination: asked,
    };
    let port = call.local_port();
    if !has_port(call) {
        refuse(EventReason::MapFull, &parties, &Judged::NOTHING);
        return STOP;
    }
    if is_answer(Direction::Egress, reached(asked), port) {
        count(Counter::EgressAllowed);
        return GO_ON;
    }
    let Some(config) = config() else {
        refuse(EventReason::NotReady, &parties, &Judged::NOTHING);
        return STOP;
    };
    let mut number = 0;
    match backend(call, parties.cookie, asked, parties.protocol) {
        Balanced::NotAService => {}
        Balanced::Backend(backend, of) => (parties.destination, number) = (backend, of),
        Balanced::NoBackend => {
            refuse(EventReason::NoBackend, &parties, &Judged::NOTHING);
            // SAFETY: the helper takes a number.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            return STOP;
        }
    }
    let judged = match judged(config, &parties) {
        Ok(judged) => judged,
        Err((reason, judged)) => {
            refuse(reason, &parties, &judged);
            return STOP;
        }
    };
    let translated = parties.destination != parties.asked;
    if translated
        && !(remember(parties.cookie, asked, parties.destination, number)
            && call.set(parties.destination))
    {
        refuse(EventReason::MapFull, &parties, &judged);
        return STOP;
    }
    if !call.set_reached(parties.destination) {
        refuse(EventReason::Policy, &parties, &judged);
        return STOP;
    }
    begin(Direction::Egress, reached(parties.destination), port);
    count(Counter::EgressAllowed);
    GO_ON
}

/// Counts the port of a socket that was never bound: it has got one just now, for this datagram, and
/// whoever learns of it could send to it.
#[inline(always)]
fn has_port(call: Call) -> bool {
    match (call.state_or_new(), call.local()) {
        (Some(state), _) if state.holds_port != 0 => true,
        (Some(state), Some(local)) => {
            take(state, PortKey { local, protocol: call.protocol() as u32 }, call.netns())
        }
        _ => false,
    }
}

/// Where it really goes.
#[inline(always)]
fn reached(endpoint: Endpoint) -> Endpoint {
    Endpoint { address: endpoint.address.reached(), ..endpoint }
}
