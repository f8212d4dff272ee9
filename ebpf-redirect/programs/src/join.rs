//! The workload's redirected socket and the proxy's accepted one hand each other their messages, past
//! TCP. Both are enrolled when they are connected; who finds the other one enrolled at its first message
//! sends straight to it. A direction can be sent back to TCP (its reader does not read, or something has
//! gone over TCP nevertheless), and then stays there: never the other way, or bytes would overtake others.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, bpf_sock, sk_action, sk_msg_md,
};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_probe_read_kernel, bpf_skb_adjust_room, bpf_skc_to_mptcp_sock,
    bpf_skc_to_tcp_sock,
};
use aya_ebpf::macros::{sk_msg, sock_ops, stream_verdict};
use aya_ebpf::programs::{SkBuffContext, SkMsgContext, SockOpsContext};
use portreeve_ebpf_common::{
    Address, Counter, Endpoint, FlowKey, JoinKey, JoinState, KernelLayout, flags,
};

use crate::context::either;
use crate::flows::key;
use crate::maps::{FLOWS, JOINED, JOINS, config};
use crate::report::count_shared;

/// The loader fills it in.
#[unsafe(no_mangle)]
static KERNEL: KernelLayout = KernelLayout {
    write_seq: 0,
    rmem_alloc: 0,
    sock_flags: 0,
    zerocopy: 0,
    socket: 0,
    file: 0,
    file_flags: 0,
    control: 0,
};

/// What happens to TCP sockets of the proxy.
#[sock_ops]
pub fn portreeve_sock_ops_proxy(context: SockOpsContext) -> u32 {
    if context.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        accepted(&context);
    }
    1
}

/// A connection that the workload has opened is established.
#[inline(always)]
pub fn connected(context: &SockOpsContext) {
    let wanted = config().is_some_and(|config| config.flags & flags::JOIN_SOCKETS != 0);
    // SAFETY: the context lives as long as the program runs.
    let sk = unsafe { read_volatile(&raw const (*context.ops).__bindgen_anon_2.sk) };
    if wanted && never_waits(sk) {
        enrol(context, view(context));
    }
}

/// A socket of the workload is closed, so that nothing goes straight to it any more.
#[inline(always)]
pub fn forget(own: JoinKey) {
    let _ = JOINS.remove(&own);
    let _ = JOINS.remove(&own.other_end());
}

/// A message of an enrolled socket.
#[sk_msg]
pub fn portreeve_sk_msg(context: SkMsgContext) -> u32 {
    let own = own(context.msg);
    let Some(state) = JOINS.get_ptr_mut(&own) else { return sk_action::SK_PASS };
    // SAFETY: entries live until no program runs any more that could hold them.
    let state = unsafe { &mut *state };
    if state.mode == JoinState::SEPARATE {
        tell_unread(context.msg, own);
        return sk_action::SK_PASS;
    }
    let size = context.size() as u64;
    if !may_go(context.msg, state, size)
        || JOINED.redirect_msg(&context, own.other_end(), BPF_F_INGRESS as u64) as u32
            != sk_action::SK_PASS
    {
        // The other end is not enrolled, or was closed: TCP answers as it always does.
        state.mode = JoinState::SEPARATE;
        return sk_action::SK_PASS;
    }
    state.mode = JoinState::JOINED;
    state.sent += size;
    count_shared(Counter::MessagesJoined);
    tell_unread(context.msg, own);
    sk_action::SK_PASS
}

/// What comes over TCP to an enrolled socket. Without a program here the kernel does not count it, and the
/// application is told of fewer bytes than there are. With one, it gives the application all bytes of a
/// retransmission, also those that have come before: they are taken away here.
#[stream_verdict]
pub fn portreeve_sk_skb(context: SkBuffContext) -> u32 {
    let skb = context.skb.skb;
    if let (Some(state), Some(sequence)) = (JOINS.get_ptr_mut(&receiver(skb)), sequence(skb)) {
        // SAFETY: entries live until no program runs any more that could hold them.
        let known = unsafe { (*state).known(sequence, context.len()) };
        take_away(skb, known);
    }
    sk_action::SK_PASS
}

/// TCP's number of its first byte.
#[inline(always)]
fn sequence(skb: *mut __sk_buff) -> Option<u32> {
    let mut sequence = 0_u32;
    // SAFETY: what programs know as their context is the kernel's own structure; the helper reads what
    // can be read.
    let result = unsafe {
        let control = skb.cast::<u8>().add(read_volatile(&KERNEL.control) as usize);
        bpf_probe_read_kernel((&raw mut sequence).cast(), 4, control.cast())
    };
    if result == 0 { Some(sequence) } else { None }
}

