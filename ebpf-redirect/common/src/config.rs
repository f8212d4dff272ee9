//! What programs are told besides policy.

use crate::address::Endpoint;

/// One entry, replaced whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Cookie of the network namespace in which the proxy listens.
    pub netns: u64,
    /// [`LAYOUT`](crate::LAYOUT).
    pub layout: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Where outbound connections over IPv4 are turned to. Port 0: nowhere, they are refused.
    pub proxy_v4: Endpoint,
    /// The same over IPv6.
    pub proxy_v6: Endpoint,
}

/// Bits of [`Config::flags`].
pub mod flags {
    /// Loopback is the workload's own: policy does not judge it.
    pub const LOOPBACK_IS_OWN: u32 = 1;
    /// Sockets of other kinds than TCP and UDP may be made, though no program sees what they send.
    pub const OTHER_SOCKETS: u32 = 2;
    /// Tell of redirected connections, too.
    pub const TELL_REDIRECTS: u32 = 4;
    /// The proxy is not this project's: it need not be in the map of listeners.
    pub const FOREIGN_PROXY: u32 = 8;
    /// Join sockets of the workload and of the proxy.
    pub const JOIN_SOCKETS: u32 = 16;
}

/// Places in the map of listening sockets.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerSlot {
    /// Gets connections to the workload, over IPv4.
    InboundV4 = 0,
    /// The same over IPv6.
    InboundV6 = 1,
    /// Gets connections of the workload, over IPv4.
    OutboundV4 = 2,
    /// The same over IPv6.
    OutboundV6 = 3,
}

impl ListenerSlot {
    /// How many there are.
    pub const COUNT: u32 = 4;
}
