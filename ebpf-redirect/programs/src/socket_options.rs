//! Options that a joined socket can't have: what they promise, the kernel does for TCP only.

use core::ptr::read_volatile;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use portreeve_ebpf_common::JoinKey;

use crate::maps::JOINS;
use crate::original_destination::key;

const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
/// Encryption in the kernel would be done to messages that TCP sends, and not to those that are joined.
const TCP_ULP: i32 = 31;
/// Nobody would say when the application's memory is free again.
const SO_ZEROCOPY: i32 = 60;

/// `setsockopt()` of the workload.
#[cgroup_sockopt(setsockopt)]
pub fn portreeve_setsockopt(context: SockoptContext) -> i32 {
    may_be_set(&context)
}

/// `setsockopt()` of the proxy.
#[cgroup_sockopt(setsockopt)]
pub fn portreeve_setsockopt_proxy(context: SockoptContext) -> i32 {
    may_be_set(&context)
}

/// Older kernels refuse both options, too, and programs do without.
#[inline(always)]
fn may_be_set(context: &SockoptContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let (level, name, sk) = unsafe {
        let option = context.sockopt;
        (
            read_volatile(&raw const (*option).level),
            read_volatile(&raw const (*option).optname),
            read_volatile(&raw const (*option).__bindgen_anon_1.sk),
        )
    };
    let unfit =
        (level == SOL_TCP && name == TCP_ULP) || (level == SOL_SOCKET && name == SO_ZEROCOPY);
    if unfit && !sk.is_null() && is_joined(sk) { 0 } else { 1 }
}

#[inline(always)]
fn is_joined(sk: *mut bpf_sock) -> bool {
    let seen = key(sk);
    // SAFETY: only looked at.
    unsafe { JOINS.get(&JoinKey { own: seen.proxy, peer: seen.client }) }.is_some()
}
