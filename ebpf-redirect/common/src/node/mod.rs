//! What the node's programs and their loader share: one set of maps for all workloads of a node.
//!
//! | file | map |
//! | --- | --- |
//! | `endpoint.rs` | interface → [`EndpointEntry`]; marks of packets |
//! | `balance.rs` | [`Ends`] → [`Translation`]: what becomes of packets of services |
//! | `policy.rs` | [`NodePolicyKey`] → [`PolicyValue`](crate::PolicyValue): an endpoint's policy in one trie, by identity |
//! | `track.rs` | [`TrackKey`] → [`Tracked`]: connections; [`FragmentKey`] → [`FragmentPorts`] |
//! | `report.rs` | [`NodeEvent`], and [`Reason`], by which packets are counted |

mod balance;
mod endpoint;
mod policy;
mod report;
mod track;

pub use self::balance::{Ends, HAIRPIN_V4, HAIRPIN_V6, Translation, scope, translation};
pub use self::endpoint::{EndpointEntry, NodeConfig, PrefixKey, endpoint_flags, mark};
pub use self::policy::{NodePolicyKey, VerdictKey};
pub use self::report::{NodeEvent, NodeEventKind, Reason};
pub use self::track::{FragmentKey, FragmentPorts, Leg, Opened, TrackKey, Tracked, state, tcp};

/// Version of everything here. What is pinned with another one is not taken over.
pub const NODE_LAYOUT: u32 = 4;

/// Protocols that the node's programs know by more than their number.
pub mod protocol {
    pub use crate::protocol::{TCP, UDP};
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
