//! Everybody that policy tells apart.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;

use super::prefixes::Prefixes;
use super::{BUILT_IN, Identity, IdentityAllocator, Known, built_in, canonical};
use crate::label::{Label, Labels, RESERVED};
use crate::rule::PeerSelector;
use crate::selector::{Operator, Selector};

/// All identities, by number and by address: what is asked while traffic flows. Cheap to copy, since
/// what is known of each identity is shared.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    known: FxHashMap<Identity, Arc<Known>>,
    /// Where peers are. They own their addresses: no CIDR rule is about them.
    peers: Prefixes,
    /// The prefixes that policies name, and addresses that names stand for.
    outside: Prefixes,
    /// The built-in identity of each family's outside.
    world: [&'static str; 2],
}

/// The same identities, by what selectors ask for: only who computes policy needs it.
#[derive(Debug, Default)]
pub(crate) struct IdentityIndex {
    /// Who has a label of this key and value.
    by_label: HashMap<String, HashMap<String, Vec<Identity>>>,
    /// Prefixes in the order of their addresses.
    in_order: BTreeMap<(IpAddr, u8), Identity>,
    /// Those with DNS names.
    named: Vec<Identity>,
    /// Those whose labels say which prefix they are about; tests and logs have such.
    labelled: Vec<Identity>,
}

impl Identities {
    /// The built-in ones.
    pub(crate) fn new(single_stack: bool, index: &mut IdentityIndex) -> Self {
        let mut identities = Self {
            known: FxHashMap::default(),
            peers: Prefixes::default(),
            outside: Prefixes::default(),
            world: if single_stack { ["world"; 2] } else { ["world-ipv4", "world-ipv6"] },
        };
        for (name, number) in BUILT_IN {
            let labels = [Label::new(RESERVED, name, "")].into_iter().collect();
            identities.add(Known::new(Identity(number), labels, None, Vec::new()), index);
        }
        identities
    }

    /// Somebody with labels. Adding one who is known changes nothing; whether it was new is returned.
    pub(crate) fn add_labels(
        &mut self,
        identity: Identity,
        labels: &Labels,
        index: &mut IdentityIndex,
    ) -> bool {
        if self.known.contains_key(&identity) {
            return false;
        }
        self.add(Known::new(identity, labels.clone(), None, Vec::new()), index);
        true
    }

    /// Where somebody is.
    pub(crate) fn place(&mut self, prefix: IpNet, identity: Identity) {
        self.peers.insert(prefix.trunc(), identity);
    }

    /// Nobody is there any more.
    pub(crate) fn displace(&mut self, prefix: IpNet) {
        self.peers.remove(&prefix.trunc());
    }

    /// A prefix that a policy names, or an address with the names it was learnt for. Returns the new
    /// identity; an address that changes its names becomes somebody else.
    pub(crate) fn add_prefix(
        &mut self,
        prefix: IpNet,
        names: Vec<String>,
        numbers: &mut dyn IdentityAllocator,
        index: &mut IdentityIndex,
    ) -> Option<Identity> {
        if prefix.prefix_len() == 0 || self.outside.get(&prefix).is_some() {
            return None;
        }
        let Some(identity) = numbers.acquire_prefix(prefix, &names) else {
            // Nobody known is denied; to be taken for somebody wider might allow.
            self.outside.insert(prefix, Identity::UNKNOWN);
            return None;
        };
        let world = self.world[usize::from(prefix.addr().is_ipv6())];
        let labels = [Label::new(RESERVED, world, "")].into_iter().collect();
        self.outside.insert(prefix, identity);
        self.add(Known::new(identity, labels, Some(prefix), names), index);
        Some(identity)
    }

    /// A prefix that is no longer named. Returns who it was.
    pub(crate) fn remove_prefix(
        &mut self,
        prefix: IpNet,
        numbers: &mut dyn IdentityAllocator,
        index: &mut IdentityIndex,
    ) -> Option<Identity> {
        let identity = self.outside.get(&prefix)?;
        self.outside.remove(&prefix);
        if identity == Identity::UNKNOWN {
            return None;
        }
        let names = self.known.get(&identity).map(|known| known.names.clone()).unwrap_or_default();
        self.remove(identity, index);
        numbers.release_prefix(prefix, &names, identity);
        Some(identity)
    }

    fn add(&mut self, known: Known, index: &mut IdentityIndex) {
        let own = |prefix: &IpNet| self.outside.get(prefix) == Some(known.identity);
        index.add(&known, known.prefix.filter(own));
        self.known.insert(known.identity, Arc::new(known));
    }

    /// Forgets somebody.
    pub(crate) fn remove(&mut self, identity: Identity, index: &mut IdentityIndex) {
        if let Some(known) = self.known.remove(&identity) {
            index.remove(&known);
        }
    }

    pub(crate) fn get(&self, identity: Identity) -> Option<&Known> {
        self.known.get(&identity).map(Arc::as_ref)
    }