/// Takes bytes away from the front.
#[inline(always)]
fn take_away(skb: *mut __sk_buff, known: u32) {
    /// The most that the helper takes at once.
    const AT_ONCE: u32 = 0xfff;
    let mut left = known;
    // Enough for a packet of 64 KiB, the largest there is.
    for _ in 0..17 {
        let now = if left < AT_ONCE { left } else { AT_ONCE };
        if now == 0 {
            return;
        }
        // SAFETY: the helper takes the context and numbers.
        if unsafe { bpf_skb_adjust_room(skb, -(now as i32), 0, 0) } != 0 {
            return;
        }
        left -= now;
    }
}

/// Whether nothing has gone over TCP, so that nothing can be overtaken, and the reader keeps up.
#[inline(always)]
fn may_go(message: *mut sk_msg_md, state: &JoinState, size: u64) -> bool {
    // SAFETY: the context lives as long as the program runs; so does its socket.
    let written = unsafe {
        number(read_volatile(&raw const (*message).__bindgen_anon_3.sk), &KERNEL.write_seq)
    };
    written == Some(state.first) && state.sent + size <= state.allowed
}

/// Who sends also tells how much of what it was sent it has not read.
#[inline(always)]
fn tell_unread(message: *mut sk_msg_md, own: JoinKey) {
    let Some(other) = JOINS.get_ptr_mut(&own.other_end()) else { return };
    // SAFETY: entries live until no program runs any more that could hold them; words of 8 bytes are
    // read and written whole. `sent` comes first: what is sent meanwhile then counts as unread.
    unsafe {
        let sent = read_volatile(&raw const (*other).sent);
        let sk = read_volatile(&raw const (*message).__bindgen_anon_3.sk);
        if let Some(unread) = number(sk, &KERNEL.rmem_alloc) {
            (*other).allowed = JoinState::allowance(sent, unread as u64);
        }
    }
}

/// The proxy has accepted a connection: the workload's, if it goes to where those are turned to, and one is
/// on its way from there.
#[inline(always)]
fn accepted(context: &SockOpsContext) {
    let Some(config) = config() else { return };
    let own = view(context);
    let flow = FlowKey { client: own.peer, proxy: own.own };
    let turned = flow.proxy == config.proxy_v4 || flow.proxy == config.proxy_v6;
    // SAFETY: the helper takes the context.
    let netns = unsafe { bpf_get_netns_cookie(context.ops.cast()) };
    if config.flags & flags::JOIN_SOCKETS == 0 || !turned || netns != config.netns {
        return;
    }
    // SAFETY: only looked at.
    if unsafe { FLOWS.get(&flow) }.is_none() {
        return;
    }
    enrol(context, own);
}

/// Enrols a socket. Without room, it is a socket like others.
#[inline(always)]
fn enrol(context: &SockOpsContext, own: JoinKey) {
    let ops = context.ops;
    // SAFETY: the context lives as long as the program runs.
    let (sk, first, next, sent) = unsafe {
        (
            read_volatile(&raw const (*ops).__bindgen_anon_2.sk),
            read_volatile(&raw const (*ops).snd_nxt),
            read_volatile(&raw const (*ops).rcv_nxt),
            read_volatile(&raw const (*ops).data_segs_out),
        )
    };
    // Data that went with the first packet (TCP Fast Open) would be overtaken.
    if sk.is_null() || sent != 0 || is_multipath(sk) || is_zerocopy(sk) {
        return;
    }
    if JOINS.insert(&own, &JoinState::new(first, next), 0).is_err() {
        return;
    }
    // SAFETY: as above.
    if JOINED.update(own, unsafe { &mut *ops }, 0).is_err() {
        let _ = JOINS.remove(&own);
    }
}

/// Whether it is one path of several.
#[inline(always)]
fn is_multipath(sk: *mut bpf_sock) -> bool {
    // SAFETY: the socket lives as long as the program runs.
    unsafe { !bpf_skc_to_mptcp_sock(sk.cast()).is_null() }
}

/// Whether it may be told to send from the application's own memory, and then to say when that is free
/// again: of a message that is joined, nobody says it.
#[inline(always)]
fn is_zerocopy(sk: *mut bpf_sock) -> bool {
    // SAFETY: the socket is the context's.
    unsafe {
        let bit = read_volatile(&KERNEL.zerocopy);
        number(sk, &KERNEL.sock_flags).is_none_or(|flags| flags >> (bit & 31) & 1 != 0)
    }
}

