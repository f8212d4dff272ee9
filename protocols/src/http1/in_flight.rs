//! Exchanges under way on one connection, in order: answered in the order they were asked.

use std::collections::VecDeque;

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

/// The queue: room for one in place, so that a connection that does not pipeline allocates nothing.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    front: Option<Pending>,
    /// Empty if `front` is `None`.
    rest: VecDeque<Pending>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        usize::from(self.front.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    pub(super) fn push(&mut self, pending: Pending) {
        match self.front {
            None => self.front = Some(pending),
            Some(_) => self.rest.push_back(pending),
        }
    }

    pub(super) fn front(&mut self) -> Option<&mut Pending> {
        self.front.as_mut()
    }

    /// The one whose request is still arriving, if its response has not passed already.
    pub(super) fn receiving(&mut self) -> Option<&mut Pending> {
        self.rest.back_mut().or(self.front.as_mut()).filter(|pending| pending.receiving)
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let popped = std::mem::replace(&mut self.front, self.rest.pop_front());
        if self.front.is_none() && self.rest.capacity() > 0 {
            // An idle connection keeps no memory.
            self.rest = VecDeque::new();
        }
        popped
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.front.iter_mut().chain(&mut self.rest)
    }
}