    /// Who has exactly these labels.
    pub(crate) fn having(&self, labels: &Labels) -> Identity {
        let built_in = super::built_in_labels(labels);
        let mut all = self.known.values().filter(|known| known.identity.0 < super::FIRST_LOCAL);
        let known = || all.find(|known| known.labels == *labels).map(|known| known.identity);
        built_in.or_else(known).unwrap_or(Identity::UNKNOWN)
    }

    /// Who has this address: the peer with the longest prefix, else the prefix that a policy names,
    /// else the world.
    pub(crate) fn identify(&self, address: IpAddr) -> Identity {
        let address = canonical(address);
        let world = built_in(self.world[usize::from(address.is_ipv6())]);
        self.peers
            .longest(address)
            .or_else(|| self.outside.longest(address))
            .or(world)
            .unwrap_or(Identity::UNKNOWN)
    }

    /// Every prefix and who is there, in no order: the longest that an address is in says what
    /// [`identify`](Self::identify) says. No IPv6 prefix is about IPv4 addresses in their mapped form.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (IpNet, Identity)> {
        // A peer has all of its prefix, whatever policies name in it.
        let outside = self.outside.iter().filter(|(prefix, _)| !self.peers.cover(*prefix));
        let families = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let world = families.into_iter().zip(self.world).filter_map(|(family, name)| {
            let taken = self.peers.cover(family) || self.outside.cover(family);
            (!taken).then(|| (family, built_in(name).unwrap_or(Identity::UNKNOWN)))
        });
        self.peers.iter().chain(outside).chain(world)
    }

    pub(crate) fn labels(&self, identity: Identity) -> &str {
        self.known.get(&identity).map_or("reserved:unknown", |known| &known.text)
    }

    /// Everybody that a selector is about. What has to be looked up elsewhere first (groups,
    /// services) selects nobody here.
    pub(crate) fn select(&self, selector: &PeerSelector, index: &IdentityIndex) -> Vec<Identity> {
        let mut selected = match selector {
            PeerSelector::All => self.known.keys().copied().collect(),
            PeerSelector::Labels(labels) | PeerSelector::Endpoints(labels) => {
                match index.fewest(labels) {
                    Some(candidates) => self.matching(candidates.into_iter(), selector),
                    None => self.matching(self.known.keys().copied(), selector),
                }
            }
            PeerSelector::Cidr { prefix, .. } => {
                self.matching(index.inside(*prefix).into_iter(), selector)
            }
            PeerSelector::Name(_) => self.matching(index.named.iter().copied(), selector),
            PeerSelector::CidrGroup { .. } | PeerSelector::Service(_) => Vec::new(),
        };
        selected.sort_unstable();
        selected.dedup();
        selected
    }

    fn matching(
        &self,
        candidates: impl Iterator<Item = Identity>,
        selector: &PeerSelector,
    ) -> Vec<Identity> {
        let matches =
            |id: &Identity| self.get(*id).is_some_and(|known| known.is_selected(selector));
        candidates.filter(matches).collect()
    }
}

impl IdentityIndex {
    fn add(&mut self, known: &Known, prefix: Option<IpNet>) {
        for label in known.labels.iter() {
            let values = match self.by_label.get_mut(&label.key) {
                Some(values) => values,
                None => self.by_label.entry(label.key.clone()).or_default(),
            };
            match values.get_mut(&label.value) {
                Some(having) => having.push(known.identity),
                None => {
                    values.insert(label.value.clone(), vec![known.identity]);
                }
            }
        }
        if let Some(prefix) = prefix {
            self.in_order.insert((prefix.addr(), prefix.prefix_len()), known.identity);
        } else if known.prefix.is_some() {
            self.labelled.push(known.identity);
        }
        if !known.names.is_empty() {
            self.named.push(known.identity);
        }
    }

    fn remove(&mut self, known: &Known) {
        let identity = known.identity;
        for label in known.labels.iter() {
            if let Some(values) = self.by_label.get_mut(&label.key)
                && let Some(having) = values.get_mut(&label.value)
            {
                having.retain(|other| *other != identity);
                if having.is_empty() {
                    values.remove(&label.value);
                }
            }
        }
        if let Some(prefix) = known.prefix {
            let place = (prefix.addr(), prefix.prefix_len());
            if self.in_order.get(&place) == Some(&identity) {
                self.in_order.remove(&place);
            }
        }
        self.labelled.retain(|other| *other != identity);
        self.named.retain(|other| *other != identity);
    }

    fn having(&self, key: &str, value: &str) -> &[Identity] {
        let values = self.by_label.get(key);
        values.and_then(|values| values.get(value)).map_or(&[], Vec::as_slice)
    }

    /// Where to look for those that a selector matches: at what the fewest have of all it asks for.
    fn fewest(&self, selector: &Selector) -> Option<Vec<Identity>> {
        let asked = selector.requirements.iter().filter_map(|requirement| {
            let Operator::In(values) = &requirement.operator else { return None };
            let key = &requirement.key;
            let count: usize = values.iter().map(|value| self.having(key, value).len()).sum();
            Some((count, key, values))
        });
        let (_, key, values) = asked.min_by_key(|(count, ..)| *count)?;
        Some(values.iter().flat_map(|value| self.having(key, value)).copied().collect())
    }

