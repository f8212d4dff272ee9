//! What the relay asks of the inspector of its connection, besides what the gate asks of it.

use std::io;
use std::time::{Duration, Instant};

use portreeve_protocols::gate::Phase;

use crate::redirection::Target;

/// How a connection pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Closed,
    /// With a reset: a side failed, or a message was cut short.
    Aborted,
    /// Policy no longer allows it.
    Revoked,
    /// Not at all: it speaks another protocol, and is not this relay's any more.
    HandedOver,
}

/// The policy and the telemetry of one connection, as the relay needs them.
pub(crate) trait Session: Send + Unpin {
    /// Opens the upstream connection at once: the server may speak first.
    const CONNECTS_AT_ONCE: bool = false;

    /// The time of this poll; everything in it happens now.
    fn set_now(&mut self, now: Instant);
    /// The time of this poll.
    fn now(&self) -> Instant;
    /// Where the upstream connection goes, and how long opening it may take.
    fn upstream(&self) -> Target;
    /// It is open.
    fn upstream_opened(&mut self);
    /// It could not be opened.
    fn upstream_failed(&mut self, error: &io::Error);
    /// Whether `splice(2)` sees what the client sends.
    fn may_splice_client(&self) -> bool {
        true
    }
    /// How long the connection may stay in `phase`; `None`: for ever.
    fn time_allowed(&self, phase: Phase) -> Option<Duration>;
    /// The clock of `phase` has run out.
    fn timed_out(&mut self, phase: Phase);
    /// Policy has changed: judge the connection anew.
    fn review(&mut self);
    /// Whether anybody wants to know how many bytes are held for it.
    fn counts_held(&self) -> bool {
        false
    }
    /// So many bytes of either side are held for it. `false`: it is to end, there is no room for them.
    fn holds(&mut self, _: usize) -> bool {
        true
    }
    /// Policy no longer allows the connection.
    fn revoked(&self) -> bool;
    /// It is over; so many bytes were forwarded to the upstream and to the client.
    fn closed(&mut self, end: End, to_upstream: u64, to_client: u64);
}
