//! What leads outside of this node: the devices that are named, or those of the default routes, and the
//! addresses by which others know this node. Both may come, go and be made anew while the daemon runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use portreeve_ebpf::node::default_route_devices;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketType, socket};

/// An address that a node can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddress(IpAddr);

impl TryFrom<IpAddr> for NodeAddress {
    type Error = String;

    fn try_from(address: IpAddr) -> Result<Self, String> {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(format!("`{address}` is no address of a node"));
        }
        Ok(Self(address))
    }
}

impl FromStr for NodeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>();
        address.map_err(|_| format!("`{text}` is no address: write `192.0.2.10`"))?.try_into()
    }
}

/// What is wanted, and what is in force of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// `None`: those of the default routes.
    devices: Option<BTreeSet<String>>,
    /// `None`: those that others are called from.
    addresses: Option<Vec<IpAddr>>,
    /// Devices by name, with their numbers; `None`: none was found yet, and what was there before stays.
    pub(super) attached: Option<BTreeMap<String, u32>>,
    /// This node's addresses.
    pub(super) own: Vec<IpAddr>,
    /// Devices that are named and not there.
    missing: Vec<String>,
    /// Devices that are there, and why they can't be attached to.
    pub(super) refused: Vec<String>,
}

/// What there is on the host.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Devices that are wanted and there, by name, with their numbers.
    pub(super) devices: BTreeMap<String, u32>,
    /// Addresses that others are called from.
    pub(super) addresses: Vec<IpAddr>,
}

/// What is to be other than it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) devices: Option<BTreeMap<String, u32>>,
    pub(super) addresses: Option<Vec<IpAddr>>,
}

impl Outside {
    /// What the configuration names.
    #[must_use]
    pub fn new(devices: Option<BTreeSet<String>>, addresses: Option<Vec<NodeAddress>>) -> Self {
        let mut own: Vec<IpAddr> = Vec::new();
        for NodeAddress(address) in addresses.iter().flatten() {
            if !own.contains(address) {
                own.push(*address);
            }
        }
        let addresses = addresses.map(|_| own);
        Self { devices, addresses, ..Self::default() }
    }

    /// Whether an interface is, or is to be, a way outside.
    pub(super) fn is_way(&self, name: &str, number: u32) -> bool {
        let is_named = self.devices.as_ref().is_some_and(|devices| devices.contains(name));
        let attached = self.attached.iter().flatten();
        is_named || attached.into_iter().any(|(_, way)| *way == number)
    }

    /// Looks around.
    pub(super) fn find(&self) -> Found {
        let names = match &self.devices {
            Some(devices) => devices.clone(),
            None => devices_of_default_routes(),
        };
        let number = |name: String| {
            let number = any_socket().and_then(|any| name_to_index(&any, &name)).ok()?;
            Some((name, number))
        };
        Found {
            devices: names.into_iter().filter_map(number).collect(),
            addresses: self.addresses.clone().unwrap_or_else(addresses),
        }
    }

    /// What is to change, for what is there now. Where devices and addresses are not named, those that were
    /// found stay until there are others: a network that is down for a moment changes nothing.
    pub(super) fn change(&mut self, found: Found) -> Change {
        let is_guess = self.devices.is_none();
        let missing =
            self.devices.iter().flatten().filter(|name| !found.devices.contains_key(*name));
        self.missing = missing
            .map(|name| {
                format!(
                    "kernel.devices: there is no device `{name}`: nobody is answered by it until there is"
                )
            })
            .collect();
        let devices = (!is_guess || !found.devices.is_empty()).then_some(found.devices);
        // What was refused is tried again.
        let is_other = |devices: &_| self.attached.as_ref() != Some(devices);
        let devices = devices.filter(|devices| is_other(devices) || !self.refused.is_empty());
        let is_known = self.addresses.is_some() || !found.addresses.is_empty();
        let addresses = Some(found.addresses).filter(|own| is_known && *own != self.own);
        Change { devices, addresses }
    }

    /// Whether something that is wanted is not there yet, so that it is worth looking again.
    pub(super) fn is_lacking(&self) -> bool {
        let is_missing = !self.missing.is_empty() || !self.refused.is_empty();
        is_missing || self.attached.is_none() || self.own.is_empty()
    }

    /// What is wrong with what is wanted.
    pub(super) fn errors(&self) -> Vec<String> {
        self.missing.iter().chain(&self.refused).cloned().collect()
    }
}

