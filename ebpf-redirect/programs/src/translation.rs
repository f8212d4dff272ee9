//! Datagrams to services: a socket keeps the backend that it has got, and hears of nobody but the service.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use portreeve_ebpf_common::{Endpoint, ReverseKey, ReverseValue, ServiceKey};

use crate::context::{Call, GO_ON};
use crate::maps::REVERSE;
use crate::services::{Balanced, at_random, balance, still_serves};

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

/// The backend that a socket has for a service, or a new one.
#[inline(always)]
pub fn backend(call: Call, cookie: u64, asked: Endpoint, protocol: u8) -> Balanced {
    let service = ServiceKey::internal(asked, protocol);
    let key = ReverseKey { cookie, endpoint: asked, way: TO_BACKEND };
    // SAFETY: copied at once.
    if let Some(had) = (unsafe { REVERSE.get(&key) }).copied()
        && still_serves(service, had.backend, had.endpoint)
    {
        return Balanced::Backend(had.endpoint, had.backend);
    }
    balance(service, || call.netns(), at_random)
}

/// Keeps it; whether there was room.
#[inline(always)]
pub fn remember(cookie: u64, asked: Endpoint, destination: Endpoint, backend: u32) -> bool {
    let there = ReverseKey { cookie, endpoint: asked, way: TO_BACKEND };
    let back = ReverseKey { cookie, endpoint: destination, way: TO_SERVICE };
    REVERSE.insert(&there, &ReverseValue { endpoint: destination, backend }, 0).is_ok()
        && REVERSE.insert(&back, &ReverseValue { endpoint: asked, backend }, 0).is_ok()
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
