//! Identities: numbers for sets of labels, and who has which address.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Identity`], the built-in ones, what selectors see of one |
//! | `allocator.rs` | who gives numbers out |
//! | `table.rs` | everybody that policy tells apart, by number, by address and by label |
//! | `prefixes.rs` | longest prefix decides |

mod allocator;
mod prefixes;
mod table;

use std::net::IpAddr;

use ipnet::IpNet;

pub use self::allocator::{IdentityAllocator, InMemoryIdentities};
pub(crate) use self::table::{Identities, IdentityIndex};
use crate::label::{Labels, RESERVED};
use crate::rule::PeerSelector;

/// A number for a set of labels. The same labels have the same number, as long as somebody has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub(crate) u32);

impl Identity {
    /// Nobody known. Default deny refuses it.
    pub const UNKNOWN: Self = Self(0);

    /// An identity by its number, for allocators.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self(number)
    }

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
/// Identities from here on are prefixes that policies name, and addresses that names stand for.
const FIRST_LOCAL: u32 = 1 << 24;

/// The number of a built-in identity.
fn built_in(name: &str) -> Option<Identity> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, number)| Identity(*number))
}

/// The built-in identity that a set of labels is, if it is one.
pub(crate) fn built_in_labels(labels: &Labels) -> Option<Identity> {
    let mut all = labels.iter();
    match (all.next(), all.next()) {
        (Some(only), None) if only.source == RESERVED => built_in(&only.key),
        _ => None,
    }
}

/// One identity: what selectors see of it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) identity: Identity,
    pub(crate) labels: Labels,
    /// The prefix by which CIDR rules see it, when it is no workload's.
    pub(crate) prefix: Option<IpNet>,
    /// The DNS names that its address was learnt for.
    pub(crate) names: Vec<String>,
    /// The labels in one line, for logs.
    text: Box<str>,
}

impl Known {
    fn new(
        identity: Identity,
        labels: Labels,
        prefix: Option<IpNet>,
        mut names: Vec<String>,
    ) -> Self {
        let mut prefix = prefix.or_else(|| whole_family(&labels));
        let mut text = String::new();
        if identity.0 >= FIRST_LOCAL {
            for name in &names {
                text.push_str(&format!("fqdn:{name},"));
            }
            if let Some(prefix) = prefix {
                text.push_str(&format!("cidr:{prefix},"));
            }
        }
        text.push_str(&labels.to_string());
        // Labels may say themselves which prefix and which names they are about.
        for label in labels.iter() {
            match label.source.as_str() {
                "cidr" => {
                    let own = label.key.replace('-', ":").parse::<IpNet>().ok();
                    let longer =
                        |old: &IpNet| own.is_some_and(|n| n.prefix_len() > old.prefix_len());
                    if prefix.is_none() || prefix.as_ref().is_some_and(longer) {
                        prefix = own.or(prefix);
                    }
                }
                "fqdn" => names.push(label.key.clone()),
                _ => {}
            }
        }
        Self { identity, labels, prefix, names, text: text.into() }
    }
}

impl Known {
    /// Whether a selector is about this identity.
    pub(crate) fn is_selected(&self, selector: &PeerSelector) -> bool {
        match selector {
            PeerSelector::All => true,
            PeerSelector::Labels(selector) | PeerSelector::Endpoints(selector) => {
                selector.matches(&self.labels)
            }
            PeerSelector::Cidr { prefix, except } => self.prefix.is_some_and(|own| {
                prefix.contains(&own) && !except.iter().any(|except| except.contains(&own))
            }),
            PeerSelector::Name(pattern) => self.names.iter().any(|name| pattern.matches(name)),
            PeerSelector::CidrGroup { .. } | PeerSelector::Service(_) => false,
        }
    }
}

/// The world is every address of its family that nobody else has.
fn whole_family(labels: &Labels) -> Option<IpNet> {
    let named = |name: &str| labels.iter().any(|l| l.source == RESERVED && l.key == name);
    match () {
        () if named("world-ipv6") => "::/0".parse().ok(),
        // One world for both families counts as the family that clusters of one family have.
        () if named("world-ipv4") || named("world") => "0.0.0.0/0".parse().ok(),
        () => None,
    }
}

/// An IPv4 address that was written as one of IPv6 is the IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}
