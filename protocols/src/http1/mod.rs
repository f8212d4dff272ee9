//! HTTP/1.1 (RFC 9112): the gate.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the gate: its state, and the contract with the relay |
//! | `asking.rs` | the request stream: what happens next |
//! | `answering.rs` | the response stream: what happens next |
//! | `request.rs` | what it shows its driver: [`Request`], [`Handler`], [`Exchange`] |
//! | `head.rs` | where a head ends and what is in it; strict |
//! | `path.rs` | [`normalize`]: the form of a path that all readers share |
//! | `chunked.rs` | chunked bodies |
//! | `response.rs` | heads of responses |
//! | `upgrade.rs` | [`h2c`]: a request that asks to go on in HTTP/2 |
//! | `in_flight.rs` | exchanges under way, in order |
//! | `edits.rs` | [`HeadEdits`], and the writing of a changed head |
//! | `reply.rs` | the gate's own answers |
//! | `refusal.rs` | [`Refusal`]: every reason not to accept a message |
//! | `limits.rs` | [`Limits`] |
//!
//! # The life of a request
//! ```text
//!             ┌────── denied ─────▶ reply queued, body discarded ──┐
//! Head ──▶ decide                                                  ├─▶ Head
//!             └── allowed ──▶ head and body forwarded ─────────────┘
//! ```
//! The response side walks the queue: the server's answers are followed to their end, the gate's
//! own are injected when it is their turn.

mod answering;
mod asking;
mod chunked;
mod edits;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod head;
mod in_flight;
mod limits;
mod path;
mod refusal;
mod reply;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod upgrade;

use std::sync::Arc;

use self::answering::Answering;
use self::asking::Asking;
pub(crate) use self::chunked::belongs_into_head;
pub use self::edits::HeadEdits;
pub(crate) use self::head::is_host;
use self::in_flight::{InFlight, Pending};
pub use self::limits::Limits;
pub use self::path::{Normalized, normalize};
pub use self::refusal::Refusal;
use self::reply::Reply;
pub(crate) use self::reply::text as reply_text;
pub use self::request::{Decision, Exchange, Handler, Headers, Request};
pub use self::upgrade::{H2c, h2c};
use crate::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};

/// The gate of one HTTP/1.1 connection.
#[derive(Debug)]
pub struct Http1 {
    limits: Arc<Limits>,
    in_flight: InFlight,
    asking: Asking,
    answering: Answering,
    /// Bytes of the current response that were sent to the client.
    sent: u64,
    /// A message head has begun and is not complete.
    head_begun: bool,
    /// The request under way has a body, which has not passed.
    in_body: bool,
    /// The body under way goes nowhere.
    draining: bool,
    /// No request follows the one under way.
    last_request: bool,
    /// At least one response of the server has passed.
    answered: bool,
    /// Nothing has been read yet that would rule out HTTP/2.
    undecided: bool,
    /// The first request may ask for HTTP/2.
    upgradable: bool,
    /// The last operation of each stream was to pass or drop bytes, and it was not asked since.
    unfinished: [bool; 2],
}

impl Http1 {
    /// A gate for a connection that has just been opened.
    #[must_use]
    pub fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            in_flight: InFlight::default(),
            asking: Asking::HEAD,
            answering: Answering::Head,
            sent: 0,
            head_begun: false,
            in_body: false,
            draining: false,
            last_request: false,
            answered: false,
            undecided: true,
            upgradable: true,
            unfinished: [false; 2],
        }
    }

    /// A gate that hands nothing over: what it was asked to hand over goes on in HTTP/1.1 after all.
    #[must_use]
    pub fn for_good(limits: Arc<Limits>) -> Self {
        Self { undecided: false, upgradable: false, ..Self::new(limits) }
    }

    fn note(&mut self, direction: Direction, op: Op) -> Op {
        self.unfinished[side(direction)] = matches!(op, Op::Forward(_) | Op::Discard(_));
        op
    }

    /// Queues the answer to a message that was not accepted; nothing more is read after it.
    fn refuse_head(&mut self, refusal: Refusal, handler: &mut (impl Handler + ?Sized)) {
        handler.refused(refusal);
        let reply = Some(Reply::new(refusal.status()));
        self.in_flight.push(Pending { reply, last: true, ..Pending::default() });
        self.asking = Asking::Held;
        self.head_begun = false;
    }

    /// The same for a body whose head was accepted: its answer is taken back if it has not begun.
    fn refuse_body(&mut self, refusal: Refusal, handler: &mut (impl Handler + ?Sized)) {
        handler.refused(refusal);
        self.asking = Asking::Held;
        self.in_body = false;
        let unanswered = self.in_flight.len() > 1 || self.answering.has_not_begun();
        let by_us = !self.answering.is_the_servers();
        match self.in_flight.receiving() {
            Some(pending) if unanswered || by_us => {
                if unanswered && pending.reply.is_none() {
                    pending.reply = Some(Reply::new(refusal.status()));
                    pending.last = true;
                }
                pending.cut = true;
                pending.receiving = false;
            }
            _ if self.draining => self.answering = Answering::Closing(Close::Graceful),
            _ => self.answering = Answering::Closing(Close::Abort),
        }
    }

    /// Takes the front of the queue off and reports it.
    fn finish(&mut self, status: u16, local: bool, handler: &mut (impl Handler + ?Sized)) {
        let Some(pending) = self.in_flight.pop() else { return };
        let response_bytes = std::mem::take(&mut self.sent);
        if pending.reported {
            let request_bytes = pending.request_bytes;
            handler.finished(&Exchange { status, local, request_bytes, response_bytes });
        }
        self.answered |= !local;
        if pending.last || pending.cut {
            // The connection ends: whatever else the client has sent is not looked at.
            self.asking = Asking::Held;
            self.in_body = false;
            self.answering = Answering::Closing(Close::Graceful);
            return;
        }
        if pending.upgrade && matches!(self.asking, Asking::Held) {
            // Not upgraded: it goes on as it was.
            self.asking = Asking::HEAD;
        }
        self.answering = Answering::Head;
    }
}

