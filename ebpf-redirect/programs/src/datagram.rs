//! Datagrams of sockets that are not connected: each is judged, services are translated there and back.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use portreeve_ebpf_common::{
    Counter, Direction, Endpoint, EventReason, PortKey, ReverseKey, ReverseValue, ServiceKey,
};

use crate::connect::{GO_ON, STOP, judged};
use crate::context::{Call, ECONNREFUSED, config};
use crate::conversations::{begin, is_answer};
use crate::judge::Judged;
use crate::maps::REVERSE;
use crate::report::{Parties, count, refuse};
use crate::services::{Balanced, at_random, balance, still_serves};
use crate::sockets::take;

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

/// `recvmsg()` over IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn portreeve_recvmsg4(context: SockAddrContext) -> i32 {
    receive(Call::v4(&context))
}

/// `recvmsg()` over IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn portreeve_recvmsg6(context: SockAddrContext) -> i32 {
    receive(Call::v6(&context))
}

/// The keys' ways, see [`ReverseKey::way`].
const TO_SERVICE: u32 = 0;
const TO_BACKEND: u32 = 1;

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
    match backend(call, &parties) {
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
    if translated && !(remember(&parties, number) && call.set(parties.destination)) {
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

/// The backend that this socket has for a service, or a new one.
#[inline(always)]
fn backend(call: Call, parties: &Parties) -> Balanced {
    let service = ServiceKey::internal(parties.asked, parties.protocol);
    let key = ReverseKey { cookie: parties.cookie, endpoint: parties.asked, way: TO_BACKEND };
    // SAFETY: copied at once.
    if let Some(had) = (unsafe { REVERSE.get(&key) }).copied()
        && still_serves(service, had.backend, had.endpoint)
    {
        return Balanced::Backend(had.endpoint, had.backend);
    }
    balance(service, || call.netns(), at_random)
}

#[inline(always)]
fn remember(parties: &Parties, backend: u32) -> bool {
    let Parties { cookie, asked, destination, .. } = *parties;
    let there = ReverseKey { cookie, endpoint: asked, way: TO_BACKEND };
    let back = ReverseKey { cookie, endpoint: destination, way: TO_SERVICE };
    REVERSE.insert(&there, &ReverseValue { endpoint: destination, backend }, 0).is_ok()
        && REVERSE.insert(&back, &ReverseValue { endpoint: asked, backend }, 0).is_ok()
}

/// Where it really goes.
#[inline(always)]
fn reached(endpoint: Endpoint) -> Endpoint {
    Endpoint { address: endpoint.address.reached(), ..endpoint }
}

#[inline(always)]
fn receive(call: Call) -> i32 {
    let endpoint = call.endpoint();
    let key = ReverseKey { cookie: call.cookie(), endpoint, way: TO_SERVICE };
    // SAFETY: copied at once.
    if let Some(asked) = (unsafe { REVERSE.get(&key) }).copied() {
        call.set(asked.endpoint);
        return GO_ON;
    }
    if let Some(state) = call.state()
        && state.asked.port != 0
        && state.destination == endpoint
    {
        call.set(state.asked);
    }
    GO_ON
}
