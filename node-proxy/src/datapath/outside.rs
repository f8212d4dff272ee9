//! What leads outside of this node, where nobody says so: the devices of the default routes, and the
//! addresses by which others know this node.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The devices of the default routes.
pub(crate) fn devices() -> BTreeSet<String> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    // The thread's own network namespace, as everything else that is done here.
    let (v4, v6) = (read("/proc/thread-self/net/route"), read("/proc/thread-self/net/ipv6_route"));
    of_default_routes(&v4, &v6)
}

/// `/proc/net/route` has a line of headings: device, destination, …, mask as the eighth.
/// `/proc/net/ipv6_route` has none: destination, its length, …, flags as the ninth, device.
fn of_default_routes(v4: &str, v6: &str) -> BTreeSet<String> {
    const UP: u32 = 1;
    const REJECT: u32 = 0x200;
    let v4 = v4.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [device, "00000000", _, _, _, _, _, "00000000", ..] => Some(device.to_owned()),
            _ => None,
        }
    });
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, _, _, _, _, flags, device] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = destination.bytes().all(|digit| digit == b'0');
        (is_default && flags & UP != 0 && flags & REJECT == 0).then(|| device.to_owned())
    });
    v4.chain(v6).filter(|device| device != "lo").collect()
}

/// The address from which this node would call somebody far away, in each family.
pub(crate) fn addresses() -> Vec<IpAddr> {
    // Nobody is called: addresses that stand in documents (RFC 5737, RFC 3849), at the discard port.
    let far: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    let own = |(any, far): (IpAddr, IpAddr)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(SocketAddr::from((far, 9))).ok()?;
        let own = socket.local_addr().ok()?.ip();
        let is_of_link = matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
        (!own.is_loopback() && !own.is_unspecified() && !is_of_link).then_some(own)
    };
    far.into_iter().filter_map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_default_routes_are_found_in_both_families() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                  eth1\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        let v6 = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth2\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth3\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        let found = of_default_routes(v4, v6);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["eth0", "eth3"]);
        assert!(of_default_routes("", "nonsense\n").is_empty());
    }
}
