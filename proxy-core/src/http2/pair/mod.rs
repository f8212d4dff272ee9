//! Both connections of a pair and their streams, as one task: whatever wakes, only what has something
//! to do is polled.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the task: its turns, its clock, its end |
//! | `front.rs` | the client's connection, and the requests that come on it |
//! | `back.rs` | the upstream connections |
//! | `streams.rs` | the exchanges under way |

mod back;
mod front;
mod streams;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::Reason;
use portreeve_protocols::gate::Phase;
use portreeve_protocols::http1;
use portreeve_protocols::http2::{Limits, Meter, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};

use self::front::Front;
use self::streams::Cancels;
use super::Judge;
use super::exchange::{Exchange, Sinks};
use super::ready::{BACK, FRONT, Ready, STREAMS};
use super::upstream::{Connect, Upstream};
use super::wire::{Tally, Wire};
use crate::relay::End;
use crate::runtime::{Registration, Signals};

/// How long the last frames of a connection may take to be sent.
const LINGER: Duration = Duration::from_secs(2);

/// Turns that a pair takes before other connections of the thread get theirs.
const TURNS: usize = 32;

/// A client connection, its upstream connection, and the streams between them.
pub(crate) struct Pair<F, C: Connect, J: Judge> {
    front: Front<F>,
    upstream: Upstream<C::Io>,
    /// Upstream connections whose server has gone away, with requests under way.
    retired: Vec<Upstream<C::Io>>,
    /// Bytes written to upstream connections that are gone.
    written: u64,
    connect: C,
    judge: J,
    handle: Registration,
    limits: Arc<Limits>,
    ready: Ready,
    exchanges: Vec<Option<Box<Exchange<J::Ticket>>>>,
    free: Vec<usize>,
    /// Exchanges that wait for the upstream connection.
    waiting: Vec<usize>,
    front_tally: Arc<Tally>,
    cancels: Cancels,
    state: State,
    /// The server went away: the client is to go, too, when no answer is on its way.
    server_left: bool,
    /// Time that waiting receivers get.
    stall: Option<Duration>,
    clock: Clock,
    /// A request has come since the deadline was set.
    moved: bool,
    /// Since when.
    idle_since: Instant,
    /// Since when a head is under way.
    head_since: Option<Instant>,
    /// A receiver took nothing in this turn.
    blocked: bool,
    /// Since when some receiver takes nothing, at the least.
    blocked_since: Option<Instant>,
    /// Whether the sockets of either side took nothing when last looked at.
    choked: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// The client has been told to open another connection.
    Leaving,
    /// The client has been told that this is the end; it is being sent.
    Ending,
    /// The client is gone; the upstream is told so.
    Finishing,
}

/// What the deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Setup,
    Idle,
    Busy,
    Linger,
}

