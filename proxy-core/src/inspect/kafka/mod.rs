//! Kafka requests as policy queries: the session of an inspected Kafka connection.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the session: what the gate asks, answered by policy |
//! | `record.rs` | what the log says of a request |

mod record;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portreeve_policy::{Action, KafkaRequest, KafkaRules, Outcome, Reason, RequestVerdict, RuleId};
use portreeve_protocols::kafka::{
    self, Decided, Exchange as Exchanged, Handler, Refusal, Request, Role, Subject,
};
use rustc_hash::FxHashMap;

use self::record::{Record, Text};
use crate::inspect::Connection;
use crate::inspect::http::verdict;
use crate::inspect::in_flight::ByFar;
use crate::inspect::reading::{self, Ruled};
use crate::inspect::session::Inspect;
use crate::inspect::side::Far;
use crate::relay::Session;
use crate::telemetry::{
    LONGEST_TOPIC, Refused, RefusedRecord, TopicCounters, Verdict, WorkerTelemetry,
};

/// Topics whose counters a connection keeps at hand.
const KEPT_TOPICS: usize = 2048;

/// Texts kept for the requests to come: as many as clients usually have in flight.
const SPARE_TEXTS: usize = 8;

/// Policy and telemetry of one Kafka connection.
pub(super) struct KafkaSession {
    connection: Connection,
    /// The near policy's; `None`: it allows the connection without looking inside.
    rules: Option<Arc<KafkaRules>>,
    in_flight: VecDeque<Exchange>,
    /// Texts to be used again.
    spare: Vec<Text>,
    /// The request that is being judged.
    current: Current,
    topics: Topics,
    /// The other end's, if that is an endpoint, too.
    far_topics: Topics,
}

/// Counters of topics, at hand.
type Topics = FxHashMap<Box<[u8]>, Arc<TopicCounters>>;

/// The request that is being judged, with what was asked of it.
#[derive(Default)]
struct Current {
    key: i16,
    version: i16,
    api: &'static str,
    role: Option<Role>,
    correlation_id: i32,
    text: Text,
    near: Found,
    /// What the other end's policy said, if that has one.
    far: Found,
    asked: Vec<(Arc<TopicCounters>, Verdict)>,
    /// Of whom the other end was asked.
    far_asked: Vec<(Arc<TopicCounters>, Verdict)>,
}

/// What one policy said of the subjects of a request.
#[derive(Clone, Copy, Default)]
struct Found {
    audited: bool,
    denied: bool,
    rule: Option<RuleId>,
    reason: Option<Reason>,
}

impl Found {
    fn note(&mut self, judged: &RequestVerdict) {
        let denied = judged.outcome == Outcome::Deny;
        self.audited |= judged.outcome == Outcome::Audit;
        // What was denied first is what is told.
        if self.reason.is_none() || (denied && !self.denied) {
            self.reason = Some(judged.reason);
            self.rule = judged.rule;
        }
        self.denied |= denied;
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self { denied: true, .. } => Verdict::Deny,
            Self { audited: true, .. } => Verdict::Audit,
            _ => Verdict::Allow,
        }
    }
}

/// A request under way.
struct Exchange {
    began: Instant,
    key: i16,
    /// The other end's policy was asked, too.
    by_far: bool,
    /// `Some` if it will be logged.
    record: Option<Record>,
}

impl KafkaSession {
    pub(super) fn new(connection: Connection, rules: Option<Arc<KafkaRules>>) -> Self {
        Self {
            connection,
            rules,
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            current: Current::default(),
            topics: Topics::default(),
            far_topics: Topics::default(),
        }
    }

    /// What the near policy says.
    fn judge(&self, view: &View<'_>) -> RequestVerdict {
        match &self.rules {
            _ if self.connection.near_revoked() => RequestVerdict::denied_connection(),
            None => RequestVerdict::allowed_connection(),
            Some(rules) => rules.decide(view),
        }
    }

