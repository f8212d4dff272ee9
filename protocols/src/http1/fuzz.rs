//! What the fuzz targets run.
//!
//! Invariants: the outcome does not depend on how the input was cut; a denied request's bytes never
//! reach the server; what reaches the server is what was judged.

use std::sync::Arc;

use super::{Decision, Exchange, Handler, HeadEdits, Http1, Limits, Refusal, Request, normalize};
use crate::drive::{Script, Sink, pieces};
use crate::gate::{Close, Direction};

/// What came of driving a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes that reached the server.
    pub to_server: Vec<u8>,
    /// Bytes that reached the client.
    pub to_client: Vec<u8>,
    /// How the connection ended, if the gate ended it.
    pub closed: Option<Close>,
    /// Requests as they were judged: method, path, verdict.
    pub judged: Vec<(String, String, Decision)>,
    /// Exchanges that were over.
    pub finished: Vec<Exchange>,
    /// Messages that were not accepted.
    pub refused: Vec<Refusal>,
}

/// Judges by a function of the request, and remembers.
struct Recorder<F> {
    outcome: Outcome,
    decide: F,
}

impl<F: FnMut(&Request<'_>, &mut HeadEdits) -> Decision> Handler for Recorder<F> {
    fn decide(&mut self, request: &Request<'_>, edits: &mut HeadEdits) -> Decision {
        let decision = (self.decide)(request, edits);
        self.outcome.judged.push((request.method.into(), request.path.into(), decision));
        decision
    }
    fn answered_unasked(&mut self, request: &Request<'_>, _: u16) {
        self.outcome.judged.push((request.method.into(), request.path.into(), Decision::Deny));
    }
    fn responded(&mut self, _: u16) {}
    fn finished(&mut self, exchange: &Exchange) {
        self.outcome.finished.push(*exchange);
    }
    fn refused(&mut self, refusal: Refusal) {
        self.outcome.refused.push(refusal);
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

/// A whole connection: what both sides say, and where it is cut.
pub struct Connection<'a> {
    /// What the client says, before it ends its stream.
    pub requests: &'a [u8],
    /// What the server says once it has been asked all that it will be, before it ends its stream.
    pub responses: &'a [u8],
    /// Whether the server can be reached.
    pub reachable: bool,
    /// The gate's limits.
    pub limits: Limits,
    /// Whether the streams end when all has been said.
    pub ends: bool,
}

impl<'a> Connection<'a> {
    /// A connection with a reachable server, default limits, whose streams stay open.
    #[must_use]
    pub fn new(requests: &'a [u8], responses: &'a [u8]) -> Self {
        Self { requests, responses, reachable: true, limits: Limits::default(), ends: false }
    }

    /// Drives a gate, letting `cut` bytes arrive at a time.
    ///
    /// # Panics
    /// When the gate breaks its contract.
    pub fn run(
        &self,
        cut: impl FnMut() -> usize,
        decide: impl FnMut(&Request<'_>, &mut HeadEdits) -> Decision,
    ) -> Outcome {
        let mut gate = Http1::new(Arc::new(self.limits.clone()));
        let mut recorder = Recorder { outcome: Outcome::default(), decide };
        let Self { requests, responses, reachable, ends, .. } = *self;
        Script { requests, responses, reachable, ends }.run(&mut gate, &mut recorder, cut);
        recorder.outcome
    }
}

/// Any two streams of bytes, cut in any way: the outcome is the same, and no denied byte passes.
/// Input: a number that seeds the cuts, the requests, a line `----`, the responses.
///
/// # Panics
/// When an invariant does not hold.
pub fn http1_gate(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let (requests, responses) = match data.windows(6).position(|w| w == b"\n----\n") {
        Some(at) => (&data[..at], &data[at + 6..]),
        None => (data, &[][..]),
    };
    for ends in [false, true] {
        let mut connection = Connection::new(requests, responses);
        connection.ends = ends;
        connection.limits = Limits {
            head_bytes: 512,
            target_bytes: 128,
            headers: 16,
            pipelined: 4,
            drained_bytes: 64,
        };
        let whole = timeless(connection.run(|| usize::MAX >> 1, by_path));
        let bytewise = timeless(connection.run(|| 1, by_path));
        let anyhow = timeless(connection.run(pieces(seed), by_path));
        for (cut, how) in [(&bytewise, "cut into single bytes"), (&anyhow, "cut anyhow")] {
            let ended = whole.closed.is_some() || cut.closed.is_some();
            if ended && !responses.is_empty() {
                // Where the server's answers end the connection, how far the client had come by
                // then depends on when they came, not on how anything was cut.
                assert_one_goes_further(&whole, cut, how);
            } else {
                assert_same(&whole, cut, how);
            }
        }
        let denied = b"denied-marker";
        let passed = whole.to_server.windows(denied.len()).any(|window| window == denied);
        let asked = whole.judged.iter().any(|(_, path, decision)| {
            *decision == Decision::Allow && path.contains("denied-marker")
        });
        assert!(!passed || asked || may_carry(requests), "a denied request has passed");
        connection.reachable = false;
        let down = connection.run(|| 7, by_path);
        assert!(down.to_server.is_empty());
    }
}

/// Equal, or a panic that a person can read.
fn assert_same(whole: &Outcome, cut: &Outcome, how: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&whole.to_server), text(&cut.to_server), "to the server, {how}");
    assert_eq!(text(&whole.to_client), text(&cut.to_client), "to the client, {how}");
    assert_eq!(whole, cut, "{how}");
}

