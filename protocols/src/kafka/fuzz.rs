//! What the fuzz targets run.
//!
//! Invariants: the outcome does not depend on how the input was cut; what reaches the broker was
//! judged, and allowed; what is written is no larger than what was read warrants.

use std::ops::Range;
use std::sync::Arc;

use super::answer::{self, Errors};
use super::api::{Api, error};
pub use super::generate::every_version;
use super::generate::{self, Choices};
use super::header::{Header, LENGTH_BYTES, Start, frame_length};
use super::plan::{Purpose, plan};
use super::schema::Mark;
use super::walk::{ArrayHead, Visitor};
use super::wire::{Halt, Reader};
use super::{
    Decided, Exchange, Handler, Kafka, Limits, Outcome as Decision, Refusal, Request, Subject,
};
use crate::drive::{Script, Sink, pieces};
use crate::gate::{Close, Direction, Gate};

/// What came of driving a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes that reached the broker.
    pub to_server: Vec<u8>,
    /// Bytes that reached the client.
    pub to_client: Vec<u8>,
    /// How the connection ended, if the gate ended it.
    pub closed: Option<Close>,
    /// How each request was decided: API, outcome, error.
    pub decided: Vec<(i16, Decision, i16)>,
    /// Requests that have been answered.
    pub finished: Vec<Exchange>,
    /// Messages that were not accepted.
    pub refused: Vec<Refusal>,
    /// Bytes that the gate still holds.
    pub held: usize,
}

/// Allows what a function of API, topic and group says, and remembers.
struct Recorder<F> {
    outcome: Outcome,
    key: i16,
    allows: F,
}