    /// What the other end's policy says; `None`: it has none.
    fn judge_far(&self, view: &View<'_>) -> Option<RequestVerdict> {
        let far = self.connection.far()?;
        Some(match reading::kafka(&far.verdict.action) {
            _ if far.side.revoked => RequestVerdict::denied_connection(),
            Ruled::Freely => RequestVerdict::allowed_connection(),
            Ruled::By(rules) => rules.decide(view),
            Ruled::Not => RequestVerdict::denied_connection(),
        })
    }

    /// Counts what was asked of the request, now that it is decided.
    fn count(&mut self, verdict: Verdict) {
        let direction = self.connection.direction();
        let role = self.current.role.unwrap_or(Role::Admin);
        for (counters, verdict) in self.current.asked.drain(..) {
            counters.count(direction, role, verdict);
        }
        if let Some(rule) = self.current.near.rule {
            self.connection.snapshot().count(rule);
        }
        let telemetry = self.connection.telemetry();
        telemetry.kafka_decided(direction, self.current.key, verdict);
        if let Some(far) = self.connection.far() {
            for (counters, verdict) in self.current.far_asked.drain(..) {
                counters.count(far.side.direction, role, verdict);
            }
        }
    }

    fn record(&mut self, decided: &Decided, verdict: Verdict, far: Option<ByFar>) -> Record {
        let spare = self.spare.pop().unwrap_or_default();
        let current = &mut self.current;
        let unasked = match decided.outcome {
            kafka::Outcome::Denied => "answered_by_proxy",
            kafka::Outcome::Filtered => "filtered",
            // It asks for nothing that policy is about: where the brokers are.
            kafka::Outcome::Allowed | kafka::Outcome::Partly => "nothing_to_judge",
        };
        Record {
            snapshot: self.connection.snapshot().clone(),
            api: current.api,
            version: current.version,
            role: current.role.unwrap_or(Role::Admin),
            correlation_id: current.correlation_id,
            verdict,
            filtered: decided.outcome == kafka::Outcome::Filtered,
            rule: current.near.rule,
            reason: current.near.reason.map_or(unasked, Reason::as_str),
            request_bytes: decided.bytes,
            text: std::mem::replace(&mut current.text, spare),
            far,
        }
    }

    /// Counts what the other end's policy said, if it was asked anything.
    fn count_far(&self) -> Option<ByFar> {
        let (side, found) = (&self.connection.far()?.side, &self.current.far);
        let reason = found.reason?.as_str();
        if let Some(rule) = found.rule {
            side.snapshot.count(rule);
        }
        let verdict = found.verdict();
        side.telemetry().kafka_decided(side.direction, self.current.key, verdict);
        Some(ByFar { verdict, rule: found.rule, reason, snapshot: side.snapshot.clone() })
    }

    /// Each endpoint that judged it reports it, with its own verdict.
    fn log(&self, record: &Record, duration: Duration, answer: Option<&Exchanged>) {
        let near = self.connection.parties_in(&record.snapshot);
        let mut entry = record.entry(near, self.connection.direction(), duration, answer);
        entry.name(&record.snapshot, record.rule);
        self.connection.telemetry().kafka_logged(&entry);
        let (Some(by), Some(far)) = (&record.far, self.connection.far()) else { return };
        let parties = self.connection.far_parties_in(far, &by.snapshot);
        let mut entry = record.entry(parties, far.side.direction, duration, answer);
        (entry.verdict, entry.reason) = (by.verdict, by.reason);
        entry.name(&by.snapshot, by.rule);
        far.side.telemetry().kafka_logged(&entry);
    }
}

impl Handler for KafkaSession {
    fn begin(&mut self, request: &Request<'_>) {
        if self.connection.outdated() {
            self.review();
        }
        let current = &mut self.current;
        current.key = request.api_key;
        current.version = request.version;
        current.api = request.api;
        current.role = Some(request.role);
        current.correlation_id = request.correlation_id;
        current.text.begin(request.client_id);
        (current.near, current.far) = Default::default();
        current.asked.clear();
        current.far_asked.clear();
    }

