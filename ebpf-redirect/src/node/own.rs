//! Which addresses a workload may send from. `OWN` has all of them; the entry of its interface has one of each
//! family, so that most packets cost no look at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portreeve_ebpf_common::Address;
use portreeve_ebpf_common::node::EndpointEntry;

use super::error::NodeError;
use super::kernel::{NodeKernel, State, lock, put, remove};
use crate::address::address;
use crate::error::MapError;

impl NodeKernel {
    /// The addresses that a workload may send from, all of them.
    ///
    /// # Errors
    /// When there is no room.
    pub fn set_own_addresses(&self, endpoint: u32, addresses: &[IpAddr]) -> Result<(), NodeError> {
        let State { attached, own, .. } = &mut *lock(&self.state);
        let wanted: BTreeSet<Address> = addresses.iter().copied().map(address).collect();
        // Before anything else, so that no entry ever has an address that `OWN` has not.
        self.change(attached, |entry| {
            let keeps =
                |address: &Address| (entry.endpoint == endpoint) == wanted.contains(address);
            EndpointEntry { addresses: only(entry.addresses, keeps), ..*entry }
        })?;
        for address in &wanted {
            put("OWN", &self.maps.own, address, &endpoint)?;
            for others in own.values_mut() {
                others.remove(address);
            }
            own.entry(endpoint).or_default().insert(*address);
        }
        let before = own.get(&endpoint).cloned().unwrap_or_default();
        for address in before.difference(&wanted) {
            remove("OWN", &self.maps.own, address)?;
            own.entry(endpoint).or_default().remove(address);
        }
        own.retain(|_, addresses| !addresses.is_empty());
        let addresses = one_of_each(Some(&wanted));
        self.change(attached, |entry| match entry.endpoint == endpoint {
            true => EndpointEntry { addresses, ..*entry },
            false => *entry,
        })
    }

    /// Who may send from which address.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn own_addresses(&self) -> Result<BTreeMap<IpAddr, u32>, NodeError> {
        let entries = self.maps.own.entries();
        let entries = entries.map_err(MapError::system("can't read", "OWN"))?;
        let ip = |address: Address| IpAddr::from(address.to_bytes()).to_canonical();
        Ok(entries.into_iter().map(|(address, endpoint)| (ip(address), endpoint)).collect())
    }

    /// Who has addresses.
    pub(super) fn owners(&self) -> BTreeSet<u32> {
        lock(&self.state).own.keys().copied().collect()
    }
}

/// An address of each family, as an entry has them.
pub(super) fn one_of_each(addresses: Option<&BTreeSet<Address>>) -> [Address; 2] {
    let [no_v4, no_v6] = EndpointEntry::NO_ADDRESSES;
    let first = |v4| addresses?.iter().copied().find(|one| one.is_v4() == v4);
    [first(true).unwrap_or(no_v4), first(false).unwrap_or(no_v6)]
}

/// Those of an entry's addresses that are kept.
fn only([v4, v6]: [Address; 2], keeps: impl Fn(&Address) -> bool) -> [Address; 2] {
    let [no_v4, no_v6] = EndpointEntry::NO_ADDRESSES;
    [if keeps(&v4) { v4 } else { no_v4 }, if keeps(&v6) { v6 } else { no_v6 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_one_address_of_each_family() {
        let addresses = ["10.0.0.9", "fd00::9", "10.0.0.7", "fd00::7"];
        let all = addresses.map(|one| address(one.parse().unwrap())).into();
        let [v4, v6] = one_of_each(Some(&all));
        assert_eq!(v4, address("10.0.0.7".parse().unwrap()));
        assert_eq!(v6, address("fd00::7".parse().unwrap()));
        assert_eq!(one_of_each(None), EndpointEntry::NO_ADDRESSES);
    }
}
