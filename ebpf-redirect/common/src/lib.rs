//! What the kernel programs and their loader share: the keys and values of maps, and the few
//! decisions about them that both take. `no_std`, without dependencies, every byte named: a byte of
//! padding would be part of a key.
//!
//! | file | map |
//! | --- | --- |
//! | `address.rs` | [`Address`], [`Endpoint`]: keys of most |
//! | `policy.rs` | [`PolicyKey`] → [`PolicyValue`]: the whole policy of a workload in one trie |
//! | `service.rs` | services, their alias tables, backends, affinity |
//! | `socket.rs` | what is kept of a socket, of a redirected connection, of a bound port |
//! | `config.rs` | [`Config`], and the numbers that name listeners |
//! | `join.rs` | [`JoinKey`], [`JoinState`], [`KernelLayout`]: sockets that hand each other their messages |
//! | `event.rs` | [`Event`] and the [`Counter`]s |
//! | [`node`] | the same for the programs of a whole node |
#![no_std]
#![forbid(unsafe_code)]

mod address;
mod config;
mod event;
mod join;
pub mod node;
mod policy;
mod service;
mod socket;

pub use self::address::{Address, Endpoint};
pub use self::config::{Config, ListenerSlot, flags};
pub use self::event::{Counter, Event, EventKind, EventReason};
pub use self::join::{JoinKey, JoinState, KernelLayout};
pub use self::policy::{Direction, PolicyKey, PolicyValue, Verdict};
pub use self::service::{
    Affinity, AffinityKey, Backend, ReverseKey, ReverseValue, Service, ServiceKey, Slot, SlotKey,
    choose,
};
pub use self::socket::{Conversation, ConversationKey, FlowKey, FlowValue, PortKey, SocketState};

/// Version of everything here. What is pinned with another one is not taken over.
pub const LAYOUT: u32 = 1;

/// IP protocol numbers.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}