    fn allows(&mut self, subject: &Subject<'_>) -> bool {
        let view = View {
            key: self.current.key,
            version: self.current.version,
            client_id: self.current.text.client_id(),
            subject,
        };
        let near = self.judge(&view);
        // What the one denies, the other is not asked.
        let far = (near.outcome != Outcome::Deny).then(|| self.judge_far(&view)).flatten();
        let current = &mut self.current;
        current.near.note(&near);
        if let Some(far) = &far {
            current.far.note(far);
        }
        let denied = [Some(near), far].iter().flatten().any(|by| by.outcome == Outcome::Deny);
        current.text.add(subject, denied);
        if let Some(topic) = subject.topic {
            let verdict = verdict(near.outcome);
            let telemetry = self.connection.telemetry();
            let counted = counters(&mut self.topics, topic, (verdict, denied), telemetry);
            self.current.asked.push((counted, verdict));
            if let (Some(by), Some(far)) = (far, self.connection.far()) {
                let verdict = self::verdict(by.outcome);
                let telemetry = far.side.telemetry();
                let counted = counters(&mut self.far_topics, topic, (verdict, denied), telemetry);
                self.current.far_asked.push((counted, verdict));
            }
        }
        !denied
    }

    fn may(&mut self, subject: &Subject<'_>) -> bool {
        let view = View {
            key: self.current.key,
            version: self.current.version,
            client_id: self.current.text.client_id(),
            subject,
        };
        let near = match &self.rules {
            _ if self.connection.revoked() => false,
            None => true,
            Some(rules) => rules.may_allow(&view),
        };
        let far = |far: &Far| match reading::kafka(&far.verdict.action) {
            Ruled::Freely => true,
            Ruled::By(rules) => rules.may_allow(&view),
            Ruled::Not => false,
        };
        near && self.connection.far().is_none_or(far)
    }

    fn decided(&mut self, decided: &Decided) {
        let near = self.current.near;
        // Not by a rule: it is filtered, or refused for a session or a version.
        let by_rule = near.denied || self.current.far.denied;
        let refused = decided.outcome == kafka::Outcome::Denied && !by_rule;
        let verdict = match decided.outcome {
            // Only the other end's policy has denied it.
            kafka::Outcome::Denied | kafka::Outcome::Partly if by_rule && !near.denied => {
                near.verdict()
            }
            kafka::Outcome::Denied | kafka::Outcome::Partly => Verdict::Deny,
            _ if near.audited => Verdict::Audit,
            kafka::Outcome::Allowed | kafka::Outcome::Filtered => Verdict::Allow,
        };
        if refused || decided.outcome == kafka::Outcome::Filtered {
            (self.current.near.rule, self.current.near.reason) = (None, None);
        }
        self.count(verdict);
        let far = self.count_far();
        let by_far = far.is_some();
        let telemetry = self.connection.telemetry();
        let wanted = telemetry.wants(verdict)
            || far.as_ref().is_some_and(|far| telemetry.wants(far.verdict));
        let record = wanted.then(|| self.record(decided, verdict, far));
        let (began, key) = (self.connection.now, self.current.key);
        let exchange = Exchange { began, key, by_far, record };
        if decided.answered {
            self.in_flight.push_back(exchange);
        } else if let Some(record) = &exchange.record {
            self.log(record, Duration::ZERO, None);
        }
    }

    fn shows(&mut self, request: &Request<'_>, subject: &Subject<'_>) -> bool {
        let view = View {
            key: request.api_key,
            version: request.version,
            client_id: request.client_id,
            subject,
        };
        let far = self.judge_far(&view);
        [Some(self.judge(&view)), far].iter().flatten().all(|by| by.outcome != Outcome::Deny)
    }

