//! Who is on the link (RFC 4861, RFC 3810): asked and answered without policy, but no further than the
//! link. Receivers believe such a message because its hop limit says that nobody has sent it on; routers
//! do send it on, if it asks for that.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::helpers::generated::bpf_fib_lookup as look_up_route;
use aya_ebpf::programs::TcContext;
use portreeve_ebpf_common::Address;
use portreeve_ebpf_common::node::EndpointEntry;

use crate::maps::{CONFIG, OWN};
use crate::packet::{LINK, Packet, load, word};
use crate::workload::belongs_to;

/// Whether discovery by a workload stays on its link: what it says goes to the link, to this host, or to
/// another workload of it, which may be on the same bridge.
#[inline(always)]
pub fn stays_on_link(context: &TcContext, endpoint: &EndpointEntry, packet: &Packet) -> bool {
    let [first, second, ..] = packet.destination.to_bytes();
    let to_link = is_of_link(packet.destination) || (first == 0xff && second == 2);
    if to_link && (is_of_link(packet.source) || packet.source == Address::UNSPECIFIED) {
        return true;
    }
    if !belongs_to(endpoint, packet.source) {
        return false;
    }
    // SAFETY: only looked at.
    to_link || unsafe { OWN.get(&packet.destination) }.is_some() || is_of_host(context, packet)
}

/// Whether ARP by a workload speaks of its own address as its own, or of none, as who asks whether one is
/// free. A bridge would send others' packets to whoever says that he has their address.
#[inline(always)]
pub fn speaks_for_itself(context: &TcContext, endpoint: &EndpointEntry) -> bool {
    /// Ethernet and IPv4, which have 6 and 4 bytes.
    const KINDS: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let mut room = MaybeUninit::uninit();
    let Ok(header) = load::<20>(context, LINK, &mut room) else { return false };
    let sender = Address::v4(word(header, 14));
    header[..6] == KINDS && (sender == Address::UNSPECIFIED_V4 || belongs_to(endpoint, sender))
}

/// Whether an advertisement is of an address that the workload has. Of those of the link nobody keeps account.
#[inline(always)]
pub fn advertises_itself(context: &TcContext, endpoint: &EndpointEntry, packet: &Packet) -> bool {
    const ADVERTISEMENT: u16 = 136;
    if packet.destination_port != ADVERTISEMENT {
        return true;
    }
    let mut room = MaybeUninit::uninit();
    let Ok(body) = load::<24>(context, packet.at as usize, &mut room) else { return false };
    let target = Address([word(body, 8), word(body, 12), word(body, 16), word(body, 20)]);
    is_of_link(target) || belongs_to(endpoint, target)
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
    // SAFETY: only looked at.
    let Some(config) = (unsafe { CONFIG.get(&0) }) else { return false };
    // SAFETY: any bytes are one.
    let mut route: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    route.family = AF_INET6;
    // Asked as if it had come by a device that routes: of others the kernel says that they do not, whoever has
    // the address.
    route.ifindex = config.device;
    route.__bindgen_anon_3.ipv6_src = packet.source.0;
    route.__bindgen_anon_4.ipv6_dst = packet.destination.0;
    // SAFETY: there are as many bytes.
    let found = unsafe {
        let size = size_of::<bpf_fib_lookup>() as i32;
        look_up_route(context.skb.skb.cast(), &raw mut route, size, 0)
    };
    found == NOT_FORWARDED
}