fn any_socket() -> rustix::io::Result<std::os::fd::OwnedFd> {
    socket(AddressFamily::INET, SocketType::DGRAM, None)
}

/// The names of the devices of the default routes, of the thread's own network namespace.
fn devices_of_default_routes() -> BTreeSet<String> {
    let numbers = default_route_devices().unwrap_or_else(|error| {
        tracing::warn!("can't ask which devices the default routes are by: {error}");
        BTreeSet::new()
    });
    let name = |number| any_socket().and_then(|any| index_to_name(&any, number)).ok();
    numbers.into_iter().filter_map(name).filter(|name| name != "lo").collect()
}

/// The address from which this node would call somebody far away, in each family.
fn addresses() -> Vec<IpAddr> {
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

    fn devices(all: &[(&str, u32)]) -> BTreeMap<String, u32> {
        all.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    fn found(all: &[(&str, u32)], addresses: &[&str]) -> Found {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Found { devices: devices(all), addresses }
    }

    /// Carries a change out.
    fn take(outside: &mut Outside, found: Found) -> Change {
        let change = outside.change(found);
        outside.attached = change.devices.clone().or(outside.attached.take());
        outside.own = change.addresses.clone().unwrap_or(std::mem::take(&mut outside.own));
        change
    }

    #[test]
    fn a_device_that_is_made_anew_and_a_network_that_comes_up_later_are_taken_up() {
        let mut outside = Outside::new(None, None);
        assert_eq!(take(&mut outside, Found::default()), Change::default(), "what was there stays");
        assert!(outside.is_lacking() && outside.errors().is_empty());
        let up = found(&[("eth0", 2)], &["192.0.2.7"]);
        let change = take(&mut outside, up.clone());
        assert_eq!(change.devices, Some(devices(&[("eth0", 2)])));
        assert_eq!(change.addresses, Some(up.addresses.clone()));
        assert!(!outside.is_lacking());
        assert_eq!(
            take(&mut outside, up.clone()),
            Change::default(),
            "nothing is other than it was"
        );
        assert_eq!(take(&mut outside, Found::default()), Change::default(), "down for a moment");
        let anew = found(&[("eth0", 9)], &["192.0.2.7"]);
        let change = take(&mut outside, anew);
        assert_eq!(change, Change { devices: Some(devices(&[("eth0", 9)])), addresses: None });
    }

    #[test]
    fn a_way_outside_is_one_before_it_is_there() {
        let mut outside = Outside::new(Some(["eth0".to_owned()].into()), None);
        assert!(outside.is_way("eth0", 2) && !outside.is_way("veth1", 3));
        let mut outside_by_routes = Outside::new(None, None);
        for outside in [&mut outside, &mut outside_by_routes] {
            take(outside, found(&[("eth0", 2)], &[]));
            assert!(outside.is_way("eth0", 2) && !outside.is_way("veth1", 3));
        }
    }

    #[test]
    fn addresses_that_no_node_can_have_are_none_of_its_own() {
        for wrong in ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "ff02::1", "::ffff:127.0.0.1"] {
            let error = wrong.parse::<NodeAddress>().unwrap_err();
            assert!(error.ends_with("is no address of a node"), "{error}");
        }
        assert!(
            "node-1".parse::<NodeAddress>().unwrap_err().starts_with("`node-1` is no address:")
        );
        let twice = ["192.0.2.7", "::ffff:192.0.2.7"].map(|text| text.parse().unwrap());
        let outside = Outside::new(None, Some(twice.to_vec()));
        assert_eq!(outside.find().addresses, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_device_that_is_named_and_not_there_is_an_error_until_it_is() {
        let named = ["eth0", "eth1"].map(str::to_owned).into();
        let own: Vec<NodeAddress> = vec!["192.0.2.7".parse().unwrap()];
        let mut outside = Outside::new(Some(named), Some(own));
        let change = take(&mut outside, found(&[("eth0", 2)], &["192.0.2.7"]));
        assert_eq!(change.devices, Some(devices(&[("eth0", 2)])), "the other one is answered by");
        assert!(outside.errors().len() == 1 && outside.errors()[0].contains("`eth1`"));
        take(&mut outside, found(&[("eth0", 2), ("eth1", 3)], &["192.0.2.7"]));
        assert!(outside.errors().is_empty() && !outside.is_lacking());
        let change = take(&mut outside, found(&[("eth1", 3)], &["192.0.2.7"]));
        assert_eq!(change.devices, Some(devices(&[("eth1", 3)])));
        assert_eq!(outside.errors().len(), 1);
    }
}
