//! What the log says of a Kafka request that is gone from the buffers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portreeve_policy::{RuleId, TrafficDirection};
use portreeve_protocols::kafka::{Exchange as Exchanged, Role, Subject};

use crate::inspect::in_flight::ByFar;
use crate::snapshot::Snapshot;
use crate::telemetry::{KafkaRecord, LONGEST_TOPIC, LoggedTopics, Party, Verdict};

/// Topics of one request that the log names.
const LOGGED_TOPICS: usize = 32;

/// What the log says of a request: the client's id, the group and the topics, one after the other.
#[derive(Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    pub(super) client_id_end: usize,
    pub(super) group_end: usize,
    /// Where each topic ends, and whether it was denied.
    pub(super) topics: Vec<(usize, bool)>,
    pub(super) more_topics: u64,
}

/// What the log needs of a request that is gone from the buffers.
pub(super) struct Record {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) api: &'static str,
    pub(super) version: i16,
    pub(super) role: Role,
    pub(super) correlation_id: i32,
    pub(super) verdict: Verdict,
    pub(super) filtered: bool,
    pub(super) rule: Option<RuleId>,
    pub(super) reason: &'static str,
    pub(super) request_bytes: u64,
    pub(super) text: Text,
    /// What the other end's policy said, if that was asked.
    pub(super) far: Option<ByFar>,
}

impl Text {
    pub(super) fn begin(&mut self, client_id: &[u8]) {
        self.bytes.clear();
        self.topics.clear();
        self.more_topics = 0;
        self.bytes.extend_from_slice(client_id);
        self.client_id_end = self.bytes.len();
        self.group_end = self.client_id_end;
    }

    pub(super) fn client_id(&self) -> &[u8] {
        &self.bytes[..self.client_id_end]
    }

    pub(super) fn group(&self) -> &[u8] {
        &self.bytes[self.client_id_end..self.group_end]
    }

    pub(super) fn add(&mut self, subject: &Subject<'_>, denied: bool) {
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

    pub(super) fn topics(&self) -> LoggedTopics<'_> {
        LoggedTopics { bytes: &self.bytes, from: self.group_end, ends: &self.topics }
    }
}

/// As much of a name as the log says: what no topic or group can be called may be of any length.
fn clipped(name: &[u8]) -> &[u8] {
    &name[..name.len().min(LONGEST_TOPIC)]
}

impl Record {
    /// What the log says of it, but for the rule.
    pub(super) fn entry<'a>(
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
    pub(super) fn name(&mut self, snapshot: &'a Snapshot, rule: Option<RuleId>) {
        if let Some(rule) = rule.map(|rule| snapshot.policy.rule(rule)) {
            (self.rule, self.policy) = (rule.section(), rule.policy());
        }
        self.revision = snapshot.revision;
    }
}
