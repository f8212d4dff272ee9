//! What the kernel has decided for the endpoints of a node, taken down by name.
//!
//! A packet costs its sender nothing, and a line of the log costs the disk: of one endpoint, and of all
//! of them, only so many lines are written in a second. The metrics count every event, and what the log
//! has left out stands in one line a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_policy::{EndpointPolicy, Identity};
use rustc_hash::FxHashMap;

use super::report::{KernelDecision, KernelVerdict, Words, peer_address, record};
use crate::endpoints::{Endpoints, Known};
use crate::observer::Flow;
use crate::snapshot::Snapshot;
use crate::telemetry::{Telemetry, WorkerTelemetry};

/// The time that lines are counted for.
const SECOND: Duration = Duration::from_secs(1);

/// Lines about one endpoint in a second: who is denied now and then is in the log with every denial; who
/// is denied all the time writes 600 MB a day, and not more.
const LINES_OF_ONE: u32 = 10;

/// Lines about all of them.
const LINES: u32 = 100;

/// Takes the kernel's decisions down. It belongs to one thread, as its counters and lines do.
#[derive(Debug)]
pub struct NodeReporter {
    telemetry: Arc<Telemetry>,
    endpoints: Arc<Endpoints>,
    /// What is about nobody who is known.
    nobodys: Reported,
    /// By name.
    met: FxHashMap<Arc<str>, Reported>,
    /// When the second under way began; `None`: nothing was written since the last one ended.
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

/// What one endpoint has told of.
#[derive(Debug)]
struct Reported {
    /// Which endpoint of this name it is.
    number: u64,
    telemetry: Arc<WorkerTelemetry>,
    /// Lines in this second.
    written: u32,
}

impl Reported {
    fn new(number: u64, telemetry: Arc<WorkerTelemetry>) -> Self {
        Self { number, telemetry, written: 0 }
    }
}

impl NodeReporter {
    pub(crate) fn new(telemetry: Arc<Telemetry>, endpoints: Arc<Endpoints>) -> Self {
        Self {
            nobodys: Reported::new(0, telemetry.worker()),
            telemetry,
            endpoints,
            met: FxHashMap::default(),
            began: None,
            written: 0,
            left_out: 0,
        }
    }

    /// Takes down a decision about the endpoint of this name; empty: nobody knows whose it is. `decided`
    /// is the policy that decided, if it is known. `tell` is told of it in words.
    ///
    /// Lines wait for [`NodeReporter::flush`] on the same thread.
    pub fn report(
        &mut self,
        endpoint: &str,
        decided: Option<&EndpointPolicy>,
        decision: &KernelDecision,
        now: Instant,
        tell: impl FnOnce(&Flow<'_>),
    ) {
        let known = self.endpoints.known(endpoint);
        let snapshot = known.as_ref().map(|known| known.snapshots.load());
        let in_force = snapshot.as_deref();
        let words = words(decision, decided, in_force);
        let revision = in_force.filter(|_| decided.is_some()).map_or(0, |found| found.revision);
        let decision = KernelDecision { revision, ..*decision };
        let record = record(&decision, &words);
        if let (Some(decided), Some(in_force)) = (decided, in_force) {
            count(&decision, decided, in_force);
        }
        let has_room = self.begin_second(now) < LINES;
        let reported = match &known {
            Some(known) => meet(&mut self.met, known, &self.telemetry),
            None => &mut self.nobodys,
        };
        let writes = has_room && reported.written < LINES_OF_ONE;
        if reported.telemetry.node_kernel_decided(&record, &decision, writes) {
            reported.written += u32::from(writes);
            self.written += u32::from(writes);
            self.left_out += u64::from(!writes);
        }
        tell(&Flow {
            endpoint: if known.is_some() { endpoint } else { "" },
            ..Flow::from(&record)
        });
    }

    /// Hands on what was written on this thread, and once a second what was left out. When it is to be
    /// called again, whether anything happens or not.
    pub fn flush(&mut self, now: Instant) -> Option<Instant> {
        if self.began.is_some_and(|began| now.duration_since(began) >= SECOND) {
            self.end_second();
        }
        self.nobodys.telemetry.flush();
        self.began.map(|began| began + SECOND)
    }

    /// How many lines were written in the second under way.
    fn begin_second(&mut self, now: Instant) -> u32 {
        if self.began.is_some_and(|began| now.duration_since(began) >= SECOND) {
            self.end_second();
        }
        self.began.get_or_insert(now);
        self.written
    }

    fn end_second(&mut self) {
        if self.left_out > 0 {
            self.nobodys.telemetry.left_out(self.left_out);
        }
        (self.began, self.written, self.left_out) = (None, 0, 0);
        self.nobodys.written = 0;
        let endpoints = &self.endpoints;
        self.met.retain(|name, reported| {
            reported.written = 0;
            endpoints.known(name).is_some_and(|known| known.number == reported.number)
        });
    }
}

/// The numbers of an endpoint; those of one that was called so before are let go.
fn meet<'a>(
    met: &'a mut FxHashMap<Arc<str>, Reported>,
    known: &Known,
    telemetry: &Telemetry,
) -> &'a mut Reported {
    let new = || Reported::new(known.number, telemetry.worker_of(&known.name, &known.counters));
    let reported = met.entry(known.name.clone()).or_insert_with(new);
    if reported.number != known.number {
        *reported = new();
    }
    reported
}

/// Who was not judged is who has the address now.
fn words<'a>(
    decision: &KernelDecision,
    decided: Option<&'a EndpointPolicy>,
    in_force: Option<&'a Snapshot>,
) -> Words<'a> {
    let in_force = in_force.map(|snapshot| &snapshot.policy);
    let judged = (decision.identity != 0).then(|| Identity::new(decision.identity));
    let at_address =
        || in_force.zip(peer_address(decision)).map(|(policy, at)| policy.identify(at));
    let identity = judged.or_else(at_address);
    Words {
        in_force,
        decided,
        peer: decided.or(in_force).zip(identity),
        identity: identity.map_or(0, Identity::get),
    }
}

/// Counts the rule that has denied, if the policy in force still has it in its place.
fn count(decision: &KernelDecision, decided: &EndpointPolicy, in_force: &Snapshot) {
    let Some(index) = decision.rule.map(|rule| rule as usize) else { return };
    let (Some(was), Some(is)) = (decided.rules().get(index), in_force.policy.rules().get(index))
    else {
        return;
    };
    let is_same = (was.policy(), was.section()) == (is.policy(), is.section());
    if is_same && decision.verdict == KernelVerdict::Denied {
        in_force.count_index(Some(index));
    }
}
