//! Entities: the built-in groups of peers that policies name by word.

use crate::label::RESERVED;
use crate::rule::PeerSelector;
use crate::selector::{Requirement, Selector};

/// Every entity (Cilium `fromEntities`, `toEntities`). Case matters.
pub(crate) const NAMES: [&str; 13] = [
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "init",
    "health",
    "unmanaged",
    "none",
];

/// The built-in identities that belong to the cluster.
const OF_CLUSTER: [&str; 7] =
    ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];

/// The built-in identities outside of it. Addresses that only a CIDR names carry their family's
/// label, too.
const OF_WORLD: [&str; 3] = ["world", "world-ipv4", "world-ipv6"];

/// The selectors that an entity stands for; `None` if there is no such entity.
pub(crate) fn selectors(name: &str, cluster: &str) -> Option<Vec<PeerSelector>> {
    let reserved = |name: &&str| PeerSelector::Labels(Selector::reserved(name));
    Some(match name {
        "all" => vec![PeerSelector::All],
        "none" => Vec::new(),
        "world" => OF_WORLD.iter().map(reserved).collect(),
        // Where the families are not told apart, either of them means the world.
        "world-ipv4" | "world-ipv6" => vec![reserved(&name)],
        "cluster" => {
            let mut selectors: Vec<_> = OF_CLUSTER.iter().map(reserved).collect();
            selectors.push(PeerSelector::Labels(Selector::in_cluster(cluster)));
            selectors
        }
        name if NAMES.contains(&name) => vec![PeerSelector::Labels(Selector {
            requirements: vec![Requirement::exists(Some(RESERVED), name)],
        })],
        _ => return None,
    })
}
