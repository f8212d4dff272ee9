//! What programs tell of.

use crate::address::Endpoint;

/// One entry of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// The socket's cookie, where there is a socket.
    pub cookie: u64,
    /// See [`EventKind`].
    pub kind: u8,
    /// See [`EventReason`].
    pub reason: u8,
    /// See [`Direction`](crate::Direction).
    pub direction: u8,
    /// The IP protocol.
    pub protocol: u8,
    /// Revision of the policy that decided.
    pub revision: u32,
    /// Who the peer is.
    pub identity: u32,
    /// One more than the index of the rule that decided; 0 for none.
    pub rule: u32,
    /// The one who opens the connection; of egress the address is not known yet.
    pub source: Endpoint,
    /// What it asked for.
    pub asked: Endpoint,
    /// Where it goes: `asked`, or the backend that stands for it.
    pub destination: Endpoint,
    /// Always 0.
    pub pad: u32,
}

/// What has happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Refused.
    Denied = 0,
    /// Turned to the proxy.
    Redirected = 1,
}

/// Why.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventReason {
    /// Policy says so.
    Policy = 0,
    /// There is no policy, or no configuration.
    NotReady = 1,
    /// The proxy is to read it, and none listens.
    ProxyAway = 2,
    /// A service without a backend.
    NoBackend = 3,
    /// A socket of a kind whose traffic no program sees.
    SocketKind = 4,
    /// From another network namespace than the proxy's.
    OtherNamespace = 5,
    /// A map is full, so that what has to be kept can't be.
    MapFull = 6,
}

impl EventReason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::NotReady,
        Self::ProxyAway,
        Self::NoBackend,
        Self::SocketKind,
        Self::OtherNamespace,
        Self::MapFull,
    ];
}

/// Counters, one for each CPU.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Connections and datagrams of the workload that went straight out.
    EgressAllowed = 0,
    /// Refused.
    EgressDenied = 1,
    /// Turned to the proxy.
    EgressRedirected = 2,
    /// Connections and datagrams to the workload that were let in.
    IngressAllowed = 3,
    /// Refused.
    IngressDenied = 4,
    /// Turned to the proxy.
    IngressRedirected = 5,
    /// Events that found no room in the ring buffer.
    EventsLost = 6,
    /// Sent to a backend of a service.
    ServiceTranslated = 7,
    /// Entries that found no room in a map; the connection was refused.
    MapFull = 8,
    /// Sockets of other kinds that were refused.
    SocketsRefused = 9,
    /// Messages that went from socket to socket.
    MessagesJoined = 10,
}

impl Counter {
    /// How many there are.
    pub const COUNT: u32 = 11;
}
