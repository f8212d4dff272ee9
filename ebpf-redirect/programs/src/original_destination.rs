//! `SO_ORIGINAL_DST` for redirected connections, as `nf_conntrack` answers it: so Envoy, HAProxy and others
//! can be the proxy as they are.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use portreeve_ebpf_common::{Address, Endpoint, FlowKey, FlowValue};

use crate::context::either;
use crate::maps::FLOWS;

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
/// `SO_ORIGINAL_DST`, and `IP6T_SO_ORIGINAL_DST`.
const ORIGINAL_DST: i32 = 80;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// `struct sockaddr_in`.
#[repr(C)]
struct SocketAddressV4 {
    family: u16,
    port: u16,
    address: u32,
    zero: [u32; 2],
}

/// `struct sockaddr_in6`.
#[repr(C)]
struct SocketAddressV6 {
    family: u16,
    port: u16,
    flow: u32,
    address: [u32; 4],
    scope: u32,
}

/// `getsockopt()` of the proxy.
#[cgroup_sockopt(getsockopt)]
pub fn portreeve_getsockopt(context: SockoptContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let option = unsafe { &mut *context.sockopt };
    // SAFETY: as above.
    let (level, name) = unsafe {
        (read_volatile(&raw const option.level), read_volatile(&raw const option.optname))
    };
    if name != ORIGINAL_DST || (level != SOL_IP && level != SOL_IPV6) {
        return 1;
    }
    // SAFETY: all of the union are pointers.
    let sk = unsafe { option.__bindgen_anon_1.sk };
    if sk.is_null() {
        return 1;
    }
    // SAFETY: copied at once.
    let Some(flow) = (unsafe { FLOWS.get(&key(sk)) }).copied() else { return 1 };
    // SAFETY: as above; what they point to is checked before it is written.
    let (start, end) = unsafe {
        (option.__bindgen_anon_2.optval as usize, option.__bindgen_anon_3.optval_end as usize)
    };
    let written = match level {
        SOL_IP => write_v4(start, end, &flow),
        _ => write_v6(start, end, &flow),
    };
    if written != 0 {
        // SAFETY: fields of the context; each by itself, or LLVM joins them.
        unsafe {
            write_volatile(&raw mut option.optlen, written);
            write_volatile(&raw mut option.retval, 0);
        }
    }
    1
}

#[inline(always)]
fn write_v4(start: usize, end: usize, flow: &FlowValue) -> i32 {
    let Endpoint { address, port } = flow.destination;
    if !address.is_v4() || start + size_of::<SocketAddressV4>() > end {
        return 0;
    }
    let out = start as *mut SocketAddressV4;
    // SAFETY: there is room, as was just compared.
    unsafe {
        (*out).family = AF_INET as u16;
        (*out).port = (port as u16).to_be();
        (*out).address = address.0[3];
        (*out).zero = [0; 2];
    }
    size_of::<SocketAddressV4>() as i32
}

#[inline(always)]
fn write_v6(start: usize, end: usize, flow: &FlowValue) -> i32 {
    let Endpoint { address, port } = flow.destination;
    if start + size_of::<SocketAddressV6>() > end {
        return 0;
    }
    let out = start as *mut SocketAddressV6;
    // SAFETY: there is room, as was just compared.
    unsafe {
        (*out).family = AF_INET6 as u16;
        (*out).port = (port as u16).to_be();
        (*out).flow = 0;
        (*out).address = address.0;
        (*out).scope = 0;
    }
    size_of::<SocketAddressV6>() as i32
}

/// Both ends, as the socket of a proxy sees them.
#[inline(always)]
pub fn key(sk: *mut bpf_sock) -> FlowKey {
    // SAFETY: the socket lives as long as the program runs.
    let (there, here) = unsafe {
        (
            u16::from_be(read_volatile(&raw const (*sk).dst_port)),
            read_volatile(&raw const (*sk).src_port) as u16,
        )
    };
    FlowKey { client: Endpoint::new(remote(sk), there), proxy: Endpoint::new(local(sk), here) }
}

#[inline(always)]
fn local(sk: *mut bpf_sock) -> Address {
    // SAFETY: the socket lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*sk).src_ip6[0]),
            read_volatile(&raw const (*sk).src_ip6[1]),
            read_volatile(&raw const (*sk).src_ip6[2]),
            read_volatile(&raw const (*sk).src_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*sk).src_ip4);
        either(read_volatile(&raw const (*sk).family), v4, v6)
    }
}

#[inline(always)]
fn remote(sk: *mut bpf_sock) -> Address {
    // SAFETY: the socket lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*sk).dst_ip6[0]),
            read_volatile(&raw const (*sk).dst_ip6[1]),
            read_volatile(&raw const (*sk).dst_ip6[2]),
            read_volatile(&raw const (*sk).dst_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*sk).dst_ip4);
        either(read_volatile(&raw const (*sk).family), v4, v6)
    }
}
