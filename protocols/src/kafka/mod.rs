//! Apache Kafka's protocol: the gate.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the gate: its state, and the contract with the relay |
//! | `asking.rs` | the request stream: what happens next |
//! | `answering.rs` | the response stream: what happens next |
//! | `request.rs` | what it shows its driver: [`Request`], [`Handler`], [`Exchange`] |
//! | `schema/` | what the messages of every API look like, as tables |
//! | `plan.rs`, `walk.rs`, `wire.rs` | the tables made ready, walked over, and the bytes below |
//! | `header.rs` | how a request begins |
//! | `api.rs` | which APIs and versions are taken, and what they are for |
//! | `judge.rs` | a request looked through, and everything in it judged |
//! | `look.rs` | a response looked through, and what is to be changed in it |
//! | `answer.rs`, `scope.rs` | the gate's own answers |
//! | `errors.rs` | names of error codes |
//! | `edit.rs` | changes to a message |
//! | `ids.rs`, `lookup.rs` | names of topics by their ids |
//! | `sessions.rs` | share sessions |
//! | `versions.rs` | the broker's list of APIs, narrowed |
//! | `advertised.rs` | addresses of brokers as clients see them |
//! | `in_flight.rs` | requests under way, in order |
//! | `refusal.rs`, `limits.rs` | [`Refusal`]: every reason not to accept a message; [`Limits`] |
//!
//! # The life of a request
//! ```text
//!            ┌─ all denied ──▶ answer queued, request dropped ───────────────────────┐
//! Frame ──▶ judge ─ some ────▶ forwarded without the rest ─▶ the response gets the rest ├─▶ Frame
//!            ├─ all allowed ─▶ forwarded as it came ──────▶ the response as it came ──┤
//!            └─ by unknown ids ▶ the broker is asked for their names ─▶ judge again ──┘
//! ```
//! Fetch sessions (KIP-227) are never opened: a request that would open one is forwarded as one
//! without, and one that goes on with a session is told that there is none.

mod advertised;
mod answer;
mod answering;
mod api;
mod asking;
mod edit;
mod errors;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
#[cfg(any(test, feature = "fuzzing"))]
mod generate;
mod header;
mod ids;
mod in_flight;
mod judge;
mod limits;
mod look;
mod lookup;
mod plan;
mod refusal;
mod request;
mod schema;
mod scope;
mod sessions;
#[cfg(test)]
mod tests;
mod versions;
mod walk;
mod wire;

use std::sync::Arc;

pub use self::advertised::Advertised;
use self::answering::Answering;
use self::api::Api;
use self::asking::Asking;
pub use self::errors::{ERROR_NAMES, error_name};
use self::ids::TopicNames;
use self::in_flight::Pending;
pub use self::limits::Limits;
pub use self::refusal::Refusal;
pub use self::request::{Decided, Exchange, Handler, Outcome, Request, Role, Subject};
use self::sessions::ShareSessions;
pub use self::wire::Malformed;
use crate::gate::{Close, Direction, Gate, Op, Phase, UpstreamFailure};
use crate::in_flight::InFlight;

/// The name of the API of this number, and what it is for; `None` if clients do not use it.
#[must_use]
pub fn api_name(key: i16) -> Option<(&'static str, Role)> {
    api::Api::find(key).map(|api| (api.schema().name, api.role()))
}

/// The gate of one Kafka connection.
#[derive(Debug)]
pub struct Kafka {
    limits: Arc<Limits>,
    advertised: Option<Arc<Advertised>>,
    in_flight: InFlight<Pending>,
    /// Bytes that are kept for them until they are answered: the sum of [`Pending::owed`].
    owed: usize,
    asking: Asking,
    answering: Answering,
    names: TopicNames,
    sessions: ShareSessions,
    /// The names that the request under way needs have been asked for.
    looked_up: bool,
    /// A request has begun and is not complete.
    begun: bool,
    /// Nothing more can be read from the client: what is due of the gate's own answers goes out, and
    /// the connection ends.
    ending: bool,
    /// The last operation of each stream was to pass or drop bytes, and it was not asked since.
    unfinished: [bool; 2],
}

impl Kafka {
    /// A gate for a connection that has just been opened. With `advertised`, addresses of brokers
    /// are changed in responses.
    #[must_use]
    pub fn new(limits: Arc<Limits>, advertised: Option<Arc<Advertised>>) -> Self {
        Self {
            limits,
            advertised,
            in_flight: InFlight::default(),
            owed: 0,
            asking: Asking::Frame,
            answering: Answering::Frame,
            names: TopicNames::default(),
            sessions: ShareSessions::default(),
            looked_up: false,
            begun: false,
            ending: false,
            unfinished: [false; 2],
        }
    }

    fn push(&mut self, pending: Pending) {
        self.owed += pending.owed();
        self.in_flight.push(pending);
    }

    /// Whether clients may use this version.
    fn offers(&self, api: Api, version: i16) -> bool {
        let offered = api.offered(self.advertised.is_some());
        offered.is_some_and(|(first, last)| (first..=last).contains(&version))
    }

    fn note(&mut self, direction: Direction, op: Op) -> Op {
        self.unfinished[direction as usize] = matches!(op, Op::Forward(_) | Op::Discard(_));
        op
    }

    /// Nothing more can be read from the client.
    fn refuse(&mut self, refusal: Refusal, handler: &mut (impl Handler + ?Sized)) -> Op {
        handler.refused(refusal);
        self.asking = Asking::Held;
        self.ending = true;
        self.begun = false;
        Op::Wait
    }
}

impl<H: Handler + ?Sized> Gate<H> for Kafka {
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
        let cut_short = self.unfinished[direction as usize];
        let op = match direction {
            Direction::Request => self.asked(cut_short, input, handler),
            Direction::Response => self.answers_end(cut_short, input, out, handler),
        };
        self.note(direction, op)
    }

    fn upstream_failed(&mut self, _: UpstreamFailure, _: &mut H) {
        // Kafka has no word for it: the client sees what it would have seen without us.
        self.asking = Asking::Held;
        self.begun = false;
        self.ending = true;
        if self.unfinished[Direction::Response as usize] {
            self.answering = Answering::Closing(Close::Abort);
        }
    }

    fn timed_out(&mut self, _: &mut Vec<u8>, handler: &mut H) -> Op {
        if self.begun {
            handler.refused(Refusal::Timeout);
        }
        Op::Close(Close::Graceful)
    }

    fn phase(&self) -> Phase {
        match self.asking {
            _ if self.begun => Phase::Body,
            _ if !self.in_flight.is_empty() => Phase::Response,
            Asking::Frame => Phase::Idle,
            _ => Phase::Response,
        }
    }

    fn held(&self) -> usize {
        self.owed
    }

    fn unread_limit(&self) -> usize {
        // One that is too large is told by its beginning, whatever comes with it.
        self.limits.held_bytes as usize + 1024 * 1024
    }
}
