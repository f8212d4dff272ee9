//! `getpeername()`: the application sees the address that it asked for.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::context::Call;

/// `getpeername()` over IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn portreeve_getpeername4(context: SockAddrContext) -> i32 {
    show(Call::v4(&context))
}

/// `getpeername()` over IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn portreeve_getpeername6(context: SockAddrContext) -> i32 {
    show(Call::v6(&context))
}

#[inline(always)]
fn show(call: Call) -> i32 {
    if let Some(state) = call.state()
        && state.asked.port != 0
    {
        call.set(state.asked);
    }
    1
}
