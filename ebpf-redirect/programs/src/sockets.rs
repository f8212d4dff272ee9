//! Which sockets there may be, and which ports are the workload's.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_NOEXIST, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use portreeve_ebpf_common::{
    Address, Counter, Direction, Endpoint, EventReason, PortKey, SocketState, flags, protocol,
};

use crate::judge::{Judged, header};
use crate::maps::{PORTS, SOCKETS, config};
use crate::report::{Parties, count, refuse};

const STREAM: u32 = 1;
const DATAGRAM: u32 = 2;

/// Sockets of other kinds send what no program sees: raw ones, SCTP, MPTCP. Where policy restricts what
/// the workload may reach, there are none.
#[cgroup_sock(sock_create)]
pub fn portreeve_sock_create(context: SockContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let (kind, number) = unsafe {
        (
            read_volatile(&raw const (*context.sock).type_),
            read_volatile(&raw const (*context.sock).protocol),
        )
    };
    let known = (kind == STREAM && number == protocol::TCP as u32)
        || (kind == DATAGRAM && number == protocol::UDP as u32);
    if known {
        return 1;
    }
    let free = match (config(), header()) {
        (Some(config), _) if config.flags & flags::OTHER_SOCKETS != 0 => true,
        (Some(_), Some(header)) => !header.is_enforced(Direction::Egress),
        _ => false,
    };
    if free {
        return 1;
    }
    let parties = Parties {
        cookie: 0,
        direction: Direction::Egress,
        protocol: number as u8,
        source: Endpoint::default(),
        asked: Endpoint::default(),
        destination: Endpoint::default(),
    };
    count(Counter::SocketsRefused);
    refuse(EventReason::SocketKind, &parties, &Judged::NOTHING);
    0
}

/// `bind()` over IPv4.
#[cgroup_sock(post_bind4)]
pub fn portreeve_post_bind4(context: SockContext) -> i32 {
    let sk = context.sock;
    // SAFETY: the context lives as long as the program runs.
    let address = unsafe { Address::v4(read_volatile(&raw const (*sk).src_ip4)) };
    hold(sk, address)
}

/// `bind()` over IPv6.
#[cgroup_sock(post_bind6)]
pub fn portreeve_post_bind6(context: SockContext) -> i32 {
    let sk = context.sock;
    // SAFETY: the context lives as long as the program runs.
    let address = unsafe {
        Address([
            read_volatile(&raw const (*sk).src_ip6[0]),
            read_volatile(&raw const (*sk).src_ip6[1]),
            read_volatile(&raw const (*sk).src_ip6[2]),
            read_volatile(&raw const (*sk).src_ip6[3]),
        ])
    };
    hold(sk, address)
}

/// A socket is closed.
#[cgroup_sock(sock_release)]
pub fn portreeve_sock_release(context: SockContext) -> i32 {
    if let Some(state) = storage(context.sock, 0) {
        give_up(state);
    }
    1
}

/// Counts a socket that is bound. Without room for that, it may not be: nobody would judge what comes.
#[inline(always)]
fn hold(sk: *mut bpf_sock, address: Address) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let (port, number, netns) = unsafe {
        (
            read_volatile(&raw const (*sk).src_port),
            read_volatile(&raw const (*sk).protocol),
            bpf_get_netns_cookie(sk.cast()),
        )
    };
    let Some(state) = storage(sk, 1) else {
        count(Counter::MapFull);
        return 0;
    };
    let local = Endpoint::new(address, port as u16);
    take(state, PortKey { local, protocol: number }, netns) as i32
}

/// Counts a socket as one who holds a port, in the place of the one it held: a socket whose port was
/// chosen for it may be bound again. Where there is no room, `false`.
///
/// A port of the same number in another namespace is another port: nothing comes to it from here.
#[inline(always)]
pub fn take(state: &mut SocketState, key: PortKey, netns: u64) -> bool {
    if state.holds_port != 0 && state.bound == key {
        return true;
    }
    give_up(state);
    if config().is_some_and(|config| config.netns != netns) {
        return true;
    }
    for _ in 0..ATTEMPTS {
        let taken = match PORTS.get_ptr_mut(&key) {
            // The place of an entry that was removed meanwhile may be another port's: looked at again.
            Some(holders) => add(holders, 1) < GONE && PORTS.get_ptr_mut(&key) == Some(holders),
            None => PORTS.insert(&key, &1, BPF_NOEXIST as u64).is_ok(),
        };
        if taken {
            state.bound = key;
            state.holds_port = 1;
            return true;
        }
    }
    count(Counter::MapFull);
    false
}

/// Counts a socket off. The last one to give a port up removes its entry, once nobody can count on it
/// any more: who comes in between begins another one.
#[inline(always)]
fn give_up(state: &mut SocketState) {
    if state.holds_port == 0 {
        return;
    }
    state.holds_port = 0;
    let bound = state.bound;
    if let Some(holders) = PORTS.get_ptr_mut(&bound)
        && add(holders, u32::MAX) == 1
        && close(holders)
    {
        let _ = PORTS.remove(&bound);
    }
}

/// A count from which on an entry is about to be removed.
const GONE: u32 = 1 << 31;
/// How often a port is counted whose entry is about to be removed. The other processor needs some
/// hundred nanoseconds for that.
const ATTEMPTS: u32 = 64;

/// Adds to a count that other CPUs count on, and returns what it was.
#[inline(always)]
fn add(holders: *mut u32, number: u32) -> u32 {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // SAFETY: it points into a map's value.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(holders, number) }
}

/// Makes of a count that is 0 one that nobody counts on; whether it did.
#[inline(always)]
fn close(holders: *mut u32) -> bool {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: it points into a map's value.
    unsafe { atomic_cxchg::<u32, { ORDER }, { ORDER }>(holders, 0, GONE).1 }
}

#[inline(always)]
fn storage(sk: *mut bpf_sock, flags: u64) -> Option<&'static mut SocketState> {
    // SAFETY: the storage lives as long as the socket, which lives as long as the program runs.
    unsafe {
        let map = (&raw const SOCKETS).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
            .cast::<SocketState>()
            .as_mut()
    }
}
