//! Kafka requests as policy queries: the session of an inspected Kafka connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portreeve_policy::{
    Action, KafkaRequest, KafkaRules, Outcome, Reason, RequestVerdict, RuleId, TrafficDirection,
};
use portreeve_protocols::kafka::{
    self, Decided, Exchange as Exchanged, Handler, Refusal, Request, Role, Subject,
};
use rustc_hash::FxHashMap;

use super::Connection;
use super::http::verdict;
use super::in_flight::ByFar;
use super::reading::{self, Ruled};
use super::session::Inspect;
use super::side::Far;
use crate::relay::Session;
use crate::snapshot::Snapshot;
use crate::telemetry::{
    KafkaRecord, LONGEST_TOPIC, LoggedTopics, Party, Refused, RefusedRecord, TopicCounters, Verdict,
};

/// Topics of one request that the log names.
const LOGGED_TOPICS: usize = 32;

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
    topics: FxHashMap<Box<[u8]>, Arc<TopicCounters>>,
}

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

/// What the log says of a request: the client's id, the group and the topics, one after the other.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    client_id_end: usize,
    group_end: usize,
    /// Where each topic ends, and whether it was denied.
    topics: Vec<(usize, bool)>,
    more_topics: u64,
}

/// A request under way.
struct Exchange {
    began: Instant,
    key: i16,
    /// `Some` if it will be logged.
    record: Option<Record>,
}

/// What the log needs of a request that is gone from the buffers.
struct Record {
    snapshot: Arc<Snapshot>,
    api: &'static str,
    version: i16,
    role: Role,
    correlation_id: i32,
    verdict: Verdict,
    filtered: bool,
    rule: Option<RuleId>,
    reason: &'static str,
    request_bytes: u64,
    text: Text,
    /// What the other end's policy said, if that was asked.
    far: Option<ByFar>,
}

impl Text {
    fn begin(&mut self, client_id: &[u8]) {
        self.bytes.clear();
        self.topics.clear();
        self.more_topics = 0;
        self.bytes.extend_from_slice(client_id);
        self.client_id_end = self.bytes.len();
        self.group_end = self.client_id_end;
    }

    fn client_id(&self) -> &[u8] {
        &self.bytes[..self.client_id_end]
    }

    fn group(&self) -> &[u8] {
        &self.bytes[self.client_id_end..self.group_end]
    }

    fn add(&mut self, subject: &Subject<'_>, denied: bool) {
        if let Some(group) = subject.group
            && self.group_end == self.client_id_end
            && self.topics.is_empty()
        {
            self.bytes.extend_from_slice(clipped(group));
            self.group_end = self.bytes.len();
        }
        let Some(topic) = subject.topic else { return };
        if self.topics.len() >= LOGGED_TOPICS {
            self.more_topics += 1;
            return;
        }
        self.bytes.extend_from_slice(clipped(topic));
        self.topics.push((self.bytes.len(), denied));
    }

    fn topics(&self) -> LoggedTopics<'_> {
        LoggedTopics { bytes: &self.bytes, from: self.group_end, ends: &self.topics }
    }
}

/// As much of a name as the log says: what no topic or group can be called may be of any length.
fn clipped(name: &[u8]) -> &[u8] {
    &name[..name.len().min(LONGEST_TOPIC)]
}

impl KafkaSession {
    pub(super) fn new(connection: Connection, rules: Option<Arc<KafkaRules>>) -> Self {
        Self {
            connection,
            rules,
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            current: Current::default(),
            topics: FxHashMap::default(),
        }
    }

    /// What the near policy says.
    fn judge(&self, view: &View<'_>) -> RequestVerdict {
        match &self.rules {
            _ if self.connection.revoked() => RequestVerdict::denied_connection(),
            None => RequestVerdict::allowed_connection(),
            Some(rules) => rules.decide(view),
        }
    }

    /// What the other end's policy says; `None`: it has none.
    fn judge_far(&self, view: &View<'_>) -> Option<RequestVerdict> {
        let far = self.connection.far()?;
        Some(match reading::kafka(&far.verdict.action) {
            Ruled::Freely => RequestVerdict::allowed_connection(),
            Ruled::By(rules) => rules.decide(view),
            Ruled::Not => RequestVerdict::denied_connection(),
        })
    }

    fn counters(&mut self, topic: &[u8], verdict: Verdict) -> Arc<TopicCounters> {
        if let Some(known) = self.topics.get(topic) {
            return known.clone();
        }
        let counters = self.connection.telemetry().kafka_topic(topic, verdict);
        if self.topics.len() < KEPT_TOPICS && topic.len() <= LONGEST_TOPIC {
            self.topics.insert(topic.into(), counters.clone());
        }
        counters
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

impl Record {
    /// What the log says of it, but for the rule.
    fn entry<'a>(
        &'a self,
        (source, destination): (Party<'a>, Party<'a>),
        direction: TrafficDirection,
        duration: Duration,
        answer: Option<&Exchanged>,
    ) -> KafkaRecord<'a> {
        KafkaRecord {
            time: SystemTime::now(),
            direction,
            verdict: self.verdict,
            source,
            destination,
            api: self.api,
            version: self.version,
            role: self.role,
            client_id: self.text.client_id(),
            correlation_id: self.correlation_id,
            group: self.text.group(),
            topics: self.text.topics(),
            more_topics: self.text.more_topics,
            filtered: self.filtered,
            error: answer.map(|answer| answer.error),
            local: answer.is_some_and(|answer| answer.local),
            rule: "",
            policy: "",
            reason: self.reason,
            request_bytes: self.request_bytes,
            response_bytes: answer.map_or(0, |answer| answer.response_bytes),
            duration,
            revision: self.snapshot.revision,
        }
    }
}

impl<'a> KafkaRecord<'a> {
    /// Names the rule that decided, and the policy that it is of.
    fn name(&mut self, snapshot: &'a Snapshot, rule: Option<RuleId>) {
        if let Some(rule) = rule.map(|rule| snapshot.policy.rule(rule)) {
            (self.rule, self.policy) = (rule.section(), rule.policy());
        }
        self.revision = snapshot.revision;
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
            let counters = self.counters(topic, verdict);
            self.current.asked.push((counters, verdict));
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
        let telemetry = self.connection.telemetry();
        let wanted = telemetry.wants(verdict)
            || far.as_ref().is_some_and(|far| telemetry.wants(far.verdict));
        let record = wanted.then(|| self.record(decided, verdict, far));
        let exchange = Exchange { began: self.connection.now, key: self.current.key, record };
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
        let far = self.connection.far();
        far.is_none_or(|far| !matches!(reading::kafka(&far.verdict.action), Ruled::Not))
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
