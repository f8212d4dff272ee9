//! `connect()` of the workload: refused at once, let out, or turned to the proxy.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use portreeve_ebpf_common::{
    Config, Counter, Direction, Endpoint, EventKind, EventReason, ListenerSlot, ServiceKey,
    Verdict, flags, protocol,
};

use crate::context::{Call, ECONNREFUSED, GO_ON, STOP};
use crate::judge::{Judged, judge};
use crate::maps::{LISTENERS, config};
use crate::report::{Parties, count, refuse, tell};
use crate::services::{Balanced, at_random, balance};

/// `connect()` over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn portreeve_connect4(context: SockAddrContext) -> i32 {
    connect(Call::v4(&context))
}

/// `connect()` over IPv6, to mapped addresses, too.
#[cgroup_sock_addr(connect6)]
pub fn portreeve_connect6(context: SockAddrContext) -> i32 {
    connect(Call::v6(&context))
}

#[inline(always)]
fn connect(call: Call) -> i32 {
    let asked = call.endpoint();
    let mut parties = Parties {
        cookie: 0,
        direction: Direction::Egress,
        protocol: call.protocol(),
        source: Endpoint::default(),
        asked,
        destination: asked,
    };
    let Some(config) = config() else {
        return stop(call, EventReason::NotReady, parties, &Judged::NOTHING);
    };
    let service = ServiceKey::internal(asked, parties.protocol);
    match balance(service, || call.netns(), at_random) {
        Balanced::NotAService => {}
        Balanced::Backend(backend, _) => parties.destination = backend,
        Balanced::NoBackend => {
            // SAFETY: the helper takes a number.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            return stop(call, EventReason::NoBackend, parties, &Judged::NOTHING);
        }
    }
    let judged = match judged(config, &parties) {
        Ok(judged) => judged,
        Err((reason, judged)) => return stop(call, reason, parties, &judged),
    };
    match judged.verdict {
        Verdict::Inspect => redirect(call, config, parties, &judged),
        _ => go_straight(call, parties, &judged),
    }
}

/// Refuses. Only who is told of needs a cookie: a socket that nobody has asked for has to be given one.
#[inline(always)]
fn stop(call: Call, reason: EventReason, mut parties: Parties, judged: &Judged) -> i32 {
    parties.cookie = call.cookie();
    refuse(reason, &parties, judged);
    STOP
}

/// What is to happen with what the workload opens; an error is a refusal.
#[inline(always)]
pub fn judged(config: &Config, parties: &Parties) -> Result<Judged, (EventReason, Judged)> {
    let peer = parties.destination.address.reached();
    if config.flags & flags::LOOPBACK_IS_OWN != 0 && peer.is_loopback() {
        return Ok(Judged { verdict: Verdict::Allow, ..Judged::NOTHING });
    }
    let known = parties.protocol == protocol::TCP || parties.protocol == protocol::UDP;
    if !known && config.flags & flags::OTHER_SOCKETS != 0 {
        return Ok(Judged { verdict: Verdict::Allow, ..Judged::NOTHING });
    }
    let port = parties.destination.port as u16;
    let judged = judge(Direction::Egress, peer, parties.protocol, port);
    if !judged.ready {
        return Err((EventReason::NotReady, judged));
    }
    if !known {
        return match judged.enforced {
            true => Err((EventReason::SocketKind, judged)),
            false => Ok(Judged { verdict: Verdict::Allow, ..judged }),
        };
    }
    match judged.verdict {
        Verdict::Deny => Err((EventReason::Policy, judged)),
        // Nobody reads datagrams.
        Verdict::Inspect if parties.protocol != protocol::TCP => Err((EventReason::Policy, judged)),
        _ => Ok(judged),
    }
}

#[inline(always)]
fn go_straight(call: Call, parties: Parties, judged: &Judged) -> i32 {
    if parties.destination == parties.asked {
        // The socket may have been somebody's before: a datagram socket can be connected again.
        if let Some(state) = call.state() {
            state.asked = Endpoint::default();
            state.redirected = 0;
        }
        if !call.set_reached(parties.destination) {
            return stop(call, EventReason::Policy, parties, judged);
        }
        count(Counter::EgressAllowed);
        return GO_ON;
    }
    let Some(state) = call.state_or_new() else {
        return stop(call, EventReason::MapFull, parties, judged);
    };
    state.asked = parties.asked;
    state.destination = parties.destination;
    state.redirected = 0;
    if !call.set(parties.destination) {
        return stop(call, EventReason::NoBackend, parties, judged);
    }
    count(Counter::ServiceTranslated);
    count(Counter::EgressAllowed);
    GO_ON
}

#[inline(always)]
fn redirect(call: Call, config: &Config, mut parties: Parties, judged: &Judged) -> i32 {
    let v4 = parties.asked.address.is_v4();
    let (proxy, slot) = match v4 {
        true => (config.proxy_v4, ListenerSlot::OutboundV4),
        false => (config.proxy_v6, ListenerSlot::OutboundV6),
    };
    // Nobody else may take the proxy's port while it is away, and answer in its place.
    if proxy.port == 0 || (config.flags & flags::FOREIGN_PROXY == 0 && !listens(slot)) {
        return stop(call, EventReason::ProxyAway, parties, judged);
    }
    // The proxy's address is loopback, and each namespace has its own.
    if call.netns() != config.netns {
        return stop(call, EventReason::OtherNamespace, parties, judged);
    }
    let Some(state) = call.state_or_new() else {
        return stop(call, EventReason::MapFull, parties, judged);
    };
    state.asked = parties.asked;
    state.destination = parties.destination;
    state.redirected = 1;
    if !call.set(proxy) {
        return stop(call, EventReason::ProxyAway, parties, judged);
    }
    if parties.destination != parties.asked {
        count(Counter::ServiceTranslated);
    }
    count(Counter::EgressRedirected);
    if config.flags & flags::TELL_REDIRECTS != 0 {
        parties.cookie = call.cookie();
        tell(EventKind::Redirected, EventReason::Policy, &parties, judged);
    }
    GO_ON
}

/// Whether the proxy listens. Its sockets leave the map when they are closed, however it ended.
#[inline(always)]
pub fn listens(slot: ListenerSlot) -> bool {
    let slot = slot as u32;
    // SAFETY: the socket that was found is given back at once.
    unsafe {
        let found = aya_ebpf::helpers::generated::bpf_map_lookup_elem(
            (&raw const LISTENERS).cast_mut().cast(),
            (&raw const slot).cast_mut().cast(),
        );
        if found.is_null() {
            return false;
        }
        aya_ebpf::helpers::generated::bpf_sk_release(found);
    }
    true
}
