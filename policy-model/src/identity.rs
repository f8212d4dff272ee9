//! Identities: numbers for sets of labels, and who has which address.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::endpoint::{Endpoint, Peer};
use crate::label::{Label, Labels, RESERVED};
use crate::resolve::Options;

/// A number for a set of labels. The same labels have the same number within one
/// [`EndpointPolicy`](crate::EndpointPolicy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(u32);

impl Identity {
    /// Nobody known. Default deny refuses it.
    pub const UNKNOWN: Self = Self(0);

    /// The number, as logs show it.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The built-in identities and their numbers (Cilium `pkg/identity/numericidentity.go`).
const BUILT_IN: [(&str, u32); 10] = [
    ("host", 1),
    ("world", 2),
    ("unmanaged", 3),
    ("health", 4),
    ("init", 5),
    ("remote-node", 6),
    ("kube-apiserver", 7),
    ("ingress", 8),
    ("world-ipv4", 9),
    ("world-ipv6", 10),
];

/// Identities from here on are given out to labelled workloads.
const FIRST_WORKLOAD: u32 = 256;
/// Identities from here on are prefixes that policies name.
const FIRST_PREFIX: u32 = 1 << 24;

/// One identity: what selectors see of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) identity: Identity,
    pub(crate) labels: Labels,
    /// The prefix that it is about, when it is no workload's.
    pub(crate) prefix: Option<IpNet>,
    /// The labels in one line, for logs.
    text: Box<str>,
}

/// All identities that one workload's policy tells apart.
#[derive(Debug)]
pub(crate) struct Identities {
    known: Vec<Known>,
    by_number: HashMap<Identity, usize>,
    /// Where peers are. They own their addresses: no CIDR rule is about them.
    peers: Prefixes,
    /// The prefixes that policies name.
    outside: Prefixes,
    /// The built-in identity of each family's outside.
    world: [&'static str; 2],
    pub(crate) workload: Identity,
}

impl Identities {
    /// Those of the workload, of its peers, of the prefixes that policies name, and of the world.
    pub(crate) fn new(
        endpoint: &Endpoint,
        peers: &[Peer],
        prefixes: impl IntoIterator<Item = IpNet>,
        options: &Options,
    ) -> Self {
        let mut identities = Self {
            known: Vec::new(),
            by_number: HashMap::new(),
            peers: Prefixes::default(),
            outside: Prefixes::default(),
            world: if options.single_stack { ["world"; 2] } else { ["world-ipv4", "world-ipv6"] },
            workload: Identity::UNKNOWN,
        };
        for (name, number) in BUILT_IN {
            let labels = [Label::new(RESERVED, name, "")].into_iter().collect();
            identities.add(Identity(number), labels, None);
        }
        let mut numbers = Numbers { next: FIRST_WORKLOAD, by_labels: HashMap::new() };
        let namespace = &endpoint.namespace;
        let labels = endpoint.labels.clone().placed(namespace);
        identities.workload = identities.of_labels(labels, &mut numbers);
        for address in &endpoint.addresses {
            identities.peers.insert(IpNet::from(*address), identities.workload);
        }
        for peer in peers {
            let labels = peer.labels.clone().placed(namespace);
            let identity = identities.of_labels(labels, &mut numbers);
            for prefix in &peer.prefixes {
                identities.peers.insert(prefix.trunc(), identity);
            }
        }
        identities.add_prefixes(prefixes);
        identities
    }

    fn of_labels(&mut self, labels: Labels, numbers: &mut Numbers) -> Identity {
        let (identity, new) = numbers.of(&labels);
        if new {
            self.add(identity, labels, None);
        }
        identity
    }

    fn add_prefixes(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        let mut next = FIRST_PREFIX;
        for prefix in prefixes {
            if prefix.prefix_len() == 0 || self.outside.get(&prefix).is_some() {
                continue;
            }
            let identity = Identity(next);
            next = next.saturating_add(1);
            let world = self.world[usize::from(prefix.addr().is_ipv6())];
            let labels = [Label::new(RESERVED, world, "")].into_iter().collect();
            self.outside.insert(prefix, identity);
            self.add(identity, labels, Some(prefix));
        }
    }

