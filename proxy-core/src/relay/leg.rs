//! One direction of a connection pair at work: carries out what the gate says, as far as the sockets
//! let it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portreeve_protocols::gate::{Close, Direction, Gate, Op};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::backlog::{READ_BYTES, Scratch};
use super::session::Session;
use super::splice::{Pipe, WORTHWHILE};
use super::stream::{Carry, Stream, Waits, poll_splice_out};

/// Bytes one direction may move before other connections of the thread get their turn.
const TURN_BYTES: u64 = 1024 * 1024;

/// A splice that moved less than this was not worth it.
const SPLICED_AT_LEAST: usize = 16 * 1024;

/// Why a direction stopped for good or for now.
pub(super) enum Stop {
    /// Sockets or gate have nothing to do now.
    Idle,
    /// Output is due and there is no upstream connection yet.
    NeedsUpstream,
    /// The gate ends the connection.
    Close(Close),
    /// The connection is another protocol's.
    HandOver,
}

/// A socket failed.
pub(super) enum Fault {
    /// Reading from the sender.
    Source,
    /// Writing to the receiver.
    Sink,
}

/// How far a run got.
pub(super) struct Run {
    /// An operation was carried out at least in part: the other direction is to be asked again.
    pub(super) moved: bool,
    pub(super) stop: Stop,
}

/// A direction with everything it needs to run.
pub(super) struct Leg<'a, G, S> {
    pub(super) direction: Direction,
    pub(super) stream: &'a mut Stream,
    /// `None` while there is no upstream connection.
    pub(super) source: Option<&'a mut TcpStream>,
    /// `None` while there is no upstream connection.
    pub(super) sink: Option<&'a mut TcpStream>,
    pub(super) gate: &'a mut G,
    pub(super) session: &'a mut S,
    pub(super) scratch: &'a mut Scratch,
}

