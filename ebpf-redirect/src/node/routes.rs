//! Where the default routes lead, of both families: asked of the kernel, since `/proc/net/route` tells of
//! one device alone where a route has several.

use std::collections::BTreeSet;
use std::io;

use super::netlink::{NLM_F_DUMP, Netlink, Request, attribute, word};

/// The numbers of the devices of the default routes of the main table. Routes that refuse, and those whose
/// device is gone, lead nowhere.
///
/// # Errors
/// When the kernel does not tell.
pub fn default_route_devices() -> io::Result<BTreeSet<u32>> {
    let netlink = Netlink::open()?;
    let mut all = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        // `struct rtmsg`
        let request = Request::new(RTM_GETROUTE, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let routes = netlink.get(request, NLM_F_DUMP)?;
        for (_, route) in routes.iter().filter(|(kind, _)| *kind == RTM_NEWROUTE) {
            all.extend(devices(route));
        }
    }
    Ok(all)
}

/// Those of a route, if it is a default route that leads somewhere.
fn devices(route: &[u8]) -> Vec<u32> {
    let is_default = matches!(route, [_, 0, _, _, MAIN, _, _, UNICAST, ..]);
    let (Some(attributes), true) = (route.get(12..), is_default) else { return Vec::new() };
    let is_dead = word(route, 8).is_none_or(|flags| flags & u32::from(DEAD) != 0);
    let one = attribute(attributes, RTA_OIF).and_then(|device| word(device, 0));
    let one = one.filter(|_| !is_dead);
    one.into_iter().chain(hops(attribute(attributes, RTA_MULTIPATH).unwrap_or_default())).collect()
}

/// `struct rtnexthop`, one behind another, each with attributes: its length, flags, weight, the device.
fn hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    const HEADER: usize = 8;
    std::iter::from_fn(move || {
        loop {
            let [low, high, flags, _, ..] = *bytes else { return None };
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if length < HEADER {
                return None;
            }
            let device = word(bytes, 4)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            if flags & DEAD == 0 {
                return Some(device);
            }
        }
    })
}

// include/uapi/linux/rtnetlink.h
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// `RT_TABLE_MAIN`
const MAIN: u8 = 254;
/// `RTN_UNICAST`; others are `unreachable`, `blackhole` and the like.
const UNICAST: u8 = 1;
/// `RTNH_F_DEAD`
const DEAD: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    /// A route of the main table: the length of its destination, its kind, its flags, and attributes.
    fn route(bits: u8, kind: u8, flags: u8, attributes: &[&[u8]]) -> Vec<u8> {
        let fixed = [AF_INET, bits, 0, 0, MAIN, 3, 0, kind, flags, 0, 0, 0];
        [&fixed[..], &attributes.concat()].concat()
    }

    fn with(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).expect("short").to_ne_bytes();
        [&length[..], &kind.to_ne_bytes(), value].concat()
    }

    fn by(device: u32) -> Vec<u8> {
        with(RTA_OIF, &device.to_ne_bytes())
    }

    #[test]
    fn a_default_route_leads_by_its_device_and_others_by_none() {
        assert_eq!(devices(&route(0, UNICAST, 0, &[&by(7)])), [7]);
        assert_eq!(devices(&route(24, UNICAST, 0, &[&by(7)])), [0_u32; 0]);
        assert_eq!(devices(&route(0, UNICAST, DEAD, &[&by(7)])), [0_u32; 0]);
        let mut elsewhere = route(0, UNICAST, 0, &[&by(7)]);
        elsewhere[4] = 100;
        assert_eq!(devices(&elsewhere), [0_u32; 0]);
        assert_eq!(devices(&[0, 0, 0]), [0_u32; 0]);
    }

    #[test]
    fn a_default_route_that_refuses_leads_nowhere() {
        for kind in [6, 7, 8] {
            assert_eq!(devices(&route(0, kind, 0, &[])), [0_u32; 0]);
            assert_eq!(devices(&route(0, kind, 0, &[&by(1)])), [0_u32; 0]);
        }
    }

    #[test]
    fn a_default_route_over_several_devices_leads_by_all_of_them() {
        let hop = |device: u32, flags: u8, more: &[u8]| {
            let length = u16::try_from(8 + more.len()).expect("short").to_ne_bytes();
            [&length[..], &[flags, 0], &device.to_ne_bytes(), more].concat()
        };
        let gateway = with(5, &[10, 0, 0, 1]);
        let all = [hop(7, 0, &gateway), hop(8, DEAD, &gateway), hop(9, 0, &[])].concat();
        assert_eq!(devices(&route(0, UNICAST, 0, &[&with(RTA_MULTIPATH, &all)])), [7, 9]);
        // What lies about its length ends it.
        let cut = [hop(7, 0, &[]), vec![3, 0, 0, 0, 9, 0, 0, 0]].concat();
        assert_eq!(devices(&route(0, UNICAST, 0, &[&with(RTA_MULTIPATH, &cut)])), [7]);
    }
}
