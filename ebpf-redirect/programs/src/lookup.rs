//! What a program that is asked for a listening socket is told: who asks, and for whom.

use core::ptr::read_volatile;

use aya_ebpf::bindings::bpf_sk_lookup;
use portreeve_ebpf_common::Endpoint;

use crate::context::either;

/// The address that is asked for.
#[inline(always)]
pub fn local(lookup: *mut bpf_sk_lookup) -> Endpoint {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*lookup).local_ip6[0]),
            read_volatile(&raw const (*lookup).local_ip6[1]),
            read_volatile(&raw const (*lookup).local_ip6[2]),
            read_volatile(&raw const (*lookup).local_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*lookup).local_ip4);
        let port = read_volatile(&raw const (*lookup).local_port) as u16;
        Endpoint::new(either(read_volatile(&raw const (*lookup).family), v4, v6), port)
    }
}

/// Who asks.
#[inline(always)]
pub fn remote(lookup: *mut bpf_sk_lookup) -> Endpoint {
    // SAFETY: the context lives as long as the program runs.
    unsafe {
        let v6 = [
            read_volatile(&raw const (*lookup).remote_ip6[0]),
            read_volatile(&raw const (*lookup).remote_ip6[1]),
            read_volatile(&raw const (*lookup).remote_ip6[2]),
            read_volatile(&raw const (*lookup).remote_ip6[3]),
        ];
        let v4 = read_volatile(&raw const (*lookup).remote_ip4);
        let port = u16::from_be(read_volatile(&raw const (*lookup).remote_port));
        Endpoint::new(either(read_volatile(&raw const (*lookup).family), v4, v6), port)
    }
}
