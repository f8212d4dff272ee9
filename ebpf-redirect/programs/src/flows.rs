//! Where redirected connections wanted to go, by both ends as the proxy's socket shows them. Written
//! before the first packet leaves, so that the proxy always finds it; removed when the client's socket
//! is closed.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_storage_get,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use portreeve_ebpf_common::{
    Address, Counter, Endpoint, FlowKey, FlowValue, JoinKey, PortKey, SocketState, protocol,
};

use crate::context::either;
use crate::join::{connected, forget};
use crate::maps::{FLOWS, SOCKETS};
use crate::report::count;
use crate::sockets::take;

/// `TCP_CLOSE` of the kernel's states.
const CLOSED: u32 = 7;

/// What happens to TCP sockets of the workload.
#[sock_ops]
pub fn portreeve_sock_ops(context: SockOpsContext) -> u32 {
    match context.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => opened(&context),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listens(&context),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB if is_redirected(&context) => connected(&context),
        BPF_SOCK_OPS_STATE_CB if context.arg(1) == CLOSED => closed(&context),
        _ => {}
    }
    1
}

#[inline(always)]
fn opened(context: &SockOpsContext) {
    let Some(state) = state(context, 0) else { return };
    if state.redirected == 0 {
        return;
    }
    let value = FlowValue {
        asked: state.asked,
        destination: state.destination,
        // SAFETY: the helper takes the context.
        cookie: unsafe { bpf_get_socket_cookie(context.ops.cast()) },
    };
    // Without room the proxy does not learn where the connection is to go, and refuses it.
    if FLOWS.insert(&key(context), &value, 0).is_err() {
        count(Counter::MapFull);
        return;
    }
    let _ = context.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
}

/// A socket that listens without having been bound has got a port just now, and no other program has seen
/// that.
#[inline(always)]
fn listens(context: &SockOpsContext) {
    let address = local(context.ops);
    let local = Endpoint::new(address, context.local_port() as u16);
    let key = PortKey { local, protocol: protocol::TCP as u32 };
    // SAFETY: the helper takes the context.
    let netns = unsafe { bpf_get_netns_cookie(context.ops.cast()) };
    match state(context, 1) {
        Some(state) => {
            take(state, key, netns);
        }
        None => count(Counter::MapFull),
    }
}

#[inline(always)]
fn closed(context: &SockOpsContext) {
    let flow = key(context);
    let _ = FLOWS.remove(&flow);
    forget(JoinKey { own: flow.client, peer: flow.proxy });
}

#[inline(always)]
fn is_redirected(context: &SockOpsContext) -> bool {
    state(context, 0).is_some_and(|state| state.redirected != 0)
}

/// Both ends, as seen from the client's.
#[inline(always)]
pub fn key(context: &SockOpsContext) -> FlowKey {
    let ops = context.ops;
    let (client, proxy) = (local(ops), remote(ops));
    FlowKey {
        client: Endpoint::new(client, context.local_port() as u16),
        proxy: Endpoint::new(proxy, u32::from_be(context.remote_port()) as u16),
    }
}

#[inline(always)]
fn local(ops: *mut bpf_sock_ops) -> Address {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*ops).local_ip6[0]),
            read_volatile(&raw const (*ops).local_ip6[1]),
            read_volatile(&raw const (*ops).local_ip6[2]),
            read_volatile(&raw const (*ops).local_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*ops).local_ip4);
        either(read_volatile(&raw const (*ops).family), v4, v6)
    }
}

#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> Address {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*ops).remote_ip6[0]),
            read_volatile(&raw const (*ops).remote_ip6[1]),
            read_volatile(&raw const (*ops).remote_ip6[2]),
            read_volatile(&raw const (*ops).remote_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*ops).remote_ip4);
        either(read_volatile(&raw const (*ops).family), v4, v6)
    }
}

#[inline(always)]
fn state(context: &SockOpsContext, flags: u64) -> Option<&'static mut SocketState> {
    // SAFETY: the storage lives as long as the socket, which lives as long as the program runs.
    unsafe {
        let sk = (*context.ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let map = (&raw const SOCKETS).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
            .cast::<SocketState>()
            .as_mut()
    }
}
