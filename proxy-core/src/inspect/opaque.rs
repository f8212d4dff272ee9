//! Connections that policy allows without looking inside.

use portreeve_policy::{Action, ConnectionVerdict};
use portreeve_protocols::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};

use super::session::Inspect;
use super::{Connection, reading};

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
        connection.passed(verdict);
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
        reading::unread(&action)
    }

    fn suits(far: &Action) -> bool {
        reading::unread(far)
    }
}
