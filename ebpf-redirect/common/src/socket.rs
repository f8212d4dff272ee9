//! What is kept of sockets.

use crate::address::Endpoint;

/// Kept with a socket as long as it lives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// What the application asked for; `getpeername` shows it. Port 0: nothing was changed.
    pub asked: Endpoint,
    /// Where it goes: `asked`, or the backend that stands for it.
    pub destination: Endpoint,
    /// Not 0: the proxy has the connection.
    pub redirected: u32,
    /// Not 0: counted as one who holds the port [`SocketState::bound`].
    pub holds_port: u32,
    /// The port it holds.
    pub bound: PortKey,
}

/// A redirected connection as the proxy's socket shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client's end.
    pub client: Endpoint,
    /// The proxy's end.
    pub proxy: Endpoint,
}

/// Where a redirected connection wanted to go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowValue {
    /// What the application asked for.
    pub asked: Endpoint,
    /// Where the proxy is to go: `asked`, or the backend that stands for it.
    pub destination: Endpoint,
    /// The client socket's cookie.
    pub cookie: u64,
}

/// A port that processes of the workload listen on: → how many sockets do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Address and port. All of IPv4 is `::ffff:0.0.0.0`, all of both is `::`.
    pub local: Endpoint,
    /// The IP protocol.
    pub protocol: u32,
}

/// Two who exchange datagrams: a socket of the workload and somebody else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConversationKey {
    /// The somebody else.
    pub remote: Endpoint,
    /// The workload's port.
    pub port: u32,
}

/// What makes datagrams the other way replies: they are judged by whether the conversation may be opened
/// the way it was.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// When the last one was seen, in nanoseconds of the monotonic clock.
    pub since: u64,
    /// The [`Direction`](crate::Direction) it was opened in.
    pub opened: u32,
    /// Always 0.
    pub pad: u32,
}

impl Conversation {
    /// After so long without a datagram it is over, in nanoseconds: `nf_conntrack_udp_timeout_stream`.
    pub const TIMEOUT: u64 = 120_000_000_000;
}