    fn finished(&mut self, exchanged: &Exchanged) {
        let Some(exchange) = self.in_flight.pop_front() else { return };
        let duration = self.connection.now.saturating_duration_since(exchange.began);
        let telemetry = self.connection.telemetry();
        let direction = self.connection.direction();
        telemetry.kafka_answered(direction, exchange.key, exchanged.error, duration);
        if let Some(far) = self.connection.far().filter(|_| exchange.by_far) {
            let (telemetry, direction) = (far.side.telemetry(), far.side.direction);
            telemetry.kafka_answered(direction, exchange.key, exchanged.error, duration);
        }
        if let Some(record) = exchange.record {
            self.log(&record, duration, Some(exchanged));
            if self.spare.len() < SPARE_TEXTS {
                self.spare.push(record.text);
            }
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        let (source, destination) = self.connection.parties();
        self.connection.telemetry().refused(&RefusedRecord {
            time: SystemTime::now(),
            direction: self.connection.direction(),
            source,
            destination,
            refused: Refused::Kafka(refusal),
        });
        tracing::debug!(client = %self.connection.client(), by_server = refusal.by_server(), "{refusal}");
    }

    fn distinguishes_groups(&self) -> bool {
        let far = self.connection.far().map(|far| reading::kafka(&far.verdict.action));
        self.rules.as_ref().is_some_and(|rules| rules.distinguishes_groups())
            || matches!(far, Some(Ruled::By(rules)) if rules.distinguishes_groups())
    }

    fn revision(&self) -> u64 {
        self.connection.revision()
    }
}

impl Inspect for KafkaSession {
    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn adopt(&mut self, action: Action) -> bool {
        match reading::kafka(&action) {
            Ruled::Freely => self.rules = None,
            Ruled::By(rules) => self.rules = Some(rules.clone()),
            Ruled::Not => return false,
        }
        true
    }

    fn suits(far: &Action) -> bool {
        !matches!(reading::kafka(far), Ruled::Not)
    }

    fn held(&self) -> usize {
        match self.in_flight.len() {
            0 | 1 => 0,
            _ => {
                let records = self.in_flight.iter().filter_map(|exchange| exchange.record.as_ref());
                records.map(|record| record.text.bytes.capacity()).sum()
            }
        }
    }

    fn give_up(&mut self) {
        while let Some(exchange) = self.in_flight.pop_front() {
            let duration = self.connection.now.saturating_duration_since(exchange.began);
            if let Some(record) = &exchange.record {
                self.log(record, duration, None);
            }
        }
    }
}

/// The counters of a topic, from those at hand if they are there. Names that were denied, by whom ever,
/// are not kept: clients can make them up.
fn counters(
    at_hand: &mut Topics,
    topic: &[u8],
    (verdict, denied): (Verdict, bool),
    telemetry: &WorkerTelemetry,
) -> Arc<TopicCounters> {
    if let Some(known) = at_hand.get(topic) {
        return known.clone();
    }
    let counters = telemetry.kafka_topic(topic, verdict);
    if !denied && at_hand.len() < KEPT_TOPICS && topic.len() <= LONGEST_TOPIC {
        at_hand.insert(topic.into(), counters.clone());
    }
    counters
}

/// A part of a request as the policy engine sees it.
struct View<'a> {
    key: i16,
    version: i16,
    client_id: &'a [u8],
    subject: &'a Subject<'a>,
}

impl KafkaRequest for View<'_> {
    fn api_key(&self) -> i16 {
        self.key
    }

    fn api_version(&self) -> i16 {
        self.version
    }

    fn client_id(&self) -> &[u8] {
        self.client_id
    }

    fn topics(&self) -> impl Iterator<Item = &[u8]> {
        self.subject.topic.into_iter()
    }

    fn is_about_everything(&self) -> bool {
        self.subject.everything
    }

    fn group(&self) -> Option<&[u8]> {
        self.subject.group
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Observing;
    use crate::telemetry::{AccessLogConfig, AccessLogMode, Telemetry};

    #[test]
    fn names_that_were_denied_are_not_kept() {
        let config = AccessLogConfig { mode: AccessLogMode::Off, ..Default::default() };
        let telemetry = Telemetry::new(&config, Observing::default()).expect("no file").worker();
        let mut topics = Topics::default();
        counters(&mut topics, b"made-up", (Verdict::Deny, true), &telemetry);
        // By the other end's policy.
        counters(&mut topics, b"made-up-too", (Verdict::Allow, true), &telemetry);
        assert_eq!(topics.len(), 0);
        let first = counters(&mut topics, b"orders", (Verdict::Allow, false), &telemetry);
        assert!(Arc::ptr_eq(&topics[&b"orders"[..]], &first));
    }
}
