//! What a connection holds when a peer is slow, and the per-thread stores it is borrowed from.
//!
//! On the usual path nothing is held: bytes are read into the thread's [`Scratch`], judged there
//! and written on from there. Only what can't go on at once (half a head, a full socket) is
//! copied into a [`Backlog`], which goes back to the thread's pool as soon as it is empty. An
//! idle connection therefore owns no buffer at all.

use std::cell::RefCell;

use super::splice::Pipe;

/// Bytes read at a time. A read that doesn't fill it tells the reactor that the socket is empty,
/// which saves the receive that would end in `EAGAIN`.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Backlogs kept for the next connection that needs one.
const POOLED: usize = 128;

/// A pooled buffer larger than this is given back to the allocator.
const POOLED_BYTES: usize = 64 * 1024;

/// The buffers of one worker thread, lent to a connection for the length of one poll.
pub(super) struct Scratch {
    /// Where sockets are read into.
    pub(super) read: Box<[u8]>,
    /// Output gathered during one run of a direction.
    pub(super) outbox: Vec<u8>,
    /// What a gate injects.
    pub(super) injected: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Box<Scratch>>> = const { RefCell::new(None) };
    #[expect(clippy::vec_box, reason = "connections hold the box; it moves as it is")]
    static POOL: RefCell<Vec<Box<Backlog>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    /// Lends the thread's scratch buffers to `work`.
    pub(super) fn lend<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
        // Taken out rather than borrowed: a connection polled from within another's poll would
        // get fresh buffers instead of a panic.
        let mut scratch = SCRATCH.take().unwrap_or_else(|| {
            Box::new(Scratch {
                read: vec![0; READ_BYTES].into_boxed_slice(),
                outbox: Vec::new(),
                injected: Vec::new(),
            })
        });
        let result = work(&mut scratch);
        SCRATCH.set(Some(scratch));
        result
    }
}

/// Bytes of one direction that could not move on yet.
///
/// Invariants: `unsent_from <= unsent.len()`; when `unsent` holds bytes, they are older than
/// those in `pipe`, which are older than those in `unread`.
#[derive(Default)]
pub(super) struct Backlog {
    /// Judged, or of the gate's making, and on its way to the receiver.
    unsent: Vec<u8>,
    unsent_from: usize,
    /// Bytes inside the kernel, between two splices.
    pub(super) pipe: Option<Pipe>,
    /// Received and not yet judged.
    pub(super) unread: Vec<u8>,
}

impl Backlog {
    /// One from the thread's pool, or a new one.
    pub(super) fn take() -> Box<Self> {
        POOL.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.pipe.is_none() && self.unsent().is_empty()
    }

    /// Gives an empty one back to the thread's pool.
    pub(super) fn give_back(mut self: Box<Self>) {
        debug_assert!(self.is_empty());
        self.unsent.clear();
        self.unsent_from = 0;
        if self.unsent.capacity() > POOLED_BYTES || self.unread.capacity() > POOLED_BYTES {
            return;
        }
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(self);
            }
        });
    }

    /// What is to be sent next.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.unsent[self.unsent_from..]
    }

    /// `n` bytes of [`Backlog::unsent`] have been sent.
    pub(super) fn sent(&mut self, n: usize) {
        self.unsent_from += n;
        if self.unsent_from >= self.unsent.len() {
            self.unsent.clear();
            self.unsent_from = 0;
        }
    }

    /// Adds to the end of what is to be sent.
    pub(super) fn send_later(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Memory that it takes, in the process and in the kernel.
    pub(super) fn held(&self) -> usize {
        let pipe = self.pipe.as_ref().map_or(0, Pipe::held);
        self.unsent.capacity() + self.unread.capacity() + pipe
    }

    /// Forgets what was to be sent: its receiver is gone.
    pub(super) fn drop_unsent(&mut self) {
        self.unsent.clear();
        self.unsent_from = 0;
        self.pipe = None;
    }
}
