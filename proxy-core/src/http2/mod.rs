//! HTTP/2: a client connection paired with one upstream connection, stream by stream.
//!
//! Unlike the protocols that run through a gate, both connections end here (HPACK, flow control and
//! stream numbers are each connection's own), in the `h2` crate. What is ours is the pairing: every
//! request judged by itself, bodies that move only as fast as their receiver takes them, resets,
//! trailers and informational answers passed on, one connection's end told to the other.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Judge`]: what the pairing asks of policy and telemetry |
//! | `pair/` | [`Pair`]: both connections and their streams, as one task |
//! | `upstream.rs` | the upstream connection: absent, being opened, open, leaving |
//! | `exchange.rs` | one request and its answer |
//! | `flow.rs` | one body on its way, with its trailers |
//! | `upgrade.rs` | `Upgrade: h2c`: from HTTP/1.1 to here |
//! | `wire.rs` | a socket whose frames are metered |
//! | `ready.rs` | which parts have something to do |
//!
//! HTTP/2 stays HTTP/2: nothing is translated, so nothing can be smuggled in translation.

mod exchange;
mod flow;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod pair;
mod ready;
mod upgrade;
mod upstream;
mod wire;

use portreeve_protocols::http1;
use portreeve_protocols::http2::{Refusal, Request};

pub(crate) use self::pair::Pair;
pub(crate) use self::upgrade::{KnownServers, grant};
pub(crate) use self::upstream::ToUpstream;
pub(crate) use crate::edits::Edits;
use crate::relay::Session;

/// What is to happen with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow,
    Deny,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// As the client saw it; 0: the stream ended before there was one.
    pub(crate) status: u16,
    /// The answer was the proxy's own.
    pub(crate) local: bool,
    /// Bytes of the body.
    pub(crate) request_bytes: u64,
    /// Bytes of the body.
    pub(crate) response_bytes: u64,
    pub(crate) grpc: Option<GrpcPassed>,
}

/// What became of a gRPC call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GrpcPassed {
    /// `None`: there was none.
    pub(crate) status: Option<u8>,
    pub(crate) request_messages: u64,
    pub(crate) response_messages: u64,
}

/// Policy and telemetry of one connection. For every request that could be read exactly one call of
/// [`Judge::decide`] or [`Judge::answered_unasked`], and one of [`Judge::finished`].
pub(crate) trait Judge: Session {
    /// What is remembered of a request until it is over.
    type Ticket: Send + Unpin;

    /// The verdict on a request, and the changes to its head that rules ask for.
    fn decide(&mut self, request: &Request<'_>, edits: &mut Edits) -> (Decision, Self::Ticket);
    /// The proxy answers this one itself, whatever policy says.
    fn answered_unasked(&mut self, request: &Request<'_>) -> Self::Ticket;
    /// The head of the answer is on its way.
    fn responded(&mut self, ticket: &mut Self::Ticket);
    /// It is over.
    fn finished(&mut self, ticket: Self::Ticket, passed: &Passed);
    /// A request whose head can't be accepted; its stream alone ends.
    fn refused_head(&mut self, refusal: http1::Refusal);
    /// The connection ends.
    fn refused(&mut self, refusal: Refusal);
}
