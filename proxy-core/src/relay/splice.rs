//! Moving long bodies through the kernel without copying them (`splice(2)`).
//!
//! A pipe stands between the two sockets. Pipes come from a per-thread pool and go back when they
//! are empty, so that their number follows the bulk transfers under way, not the connections.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Capacity asked for: what an unprivileged process may have by default (`fs.pipe-max-size`).
const PIPE_BYTES: usize = 1024 * 1024;

/// Pipes kept open for the next transfer.
const POOLED: usize = 32;

/// Below this many bytes to go a copy costs less than two splices.
pub(super) const WORTHWHILE: u64 = 128 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe that holds `held` bytes on their way from one socket to another.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// `0 <= held <= capacity`
    held: usize,
    capacity: usize,
}

impl Pipe {
    /// One from the thread's pool, or a new one.
    ///
    /// # Errors
    /// When the process has no file descriptors left; the caller copies instead.
    pub(super) fn take() -> io::Result<Self> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Refused where the user's pipe budget is spent: the default of 64 KiB serves, too.
        let capacity = fcntl_setpipe_size(&writer, PIPE_BYTES).unwrap_or(64 * 1024);
        Ok(Self { reader, writer, held: 0, capacity })
    }

    /// Gives an empty pipe back to the thread's pool.
    pub(super) fn give_back(self) {
        debug_assert_eq!(self.held, 0, "bytes of one connection must not reach another");
        if self.held > 0 {
            return;
        }
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(self);
            }
        });
    }

    /// Bytes inside.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `limit` bytes from `source` into the empty pipe; 0 means that its stream has
    /// ended. Only into an empty one, so that `WouldBlock` can't mean that the pipe is full.
    ///
    /// # Errors
    /// Those of `splice(2)`, `WouldBlock` among them.
    pub(super) fn fill(&mut self, source: impl AsFd, limit: u64) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(self.capacity);
        let moved = splice(
            source,
            None,
            &self.writer,
            None,
            length,
            SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
        )?;
        self.held += moved;
        Ok(moved)
    }

    /// Passes what is inside on to `sink`. (Not with `SPLICE_F_MORE`: a sender that pauses would
    /// leave its last bytes corked.)
    ///
    /// # Errors
    /// Those of `splice(2)`, `WouldBlock` among them.
    pub(super) fn empty(&mut self, sink: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let moved = splice(&self.reader, None, sink, None, self.held, flags)?;
        self.held -= moved.min(self.held);
        Ok(moved)
    }
}
