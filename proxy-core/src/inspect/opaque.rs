//! Connections that policy allows without looking inside.

use portreeve_policy::{Action, ConnectionVerdict};
use portreeve_protocols::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};

use super::Connection;
use super::session::Inspect;

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
pub(super) struct OpaqueSession(Connection);

impl OpaqueSession {
    pub(super) fn new(connection: Connection, verdict: &ConnectionVerdict) -> Self {
        if verdict.audited {
            connection.audited(verdict);
        } else {
            connection.passed(verdict);
        }
        Self(connection)
    }
}

impl Inspect for OpaqueSession {
    const OPAQUE: bool = true;

    fn connection(&self) -> &Connection {
        &self.0
    }

    fn connection_mut(&mut self) -> &mut Connection {
        &mut self.0
    }

    fn adopt(&mut self, action: Action) -> bool {
        match action {
            Action::Allow => true,
            // One that must be inspected from now on can't be: its beginning is gone. One that is
            // only to be seen may go on unseen.
            Action::Inspect(as_what) => as_what.is_observed_only(),
            _ => false,
        }
    }
}
