//! Prefixes and what they stand for; the longest decides.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use rustc_hash::FxHashMap;

use super::Identity;

/// `::ffff:0:0/96`.
const MAPPED: IpNet =
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));

/// Prefixes and what they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    by_prefix: FxHashMap<IpNet, Identity>,
    /// Lengths in use, longest first, and how many prefixes have each.
    lengths: [Vec<(u8, usize)>; 2],
}

impl Prefixes {
    pub(super) fn insert(&mut self, prefix: IpNet, identity: Identity) -> Option<Identity> {
        let old = self.by_prefix.insert(prefix, identity);
        if old.is_none() {
            let lengths = &mut self.lengths[usize::from(prefix.addr().is_ipv6())];
            match lengths.binary_search_by(|(length, _)| prefix.prefix_len().cmp(length)) {
                Ok(place) => lengths[place].1 += 1,
                Err(place) => lengths.insert(place, (prefix.prefix_len(), 1)),
            }
        }
        old
    }

    pub(super) fn remove(&mut self, prefix: &IpNet) {
        if self.by_prefix.remove(prefix).is_none() {
            return;
        }
        let lengths = &mut self.lengths[usize::from(prefix.addr().is_ipv6())];
        if let Ok(place) = lengths.binary_search_by(|(length, _)| prefix.prefix_len().cmp(length)) {
            lengths[place].1 -= 1;
            if lengths[place].1 == 0 {
                lengths.remove(place);
            }
        }
    }

    pub(super) fn get(&self, prefix: &IpNet) -> Option<Identity> {
        self.by_prefix.get(prefix).copied()
    }

    /// All of them that an address can be in, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpNet, Identity)> {
        let all = self.by_prefix.iter().map(|(prefix, identity)| (*prefix, *identity));
        // An address in its mapped form is looked for as the IPv4 address that it is.
        all.filter(|(prefix, _)| *prefix == prefix.trunc() && !MAPPED.contains(prefix))
    }

    /// Whether a prefix, or a shorter one that it lies in, is among them.
    pub(super) fn cover(&self, prefix: IpNet) -> bool {
        let lengths = &self.lengths[usize::from(prefix.addr().is_ipv6())];
        let shorter = lengths.iter().filter(|(length, _)| *length <= prefix.prefix_len());
        shorter
            .filter_map(|(length, _)| IpNet::new(prefix.addr(), *length).ok())
            .any(|wider| self.by_prefix.contains_key(&wider.trunc()))
    }

    pub(super) fn longest(&self, address: IpAddr) -> Option<Identity> {
        self.lengths[usize::from(address.is_ipv6())].iter().find_map(|(length, _)| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.get(&prefix)
        })
    }
}