/// The one says and lets pass what the other does, and perhaps more.
fn assert_one_goes_further(whole: &Outcome, cut: &Outcome, how: &str) {
    fn related<T: PartialEq>(one: &[T], other: &[T]) -> bool {
        one.starts_with(other) || other.starts_with(one)
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (one, other) = (text(&whole.to_server), text(&cut.to_server));
    assert!(related(&whole.to_server, &cut.to_server), "to the server, {how}: {one:?} {other:?}");
    assert!(related(&whole.judged, &cut.judged), "{how}: {:?} {:?}", whole.judged, cut.judged);
}

/// Without what depends on when something came: how much of a request was there when its answer
/// went out.
fn timeless(mut outcome: Outcome) -> Outcome {
    for exchange in &mut outcome.finished {
        exchange.request_bytes = 0;
    }
    outcome
}

/// Denies every path that says so.
pub fn by_path(request: &Request<'_>, _: &mut HeadEdits) -> Decision {
    let denied = request.path.contains("denied") || request.method == "DELETE";
    if denied { Decision::Deny } else { Decision::Allow }
}

/// The marker may stand in an allowed request's fields or body as well.
fn may_carry(requests: &[u8]) -> bool {
    let text = String::from_utf8_lossy(requests);
    text.lines().any(|line| line.contains("denied-marker") && !line.starts_with("DELETE "))
}

/// Any target has one normal form, or none; and that is its own.
///
/// # Panics
/// When an invariant does not hold.
pub fn http1_path(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let normal = match normalize(target) {
        Ok(super::Normalized::Path(path)) => path.into_owned(),
        Ok(super::Normalized::Redirect(path)) => path,
        Err(_) => return,
    };
    assert!(normal.starts_with('/'));
    let path = normal.split('?').next().unwrap_or_default();
    assert!(!path.contains("//"), "{target} -> {normal}");
    assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")), "{target} -> {normal}");
    let lower = path.to_ascii_lowercase();
    assert!(!lower.contains("%2f") && !lower.contains("%5c") && !lower.contains("%2e"));
    let again = normalize(&normal);
    let Ok(super::Normalized::Path(again)) = again else {
        panic!("{target} -> {normal}: {again:?}")
    };
    assert_eq!(normal, again, "{target}");
}