    /// Those that may lie inside of a prefix.
    fn inside(&self, prefix: IpNet) -> Vec<Identity> {
        let first = (prefix.network(), 0);
        let last = (prefix.broadcast(), u8::MAX);
        let inside = self.in_order.range(first..=last).map(|(_, identity)| identity);
        inside.chain(&self.labelled).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::InMemoryIdentities;

    fn identities() -> (Identities, IdentityIndex) {
        let mut index = IdentityIndex::default();
        let mut identities = Identities::new(false, &mut index);
        let mut numbers = InMemoryIdentities::default();
        for (prefix, labels) in
            [("10.0.0.0/8", "app=client"), ("10.1.0.0/16", "app=other"), ("10.2.0.1/32", "")]
        {
            let labels: Labels = labels.parse().unwrap();
            let identity = match labels.is_empty() {
                true => Identity(1),
                false => numbers.acquire(&labels).unwrap(),
            };
            identities.add_labels(identity, &labels, &mut index);
            identities.place(prefix.parse().unwrap(), identity);
        }
        for prefix in ["10.0.0.5/32", "192.0.2.0/24", "0.0.0.0/0"] {
            identities.add_prefix(prefix.parse().unwrap(), Vec::new(), &mut numbers, &mut index);
        }
        (identities, index)
    }

    #[test]
    fn the_longest_prefix_of_a_peer_decides_and_no_policy_takes_it_away() {
        let (identities, _) = identities();
        let labels =
            |address: &str| identities.labels(identities.identify(address.parse().unwrap()));
        assert!(labels("10.9.9.9").contains("app=client"));
        assert!(labels("10.1.2.3").contains("app=other"));
        assert!(labels("10.0.0.5").contains("app=client"), "a CIDR rule is not about a peer");
        assert_eq!(labels("10.2.0.1"), "reserved:host");
        assert_eq!(labels("192.0.2.7"), "cidr:192.0.2.0/24,reserved:world-ipv4");
        assert_eq!(labels("198.51.100.1"), "reserved:world-ipv4");
        assert_eq!(labels("2001:db8::1"), "reserved:world-ipv6");
        assert_eq!(labels("::ffff:10.9.9.9"), labels("10.9.9.9"));
    }

    #[test]
    fn a_prefix_selects_what_lies_inside_of_it() {
        let (identities, index) = identities();
        let select = |prefix: &str| {
            let prefix = prefix.parse().unwrap();
            let selector = PeerSelector::Cidr { prefix, except: Vec::new() };
            let labels = |id: &Identity| identities.labels(*id).to_owned();
            identities.select(&selector, &index).iter().map(labels).collect::<Vec<_>>()
        };
        assert_eq!(select("192.0.0.0/16"), ["cidr:192.0.2.0/24,reserved:world-ipv4"]);
        assert_eq!(select("192.0.2.0/25"), Vec::<String>::new());
        assert_eq!(select("::/0"), ["reserved:world-ipv6"]);
        assert!(select("0.0.0.0/0").contains(&"reserved:world-ipv4".to_owned()));
    }

    #[test]
    fn a_prefix_for_which_no_number_is_left_is_nobody_known() {
        let (mut identities, mut index) = identities();
        let mut numbers = InMemoryIdentities::with_prefixes(1);
        for prefix in ["192.0.2.8/29", "192.0.2.16/29"] {
            identities.add_prefix(prefix.parse().unwrap(), Vec::new(), &mut numbers, &mut index);
        }
        let who =
            |identities: &Identities, address: &str| identities.identify(address.parse().unwrap());
        assert_ne!(who(&identities, "192.0.2.9"), Identity::UNKNOWN);
        assert_eq!(who(&identities, "192.0.2.17"), Identity::UNKNOWN);
        let nobody: Vec<_> =
            identities.prefixes().filter(|(_, who)| *who == Identity::UNKNOWN).collect();
        assert_eq!(nobody, [("192.0.2.16/29".parse().unwrap(), Identity::UNKNOWN)]);
        identities.remove_prefix("192.0.2.16/29".parse().unwrap(), &mut numbers, &mut index);
        assert_ne!(who(&identities, "192.0.2.17"), Identity::UNKNOWN);
        let other = numbers.acquire_prefix("192.0.2.24/29".parse().unwrap(), &[]);
        assert_eq!(other, None, "nobody's number is not given out");
    }

    #[test]
    fn who_is_removed_is_selected_no_longer() {
        let (mut identities, mut index) = identities();
        let selector = PeerSelector::Labels(Selector {
            requirements: vec![crate::selector::Requirement::equals(None, "app", "other")],
        });
        let [other] = identities.select(&selector, &index)[..] else { panic!() };
        identities.remove(other, &mut index);
        assert!(identities.select(&selector, &index).is_empty());
    }
}