/// Judges by API, topic and group.
pub trait Allows: FnMut(i16, &Subject<'_>) -> bool {}
impl<F: FnMut(i16, &Subject<'_>) -> bool> Allows for F {}

impl<F: Allows> Handler for Recorder<F> {
    fn begin(&mut self, request: &Request<'_>) {
        self.key = request.api_key;
    }
    fn allows(&mut self, subject: &Subject<'_>) -> bool {
        (self.allows)(self.key, subject)
    }
    fn may(&mut self, subject: &Subject<'_>) -> bool {
        subject.group != Some(b"denied")
    }
    fn decided(&mut self, decided: &Decided) {
        self.outcome.decided.push((self.key, decided.outcome, decided.error));
    }
    fn shows(&mut self, request: &Request<'_>, subject: &Subject<'_>) -> bool {
        (self.allows)(request.api_key, subject)
    }
    fn finished(&mut self, exchange: &Exchange) {
        self.outcome.finished.push(*exchange);
    }
    fn refused(&mut self, refusal: Refusal) {
        self.outcome.refused.push(refusal);
    }
    fn distinguishes_groups(&self) -> bool {
        true
    }
    fn revision(&self) -> u64 {
        1
    }
}

impl<F> Sink for Recorder<F> {
    fn deliver(&mut self, direction: Direction, bytes: &[u8]) {
        match direction {
            Direction::Request => self.outcome.to_server.extend_from_slice(bytes),
            Direction::Response => self.outcome.to_client.extend_from_slice(bytes),
        }
    }
    fn close(&mut self, close: Close) {
        self.outcome.closed = Some(close);
    }
    fn is_closed(&self) -> bool {
        self.outcome.closed.is_some()
    }
}

/// Drives a gate with what both sides say.
///
/// # Panics
/// When the gate breaks its contract.
pub fn run(script: &Script<'_>, cut: impl FnMut() -> usize, allows: impl Allows) -> Outcome {
    let limits = Limits { frame_bytes: 8192, held_bytes: 4096, in_flight: 8, topics: 64 };
    let mut gate = Kafka::new(Arc::new(limits), None);
    let mut recorder = Recorder { outcome: Outcome::default(), key: -1, allows };
    script.run(&mut gate, &mut recorder, cut);
    recorder.outcome.held = held(&gate, &recorder);
    recorder.outcome
}

fn held<H>(gate: &impl Gate<H>, _: &H) -> usize {
    gate.held()
}

/// Allows everything that does not say `denied`, and nothing that stands for everything.
pub fn by_name(_: i16, subject: &Subject<'_>) -> bool {
    !subject.everything && subject.topic != Some(b"denied") && subject.group != Some(b"denied")
}

/// Any two streams of bytes, cut in any way. Input: a number that seeds the cuts, the length of the
/// client's stream, that stream, and the broker's.
///
/// # Panics
/// When an invariant does not hold.
pub fn kafka_gate(data: &[u8]) {
    let [seed, high, low, data @ ..] = data else { return };
    let at = usize::from(u16::from_be_bytes([*high, *low])).min(data.len());
    let (requests, responses) = data.split_at(at);
    for ends in [false, true] {
        let script = Script { requests, responses, reachable: true, ends };
        let whole = run(&script, || usize::MAX >> 1, by_name);
        let bytewise = run(&script, || 1, by_name);
        let anyhow = run(&script, pieces(*seed), by_name);
        for (cut, how) in [(&bytewise, "cut into single bytes"), (&anyhow, "cut anyhow")] {
            if (whole.closed.is_some() || cut.closed.is_some()) && !responses.is_empty() {
                // Where the broker ends the connection, how far the client had come by then depends
                // on when that came.
                let (one, other) = (&whole.decided, &cut.decided);
                assert!(one.starts_with(other) || other.starts_with(one), "{how}");
            } else {
                assert_eq!(&whole, cut, "{how}");
            }
        }
        assert_allowed(&whole.to_server);
        // Every answer of the gate's own is about something that was asked.
        assert!(whole.to_client.len() <= 64 * (requests.len() + responses.len()) + 1024);
        let down = run(&Script { reachable: false, ..script }, || 7, by_name);
        assert!(down.to_server.is_empty());
    }
}

/// Requests and responses that are what they have to be, made up from the input.
///
/// # Panics
/// When an invariant does not hold.
pub fn kafka_messages(data: &[u8]) {
    let mut choices = Choices::new(data, 7);
    let versions: Vec<_> = every_version().collect();
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for _ in 0..=choices.next() % 4 {
        let place = usize::from(choices.next()) * versions.len() / 256;
        let (key, version) = versions[place];
        let Some(api) = Api::find(key) else { continue };
        let request = generate::request(api, version, &mut choices);
        let correlation = [request[8], request[9], request[10], request[11]];
        responses.extend(generate::response(api, version, correlation, &mut choices));
        requests.extend(request);
    }
    let length = u16::try_from(requests.len()).unwrap_or(u16::MAX).to_be_bytes();
    let seed = choices.next();
    kafka_gate(&[&[seed][..], &length, &requests, &responses].concat());
}

/// Every request that reached the broker asks for what is allowed only.
fn assert_allowed(mut sent: &[u8]) {
    while let Ok(Some(length)) = frame_length(sent) {
        let Some(frame) = sent.get(..length) else { return };
        sent = &sent[length..];
        let Some((key, version)) = key_and_version(frame) else { continue };
        let marks = request_marks(frame).unwrap_or_default();
        let denied = |mark: &str| marks.iter().any(|(m, value)| m == mark && value == b"denied");
        // What these carry besides is not what they ask for.
        assert!(!denied("Topic"), "{key} v{version} asks for a denied topic: {marks:?}");
        assert!(!denied("Group"), "{key} v{version} asks for a denied group: {marks:?}");
    }
}

fn key_and_version(frame: &[u8]) -> Option<(i16, i16)> {
    let start = Start::read(frame, &Limits::default()).ok()??;
    Some((start.key, start.version))
}

/// What is marked in a request's frame, by the name of the mark; `None` if it is malformed.
#[must_use]
pub fn request_marks(frame: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let start = Start::read(frame, &Limits::default()).ok()??;
    let api = Api::find(start.key)?;
    let header = Header::read(frame, start, api).ok()?;
    let plan = plan(api.place(), start.version, Purpose::Answer)?;
    let mut marks = Marks::default();
    let mut reader = Reader::new(frame, header.body, frame.len(), plan.flexible);
    plan.walk(&mut reader, &mut marks).ok()?;
    (reader.left() == 0).then_some(marks.0)
}

/// What is marked in the body of a response; `None` if it is malformed, or goes on after its end.
#[must_use]
pub fn response_marks(key: i16, version: i16, body: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let plan = plan(Api::find(key)?.place(), version, Purpose::Response)?;
    let mut marks = Marks::default();
    let mut reader = Reader::new(body, 0, body.len(), plan.flexible);
    plan.walk(&mut reader, &mut marks).ok()?;
    (reader.left() == 0).then_some(marks.0)
}

/// A request's frame, made up.
#[must_use]
pub fn some_request(key: i16, version: i16, seed: u64) -> Option<Vec<u8>> {
    let choices = &mut Choices::new(&[], seed);
    Some(generate::request(Api::find(key)?, version, choices))
}

/// The body of a response, made up.
#[must_use]
pub fn some_response(key: i16, version: i16, seed: u64) -> Option<Vec<u8>> {
    let schema = Api::find(key)?.schema();
    Some(generate::body(schema, schema.response, version, &mut Choices::new(&[], seed)))
}

/// The body of the gate's own answer to a request that is refused, and its header's tags, if any.
#[must_use]
pub fn refused_response(frame: &[u8]) -> Option<Vec<u8>> {
    let start = Start::read(frame, &Limits::default()).ok()??;
    let api = Api::find(start.key)?;
    let header = Header::read(frame, start, api).ok()?;
    let reply = answer::refuse(frame, &header, &Errors::all(error::TOPIC), usize::MAX).ok()?;
    let tags = usize::from(api.schema().has_response_tags(start.version));
    Some(reply[LENGTH_BYTES + 4 + tags..].to_vec())
}

#[derive(Default)]
struct Marks(Vec<(String, Vec<u8>)>);

impl<'a> Visitor<'a> for Marks {
    fn array(&mut self, head: &ArrayHead) -> Result<(), Halt> {
        let count = head.count.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX));
        self.0.push((format!("{:?}[]", head.mark), count.to_be_bytes().to_vec()));
        Ok(())
    }

    fn value(&mut self, mark: Mark, _: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt> {
        self.0.push((format!("{mark:?}"), value.unwrap_or(b"(null)").to_vec()));
        Ok(())
    }
}