impl<F, C, J> Pair<F, C, J>
where
    F: AsyncRead + AsyncWrite + Send + Unpin,
    C: Connect,
    J: Judge,
{
    /// For a client whose preface is the beginning of `unread`.
    pub(crate) fn new(
        client: F,
        unread: Vec<u8>,
        connect: C,
        judge: J,
        handle: Registration,
        limits: Arc<Limits>,
        stall: Option<Duration>,
    ) -> Self {
        let front_tally = Arc::<Tally>::default();
        let wire = Wire::new(client, unread, Meter::of_client(&limits), front_tally.clone());
        // A stream's place is free only when both its halves are over, a little later than the client
        // may open the next.
        let ready = Ready::new(STREAMS + 2 * limits.streams as usize);
        ready.set(FRONT);
        let now = Instant::now();
        handle.set_deadline(judge.time_allowed(Phase::Head).map(|allowed| now + allowed));
        Self {
            front: Front::Opening(front::builder(&limits).handshake(wire)),
            upstream: Upstream::Absent,
            retired: Vec::new(),
            written: 0,
            connect,
            judge,
            handle,
            ready,
            exchanges: Vec::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            front_tally,
            cancels: Cancels::new(limits.cancelled_streams, now),
            limits,
            state: State::Running,
            server_left: false,
            stall,
            clock: Clock::Setup,
            moved: false,
            idle_since: now,
            head_since: None,
            blocked: false,
            blocked_since: None,
            choked: [false; 2],
        }
    }

    /// One poll: `Some` when the pair is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let now = Instant::now();
        self.judge.set_now(now);
        self.ready.begin(cx.waker());
        let signals = self.handle.take_signals();
        if !signals.is_empty()
            && let Some(end) = self.obey(signals, now)
        {
            return Some(end);
        }
        for _ in 0..TURNS {
            // Without it sockets only pretend to be busy, and wake at once.
            if !tokio::task::coop::has_budget_remaining() {
                break;
            }
            let mut moved = false;
            if self.ready.take(FRONT) {
                moved = true;
                if let Some(end) = self.poll_front() {
                    return Some(end);
                }
            }
            // Before the other side is written to, so that a head and its body go in one write.
            moved |= self.run_exchanges();
            if self.ready.take(BACK) {
                moved = true;
                if let Some(end) = self.poll_back() {
                    return Some(end);
                }
            }
            moved |= self.run_exchanges();
            if !moved {
                break;
            }
        }
        // Not while an answer is on its way, which may be for hours: the `h2` crate ends a connection whose
        // client, told to leave, still opens streams and their windows, as gRPC's C core does.
        let answering = || self.exchanges.iter().flatten().any(|exchange| exchange.is_answering());
        if self.server_left && !answering() {
            self.leave();
        }
        self.watch_clock(now);
        if self.judge.counts_held() {
            let held = self.held();
            if !self.judge.holds(held) {
                return Some(End::Aborted);
            }
        }
        if self.ready.end() {
            cx.waker().wake_by_ref();
        }
        None
    }

    /// Bytes that are held at the most: nothing, as long as every receiver takes what comes.
    fn held(&self) -> usize {
        if self.blocked_since.is_none() {
            return 0;
        }
        let exchanges = self.exchanges.iter().flatten();
        self.limits.most_held(exchanges.filter(|exchange| exchange.blocked().is_some()).count())
    }

    /// Carries on the exchanges that are due, and tells both sides what was sent.
    fn run_exchanges(&mut self) -> bool {
        let mut sinks = Sinks::default();
        sinks.client.choked = self.front_tally.choked();
        let upstreams = || self.retired.iter().chain([&self.upstream]);
        sinks.upstream.choked = upstreams().any(Upstream::choked);
        let choked = [sinks.client.choked, sinks.upstream.choked];
        if self.choked.iter().zip(choked).any(|(was, is)| *was && !is) {
            self.rouse();
        }
        self.choked = choked;
        let moved = self.poll_exchanges(&mut sinks);
        self.front_tally.sent(sinks.client.frames);
        for upstream in self.retired.iter().chain([&self.upstream]) {
            upstream.sent(sinks.upstream.frames);
        }
        moved
    }

    /// What the runtime wants of this connection.
    fn obey(&mut self, signals: Signals, now: Instant) -> Option<End> {
        if signals.contains(Signals::ABORT) {
            return Some(End::Aborted);
        }
        if signals.contains(Signals::REVIEW) {
            self.judge.review();
            if self.judge.revoked() {
                return Some(End::Revoked);
            }
        }
        if signals.contains(Signals::DRAIN) {
            self.leave();
        }
        if signals.contains(Signals::EXPIRED) && self.handle.deadline_passed(now) {
            return self.expire(now);
        }
        None
    }

    fn expire(&mut self, now: Instant) -> Option<End> {
        match self.clock {
            Clock::Setup => {
                self.judge.refused(Refusal::SetupTimeout);
                self.judge.timed_out(Phase::Head);
                Some(End::Closed)
            }
            Clock::Linger => Some(End::Closed),
            _ if self.head_deadline().is_some_and(|deadline| deadline <= now) => {
                self.judge.refused_head(http1::Refusal::HeadTimeout);
                self.judge.timed_out(Phase::Head);
                self.end(Reason::PROTOCOL_ERROR);
                None
            }
            Clock::Idle => {
                self.judge.timed_out(Phase::Idle);
                self.end(Reason::NO_ERROR);
                None
            }
            Clock::Busy => {
                self.end_stalled(now);
                None
            }
        }
    }

    /// Ends the streams whose receiver has taken nothing for too long.
    fn end_stalled(&mut self, now: Instant) {
        let Some(stall) = self.stall else { return };
        for index in 0..self.exchanges.len() {
            let Some(exchange) = &mut self.exchanges[index] else { continue };
            if exchange.blocked().is_some_and(|since| since + stall <= now) {
                exchange.reset(Reason::CANCEL, &mut self.judge);
                self.judge.refused(Refusal::Stalled);
                self.judge.timed_out(Phase::Body);
                self.release(index);
            }
        }
        let blocked = self.exchanges.iter().flatten().filter_map(|exchange| exchange.blocked());
        self.blocked_since = blocked.min();
    }

    /// Tells the client to open another connection for what it asks next.
    fn leave(&mut self) {
        if self.state != State::Running {
            return;
        }
        self.state = State::Leaving;
        // The clock of an idle connection is set anew.
        self.moved = true;
        if let Front::Open(front) = &mut self.front {
            front.graceful_shutdown();
        }
        self.ready.set(FRONT);
    }

    /// Tells the client that this is the end.
    fn end(&mut self, reason: Reason) {
        if let Front::Open(front) = &mut self.front {
            front.abrupt_shutdown(reason);
        }
        self.state = State::Ending;
        self.linger();
        self.ready.set(FRONT);
    }

    fn linger(&mut self) {
        self.clock = Clock::Linger;
        self.handle.set_deadline(Some(self.judge.now() + LINGER));
    }

    /// Sets the deadline that the state asks for.
    fn watch_clock(&mut self, now: Instant) {
        if self.clock == Clock::Linger || matches!(self.front, Front::Opening(_)) {
            return;
        }
        let (moved, blocked) = (std::mem::take(&mut self.moved), std::mem::take(&mut self.blocked));
        if blocked {
            self.blocked_since.get_or_insert(now);
        }
        let in_head = self.front_tally.in_head();
        self.head_since = in_head.then(|| self.head_since.unwrap_or(now));
        let deadline = if self.exchanges.len() == self.free.len() {
            if self.clock != Clock::Idle || moved {
                (self.clock, self.idle_since) = (Clock::Idle, now);
            }
            self.blocked_since = None;
            // A client that was told to leave has nothing to wait for.
            let left = self.state == State::Leaving;
            let allowed = self.judge.time_allowed(if left { Phase::Head } else { Phase::Idle });
            allowed.map(|allowed| self.idle_since + allowed)
        } else {
            self.clock = Clock::Busy;
            self.blocked_since.zip(self.stall).map(|(since, stall)| since + stall)
        };
        self.handle.set_deadline(deadline.into_iter().chain(self.head_deadline()).min());
    }

    /// When a head that is under way must be complete.
    fn head_deadline(&self) -> Option<Instant> {
        let allowed = self.judge.time_allowed(Phase::Head);
        self.head_since.zip(allowed).map(|(since, allowed)| since + allowed)
    }
}

impl<F, C, J> Future for Pair<F, C, J>
where
    F: AsyncRead + AsyncWrite + Send + Unpin,
    C: Connect,
    J: Judge + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let pair = self.get_mut();
        pair.handle.remember(cx.waker());
        let Some(end) = pair.turn(cx) else { return Poll::Pending };
        for exchange in pair.exchanges.iter_mut().flatten() {
            exchange.reset(Reason::CANCEL, &mut pair.judge);
        }
        let open = pair.retired.iter().chain([&pair.upstream]).map(Upstream::written).sum::<u64>();
        pair.judge.closed(end, pair.written + open, pair.front_tally.written());
        Poll::Ready(())
    }
}
