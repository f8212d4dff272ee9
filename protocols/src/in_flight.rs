//! Exchanges under way on one connection, in order: answered in the order they were asked.

use std::collections::VecDeque;

/// The queue: room for one in place, so that a connection that does not pipeline allocates nothing.
#[derive(Debug)]
pub(crate) struct InFlight<T> {
    front: Option<T>,
    /// Empty if `front` is `None`.
    rest: VecDeque<T>,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self { front: None, rest: VecDeque::new() }
    }
}

impl<T> InFlight<T> {
    pub(crate) fn len(&self) -> usize {
        usize::from(self.front.is_some()) + self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    pub(crate) fn push(&mut self, pending: T) {
        match self.front {
            None => self.front = Some(pending),
            Some(_) => self.rest.push_back(pending),
        }
    }

    /// The oldest.
    pub(crate) fn front(&mut self) -> Option<&mut T> {
        self.front.as_mut()
    }

    /// The newest.
    pub(crate) fn back(&mut self) -> Option<&mut T> {
        self.rest.back_mut().or(self.front.as_mut())
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let popped = std::mem::replace(&mut self.front, self.rest.pop_front());
        if self.front.is_none() && self.rest.capacity() > 0 {
            // An idle connection keeps no memory.
            self.rest = VecDeque::new();
        }
        popped
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.front.iter_mut().chain(&mut self.rest)
    }
}