impl<G: Gate<S>, S: Session> Leg<'_, G, S> {
    /// Moves what can be moved now. Registers for wake-ups with whatever it waits for.
    pub(super) fn run(mut self, cx: &mut Context<'_>) -> Result<Run, Fault> {
        let mut moved = false;
        let stop = self.advance(cx, &mut moved)?;
        self.stream.give_back_if_empty();
        Ok(Run { moved, stop })
    }

    fn advance(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Result<Stop, Fault> {
        let mut turn = 0;
        loop {
            if self.flush(cx)?.is_pending() {
                return Ok(Stop::Idle);
            }
            if self.sink.is_none() && self.stream.has_unsent() {
                return Ok(Stop::NeedsUpstream);
            }
            if self.stream.gate_ended {
                return self.end_sink(cx);
            }
            if self.gate_has_work()
                && let Some(stop) = self.judge_unread(moved, cx)?
            {
                return Ok(stop);
            }
            if self.stream.has_unsent() || self.stream.gate_ended {
                continue;
            }
            if self.stream.waits == Waits::ForOther || self.stream.source_ended {
                return Ok(Stop::Idle);
            }
            if turn >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Ok(Stop::Idle);
            }
            match self.take_in(cx, moved)? {
                Poll::Pending => return Ok(Stop::Idle),
                Poll::Ready((n, stop)) => {
                    turn += n;
                    if let Some(stop) = stop {
                        return Ok(stop);
                    }
                }
            }
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        if self.stream.backlog.is_none() {
            return Ok(Poll::Ready(()));
        }
        match &mut self.sink {
            None => Ok(Poll::Ready(())),
            Some(sink) => match self.stream.poll_flush(cx, sink) {
                Poll::Pending => Ok(Poll::Pending),
                Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
                Poll::Ready(Err(_)) => Err(Fault::Sink),
            },
        }
    }

    /// Tells the receiver that the stream has ended, once.
    fn end_sink(&mut self, cx: &mut Context<'_>) -> Result<Stop, Fault> {
        if !self.stream.ended && !self.stream.has_unsent() {
            self.stream.ended = true;
            if let Some(sink) = &mut self.sink {
                // A receiver that is gone already needs no telling.
                let _ = Pin::new(&mut **sink).poll_shutdown(cx);
            }
        }
        Ok(Stop::Idle)
    }

    /// Whether the gate should be asked (or the operation under way carried on) without a read.
    fn gate_has_work(&self) -> bool {
        self.stream.waits == Waits::Nothing
            && (self.stream.unread()
                || matches!(self.stream.carry, Carry::Nothing)
                || self.stream.source_ended)
    }

    /// Judges what was left unread, which may be nothing.
    fn judge_unread(
        &mut self,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Result<Option<Stop>, Fault> {
        let mut unread = match &mut self.stream.backlog {
            Some(backlog) => std::mem::take(&mut backlog.unread),
            None => Vec::new(),
        };
        let (used, stop) = self.judge(&unread, moved, cx)?;
        if unread.capacity() > 0 {
            unread.drain(..used);
            self.stream.backlog().unread = unread;
        }
        Ok(stop)
    }

    /// Reads once, or splices once, and judges what came. `Pending` when nothing is there.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Result<Poll<(u64, Option<Stop>)>, Fault> {
        if let Some(limit) = self.worth_splicing() {
            match self.splice_in(cx, limit)? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Some(n)) => {
                    *moved |= n > 0;
                    return Ok(Poll::Ready((n, None)));
                }
                Poll::Ready(None) => {}
            }
        }
        let Some(source) = &mut self.source else { return Ok(Poll::Pending) };
        let mut read = std::mem::take(&mut self.scratch.read);
        let mut buffer = ReadBuf::new(&mut read);
        let polled = Pin::new(&mut **source).poll_read(cx, &mut buffer);
        let n = buffer.filled().len();
        let result = match polled {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(_)) => Err(Fault::Source),
            Poll::Ready(Ok(())) => self.arrived(&read[..n], moved, cx),
        };
        self.scratch.read = read;
        result
    }

    fn arrived(
        &mut self,
        input: &[u8],
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Result<Poll<(u64, Option<Stop>)>, Fault> {
        let n = input.len();
        self.stream.source_ended = n == 0;
        self.stream.bulk = n == READ_BYTES;
        let stop = if self.stream.unread() {
            let limit = self.gate.unread_limit();
            let backlog = self.stream.backlog();
            if backlog.unread.len() > limit {
                return Ok(Poll::Ready((0, Some(Stop::Close(Close::Abort)))));
            }
            backlog.unread.extend_from_slice(input);
            self.judge_unread(moved, cx)?
        } else {
            let (used, stop) = self.judge(input, moved, cx)?;
            if used < n {
                self.stream.backlog().unread.extend_from_slice(&input[used..]);
            }
            stop
        };
        Ok(Poll::Ready((n as u64, stop)))
    }

    /// Carries out operations on `input` until it is used up or the gate waits. Returns how much
    /// was used; the rest is to be kept unread.
    fn judge(
        &mut self,
        input: &[u8],
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Result<(usize, Option<Stop>), Fault> {
        self.stream.waits = Waits::Nothing;
        // input[..run] is dealt with, input[run..used] goes to the receiver.
        let (mut run, mut used) = (0, 0);
        let mut at_end = false;
        let stop = loop {
            match self.stream.carry {
                Carry::Forward(_) if self.sink.is_none() => break Some(Stop::NeedsUpstream),
                Carry::Forward(left) => {
                    let n = within(left, input.len() - used);
                    used += n;
                    *moved |= n > 0;
                    self.stream.carried += n as u64;
                    self.stream.carry = less(left, n).map_or(Carry::Nothing, Carry::Forward);
                }
                Carry::Discard(left) => {
                    self.scratch.outbox.extend_from_slice(&input[run..used]);
                    let n = within(left, input.len() - used);
                    used += n;
                    run = used;
                    *moved |= n > 0;
                    self.stream.carry = less(left, n).map_or(Carry::Nothing, Carry::Discard);
                }
                Carry::Nothing => {}
            }
            if !matches!(self.stream.carry, Carry::Nothing) {
                if !self.stream.source_ended {
                    break None;
                }
                // The stream ended within the operation: the gate is told by `end`.
                at_end = true;
                self.stream.carry = Carry::Nothing;
            }
            match self.ask(&input[used..], at_end) {
                Op::Forward(n) => self.stream.carry = Carry::Forward(n),
                Op::Discard(n) => self.stream.carry = Carry::Discard(n),
                Op::Inject => {
                    *moved = true;
                    self.scratch.outbox.extend_from_slice(&input[run..used]);
                    run = used;
                    if self.sink.is_none() {
                        let injected = std::mem::take(&mut self.scratch.injected);
                        self.stream.backlog().send_later(&injected);
                        self.scratch.injected = injected;
                        break Some(Stop::NeedsUpstream);
                    }
                    self.scratch.outbox.extend_from_slice(&self.scratch.injected);
                }
                // In these two the gate may have come to something that the other direction says.
                Op::NeedInput if at_end => {
                    *moved = true;
                    self.stream.gate_ended = true;
                    break None;
                }
                Op::NeedInput if self.stream.source_ended => at_end = true,
                Op::NeedInput => {
                    self.stream.waits = Waits::ForInput;
                    break None;
                }
                Op::Wait => {
                    *moved = true;
                    self.stream.waits = Waits::ForOther;
                    break None;
                }
                Op::HandOver => break Some(Stop::HandOver),
                Op::Close(close) => {
                    self.stream.gate_ended = true;
                    break Some(Stop::Close(close));
                }
            }
        };
        self.send(&input[run..used], cx)?;
        Ok((used, stop))
    }

    fn ask(&mut self, input: &[u8], at_end: bool) -> Op {
        let out = &mut self.scratch.injected;
        out.clear();
        if at_end {
            self.gate.end(self.direction, input, out, self.session)
        } else {
            self.gate.step(self.direction, input, out, self.session)
        }
    }

    /// Sends the outbox and then `run`; keeps what the socket does not take.
    fn send(&mut self, run: &[u8], cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.scratch.outbox.is_empty() && run.is_empty() {
            return Ok(());
        }
        let Some(sink) = &mut self.sink else {
            // Only the outbox's bytes can be here: `Forward` waits for the upstream.
            debug_assert!(run.is_empty());
            let outbox = std::mem::take(&mut self.scratch.outbox);
            self.stream.backlog().send_later(&outbox);
            self.keep_outbox(outbox);
            return Ok(());
        };
        if self.scratch.outbox.is_empty() && !self.stream.has_unsent() {
            let sent = write_some(cx, sink, run)?;
            if sent < run.len() {
                self.stream.backlog().send_later(&run[sent..]);
            }
            return Ok(());
        }
        let mut outbox = std::mem::take(&mut self.scratch.outbox);
        outbox.extend_from_slice(run);
        let result = match self.stream.has_unsent() {
            true => Ok(0),
            false => write_some(cx, sink, &outbox),
        };
        if let Ok(sent) = result
            && sent < outbox.len()
        {
            self.stream.backlog().send_later(&outbox[sent..]);
        }
        self.keep_outbox(outbox);
        result.map(|_| ())
    }

    fn keep_outbox(&mut self, mut outbox: Vec<u8>) {
        outbox.clear();
        // A rare large one is not worth keeping.
        outbox.shrink_to(2 * READ_BYTES);
        self.scratch.outbox = outbox;
    }

    /// The number of bytes to splice, where that is worth it.
    fn worth_splicing(&self) -> Option<u64> {
        if self.direction == Direction::Request && !self.session.may_splice_client() {
            return None;
        }
        match self.stream.carry {
            Carry::Forward(left)
                if self.stream.bulk && left >= WORTHWHILE && self.sink.is_some() =>
            {
                Some(left)
            }
            _ => None,
        }
    }

    /// Splices once from the sender into a pipe and on; `Ready(None)` when a copy is to be made
    /// instead.
    fn splice_in(&mut self, cx: &mut Context<'_>, limit: u64) -> Result<Poll<Option<u64>>, Fault> {
        let (Some(source), Some(sink)) = (&mut self.source, &mut self.sink) else {
            return Ok(Poll::Ready(None));
        };
        let Ok(mut pipe) = Pipe::take() else {
            self.stream.bulk = false;
            return Ok(Poll::Ready(None));
        };
        let filled = match poll_splice_in(cx, &mut pipe, source, limit) {
            Poll::Pending => {
                pipe.give_back();
                return Ok(Poll::Pending);
            }
            Poll::Ready(Err(_)) => return Err(Fault::Source),
            Poll::Ready(Ok(0)) => {
                pipe.give_back();
                self.stream.source_ended = true;
                self.stream.poke();
                return Ok(Poll::Ready(Some(0)));
            }
            Poll::Ready(Ok(filled)) => filled,
        };
        self.stream.carried += filled as u64;
        self.stream.carry = less(limit, filled).map_or(Carry::Nothing, Carry::Forward);
        // Small pieces are cheaper to copy: the next read decides anew.
        self.stream.bulk = filled >= SPLICED_AT_LEAST;
        while pipe.held() > 0 {
            match poll_splice_out(cx, &mut pipe, sink) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Fault::Sink),
                Poll::Pending => {
                    self.stream.backlog().pipe = Some(pipe);
                    self.stream.poke();
                    return Ok(Poll::Ready(Some(filled as u64)));
                }
            }
        }
        pipe.give_back();
        self.stream.poke();
        Ok(Poll::Ready(Some(filled as u64)))
    }
}

/// `n` as far as it lies within `available` bytes.
fn within(n: u64, available: usize) -> usize {
    usize::try_from(n).map_or(available, |n| n.min(available))
}

/// What is left of an operation on `left` bytes after `n` of them; `None` when it is done.
fn less(left: u64, n: usize) -> Option<u64> {
    match left {
        Op::FOREVER => Some(Op::FOREVER),
        _ => Some(left.saturating_sub(n as u64)).filter(|&left| left > 0),
    }
}

/// Writes once; 0 when the socket is full.
fn write_some(cx: &mut Context<'_>, sink: &mut TcpStream, bytes: &[u8]) -> Result<usize, Fault> {
    match Pin::new(sink).poll_write(cx, bytes) {
        Poll::Pending => Ok(0),
        Poll::Ready(Ok(n)) => Ok(n),
        Poll::Ready(Err(_)) => Err(Fault::Sink),
    }
}

fn poll_splice_in(
    cx: &mut Context<'_>,
    pipe: &mut Pipe,
    source: &TcpStream,
    limit: u64,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(source.poll_read_ready(cx))?;
        match source.try_io(Interest::READABLE, || pipe.fill(source, limit)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}
