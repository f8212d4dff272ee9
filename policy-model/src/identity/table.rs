//! Everybody that policy tells apart.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::prefixes::Prefixes;
use super::{BUILT_IN, Identity, Known, LocalIdentities, built_in, canonical};
use crate::label::{Label, Labels, RESERVED};
use crate::rule::PeerSelector;
use crate::selector::{Operator, Selector};

/// All identities, by number, by address and by label. Cheap to copy and change, since what is known
/// of each identity is shared.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    known: FxHashMap<Identity, Arc<Known>>,
    /// For selectors: who has a label of this key and value.
    by_label: HashMap<String, HashMap<String, Vec<Identity>>>,
    /// Where peers are. They own their addresses: no CIDR rule is about them.
    peers: Prefixes,
    /// The prefixes that policies name, and addresses that names stand for.
    outside: Prefixes,
    /// Those of `outside`, in the order of their addresses.
    in_order: BTreeMap<(IpAddr, u8), Identity>,
    /// Those with names.
    named: Vec<Identity>,
    /// The built-in identity of each family's outside.
    world: [&'static str; 2],
}

impl Identities {
    /// The built-in ones.
    pub(crate) fn new(single_stack: bool) -> Self {
        let mut identities = Self {
            known: FxHashMap::default(),
            by_label: HashMap::new(),
            peers: Prefixes::default(),
            outside: Prefixes::default(),
            in_order: BTreeMap::new(),
            named: Vec::new(),
            world: if single_stack { ["world"; 2] } else { ["world-ipv4", "world-ipv6"] },
        };
        for (name, number) in BUILT_IN {
            let labels = [Label::new(RESERVED, name, "")].into_iter().collect();
            identities.add(Known::new(Identity(number), labels, None, Vec::new()));
        }
        identities
    }

    /// Somebody with labels. Adding one who is known changes nothing; whether it was new is returned.
    pub(crate) fn add_labels(&mut self, identity: Identity, labels: &Labels) -> bool {
        if self.known.contains_key(&identity) {
            return false;
        }
        self.add(Known::new(identity, labels.clone(), None, Vec::new()));
        true
    }

    /// Where somebody is.
    pub(crate) fn place(&mut self, prefix: IpNet, identity: Identity) {
        self.peers.insert(prefix.trunc(), identity);
    }

    /// Somebody is no longer there, if it was he.
    pub(crate) fn displace(&mut self, prefix: IpNet, identity: Identity) {
        if self.peers.get(&prefix.trunc()) == Some(identity) {
            self.peers.remove(&prefix.trunc());
        }
    }

    /// A prefix that a policy names, or an address with the names it was learnt for. Returns the new
    /// identity, or the one that changed its names.
    pub(crate) fn add_prefix(
        &mut self,
        prefix: IpNet,
        names: Vec<String>,
        numbers: &mut LocalIdentities,
    ) -> Option<Identity> {
        if prefix.prefix_len() == 0 {
            return None;
        }
        let identity = match self.outside.get(&prefix) {
            Some(old) if self.known.get(&old).is_some_and(|known| known.names == names) => {
                return None;
            }
            Some(old) => {
                self.remove(old);
                old
            }
            None => numbers.take()?,
        };
        let world = self.world[usize::from(prefix.addr().is_ipv6())];
        let labels = [Label::new(RESERVED, world, "")].into_iter().collect();
        self.outside.insert(prefix, identity);
        self.in_order.insert((prefix.addr(), prefix.prefix_len()), identity);
        if !names.is_empty() {
            self.named.push(identity);
        }
        self.add(Known::new(identity, labels, Some(prefix), names));
        Some(identity)
    }

    /// A prefix that is no longer named.
    pub(crate) fn remove_prefix(&mut self, prefix: IpNet, numbers: &mut LocalIdentities) {
        if let Some(identity) = self.outside.get(&prefix) {
            self.remove(identity);
            numbers.give_back(identity);
        }
    }

    fn add(&mut self, known: Known) {
        let identity = known.identity;
        for label in known.labels.iter() {
            let values = self.by_label.entry(label.key.clone()).or_default();
            values.entry(label.value.clone()).or_default().push(identity);
        }
        self.known.insert(identity, Arc::new(known));
    }