/// Whether the application has made the socket non-blocking. `recv()` of an enrolled one that blocks can
/// fail with EAGAIN when something else wakes it, and does not wait for all that was asked for
/// (`MSG_WAITALL`); who never waits in it expects both.
#[inline(always)]
fn never_waits(sk: *mut bpf_sock) -> bool {
    const O_NONBLOCK: u32 = 0o4000;
    // SAFETY: the socket is the context's; what the pointers of the kernel point to has the type that the
    // verifier knows, and reads as 0 when it is gone.
    unsafe {
        let Some(socket) = pointer(tcp(sk), &KERNEL.socket) else { return false };
        let Some(file) = pointer(socket, &KERNEL.file) else { return false };
        let offset = read_volatile(&KERNEL.file_flags);
        read_volatile(file.add(offset as usize).cast::<u32>()) & O_NONBLOCK != 0
    }
}

/// A number in the kernel's own structure of a TCP socket, whose first member is its `struct sock`.
///
/// # Safety
/// `sk` is a socket of the running program's context.
#[inline(always)]
unsafe fn number(sk: *mut bpf_sock, offset: &u32) -> Option<u32> {
    // SAFETY: the caller's promise; the verifier knows the type and the offset, and refuses what lies
    // outside.
    unsafe {
        let offset = read_volatile(offset);
        let tcp = tcp(sk);
        if offset == 0 || tcp.is_null() {
            return None;
        }
        Some(read_volatile(tcp.add(offset as usize).cast::<u32>()))
    }
}

/// A pointer in a structure of the kernel.
///
/// # Safety
/// `structure` is null or of the type that the offset is of.
#[inline(always)]
unsafe fn pointer(structure: *const u8, offset: &u32) -> Option<*const u8> {
    // SAFETY: as of `number`.
    unsafe {
        let offset = read_volatile(offset);
        if offset == 0 || structure.is_null() {
            return None;
        }
        let found = read_volatile(structure.add(offset as usize).cast::<*const u8>());
        if found.is_null() { None } else { Some(found) }
    }
}

/// The kernel's own structure of a TCP socket.
///
/// # Safety
/// `sk` is a socket of the running program's context.
#[inline(always)]
unsafe fn tcp(sk: *mut bpf_sock) -> *const u8 {
    if sk.is_null() {
        return core::ptr::null();
    }
    // SAFETY: the caller's promise.
    unsafe { bpf_skc_to_tcp_sock(sk.cast()).cast() }
}

/// The socket of a callback, as it sees itself.
#[inline(always)]
fn view(context: &SockOpsContext) -> JoinKey {
    let seen = key(context);
    JoinKey { own: seen.client, peer: seen.proxy }
}

#[inline(always)]
fn own(message: *mut sk_msg_md) -> JoinKey {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let here = read_volatile(&raw const (*message).local_port) as u16;
        let there = u32::from_be(read_volatile(&raw const (*message).remote_port)) as u16;
        JoinKey {
            own: Endpoint::new(local(message), here),
            peer: Endpoint::new(remote(message), there),
        }
    }
}

#[inline(always)]
fn local(message: *mut sk_msg_md) -> Address {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*message).local_ip6[0]),
            read_volatile(&raw const (*message).local_ip6[1]),
            read_volatile(&raw const (*message).local_ip6[2]),
            read_volatile(&raw const (*message).local_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*message).local_ip4);
        either(read_volatile(&raw const (*message).family), v4, v6)
    }
}

#[inline(always)]
fn remote(message: *mut sk_msg_md) -> Address {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*message).remote_ip6[0]),
            read_volatile(&raw const (*message).remote_ip6[1]),
            read_volatile(&raw const (*message).remote_ip6[2]),
            read_volatile(&raw const (*message).remote_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*message).remote_ip4);
        either(read_volatile(&raw const (*message).family), v4, v6)
    }
}

/// The socket that a packet is for, as it sees itself.
#[inline(always)]
fn receiver(skb: *mut __sk_buff) -> JoinKey {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let family = read_volatile(&raw const (*skb).family);
        let here = [
            read_volatile(&raw const (*skb).local_ip6[0]),
            read_volatile(&raw const (*skb).local_ip6[1]),
            read_volatile(&raw const (*skb).local_ip6[2]),
            read_volatile(&raw const (*skb).local_ip6[3]),
        ];
        let there = [
            read_volatile(&raw const (*skb).remote_ip6[0]),
            read_volatile(&raw const (*skb).remote_ip6[1]),
            read_volatile(&raw const (*skb).remote_ip6[2]),
            read_volatile(&raw const (*skb).remote_ip6[3]),
        ];
        let here = either(family, read_volatile(&raw const (*skb).local_ip4), here);
        let there = either(family, read_volatile(&raw const (*skb).remote_ip4), there);
        let here_port = read_volatile(&raw const (*skb).local_port) as u16;
        let there_port = u32::from_be(read_volatile(&raw const (*skb).remote_port)) as u16;
        JoinKey { own: Endpoint::new(here, here_port), peer: Endpoint::new(there, there_port) }
    }
}
