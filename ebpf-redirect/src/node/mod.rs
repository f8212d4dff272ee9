//! The datapath of a node: programs on the interfaces of all its workloads, and the maps they share.
//!
//! | file | what |
//! | --- | --- |
//! | `settings.rs` | what is asked for |
//! | `kernel.rs` | [`NodeKernel`]: all that is done with it |
//! | `attached.rs` | programs on interfaces |
//! | `own.rs` | what workloads may send from |
//! | `balance.rs` | services, and the devices that lead outside |
//! | `crowd.rs` | who has how many connections |
//! | `dial.rs` | services at the system call |
//! | `policy.rs` | [`NodePolicyTable`]: an endpoint's policy as entries of the kernel's trie |
//! | `policies.rs`, `revisions.rs` | the tries in force, and by which numbers they are told apart |
//! | `identities.rs` | who has which address |
//! | `neighbours.rs` | other instances, whose programs judge the same packets |
//! | `removal.rs` | all of it taken away; [`missing`]: what it needs |
//! | `programs.rs`, `maps.rs` | into the kernel |
//! | `grace.rs` | how long the kernel waits for programs that run |
//! | `device.rs`, `ways.rs`, `netlink.rs` | the device, the rules and the routes that lead packets to the proxy |
//! | `routes.rs`, `host.rs` | where the default routes lead, and which addresses the host has |
//! | `view.rs` | what is there, in numbers |
//! | `contents.rs` | what the maps hold, in words |
//! | `veth.rs` | the host's end of a workload's cable |
//! | `report.rs` | what programs tell and count |
//! | `error.rs` | why not |
//!
//! Everything is pinned below `<bpffs>/portreeve-node/<instance>`: programs go on judging while nobody
//! runs, and who starts next takes maps and links over.

mod attached;
mod balance;
mod contents;
mod crowd;
mod device;
mod dial;
mod error;
mod grace;
mod host;
mod identities;
mod kernel;
mod maps;
mod neighbours;
mod netlink;
mod own;
mod policies;
mod policy;
mod programs;
mod removal;
mod report;
mod revisions;
mod routes;
mod settings;
mod veth;
mod view;
mod ways;

pub use portreeve_ebpf_common::node::{
    EndpointEntry, Ends, Leg, NodeEvent, NodeEventKind, Reason, TrackKey, Tracked, Translation,
    endpoint_flags, mark, scope, state, translation,
};

pub use self::contents::{BalancerContents, PolicyContents, PolicyRow, PortEntry, ServiceContents};
pub use self::crowd::Crowd;
pub use self::error::NodeError;
pub use self::host::host_addresses;
pub use self::kernel::NodeKernel;
pub use self::neighbours::Neighbour;
pub use self::policy::NodePolicyTable;
pub use self::removal::{NodeRemoved, missing};
pub use self::report::{NodeCounters, NodeEvents};
pub use self::routes::default_route_devices;
pub use self::settings::{NodeCapacity, NodeSettings};
pub use self::veth::host_end;
pub use self::view::Fill;
