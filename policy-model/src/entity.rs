//! Entities: the built-in groups of peers that policies name by word.

use crate::rule::PeerSelector;
use crate::selector::Selector;

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
pub(crate) fn selectors(name: &str) -> Option<Vec<PeerSelector>> {
    let reserved = |name: &str| PeerSelector::Labels(Selector::reserved(name));
    Some(match name {
        "all" => vec![PeerSelector::All],
        "none" => Vec::new(),
        "world" => OF_WORLD.into_iter().map(reserved).collect(),
        "cluster" => {
            let in_cluster = PeerSelector::Labels(Selector::in_cluster());
            OF_CLUSTER.into_iter().map(reserved).chain([in_cluster]).collect()
        }
        name if NAMES.contains(&name) => vec![reserved(name)],
        _ => return None,
    })
}
