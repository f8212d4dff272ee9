//! An exchange under way.

use super::reply::Reply;

/// One request whose response has not passed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The gate's own answer; `None`: the server's.
    pub(super) reply: Option<Reply>,
    pub(super) request_bytes: u64,
    /// The response to HEAD has no body, whatever its fields say.
    pub(super) to_head: bool,
    /// It may turn into a tunnel.
    pub(super) upgrade: bool,
    /// The connection ends after the response, and the response says so.
    pub(super) last: bool,
    /// It ends after the response, which was due before that was known.
    pub(super) cut: bool,
    /// The handler was asked about it, and is told when it is over.
    pub(super) reported: bool,
    /// Its request is still arriving.
    pub(super) receiving: bool,
}

/// The exchanges of one connection.
pub(super) type InFlight = crate::in_flight::InFlight<Pending>;

impl InFlight {
    /// The one whose request is still arriving, if its response has not passed already.
    pub(super) fn receiving(&mut self) -> Option<&mut Pending> {
        self.back().filter(|pending| pending.receiving)
    }
}
