//! Who is on the link (RFC 4861, RFC 3810): asked and answered without policy, but no further than the
//! link. Receivers believe such a message because its hop limit says that nobody has sent it on; routers
//! do send it on, if it asks for that.

use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::helpers::generated::bpf_fib_lookup as look_up_route;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::Address;
use portreeve_ebpf_common::node::EndpointEntry;

use crate::maps::OWN;
use crate::packet::Packet;
use crate::workload::is_own;

/// Whether discovery by a workload stays on its link: what it says goes to the link, to this host, or to
/// another workload of it, which may be on the same bridge.
#[inline(always)]
pub fn stays_on_link(context: &TcContext, endpoint: &EndpointEntry, packet: &Packet) -> bool {
    let [first, second, ..] = packet.destination.to_bytes();
    let to_link = is_of_link(packet.destination) || (first == 0xff && second == 2);
    if to_link && (is_of_link(packet.source) || packet.source == Address::UNSPECIFIED) {
        return true;
    }
    if !is_own(endpoint, packet) {
        return false;
    }
    // SAFETY: only looked at.
    to_link || unsafe { OWN.get(&packet.destination) }.is_some() || is_of_host(context, packet)
}

/// `fe80::/10`
#[inline(always)]
fn is_of_link(address: Address) -> bool {
    let [first, second, ..] = address.to_bytes();
    first == 0xfe && second & 0xc0 == 0x80
}

/// Whether the destination is an address of this host.
#[inline(always)]
fn is_of_host(context: &TcContext, packet: &Packet) -> bool {
    const AF_INET6: u8 = 10;
    /// `BPF_FIB_LKUP_RET_NOT_FWDED`: there is a route, and it leads here.
    const NOT_FORWARDED: i64 = 4;
    /// `BPF_FIB_LKUP_RET_FWD_DISABLED`: this host is no router.
    const NO_ROUTER: i64 = 5;
    // SAFETY: any bytes are one.
    let mut route: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    route.family = AF_INET6;
    // SAFETY: the context lives as long as the program runs.
    route.ifindex = unsafe { (*context.skb.skb).ifindex };
    route.__bindgen_anon_3.ipv6_src = packet.source.0;
    route.__bindgen_anon_4.ipv6_dst = packet.destination.0;
    // SAFETY: there are as many bytes.
    let found = unsafe {
        let size = size_of::<bpf_fib_lookup>() as i32;
        look_up_route(context.skb.skb.cast(), &raw mut route, size, 0)
    };
    matches!(found, NOT_FORWARDED | NO_ROUTER)
}
