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

/// Whom the workload has sent a datagram to: what comes back from there is a reply, whoever may open
/// conversations. → when, in nanoseconds of the monotonic clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplyKey {
    /// Where it was sent to.
    pub remote: Endpoint,
    /// The port it was sent from.
    pub port: u32,
}
