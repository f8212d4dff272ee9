//! The relay: one client connection paired with one upstream connection, driven through a gate.
//!
//! This is the only I/O loop there is; every protocol runs on it. It is a hand-written future so
//! that an idle connection is one small task without buffers, timers or locks:
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the pair: connecting, closing, time-outs, policy changes |
//! | `stream.rs` | one direction: its state between polls |
//! | `leg.rs` | one direction at work: carries out the gate's operations |
//! | `backlog.rs` | bytes that can't move on yet; per-thread buffers |
//! | `splice.rs` | long bodies moved inside the kernel |
//! | `session.rs` | what the relay asks of the connection's inspector |
//! | `upstream.rs` | the upstream side: absent, being opened, open |

mod backlog;
mod leg;
mod session;
mod splice;
mod stream;
#[cfg(test)]
mod tests;
mod upstream;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use portreeve_protocols::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::backlog::Scratch;
use self::leg::{Fault, Leg, Stop};
pub(crate) use self::session::{End, Session};
use self::stream::Stream;
use self::upstream::Upstream;
use crate::runtime::{Registration, Signals};

/// How long a closing connection waits for the client to read the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes that a lingering client may still send before it is cut off.
const LINGER_BYTES: usize = 256 * 1024;

/// A client connection, its upstream connection, and the gate between them.
pub(crate) struct Relay<G, S: Session> {
    client: TcpStream,
    upstream: Upstream,
    request: Stream,
    response: Stream,
    gate: G,
    session: S,
    handle: Registration,
    state: State,
    /// The phase that the running deadline belongs to.
    phase: Phase,
    /// Something was done since the deadline was set.
    moved: bool,
}

#[derive(Clone, Copy)]
enum State {
    /// Bytes move both ways.
    Relaying,
    /// Sends what is left, then ends the stream.
    Flushing,
    /// Waits for the client to end its side, so that a reset does not destroy the last answer.
    Lingering { discarded: usize },
}

impl<G: Gate<S> + Unpin, S: Session> Relay<G, S> {
    pub(crate) fn new(client: TcpStream, gate: G, session: S, handle: Registration) -> Self {
        let phase = gate.phase();
        let upstream = match S::CONNECTS_AT_ONCE {
            true => Upstream::connecting(session.upstream()),
            false => Upstream::Absent,
        };
        Self {
            client,
            upstream,
            request: Stream::default(),
            response: Stream::default(),
            gate,
            session,
            handle,
            state: State::Relaying,
            phase,
            moved: false,
        }
    }

    /// The same, for a client of which `unread` was read already.
    pub(crate) fn resumed(handed_over: HandedOver<S>, gate: G) -> Self {
        let HandedOver { client, unread, session, handle } = handed_over;
        let mut relay = Self::new(client, gate, session, handle);
        relay.request.backlog().unread = unread;
        relay
    }

    /// What is left of a relay that has ended with [`End::HandedOver`].
    pub(crate) fn hand_over(mut self) -> HandedOver<S> {
        let unread =
            self.request.backlog.take().map(|mut backlog| std::mem::take(&mut backlog.unread));
        HandedOver {
            client: self.client,
            unread: unread.unwrap_or_default(),
            session: self.session,
            handle: self.handle,
        }
    }

