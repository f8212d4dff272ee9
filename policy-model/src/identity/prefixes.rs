//! Prefixes and what they stand for; the longest decides.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::Identity;

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

    pub(super) fn longest(&self, address: IpAddr) -> Option<Identity> {
        self.lengths[usize::from(address.is_ipv6())].iter().find_map(|(length, _)| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.get(&prefix)
        })
    }
}
