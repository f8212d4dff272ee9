//! What a node's datapath is to be.

use std::path::PathBuf;

use crate::instance::InstanceName;

/// What is set up.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its name, under which everything is pinned.
    pub instance: InstanceName,
    /// Where a bpf file system is mounted.
    pub bpffs: PathBuf,
    /// How many entries maps have room for.
    pub capacity: NodeCapacity,
}

/// How many entries maps have room for. Only those that exist take memory, but in those that forget the
/// oldest entry: connections, fragments, what becomes of packets of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCapacity {
    /// Workloads.
    pub endpoints: u32,
    /// Their addresses.
    pub own: u32,
    /// Addresses whose identity is known.
    pub hosts: u32,
    /// Prefixes whose identity is known.
    pub prefixes: u32,
    /// Entries of one endpoint's policy.
    pub policy: u32,
    /// Connections; the oldest is forgotten. 128 bytes each, whether it is there or not.
    pub connections: u32,
    /// Packets in parts that are on their way; the oldest is forgotten.
    pub fragments: u32,
    /// Addresses of services.
    pub services: u32,
    /// Places of their backends: some hundred times as many as backends, of what outside can ask for.
    pub slots: u32,
    /// Backends of all services.
    pub backends: u32,
    /// What becomes of packets of services, two for a connection of a workload, two or four for one from
    /// outside: each has as much room. Those that were not seen for longest are forgotten.
    pub translated: u32,
    /// Bytes of events that nobody has read yet: a power of two, and of pages.
    pub events: u32,
}

impl Default for NodeCapacity {
    fn default() -> Self {
        Self {
            endpoints: 1 << 12,
            own: 1 << 14,
            hosts: 1 << 19,
            prefixes: 1 << 19,
            policy: 1 << 20,
            connections: 1 << 19,
            fragments: 1 << 13,
            services: 1 << 16,
            slots: 1 << 20,
            backends: 1 << 18,
            translated: 1 << 16,
            events: 1 << 20,
        }
    }
}

impl NodeCapacity {
    /// Room by the names of maps. That of a policy is its trie's, made anew with each policy.
    pub(super) fn by_map(&self) -> [(&'static str, u32); 15] {
        [
            ("ENDPOINTS", self.endpoints),
            // Some may be on their way out.
            ("OPENED", self.endpoints.saturating_mul(2)),
            ("OWN", self.own),
            ("HOSTS", self.hosts),
            ("PREFIXES", self.prefixes),
            ("POLICIES", self.endpoints),
            ("TRACKED", self.connections),
            ("FRAGMENTS", self.fragments),
            ("SERVICES", self.services),
            ("SLOTS", self.slots),
            ("BACKENDS", self.backends),
            ("TRANSLATED", self.translated),
            ("RELAYED", self.translated),
            ("FRAGMENTS_OUTSIDE", self.fragments),
            ("EVENTS", self.events),
        ]
    }
}
