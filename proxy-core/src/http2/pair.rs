//! Both connections of a pair and their streams, as one task: whatever wakes, only what has something
//! to do is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;
use portreeve_protocols::gate::Phase;
use portreeve_protocols::http2::{self, Limits, Meter, Prepared, Refusal, Reply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::exchange::{Exchange, Sent, Stand, send_reply};
use super::ready::{BACK, FRONT, Ready, STREAMS};
use super::upstream::{Connect, Event, SMALL_FRAMES, Upstream};
use super::wire::{Tally, Wire};
use super::{Decision, Edits, Judge};
use crate::relay::End;
use crate::runtime::{Registration, Signals};

/// How long the last frames of a connection may take to be sent.
const LINGER: Duration = Duration::from_secs(2);

/// Turns that a pair takes before other connections of the thread get theirs.
const TURNS: usize = 32;

/// Upstream connections that may be going away at once.
const RETIRED: usize = 3;

/// Requests that may be taken back beyond those answered, more every second.
const CANCELLED_A_SECOND: u64 = 20;

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
    /// Requests that the client may take back, until more time has passed.
    cancels: u32,
    cancels_at: Instant,
    state: State,
    /// Time that waiting receivers get.
    stall: Option<Duration>,
    clock: Clock,
    /// A request has come since the deadline was set.
    moved: bool,
    /// A receiver took nothing in this turn.
    blocked: bool,
}

