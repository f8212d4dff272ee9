//! What leads packets to the proxy's sockets: a device of our own, on whose ingress sockets are assigned
//! to what was found on its way to a workload; and a rule with a route by which marked packets are for
//! this host, whatever their destination.

use std::fs;
use std::io;

use aya::programs::{SchedClassifier, TcAttachType};
use portreeve_ebpf_common::node::mark;

use super::error::NodeError;
use super::netlink::{Netlink, Request};

/// The device's name.
pub(super) const NAME: &str = "portreeve0";
/// The table with the local route; the rule comes after the one for local addresses.
const TABLE: u32 = 0x5052;
const PRIORITY: u32 = 100;

/// Makes what is not there yet; the device's number.
pub(super) fn prepare() -> Result<u32, NodeError> {
    let netlink = Netlink::open().map_err(NodeError::network("open a netlink socket"))?;
    make(&netlink).map_err(NodeError::network("make the device `portreeve0`"))?;
    let device = number(NAME).map_err(NodeError::network("find the device `portreeve0`"))?;
    netlink.ask(up(device)).map_err(NodeError::network("set the device `portreeve0` up"))?;
    // What comes from it has others' addresses as its source, and some are this host's.
    for (option, value) in [("rp_filter", "0"), ("accept_local", "1")] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{NAME}/{option}"), value)
            .map_err(NodeError::network("let the device `portreeve0` take all addresses"))?;
    }
    // On a device without an address, a loose `rp_filter` is as strict as a strict one.
    netlink
        .ask(own_address(device))
        .map_err(NodeError::network("give the device `portreeve0` an address"))?;
    // Nothing is routed there, but who asks the kernel whose an address is, has to ask in the name of a device
    // that routes. Without IPv6 nobody asks.
    match fs::write(format!("/proc/sys/net/ipv6/conf/{NAME}/forwarding"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        set => set.map_err(NodeError::network("let the device `portreeve0` route"))?,
    }
    // It would give packets to the proxy's sockets before they are routed; and what has a socket and is on
    // its way to a workload, is not forwarded to where a program finds it.
    fs::write("/proc/sys/net/ipv4/tcp_early_demux", "0")
        .map_err(NodeError::network("turn off `net.ipv4.tcp_early_demux`"))?;
    let loopback = number("lo").map_err(NodeError::network("find `lo`"))?;
    for family in [AF_INET, AF_INET6] {
        let routed =
            netlink.ask(local_route(family, loopback)).and_then(|()| netlink.ask(rule(family)));
        match routed {
            // Without IPv6 there are no such packets.
            Err(error) if family == AF_INET6 && is_unsupported(&error) => {}
            routed => routed.map_err(NodeError::network("route marked packets to the proxy"))?,
        }
    }
    Ok(device)
}

/// Whether a program of ours is attached to it, whoever has pinned that.
pub(super) fn is_used() -> Result<bool, NodeError> {
    if number(NAME).is_err() {
        return Ok(false);
    }
    let attached = SchedClassifier::query_tcx(NAME, TcAttachType::Ingress)
        .map_err(io::Error::other)
        .map_err(NodeError::network("ask who uses the device `portreeve0`"))?;
    Ok(attached
        .1
        .iter()
        .any(|program| program.name_as_str().is_some_and(|name| name.starts_with("portreeve"))))
}

/// Takes it all away; whether any of it was there. What `net.ipv4.tcp_early_demux` was before is not known:
/// it stays off.
pub(super) fn remove() -> Result<bool, NodeError> {
    let netlink = Netlink::open().map_err(NodeError::network("open a netlink socket"))?;
    let mut was_there = false;
    for family in [AF_INET, AF_INET6] {
        let rule = by_mark(Request::removing(RTM_DELRULE, &rule_head(family)));
        let route = to_here(Request::removing(RTM_DELROUTE, &route_head(family)));
        for request in [rule, route] {
            was_there |= match netlink.remove(request) {
                Err(error) if family == AF_INET6 && is_unsupported(&error) => false,
                removed => {
                    removed.map_err(NodeError::network("remove the route of marked packets"))?
                }
            };
        }
    }
    if let Ok(device) = number(NAME) {
        let removed = netlink.remove(Request::removing(RTM_DELLINK, &link(device)));
        was_there |= removed.map_err(NodeError::network("remove the device `portreeve0`"))?;
    }
    Ok(was_there)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

/// The number of an interface of this thread's network namespace.
pub(super) fn number(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the name ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// A device that does nothing. Kernels without the one made for that have bridges; one without ports
/// does nothing either.
fn make(netlink: &Netlink) -> io::Result<()> {
    match netlink.ask(device("dummy")) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            netlink.ask(device("bridge"))
        }
        result => result,
    }
}

fn device(kind: &str) -> Request {
    // An attribute in an attribute: its length, its kind, and its value.
    let length = u16::try_from(kind.len() + 4).unwrap_or_default();
    let kind = [&length.to_ne_bytes()[..], &IFLA_INFO_KIND.to_ne_bytes(), kind.as_bytes()].concat();
    let name = [NAME.as_bytes(), &[0]].concat();
    Request::new(RTM_NEWLINK, &link(0)).with(IFLA_IFNAME, &name).with(IFLA_LINKINFO, &kind)
}

fn up(device: u32) -> Request {
    Request::new(RTM_SETLINK, &link(device))
}

/// An address that nobody outside of this host can send to: of the loopback network (RFC 1122, 3.2.1.3).
fn own_address(device: u32) -> Request {
    const ADDRESS: [u8; 4] = [127, 80, 82, 1];
    const HOST: u8 = 254;
    // `struct ifaddrmsg`
    let fixed = [&[AF_INET, 32, 0, HOST][..], &device.to_ne_bytes()].concat();
    Request::new(RTM_NEWADDR, &fixed).with(IFA_LOCAL, &ADDRESS).with(IFA_ADDRESS, &ADDRESS)
}

/// `struct ifinfomsg`, of a device that is up.
fn link(device: u32) -> Vec<u8> {
    const IFF_UP: u32 = 1;
    let words = [0, device, IFF_UP, IFF_UP];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Everything is local.
fn local_route(family: u8, loopback: u32) -> Request {
    to_here(Request::new(RTM_NEWROUTE, &route_head(family))).with(RTA_OIF, &loopback.to_ne_bytes())
}

/// `struct rtmsg`
fn route_head(family: u8) -> [u8; 12] {
    const STATIC: u8 = 4;
    const HOST: u8 = 254;
    const LOCAL: u8 = 2;
    [family, 0, 0, 0, 0, STATIC, HOST, LOCAL, 0, 0, 0, 0]
}

fn to_here(request: Request) -> Request {
    request.with(RTA_TABLE, &TABLE.to_ne_bytes())
}

/// By the mark to the table.
fn rule(family: u8) -> Request {
    by_mark(Request::new(RTM_NEWRULE, &rule_head(family)))
}

/// `struct fib_rule_hdr`
fn rule_head(family: u8) -> [u8; 12] {
    const TO_TABLE: u8 = 1;
    [family, 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0]
}

fn by_mark(request: Request) -> Request {
    request
        .with(FRA_PRIORITY, &PRIORITY.to_ne_bytes())
        .with(FRA_FWMARK, &mark::TO_PROXY.to_ne_bytes())
        .with(FRA_FWMASK, &u32::MAX.to_ne_bytes())
        .with(FRA_TABLE, &TABLE.to_ne_bytes())
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h and fib_rules.h
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
