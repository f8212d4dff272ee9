//! The seam to programs inside of the kernel that turn connections to this proxy: whoever loads them
//! implements [`Redirection`], and the proxy asks and tells through it. Nothing here knows how the
//! kernel is spoken to.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Redirection`], and [`KernelCounters`] |
//! | `bypass.rs` | the proxy's own connections to the workload, which must not be turned to it again |
//! | `as_client.rs` | the proxy's connections in the name of its clients |
//! | `source_ports.rs` | which ports both come from |
//! | `report.rs` | [`Reporter`]: what the kernel has decided, into the access log and the metrics |
//! | `node_report.rs` | [`NodeReporter`]: the same for the endpoints of a node, and no more of it than fits |
//! | `node_counters.rs` | [`KernelCounting`]: what the programs of a node have counted |

mod as_client;
mod bypass;
#[cfg(test)]
pub(crate) mod fake;
mod node_counters;
mod node_report;
mod report;
mod source_ports;

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use portreeve_policy::{EndpointPolicy, TrafficDirection};

pub(crate) use self::as_client::AsClient;
pub(crate) use self::bypass::{Bypass, Target, Way};
pub use self::node_counters::{KernelCounting, KernelPackets, NodeKernelCounters};
pub use self::node_report::NodeReporter;
pub use self::report::{KernelDecision, KernelReason, KernelVerdict, Reporter};

/// Programs inside of the kernel that judge the workload's connections at L3 and L4, and turn to the
/// proxy what has to be read.
///
/// A proxy that starts calls [`policy`](Self::policy) with the first policy once all its addresses are
/// bound, then [`listening`](Self::listening) for each listener, and serves after that. All other
/// methods are called from then on, by several threads at a time.
///
/// # Who changes first
/// Two hold the policy, and they can't change at the same instant. The kernel goes first:
///
/// - It alone can refuse (a map may be full), and then nobody has changed.
/// - What the old policy still decides in between goes through the proxy then, which judges its
///   connections again when it follows, and ends those that may not be. The other way round it would go
///   straight out, where the proxy never sees it again.
/// - In either order a connection gets the answer of one of the two policies, never of a mixture: "to be
///   read" is no answer, and the proxy asks its own policy from the beginning. So nothing is allowed in
///   between that neither of them allows.
pub trait Redirection: Debug + Send + Sync {
    /// Where an outbound connection wanted to go, by the two ends of the accepted socket.
    ///
    /// # Errors
    /// `NotFound` for a connection that was not turned here; those of the system calls.
    fn original_destination(&self, client: SocketAddr, local: SocketAddr)
    -> io::Result<SocketAddr>;

    /// The proxy is about to open a connection from `from` to the workload at `to`, which is to pass
    /// as it is. It is opened after this returns, and what is returned is dropped when the handshake
    /// is over.
    ///
    /// # Errors
    /// When it can't be noted. The connection is not opened then.
    fn exempt(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Exemption>;

    /// A listening socket that connections of this direction are to be turned to. Called once for each
    /// listener with [`Transparent::Ebpf`](crate::Transparent::Ebpf): its other sockets are in the same
    /// `SO_REUSEPORT` group.
    ///
    /// # Errors
    /// When it can't take any. The proxy does not start then.
    fn listening(
        &self,
        direction: TrafficDirection,
        address: SocketAddr,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()>;

    /// A policy is about to come into force. The kernel has to carry it out, whole, before this
    /// returns.
    ///
    /// # Errors
    /// The policy is refused: the one before stays in force here and there.
    fn policy(&self, revision: u64, policy: &EndpointPolicy) -> Result<(), Refusal>;

    /// Whether what the workload sends to this proxy may come past TCP: `splice(2)` sees none of it, and the
    /// proxy reads it.
    fn joins_sockets(&self) -> bool {
        false
    }

    /// What was counted, since the programs were loaded.
    ///
    /// # Errors
    /// When it can't be read.
    fn counters(&self) -> io::Result<KernelCounters>;
}

/// Ends the exemption of a connection when it is dropped.
pub type Exemption = Box<dyn Send>;

/// Why the kernel can't carry a policy out.
pub type Refusal = Box<dyn Error + Send + Sync>;

/// What programs inside of the kernel have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelCounters {
    /// Connections and datagrams of the workload.
    pub egress: KernelDecisions,
    /// Connections and datagrams to the workload.
    pub ingress: KernelDecisions,
    /// Decisions that found no room in the queue that they are told by.
    pub events_lost: u64,
    /// Connections and datagrams refused because a map was full.
    pub maps_full: u64,
    /// Sent to a backend of a service.
    pub services_translated: u64,
    /// Sockets that the workload was not given, because no program sees what they send.
    pub sockets_refused: u64,
    /// Messages that went from the workload's socket to the proxy's, or back, without TCP between.
    pub messages_joined: u64,
}

/// Decisions of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelDecisions {
    /// Passed, and never touched the proxy.
    pub allowed: u64,
    /// Refused.
    pub denied: u64,
    /// Turned to the proxy.
    pub redirected: u64,
}
