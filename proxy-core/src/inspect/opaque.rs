//! Connections that policy allows without looking inside.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portreeve_policy::{Action, ConnectionVerdict};
use portreeve_protocols::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};

use super::Connection;
use crate::relay::{End, Session};
use crate::telemetry::TimeoutPhase;

/// A gate that looks at nothing: a tunnel from the first byte.
pub(super) struct Opaque;

impl<H: ?Sized> Gate<H> for Opaque {
    fn step(&mut self, _: Direction, _: &[u8], _: &mut Vec<u8>, _: &mut H) -> Op {
        Op::Forward(Op::FOREVER)
    }

    fn end(&mut self, _: Direction, _: &[u8], _: &mut Vec<u8>, _: &mut H) -> Op {
        Op::NeedInput
    }

    fn upstream_failed(&mut self, _: UpstreamFailure, _: &mut H) {}

    fn timed_out(&mut self, _: &mut Vec<u8>, _: &mut H) -> Op {
        Op::Close(Close::Abort)
    }

    fn phase(&self) -> Phase {
        Phase::Tunnel
    }
}

/// The session of an uninspected connection.
pub(super) struct OpaqueSession {
    connection: Connection,
    now: Instant,
    revoked: bool,
}

impl OpaqueSession {
    pub(super) fn new(connection: Connection, verdict: &ConnectionVerdict) -> Self {
        if verdict.audited {
            connection.audited(verdict);
        }
        Self { connection, now: Instant::now(), revoked: false }
    }
}

impl Session for OpaqueSession {
    const CONNECTS_AT_ONCE: bool = true;

    fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn upstream(&self) -> (SocketAddr, Duration) {
        (self.connection.upstream(), self.connection.worker().limits.connect_timeout)
    }

    fn upstream_opened(&mut self) {
        self.connection.upstream_opened();
    }

    fn upstream_failed(&mut self, error: &io::Error) {
        self.connection.upstream_failed(error);
        // There is no way to say it in an unknown protocol but to hang up.
        self.revoked = true;
    }

    fn time_allowed(&self, _: Phase) -> Option<Duration> {
        self.connection.worker().limits.tunnel_timeout
    }

    fn timed_out(&mut self, _: Phase) {
        self.connection.worker().telemetry.timeout(TimeoutPhase::Tunnel);
    }

    fn review(&mut self) {
        if self.connection.outdated() {
            self.revoked |= match self.connection.renew().action {
                Action::Allow => false,
                // One that must be inspected from now on can't be: its beginning is gone. One that is
                // only to be seen may go on unseen.
                Action::Inspect(as_what) => !as_what.is_observed_only(),
                _ => true,
            };
        }
    }

    fn revoked(&self) -> bool {
        self.revoked
    }

    fn closed(&mut self, _: End, to_upstream: u64, to_client: u64) {
        self.connection.ended(to_upstream, to_client);
    }
}