    /// Forgets somebody.
    pub(crate) fn remove(&mut self, identity: Identity) {
        let Some(known) = self.known.remove(&identity) else { return };
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
        if let Some(prefix) = known.prefix
            && self.outside.get(&prefix) == Some(identity)
        {
            self.outside.remove(&prefix);
            self.in_order.remove(&(prefix.addr(), prefix.prefix_len()));
        }
        self.named.retain(|other| *other != identity);
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

    pub(crate) fn labels(&self, identity: Identity) -> &str {
        self.known.get(&identity).map_or("reserved:unknown", |known| &known.text)
    }

    /// Everybody that a selector is about. What has to be looked up elsewhere first (groups,
    /// services) selects nobody here.
    pub(crate) fn select(&self, selector: &PeerSelector) -> Vec<Identity> {
        let mut selected = match selector {
            PeerSelector::All => self.known.keys().copied().collect(),
            PeerSelector::Labels(selector) | PeerSelector::Endpoints(selector) => {
                self.labelled(selector)
            }
            PeerSelector::Cidr { prefix, except } => self.inside(*prefix, except),
            PeerSelector::Name(pattern) => {
                let called = |known: &&Arc<Known>| known.names.iter().any(|n| pattern.matches(n));
                let named = self.named.iter().filter_map(|identity| self.known.get(identity));
                let labelled = self.by_label.contains_key("fqdn").then(|| self.known.values());
                let known: Vec<_> =
                    named.chain(labelled.into_iter().flatten()).filter(called).collect();
                known.into_iter().map(|known| known.identity).collect()
            }
            PeerSelector::CidrGroup { .. } | PeerSelector::Service(_) => Vec::new(),
        };
        selected.sort_unstable();
        selected.dedup();
        selected
    }

    fn labelled(&self, selector: &Selector) -> Vec<Identity> {
        let having = |key: &String, value: &String| {
            self.by_label
                .get(key)
                .and_then(|values| values.get(value))
                .map_or(&[][..], Vec::as_slice)
        };
        // The requirement that the fewest fulfil says where to look.
        let fewest = selector
            .requirements
            .iter()
            .filter_map(|requirement| match &requirement.operator {
                Operator::In(values) => {
                    let count: usize =
                        values.iter().map(|value| having(&requirement.key, value).len()).sum();
                    Some((count, &requirement.key, values))
                }
                _ => None,
            })
            .min_by_key(|(count, ..)| *count);
        let matches = |identity: &Identity| {
            self.known.get(identity).is_some_and(|known| selector.matches(&known.labels))
        };
        match fewest {
            Some((_, key, values)) => values
                .iter()
                .flat_map(|value| having(key, value))
                .copied()
                .filter(matches)
                .collect(),
            None => self.known.keys().copied().filter(matches).collect(),
        }
    }

    fn inside(&self, prefix: IpNet, except: &[IpNet]) -> Vec<Identity> {
        let first = (prefix.network(), 0);
        let last = (prefix.broadcast(), u8::MAX);
        let inside = |known: &&Arc<Known>| {
            known.prefix.is_some_and(|own| {
                prefix.contains(&own) && !except.iter().any(|except| except.contains(&own))
            })
        };
        let outside = self.in_order.range(first..=last).map(|(_, identity)| identity);
        let world = self.known_world();
        let known = outside.chain(&world).filter_map(|identity| self.known.get(identity));
        let labelled = self.labelled_with_prefix();
        known.chain(labelled).filter(inside).map(|known| known.identity).collect()
    }

    fn known_world(&self) -> Vec<Identity> {
        ["world", "world-ipv4", "world-ipv6"].into_iter().filter_map(built_in).collect()
    }

    /// Those whose labels say which prefix they are about; tests and logs have such.
    fn labelled_with_prefix(&self) -> impl Iterator<Item = &Arc<Known>> {
        let workload = |known: &&Arc<Known>| {
            known.identity.0 < super::FIRST_LOCAL && known.labels.has_source("cidr")
        };
        let any = self.by_label.keys().any(|key| key.contains('/') && key.parse::<IpNet>().is_ok());
        any.then(|| self.known.values().filter(workload)).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{IdentityAllocator, InMemoryIdentities};

    fn identities() -> Identities {
        let mut identities = Identities::new(false);
        let mut numbers = InMemoryIdentities::default();
        for (prefix, labels) in
            [("10.0.0.0/8", "app=client"), ("10.1.0.0/16", "app=other"), ("10.2.0.1/32", "")]
        {
            let labels: Labels = labels.parse().unwrap();
            let identity = match labels.is_empty() {
                true => Identity(1),
                false => numbers.acquire(&labels).unwrap(),
            };
            identities.add_labels(identity, &labels);
            identities.place(prefix.parse().unwrap(), identity);
        }
        let mut local = LocalIdentities::default();
        for prefix in ["10.0.0.5/32", "192.0.2.0/24", "0.0.0.0/0"] {
            identities.add_prefix(prefix.parse().unwrap(), Vec::new(), &mut local);
        }
        identities
    }

    #[test]
    fn the_longest_prefix_of_a_peer_decides_and_no_policy_takes_it_away() {
        let identities = identities();
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
        let identities = identities();
        let select = |prefix: &str| {
            let prefix = prefix.parse().unwrap();
            let selector = PeerSelector::Cidr { prefix, except: Vec::new() };
            let labels = |id: &Identity| identities.labels(*id).to_owned();
            identities.select(&selector).iter().map(labels).collect::<Vec<_>>()
        };
        assert_eq!(select("192.0.0.0/16"), ["cidr:192.0.2.0/24,reserved:world-ipv4"]);
        assert_eq!(select("192.0.2.0/25"), Vec::<String>::new());
        assert_eq!(select("::/0"), ["reserved:world-ipv6"]);
        assert!(select("0.0.0.0/0").contains(&"reserved:world-ipv4".to_owned()));
    }

    #[test]
    fn who_is_removed_is_selected_no_longer() {
        let mut identities = identities();
        let selector = PeerSelector::Labels(Selector {
            requirements: vec![crate::selector::Requirement::equals(None, "app", "other")],
        });
        let [other] = identities.select(&selector)[..] else { panic!() };
        identities.remove(other);
        assert!(identities.select(&selector).is_empty());
    }
}