    /// One poll: `Some` when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<End> {
        let now = Instant::now();
        self.session.set_now(now);
        let signals = self.handle.take_signals();
        if !signals.is_empty()
            && let Some(end) = self.obey(signals, now, scratch)
        {
            return Some(end);
        }
        let end = match self.state {
            State::Relaying => match self.relay(cx, scratch) {
                None => None,
                Some(Over::HandOver) => Some(End::HandedOver),
                Some(Over::Close(Close::Abort)) => Some(End::Aborted),
                Some(Over::Close(Close::Graceful)) => {
                    self.state = State::Flushing;
                    self.upstream = Upstream::Absent;
                    self.handle.set_deadline(Some(now + LINGER));
                    self.finish(cx, scratch)
                }
            },
            State::Flushing | State::Lingering { .. } => self.finish(cx, scratch),
        };
        if end.is_none() && matches!(self.state, State::Relaying) {
            self.watch_clock(now);
        }
        let held = self.request.held() + self.response.held() + self.gate.held();
        if end.is_none() && !self.session.holds(held) {
            return Some(End::Aborted);
        }
        end
    }

    /// What the runtime wants of this connection.
    fn obey(&mut self, signals: Signals, now: Instant, scratch: &mut Scratch) -> Option<End> {
        if signals.contains(Signals::ABORT) {
            return Some(End::Aborted);
        }
        if signals.contains(Signals::REVIEW) {
            self.session.review();
            if self.session.revoked() {
                return Some(End::Revoked);
            }
        }
        if signals.contains(Signals::EXPIRED) && self.handle.deadline_passed(now) {
            return self.expire(scratch);
        }
        None
    }

    /// The clock of the phase has run out.
    fn expire(&mut self, scratch: &mut Scratch) -> Option<End> {
        if !matches!(self.state, State::Relaying) {
            return Some(End::Closed);
        }
        self.session.timed_out(self.phase);
        let out = &mut scratch.injected;
        out.clear();
        match self.gate.timed_out(out, &mut self.session) {
            Op::Inject => {
                let out = std::mem::take(out);
                self.response.send_later(&out);
                scratch.injected = out;
                self.state = State::Flushing;
                self.upstream = Upstream::Absent;
                self.handle.set_deadline(Some(self.session.now() + LINGER));
                None
            }
            Op::Close(Close::Abort) => Some(End::Aborted),
            _ => Some(End::Closed),
        }
    }

    /// Runs both directions until neither moves.
    fn relay(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<Over> {
        let mut due = Due { request: true, response: true };
        if let Some(close) = self.connect(cx, &mut due) {
            return Some(close);
        }
        while due.request || due.response {
            for direction in [Direction::Request, Direction::Response] {
                if std::mem::take(due.of(direction))
                    && let Some(close) = self.run(direction, cx, scratch, &mut due)
                {
                    return Some(close);
                }
            }
        }
        if self.request.ended && self.response.ended {
            return Some(Over::Close(Close::Graceful));
        }
        let nothing_to_come = self.request.ended && self.upstream.is_absent();
        if nothing_to_come && !self.response.has_unsent() {
            return Some(Over::Close(Close::Graceful));
        }
        // Between messages nothing is lost: a draining proxy leaves, and so does a client that will
        // ask nothing more.
        let leaving = self.handle.draining() || self.request.ended;
        (leaving && self.gate.phase() == Phase::Idle && !self.response.has_unsent())
            .then_some(Over::Close(Close::Graceful))
    }

    /// Runs one direction and says what follows for the other.
    fn run(
        &mut self,
        direction: Direction,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        due: &mut Due,
    ) -> Option<Over> {
        if direction == Direction::Request && self.upstream.is_connecting() {
            return None;
        }
        let (client, upstream) = (Some(&mut self.client), self.upstream.stream());
        let (stream, source, sink) = match direction {
            Direction::Request => (&mut self.request, client, upstream),
            Direction::Response => (&mut self.response, upstream, client),
        };
        let leg = Leg {
            direction,
            stream,
            source,
            sink,
            gate: &mut self.gate,
            session: &mut self.session,
            scratch,
        };
        let ran = leg.run(cx);
        if self.session.revoked() {
            return Some(Over::Close(Close::Abort));
        }
        match ran {
            Err(fault) => self.failed(direction, &fault, due).map(Over::Close),
            Ok(run) => {
                if run.moved {
                    self.moved = true;
                    self.stream(direction.opposite()).poke();
                    *due.of(direction.opposite()) = true;
                }
                match run.stop {
                    Stop::Idle => None,
                    Stop::Close(close) => Some(Over::Close(close)),
                    Stop::HandOver => Some(Over::HandOver),
                    Stop::NeedsUpstream => {
                        self.upstream = Upstream::connecting(self.session.upstream());
                        self.connect(cx, due)
                    }
                }
            }
        }
    }

    /// Carries the opening of the upstream connection on, if it is under way.
    fn connect(&mut self, cx: &mut Context<'_>, due: &mut Due) -> Option<Over> {
        match self.upstream.poll_open(cx) {
            Poll::Pending => {}
            Poll::Ready(None) => {}
            Poll::Ready(Some(Ok(()))) => {
                self.session.upstream_opened();
                self.request.poke();
                due.request = true;
                due.response = true;
            }
            Poll::Ready(Some(Err(error))) => {
                self.session.upstream_failed(&error);
                self.upstream_failed(UpstreamFailure::Connect, due);
            }
        }
        None
    }

    fn upstream_failed(&mut self, failure: UpstreamFailure, due: &mut Due) {
        self.upstream = Upstream::Absent;
        self.request.lose_sink();
        self.gate.upstream_failed(failure, &mut self.session);
        self.request.poke();
        self.response.poke();
        *due = Due { request: true, response: true };
    }

    /// A socket failed: which side it was decides what the other one sees.
    fn failed(&mut self, direction: Direction, fault: &Fault, due: &mut Due) -> Option<Close> {
        match (direction, fault) {
            // The client is gone; its reset is passed on.
            (Direction::Request, Fault::Source) | (Direction::Response, Fault::Sink) => {
                Some(Close::Abort)
            }
            // It can't take more, but what it said before may still be waiting to be read.
            (Direction::Request, Fault::Sink) => {
                self.request.lose_sink();
                self.request.lose_source();
                due.response = true;
                None
            }
            (Direction::Response, Fault::Source) => {
                self.upstream_failed(UpstreamFailure::Lost, due);
                None
            }
        }
    }

    /// Sends what is left for the client, ends the stream, and lets it read.
    fn finish(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<End> {
        if matches!(self.state, State::Flushing) {
            match self.response.poll_flush(cx, &mut self.client) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(End::Closed),
                Poll::Ready(Ok(())) => {}
            }
            if self.request.source_ended() {
                return Some(End::Closed);
            }
            let _ = Pin::new(&mut self.client).poll_shutdown(cx);
            self.state = State::Lingering { discarded: 0 };
        }
        self.linger(cx, scratch)
    }

    fn linger(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Option<End> {
        let State::Lingering { discarded } = &mut self.state else { return None };
        loop {
            let mut buffer = ReadBuf::new(&mut scratch.read);
            match Pin::new(&mut self.client).poll_read(cx, &mut buffer) {
                Poll::Pending => return None,
                Poll::Ready(Err(_)) => return Some(End::Closed),
                Poll::Ready(Ok(())) => {
                    let n = buffer.filled().len();
                    *discarded += n;
                    if n == 0 || *discarded > LINGER_BYTES {
                        return Some(End::Closed);
                    }
                }
            }
        }
    }

    /// Sets the deadline of the gate's phase: from its beginning for heads and idleness, from the
    /// last byte for bodies.
    fn watch_clock(&mut self, now: Instant) {
        let phase = match &self.upstream {
            Upstream::Connecting(_) => return,
            _ => self.gate.phase(),
        };
        // Messages that began and ended within one turn leave the phase as it was.
        let moved = std::mem::take(&mut self.moved);
        let same = phase == self.phase && !moved;
        let counts = phase == Phase::Response || self.handle.has_deadline();
        if same && counts && matches!(phase, Phase::Idle | Phase::Head | Phase::Response) {
            return;
        }
        self.phase = phase;
        let allowed = self.session.time_allowed(phase);
        self.handle.set_deadline(allowed.map(|allowed| now + allowed));
    }

    fn stream(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Ends both connections as `end` says and reports it.
    fn close(&mut self, end: End) {
        if matches!(end, End::Aborted | End::Revoked) {
            // A reset, so that nobody takes a part for the whole.
            let _ = self.client.set_zero_linger();
            if let Some(upstream) = self.upstream.stream() {
                let _ = upstream.set_zero_linger();
            }
        }
        self.session.closed(end, self.request.carried(), self.response.carried());
    }
}

impl<G: Gate<S> + Unpin, S: Session> Future for Relay<G, S> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let relay = self.get_mut();
        relay.handle.remember(cx.waker());
        match Scratch::lend(|scratch| relay.turn(cx, scratch)) {
            None => Poll::Pending,
            Some(end) => {
                if end != End::HandedOver {
                    relay.close(end);
                }
                Poll::Ready(end)
            }
        }
    }
}

/// Why nothing more is relayed.
enum Over {
    Close(Close),
    HandOver,
}

/// A connection that turned out to speak another protocol.
pub(crate) struct HandedOver<S> {
    pub(crate) client: TcpStream,
    /// Read from the client and not judged.
    pub(crate) unread: Vec<u8>,
    pub(crate) session: S,
    pub(crate) handle: Registration,
}

/// Which directions are to be run.
struct Due {
    request: bool,
    response: bool,
}

impl Due {
    fn of(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }
}
