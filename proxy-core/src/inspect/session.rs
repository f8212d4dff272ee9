//! What the relay asks of every inspected connection, whatever it speaks: answered once, from the
//! [`Connection`]. A protocol adds what is its own.

use std::io;
use std::time::{Duration, Instant};

use portreeve_policy::Action;
use portreeve_protocols::gate::Phase;

use super::Connection;
use crate::redirection::Target;
use crate::relay::{End, Session};
use crate::telemetry::TimeoutPhase;

/// What is kept for reports is counted by so many bytes.
const PAGE: usize = 4096;

/// What tells the sessions of protocols apart.
pub(super) trait Inspect: Send + Unpin {
    /// The server may speak first, and nobody knows how to tell the client what goes wrong.
    const OPAQUE: bool = false;

    /// The connection that it is about.
    fn connection(&self) -> &Connection;
    /// The same, to be changed.
    fn connection_mut(&mut self) -> &mut Connection;
    /// Takes on what a new near policy says of the connection. `false`: that it may not go on.
    fn adopt(&mut self, action: Action) -> bool;
    /// Whether a connection that is read as this one is may go on with what a far policy says of it.
    fn suits(far: &Action) -> bool;
    /// Bytes kept for requests under way, so that they can be reported when they are answered.
    fn held(&self) -> usize {
        0
    }
    /// The connection is over: reports what was under way.
    fn give_up(&mut self) {}
}

impl<I: Inspect> Session for I {
    const CONNECTS_AT_ONCE: bool = I::OPAQUE;

    fn set_now(&mut self, now: Instant) {
        self.connection_mut().now = now;
    }

    fn now(&self) -> Instant {
        self.connection().now
    }

    fn upstream(&self) -> Target {
        self.connection().target()
    }

    fn upstream_opened(&mut self) {
        self.connection().upstream_opened();
    }

    fn upstream_failed(&mut self, error: &io::Error) {
        let connection = self.connection_mut();
        connection.upstream_failed(error);
        // There is no way to say it in an unknown protocol but to hang up.
        connection.goes_on(!I::OPAQUE, true);
    }

    fn may_splice_client(&self) -> bool {
        self.connection().comes_over_tcp()
    }

    fn time_allowed(&self, phase: Phase) -> Option<Duration> {
        self.connection().time_allowed(phase)
    }

    fn timed_out(&mut self, phase: Phase) {
        self.connection().telemetry().timeout(TimeoutPhase::of(phase));
    }

    fn review(&mut self) {
        if self.connection().outdated() {
            let action = self.connection_mut().renew().action;
            let near = self.adopt(action);
            let far = self.connection().far().is_none_or(|far| Self::suits(&far.verdict.action));
            self.connection_mut().goes_on(near, far);
        }
    }

    fn counts_held(&self) -> bool {
        self.connection().counts_held()
    }

    fn holds(&mut self, bytes: usize) -> bool {
        if !self.connection().counts_held() {
            return true;
        }
        // In whole pages: what requests leave behind usually is none, and changes nobody's numbers.
        let kept = self.held() & !(PAGE - 1);
        self.connection_mut().holds(bytes + kept)
    }

    fn revoked(&self) -> bool {
        self.connection().revoked()
    }

    fn closed(&mut self, _: End, to_upstream: u64, to_client: u64) {
        self.give_up();
        self.connection().ended(to_upstream, to_client);
    }
}