    fn add(&mut self, identity: Identity, labels: Labels, prefix: Option<IpNet>) {
        let text = match prefix {
            Some(prefix) => format!("cidr:{prefix},{labels}"),
            None => labels.to_string(),
        };
        self.by_number.insert(identity, self.known.len());
        self.known.push(Known { identity, labels, prefix, text: text.into() });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// Who has this address: the peer with the longest prefix, else the prefix that a policy names,
    /// else the world.
    pub(crate) fn identify(&self, address: IpAddr) -> Identity {
        let address = match address {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        let world = built_in(self.world[usize::from(address.is_ipv6())]);
        self.peers
            .longest(address)
            .or_else(|| self.outside.longest(address))
            .or(world)
            .unwrap_or(Identity::UNKNOWN)
    }

    pub(crate) fn labels(&self, identity: Identity) -> &str {
        let known = self.by_number.get(&identity).and_then(|index| self.known.get(*index));
        known.map_or("reserved:unknown", |known| &known.text)
    }
}

fn built_in(name: &str) -> Option<Identity> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, number)| Identity(*number))
}

/// Gives numbers out; built-in identities keep theirs.
struct Numbers {
    next: u32,
    by_labels: HashMap<Labels, Identity>,
}

impl Numbers {
    /// The number of these labels, and whether it is new.
    fn of(&mut self, labels: &Labels) -> (Identity, bool) {
        let mut all = labels.iter();
        if let (Some(only), None) = (all.next(), all.next())
            && only.source == RESERVED
            && let Some(identity) = built_in(&only.key)
        {
            return (identity, false);
        }
        if let Some(identity) = self.by_labels.get(labels) {
            return (*identity, false);
        }
        let identity = Identity(self.next);
        self.next += 1;
        self.by_labels.insert(labels.clone(), identity);
        (identity, true)
    }
}

/// Prefixes and what they stand for; the longest decides.
#[derive(Debug, Default)]
struct Prefixes {
    by_prefix: HashMap<IpNet, Identity>,
    /// Lengths in use, longest first.
    lengths: [Vec<u8>; 2],
}

impl Prefixes {
    fn insert(&mut self, prefix: IpNet, identity: Identity) {
        let lengths = &mut self.lengths[usize::from(prefix.addr().is_ipv6())];
        if let Err(place) = lengths.binary_search_by(|length| prefix.prefix_len().cmp(length)) {
            lengths.insert(place, prefix.prefix_len());
        }
        self.by_prefix.insert(prefix, identity);
    }

    fn get(&self, prefix: &IpNet) -> Option<Identity> {
        self.by_prefix.get(prefix).copied()
    }

    fn longest(&self, address: IpAddr) -> Option<Identity> {
        self.lengths[usize::from(address.is_ipv6())].iter().find_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.get(&prefix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities() -> Identities {
        let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
        let peer = |prefix: &str, labels: &str| {
            Peer::new([prefix.parse().unwrap()], labels.parse().unwrap())
        };
        let peers = [
            peer("10.0.0.0/8", "app=client"),
            peer("10.1.0.0/16", "app=other"),
            peer("10.2.0.1/32", "reserved:host"),
        ];
        let named = ["10.0.0.5/32", "192.0.2.0/24", "0.0.0.0/0"].map(|p| p.parse().unwrap());
        Identities::new(&shop, &peers, named, &Options::default())
    }

    #[test]
    fn the_longest_prefix_of_a_peer_decides_and_no_policy_takes_it_away() {
        let identities = identities();
        let labels =
            |address: &str| identities.labels(identities.identify(address.parse().unwrap()));
        assert!(labels("10.9.9.9").contains("app=client"));
        assert!(labels("10.1.2.3").contains("app=other"));
        assert!(labels("10.0.0.5").contains("app=client"), "a CIDR rule is not about a peer");
        assert_eq!(labels("192.0.2.7"), "cidr:192.0.2.0/24,reserved:world-ipv4");
        assert_eq!(labels("198.51.100.1"), "reserved:world-ipv4");
        assert_eq!(labels("2001:db8::1"), "reserved:world-ipv6");
        assert_eq!(labels("::ffff:10.9.9.9"), labels("10.9.9.9"));
    }

    #[test]
    fn a_built_in_identity_keeps_its_number() {
        assert_eq!(identities().identify("10.2.0.1".parse().unwrap()), Identity(1));
    }
}
