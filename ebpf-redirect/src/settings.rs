//! What a redirection is to be.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::instance::InstanceName;

/// What is set up for one workload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, under which everything is pinned.
    pub instance: InstanceName,
    /// The workload: all processes in this cgroup.
    pub cgroup: PathBuf,
    /// Where a bpf file system is mounted.
    pub bpffs: PathBuf,
    /// Loopback is the workload's own: policy does not judge it.
    pub loopback_is_own: bool,
    /// Sockets of other kinds than TCP and UDP may be made, though no program sees what they send.
    pub other_sockets: bool,
    /// Redirected connections are events, too.
    pub tell_redirects: bool,
    /// Who gets the workload's connections that have to be read.
    pub outbound: Outbound,
    /// Connections to the workload are judged, too.
    pub inbound: bool,
    /// Sockets of the workload and of the proxy are joined: messages go from one to the other past TCP,
    /// where that is safe. See [`self_test`](crate::self_test).
    pub join_sockets: bool,
    /// How many entries maps have room for.
    pub capacity: Capacity,
}

/// Who gets the workload's connections that have to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// This process, which registers its listeners.
    Own,
    /// A proxy of another make, which asks for `SO_ORIGINAL_DST`.
    Foreign {
        /// Where it listens; the first address of each family is taken.
        to: Vec<SocketAddr>,
        /// The cgroup its processes are in.
        proxy_cgroup: PathBuf,
    },
}

/// How many entries maps have room for. Only those that exist take memory, but in the maps that forget
/// the oldest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Entries of a policy: addresses, and ports by class.
    pub policy: u32,
    /// Addresses and ports of services.
    pub services: u32,
    /// Places in alias tables: one for each backend of each service, and once more for the service that
    /// is being changed.
    pub slots: u32,
    /// Backends.
    pub backends: u32,
    /// Clients that come back to the backend they had; the oldest is forgotten.
    pub affinity: u32,
    /// Datagram conversations through services; the oldest is forgotten.
    pub reverse: u32,
    /// Redirected connections that are open at once.
    pub flows: u32,
    /// Ports that the workload holds.
    pub ports: u32,
    /// Connections that the proxy opens to the workload at once.
    pub exempt: u32,
    /// Conversations the workload has opened with datagrams; the oldest is forgotten.
    pub replies: u32,
    /// Sockets that are joined, two for each connection; others are like those without joining.
    pub joined: u32,
    /// Bytes of events that nobody has read yet: a power of two, and of pages.
    pub events: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            policy: 1 << 20,
            services: 1 << 16,
            slots: 1 << 20,
            backends: 1 << 18,
            affinity: 1 << 16,
            reverse: 1 << 16,
            flows: 1 << 18,
            ports: 1 << 16,
            exempt: 1 << 16,
            replies: 1 << 16,
            joined: 1 << 13,
            events: 1 << 20,
        }
    }
}

impl Capacity {
    /// Room by the names of maps. That of the policy is its trie's, made anew with each policy.
    pub(crate) fn by_map(&self) -> [(&'static str, u32); 12] {
        [
            ("SERVICES", self.services),
            ("SLOTS", self.slots),
            ("BACKENDS", self.backends),
            ("AFFINITY", self.affinity),
            ("REVERSE", self.reverse),
            ("FLOWS", self.flows),
            ("PORTS", self.ports),
            ("EXEMPT", self.exempt),
            ("REPLIES", self.replies),
            ("JOINED", self.joined),
            ("JOINS", self.joined),
            ("EVENTS", self.events),
        ]
    }
}