/// The client's connection.
enum Front<F> {
    Opening(server::Handshake<Wire<F>, Bytes>),
    Open(server::Connection<Wire<F>, Bytes>),
    Closed,
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
            front: Front::Opening(builder(&limits).handshake(wire)),
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
            cancels: limits.cancelled_streams,
            cancels_at: now,
            limits,
            state: State::Running,
            stall,
            clock: Clock::Setup,
            moved: false,
            blocked: false,
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
            let mut sent = Sent::default();
            let mut moved = false;
            if self.ready.take(FRONT) {
                moved = true;
                if let Some(end) = self.poll_front() {
                    return Some(end);
                }
            }
            if self.ready.take(BACK) {
                moved = true;
                if let Some(end) = self.poll_back() {
                    return Some(end);
                }
            }
            moved |= self.poll_exchanges(&mut sent);
            self.front_tally.sent(sent.to_client);
            self.upstream.sent(sent.to_upstream);
            if !moved {
                break;
            }
        }
        self.watch_clock(now);
        if self.ready.end() {
            cx.waker().wake_by_ref();
        }
        None
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
            Clock::Idle => {
                self.judge.timed_out(Phase::Idle);
                self.end(Reason::NO_ERROR);
                None
            }
            Clock::Busy => {
                self.end_stalled(now);
                None
            }
            Clock::Linger => Some(End::Closed),
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
        let next = self.exchanges.iter().flatten().filter_map(|exchange| exchange.blocked()).min();
        self.handle.set_deadline(next.map(|since| since + stall));
    }

    /// Tells the client to open another connection for what it asks next.
    fn leave(&mut self) {
        if self.state != State::Running {
            return;
        }
        self.state = State::Leaving;
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

    /// Carries the client's connection on, and takes its requests.
    fn poll_front(&mut self) -> Option<End> {
        if let Front::Opening(opening) = &mut self.front {
            match self.ready.poll(FRONT, |cx| Pin::new(opening).poll(cx)) {
                Poll::Pending => return self.front_fault(),
                Poll::Ready(Ok(front)) => {
                    self.front = Front::Open(front);
                    if self.state == State::Leaving {
                        self.state = State::Running;
                        self.leave();
                    }
                }
                Poll::Ready(Err(error)) => return Some(self.front_failed(&error)),
            }
        }
        loop {
            let Front::Open(front) = &mut self.front else { return None };
            match self.ready.poll(FRONT, |cx| front.poll_accept(cx)) {
                Poll::Pending => return self.front_fault(),
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    self.front_failed(&error);
                    return self.front_closed();
                }
                Poll::Ready(None) => return self.front_closed(),
            }
        }
    }

    /// Nothing more is read from a client that floods.
    fn front_fault(&mut self) -> Option<End> {
        if let Some(refusal) = self.front_tally.fault()
            && self.state != State::Ending
        {
            self.judge.refused(refusal);
            if matches!(self.front, Front::Opening(_)) {
                return Some(End::Aborted);
            }
            self.end(Reason::ENHANCE_YOUR_CALM);
        }
        None
    }

    fn front_failed(&mut self, error: &h2::Error) -> End {
        if error.is_library() {
            self.judge.refused(Refusal::Protocol);
        }
        End::Closed
    }

    /// The client is gone: what it asked for is taken back.
    fn front_closed(&mut self) -> Option<End> {
        self.front = Front::Closed;
        self.state = State::Finishing;
        for index in 0..self.exchanges.len() {
            if let Some(exchange) = &mut self.exchanges[index] {
                exchange.reset(Reason::CANCEL, &mut self.judge);
                self.release(index);
            }
        }
        self.retired.push(std::mem::replace(&mut self.upstream, Upstream::Absent));
        self.retired.retain_mut(Upstream::finish);
        if self.retired.is_empty() {
            return Some(End::Closed);
        }
        self.linger();
        self.ready.set(BACK);
        None
    }

    /// Carries the upstream connections on.
    fn poll_back(&mut self) -> Option<End> {
        self.poll_retired();
        if self.state == State::Finishing {
            return self.retired.is_empty().then_some(End::Closed);
        }
        let upstream = &mut self.upstream;
        match self.ready.poll(BACK, |cx| upstream.poll(cx)) {
            Event::Nothing => {}
            Event::Opened => {
                self.judge.upstream_opened();
                self.ready.set(BACK);
            }
            Event::Failed(error) => {
                self.judge.upstream_failed(&error);
                for index in std::mem::take(&mut self.waiting) {
                    if let Some(exchange) = &mut self.exchanges[index] {
                        exchange.answer(503, &mut self.judge);
                        self.ready.set(STREAMS + index);
                    }
                }
            }
            Event::Leaving => {
                let leaving = std::mem::replace(&mut self.upstream, Upstream::Absent);
                self.retired.push(leaving);
                self.leave();
            }
            Event::Ended(refusal) => {
                if let Some(refusal) = refusal {
                    self.judge.refused(refusal);
                }
                self.written += self.upstream.written();
                self.upstream = Upstream::Absent;
                self.leave();
            }
        }
        self.ask_waiting();
        None
    }

    fn poll_retired(&mut self) {
        let (ready, written) = (&mut self.ready, &mut self.written);
        self.retired.retain_mut(|upstream| {
            let ended = matches!(ready.poll(BACK, |cx| upstream.poll(cx)), Event::Ended(_));
            *written += if ended { upstream.written() } else { 0 };
            !ended
        });
    }

    /// Sends the heads that wait for the upstream connection, and opens it for the first.
    fn ask_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.upstream.is_absent() {
            let (address, limit) = self.judge.upstream();
            let connecting = self.connect.connect(address, limit);
            self.upstream = Upstream::open(connecting, &self.limits);
            self.ready.set(BACK);
        }
        // Whether the server takes extended CONNECT is in its SETTINGS.
        let Some((requests, settled)) = self.upstream.requests() else { return };
        let tunnels = requests.is_extended_connect_protocol_enabled();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&index| {
            let Some(exchange) = &mut self.exchanges[index] else { return false };
            if exchange.is_tunnel() && !tunnels {
                if !settled {
                    return true;
                }
                exchange.answer(501, &mut self.judge);
            } else {
                exchange.ask(requests, &mut self.judge);
            }
            self.ready.set(STREAMS + index);
            false
        });
        self.waiting = waiting;
        self.ready.set(BACK);
    }

    /// A request has come: it is judged, and answered or begun.
    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.moved = true;
        let (mut parts, body) = request.into_parts();
        let protocol = parts.extensions.get::<h2::ext::Protocol>().cloned();
        let protocol = protocol.as_ref().map(h2::ext::Protocol::as_str);
        let prepared = http2::prepare(&mut parts, protocol, &self.limits);
        let seen = http2::Request::of(&parts);
        let to_head = parts.method == http::Method::HEAD;
        let (reply, ticket) = match prepared {
            Err(refusal) => {
                self.judge.refused_head(refusal);
                send_reply(&mut respond, &Reply::new(refusal.status(), seen.grpc), to_head);
                return;
            }
            Ok(Prepared::Redirect(path)) => {
                (Reply::redirect(&path, seen.grpc), self.judge.answered_unasked(&seen))
            }
            Ok(Prepared::Connect) => {
                let status = if protocol.is_some() { 501 } else { 405 };
                (Reply::new(status, seen.grpc), self.judge.answered_unasked(&seen))
            }
            Ok(Prepared::Ready) => {
                let mut edits = Edits::default();
                match self.judge.decide(&seen, &mut edits) {
                    (Decision::Deny, ticket) => (Reply::new(403, seen.grpc), ticket),
                    (Decision::Allow, ticket) => {
                        let grpc = seen.grpc;
                        let head = forwarded(parts, edits);
                        self.allow(Exchange::new(ticket, head, body, respond, grpc));
                        return;
                    }
                }
            }
        };
        let passed = send_reply(&mut respond, &reply, to_head);
        self.judge.finished(ticket, &passed);
    }

    /// Finds an allowed request a place, and the upstream.
    fn allow(&mut self, mut exchange: Exchange<J::Ticket>) {
        let room = self.exchanges.len() < 2 * self.limits.streams as usize;
        // Requests on their way when a server went away still find another; for ever they don't.
        let gone = self.retired.len() > RETIRED;
        if gone || (self.free.is_empty() && !room) {
            // Not looked at by any server: the client may ask again.
            exchange.reset(Reason::REFUSED_STREAM, &mut self.judge);
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.exchanges.push(None);
            self.exchanges.len() - 1
        });
        self.exchanges[index] = Some(Box::new(exchange));
        self.waiting.push(index);
        self.ready.set(STREAMS + index);
        self.ask_waiting();
    }

    /// Carries on the exchanges that are due; whether there were any.
    fn poll_exchanges(&mut self, sent: &mut Sent) -> bool {
        let mut any = false;
        for word in 0..self.ready.words() {
            let mut due = self.ready.take_streams(word);
            while due != 0 {
                any = true;
                let part = word * 64 + due.trailing_zeros() as usize;
                due &= due - 1;
                self.poll_exchange(part, sent);
            }
        }
        any
    }

    fn poll_exchange(&mut self, part: usize, sent: &mut Sent) {
        let index = part - STREAMS;
        let Some(Some(exchange)) = self.exchanges.get_mut(index) else { return };
        let judge = &mut self.judge;
        match self.ready.poll(part, |cx| exchange.poll(cx, judge, sent)) {
            Stand::Under => self.blocked |= exchange.blocked().is_some(),
            Stand::Over => {
                self.moved = true;
                self.cancels = (self.cancels + 1).min(self.limits.cancelled_streams);
                self.release(index);
            }
            Stand::Cancelled => {
                self.release(index);
                self.cancelled();
            }
        }
    }

    /// The client took a request back: once too often is an attack (CVE-2023-44487).
    fn cancelled(&mut self) {
        let now = self.judge.now();
        let millis = now.saturating_duration_since(self.cancels_at).as_millis();
        let earned =
            u64::try_from(millis).unwrap_or(u64::MAX).saturating_mul(CANCELLED_A_SECOND) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            let most = self.limits.cancelled_streams;
            self.cancels = self.cancels.saturating_add(earned).min(most);
            self.cancels_at = now;
        }
        match self.cancels.checked_sub(1) {
            Some(left) => self.cancels = left,
            None if self.state == State::Ending => {}
            None => {
                self.judge.refused(Refusal::ResetFlood);
                self.end(Reason::ENHANCE_YOUR_CALM);
            }
        }
    }

    fn release(&mut self, index: usize) {
        self.exchanges[index] = None;
        self.free.push(index);
        self.waiting.retain(|waiting| *waiting != index);
    }

    /// Sets the deadline that the state asks for.
    fn watch_clock(&mut self, now: Instant) {
        if self.clock == Clock::Linger || matches!(self.front, Front::Opening(_)) {
            return;
        }
        let (moved, blocked) = (std::mem::take(&mut self.moved), std::mem::take(&mut self.blocked));
        if self.exchanges.len() == self.free.len() {
            if self.clock == Clock::Idle && !moved && self.handle.has_deadline() {
                return;
            }
            self.clock = Clock::Idle;
            // A client that was told to leave has nothing to wait for.
            let left = self.state == State::Leaving;
            let allowed = self.judge.time_allowed(if left { Phase::Head } else { Phase::Idle });
            self.handle.set_deadline(allowed.map(|allowed| now + allowed));
            return;
        }
        if self.clock != Clock::Busy {
            self.clock = Clock::Busy;
            self.handle.set_deadline(None);
        }
        if blocked && !self.handle.has_deadline() {
            self.handle.set_deadline(self.stall.map(|stall| now + stall));
        }
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

/// The head as the server gets it.
fn forwarded(mut parts: Parts, edits: Edits) -> Request<()> {
    edits.apply(&mut parts.headers);
    if parts.uri.authority().is_none()
        && let Some(host) = parts.headers.remove(http::header::HOST)
    {
        // RFC 9113 section 8.3.1: the two say the same, and a server looks for this one.
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.authority = http::uri::Authority::try_from(host.as_bytes()).ok();
        uri.scheme.get_or_insert(http::uri::Scheme::HTTP);
        parts.uri = http::Uri::from_parts(uri).unwrap_or_default();
    }
    Request::from_parts(parts, ())
}

fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .max_send_buffer_size(limits.send_buffer as usize)
        .data_frame_budget(SMALL_FRAMES)
        .enable_connect_protocol();
    builder
}
