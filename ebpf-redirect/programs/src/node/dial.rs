//! Services at the system call, for processes of a cgroup in any network namespace: who connects to one is
//! connected to a backend, and nothing has to be done to packets. Policy is not asked here; packets to the
//! backend meet it where they leave the workload.

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use portreeve_ebpf_common::node::mark;
use portreeve_ebpf_common::{Endpoint, ServiceKey};

use crate::context::{Call, ECONNREFUSED, GO_ON, STOP};
use crate::services::{Balanced, at_random, balance};
use crate::translation::{backend, remember};

/// `connect()` over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn portreeve_dial4(context: SockAddrContext) -> i32 {
    dial(Call::v4(&context))
}

/// `connect()` over IPv6, to mapped addresses, too.
#[cgroup_sock_addr(connect6)]
pub fn portreeve_dial6(context: SockAddrContext) -> i32 {
    dial(Call::v6(&context))
}

/// `sendmsg()` over IPv4, on a socket that is not connected.
#[cgroup_sock_addr(sendmsg4)]
pub fn portreeve_post4(context: SockAddrContext) -> i32 {
    post(Call::v4(&context))
}

/// The same over IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn portreeve_post6(context: SockAddrContext) -> i32 {
    post(Call::v6(&context))
}

#[inline(always)]
fn dial(call: Call) -> i32 {
    if call.mark() == mark::FROM_PROXY {
        // Policy has judged exactly that address.
        return GO_ON;
    }
    let asked = call.endpoint();
    let service = ServiceKey::internal(asked, call.protocol());
    let destination = match balance(service, || call.netns(), at_random) {
        Balanced::NotAService => {
            // The socket may have been somebody's before: a datagram socket can be connected again.
            if let Some(state) = call.state() {
                state.asked = Endpoint::default();
            }
            return GO_ON;
        }
        Balanced::Backend(backend, _) => backend,
        Balanced::NoBackend => return refuse(),
    };
    // Without memory its packets are turned on their way instead.
    let Some(state) = call.state_or_new() else { return GO_ON };
    state.asked = asked;
    state.destination = destination;
    if call.set(destination) { GO_ON } else { refuse() }
}

#[inline(always)]
fn post(call: Call) -> i32 {
    let (asked, cookie) = (call.endpoint(), call.cookie());
    let (destination, number) = match backend(call, cookie, asked, call.protocol()) {
        Balanced::NotAService => return GO_ON,
        Balanced::Backend(backend, number) => (backend, number),
        Balanced::NoBackend => return refuse(),
    };
    if !remember(cookie, asked, destination, number) {
        return GO_ON;
    }
    if call.set(destination) { GO_ON } else { refuse() }
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: the helper takes a number.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    STOP
}
