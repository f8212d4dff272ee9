//! The state of one direction of a connection pair, between polls.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::backlog::Backlog;
use super::splice::Pipe;

/// The state of one direction between polls.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) carry: Carry,
    pub(super) waits: Waits,
    /// The sender's end of stream has been read.
    pub(super) source_ended: bool,
    /// Nothing more will be asked of the gate; what is unsent may still be on its way.
    pub(super) gate_ended: bool,
    /// The receiver has been told the end.
    pub(super) ended: bool,
    /// The last read filled the whole buffer: more is there, a splice may be worth it.
    pub(super) bulk: bool,
    /// Bytes forwarded.
    pub(super) carried: u64,
    /// `Some` exactly while something is held.
    pub(super) backlog: Option<Box<Backlog>>,
}

/// The operation under way.
#[derive(Clone, Copy, Default)]
pub(super) enum Carry {
    /// None: the gate is to be asked.
    #[default]
    Nothing,
    Forward(u64),
    Discard(u64),
}

/// What the gate waits for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Waits {
    #[default]
    Nothing,
    ForInput,
    ForOther,
}

impl Stream {
    /// The other direction has moved: what the gate waits for may have come.
    pub(super) fn poke(&mut self) {
        self.waits = Waits::Nothing;
    }

    /// The receiver of this direction is lost: what was on its way is dropped, the rest of the
    /// operation swallowed.
    pub(super) fn lose_sink(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.drop_unsent();
        }
        if let Carry::Forward(n) = self.carry {
            self.carry = Carry::Discard(n);
        }
        self.give_back_if_empty();
    }

    /// The sender of this direction is gone without an orderly end.
    pub(super) fn lose_source(&mut self) {
        self.source_ended = true;
        self.gate_ended = true;
    }

    /// Bytes forwarded so far.
    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    /// The sender has ended its stream.
    pub(super) fn source_ended(&self) -> bool {
        self.source_ended
    }

    /// Adds bytes of the gate's making to what is to be sent.
    pub(super) fn send_later(&mut self, bytes: &[u8]) {
        self.backlog().send_later(bytes);
    }

    /// Bytes are held for the receiver.
    pub(super) fn has_unsent(&self) -> bool {
        self.backlog.as_ref().is_some_and(|b| !b.unsent().is_empty() || b.pipe.is_some())
    }

    /// Sends what is held, asks nobody. Ready when nothing is left.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        let Some(backlog) = &mut self.backlog else { return Poll::Ready(Ok(())) };
        while !backlog.unsent().is_empty() {
            let n = ready!(Pin::new(&mut *sink).poll_write(cx, backlog.unsent()))?;
            backlog.sent(n);
        }
        if let Some(pipe) = &mut backlog.pipe {
            while pipe.held() > 0 {
                ready!(poll_splice_out(cx, pipe, sink))?;
            }
        }
        if let Some(pipe) = backlog.pipe.take() {
            pipe.give_back();
        }
        self.give_back_if_empty();
        Poll::Ready(Ok(()))
    }

    pub(super) fn backlog(&mut self) -> &mut Backlog {
        self.backlog.get_or_insert_with(Backlog::take)
    }

    pub(super) fn give_back_if_empty(&mut self) {
        if self.backlog.as_ref().is_some_and(|backlog| backlog.is_empty())
            && let Some(backlog) = self.backlog.take()
        {
            backlog.give_back();
        }
    }

    /// Memory that is kept for what can't move on.
    pub(super) fn held(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.held())
    }

    pub(super) fn unread(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| !backlog.unread.is_empty())
    }
}

/// Moves what the pipe holds to the socket.
pub(super) fn poll_splice_out(
    cx: &mut Context<'_>,
    pipe: &mut Pipe,
    sink: &TcpStream,
) -> Poll<io::Result<()>> {
    loop {
        ready!(sink.poll_write_ready(cx))?;
        match sink.try_io(Interest::WRITABLE, || pipe.empty(sink)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result.map(|_| ())),
        }
    }
}
