//! What is kept of sockets that are joined: a message of one goes straight to the other's queue.

use crate::address::Endpoint;

/// A socket as it sees itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct JoinKey {
    /// Its own end.
    pub own: Endpoint,
    /// The other end.
    pub peer: Endpoint,
}

impl JoinKey {
    /// The same connection as the socket at the other end sees it.
    #[inline(always)]
    #[must_use]
    pub const fn other_end(self) -> Self {
        Self { own: self.peer, peer: self.own }
    }
}

/// How far the messages of one socket are joined. Kept under that socket's [`JoinKey`].
///
/// A direction only ever goes from `UNDECIDED` to `JOINED` to `SEPARATE`: what was sent over TCP may
/// still be on its way, and a message that is joined would overtake it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinState {
    /// Bytes that went straight over.
    pub sent: u64,
    /// `sent` may become this much; the reader raises it. `sent <= allowed`, but for a message that
    /// another thread sends meanwhile.
    pub allowed: u64,
    /// TCP's next sequence number as it was when the socket was enrolled. While it is the same, nothing
    /// has gone over TCP.
    pub first: u32,
    /// One of the constants.
    pub mode: u32,
    /// TCP's next sequence number of what comes.
    pub next: u32,
    /// Always 0.
    pub pad: u32,
}

impl JoinState {
    /// Nothing has been sent yet.
    pub const UNDECIDED: u32 = 0;
    /// Messages go straight over.
    pub const JOINED: u32 = 1;
    /// Messages go over TCP, for ever.
    pub const SEPARATE: u32 = 2;

    /// Bytes that a reader may leave unread before the other end is sent to TCP, which waits for it. Less
    /// than TCP itself lets a reader leave by default (`tcp_rmem` has 6 MiB), and more than the answers
    /// for which joining is worth it.
    pub const UNREAD: u64 = 1024 * 1024;

    /// A socket that has just been connected.
    #[inline(always)]
    #[must_use]
    pub const fn new(first: u32, next: u32) -> Self {
        Self { sent: 0, allowed: Self::UNREAD, first, mode: Self::UNDECIDED, next, pad: 0 }
    }

    /// So many bytes have come over TCP, from a sequence number on: how many of them have come before.
    /// TCP keeps a retransmission whole that overlaps with what it has, and skips what it knows when it
    /// is read; what is read past TCP, is not skipped.
    #[inline(always)]
    #[must_use]
    pub const fn known(&mut self, sequence: u32, length: u32) -> u32 {
        let known = self.next.wrapping_sub(sequence);
        self.next = sequence.wrapping_add(length);
        if known < length { known } else { 0 }
    }

    /// What its peer may send when `unread` of its `sent` bytes wait to be read.
    #[inline(always)]
    #[must_use]
    pub const fn allowance(sent: u64, unread: u64) -> u64 {
        sent.saturating_sub(unread) + Self::UNREAD
    }
}

/// Where the running kernel has what programs look at in its own structures of a TCP socket. It differs
/// between kernels: the loader asks, and puts the answer into the object before it loads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLayout {
    /// `write_seq` in `struct tcp_sock`: the sequence number of the next byte. 0: nothing is known, and
    /// nothing is joined.
    pub write_seq: u32,
    /// `sk_rmem_alloc` in `struct sock`: what waits to be read. 0: the kernel does not count there what
    /// messages bring, and a direction is joined for its first bytes only.
    pub rmem_alloc: u32,
    /// `skc_flags` in `struct sock_common`, with which a `struct sock` begins.
    pub sock_flags: u32,
    /// The bit there that says that writes may go without a copy (`SO_ZEROCOPY`).
    pub zerocopy: u32,
    /// `sk_socket` in `struct sock`.
    pub socket: u32,
    /// `file` in `struct socket`.
    pub file: u32,
    /// `f_flags` in `struct file`.
    pub file_flags: u32,
    /// `cb` in `struct sk_buff`, where TCP has first of all the sequence number.
    pub control: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_of_the_other_end_is_this_one() {
        let end = |port| Endpoint { port, ..Endpoint::default() };
        let key = JoinKey { own: end(1), peer: end(2) };
        assert_eq!(key.other_end(), JoinKey { own: end(2), peer: end(1) });
        assert_eq!(key.other_end().other_end(), key);
    }

    #[test]
    fn what_came_before_is_known() {
        let mut state = JoinState::new(0, u32::MAX - 4);
        assert_eq!(state.known(u32::MAX - 4, 10), 0, "the first");
        assert_eq!(state.known(5, 10), 0, "the next");
        assert_eq!(state.known(10, 20), 5, "five of it have come");
        assert_eq!(state.next, 30);
        assert_eq!(state.known(30, 0), 0, "an end without bytes");
        assert_eq!(state.known(u32::MAX - 9, 50), 40, "round the end of numbers");
    }

    #[test]
    fn a_reader_allows_as_much_as_it_has_read() {
        assert_eq!(JoinState::allowance(0, 0), JoinState::UNREAD);
        assert_eq!(JoinState::allowance(1000, 0), 1000 + JoinState::UNREAD);
        assert_eq!(JoinState::allowance(1000, 400), 600 + JoinState::UNREAD);
        // What waits is counted with its overhead, and may be more than what was sent.
        assert_eq!(JoinState::allowance(1000, 4000), JoinState::UNREAD);
    }
}
