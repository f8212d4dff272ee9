//! A request that has been decided and not been answered.

use super::api::Api;
use super::request::Request;
use super::schema::Mark;

/// One request under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) api: Api,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) action: Action,
}

/// What is to be done when it is its turn to be answered.
#[derive(Debug)]
pub(super) enum Action {
    /// The broker's response passes.
    Pass,
    /// The gate's own answer, and the error in it.
    Ours { reply: Vec<u8>, error: i16 },
    /// The broker's response is changed.
    Change(Box<Change>),
    /// The gate asked for names of topics itself.
    Lookup,
}

/// Changes to a response.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Items for what was not forwarded.
    pub(super) inserts: Vec<Insert>,
    /// Only what may be seen is shown.
    pub(super) filter: bool,
    pub(super) client_id: Box<[u8]>,
    /// The group of the request.
    pub(super) group: Option<Box<[u8]>>,
    /// The first error that is inserted.
    pub(super) error: i16,
}

/// Items for an array of the response.
#[derive(Debug)]
pub(super) struct Insert {
    pub(super) mark: Mark,
    /// The group inside of which the array is.
    pub(super) inside: Option<Box<[u8]>>,
    pub(super) count: usize,
    pub(super) items: Vec<u8>,
}

impl Pending {
    /// Bytes that are kept until it is this one's turn: the same for as long as it is under way.
    pub(super) fn owed(&self) -> usize {
        match &self.action {
            Action::Ours { reply, .. } => reply.capacity(),
            Action::Change(change) => change.held(),
            Action::Pass | Action::Lookup => 0,
        }
    }

    pub(super) fn change(&self) -> Option<&Change> {
        match &self.action {
            Action::Change(change) => Some(change),
            _ => None,
        }
    }
}

impl Change {
    fn held(&self) -> usize {
        let length = |name: &Option<Box<[u8]>>| name.as_ref().map_or(0, |name| name.len());
        let inserts =
            self.inserts.iter().map(|insert| insert.items.capacity() + length(&insert.inside));
        self.client_id.len() + length(&self.group) + inserts.sum::<usize>()
    }

    /// Whether it is one run of items before those of the broker, which can be sent as soon as the
    /// place for them has come.
    pub(super) fn can_begin_at_once(&self) -> bool {
        matches!(self.inserts[..], [Insert { inside: None, .. }]) && !self.filter
    }

    /// The request, as the driver knows it.
    pub(super) fn request(&self, pending: &Pending) -> Request<'_> {
        pending.api.request(pending.version, pending.correlation, &self.client_id)
    }
}