impl<H: Handler + ?Sized> Gate<H> for Http1 {
    fn step(
        &mut self,
        direction: Direction,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut H,
    ) -> Op {
        let op = match direction {
            Direction::Request => self.ask(input, out, handler),
            Direction::Response => self.answer(input, out, handler),
        };
        self.note(direction, op)
    }

    fn end(
        &mut self,
        direction: Direction,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut H,
    ) -> Op {
        let cut_short = self.unfinished[side(direction)];
        let op = match direction {
            Direction::Request => self.asked(cut_short, input, handler),
            Direction::Response => self.answers_end(cut_short, input, out, handler),
        };
        self.note(direction, op)
    }

    fn upstream_failed(&mut self, failure: UpstreamFailure, _: &mut H) {
        let lost = failure == UpstreamFailure::Lost;
        if matches!(self.answering, Answering::Closing(_)) {
            return;
        }
        if self.answering.is_the_servers() || (lost && (self.answered || self.in_flight.is_empty()))
        {
            // The client sees what it would have seen without us.
            self.answering = Answering::Closing(Close::Abort);
            return;
        }
        let status = if lost { 502 } else { 503 };
        // The front may be an answer of our own that is being sent: it has no reply left.
        let sending = usize::from(matches!(self.answering, Answering::Passed { .. }));
        let in_body = self.in_body;
        for pending in self.in_flight.iter_mut().skip(sending) {
            // A body of unknown size is not read to its end for the sake of the connection.
            pending.last |= lost || (pending.receiving && in_body);
            pending.reply.get_or_insert_with(|| Reply::new(status));
        }
        // Nothing of the request under way has anywhere to go.
        self.draining = true;
        if let Asking::Chunks { drain, .. } = &mut self.asking {
            drain.get_or_insert(self.limits.drained_bytes);
        }
    }

    fn timed_out(&mut self, out: &mut Vec<u8>, handler: &mut H) -> Op {
        let phase = Gate::<H>::phase(self);
        let refusal = match phase {
            Phase::Idle | Phase::Tunnel => return Op::Close(Close::Graceful),
            Phase::Response => return Op::Close(Close::Abort),
            Phase::Head => Refusal::HeadTimeout,
            Phase::Body => Refusal::BodyTimeout,
        };
        handler.refused(refusal);
        let unanswered = self.answering.has_not_begun();
        match self.in_flight.len() {
            0 if phase == Phase::Body => return Op::Close(Close::Graceful),
            0 => {}
            1 if unanswered => {}
            _ => return Op::Close(Close::Abort),
        }
        let begin = out.len();
        Reply::new(refusal.status()).write(false, true, out);
        self.sent = (out.len() - begin) as u64;
        self.finish(refusal.status(), true, handler);
        self.answering = Answering::Closing(Close::Graceful);
        Op::Inject
    }

    fn phase(&self) -> Phase {
        match self.asking {
            Asking::Tunnel => Phase::Tunnel,
            _ if self.in_body => Phase::Body,
            _ if !self.in_flight.is_empty() => Phase::Response,
            Asking::Head { .. } if self.head_begun => Phase::Head,
            _ => Phase::Idle,
        }
    }
}

fn side(direction: Direction) -> usize {
    match direction {
        Direction::Request => 0,
        Direction::Response => 1,
    }
}
