//! Kafka rules: does any allow this request? (Cilium `proxylib/kafka`)

use std::sync::Arc;

use super::rules::RuleSet;
use crate::rule::KafkaRule;

/// A request as policy sees it.
pub trait KafkaRequest {
    /// The API's number (Kafka protocol, `ApiKeys`).
    fn api_key(&self) -> i16;
    /// The version of the request.
    fn api_version(&self) -> i16;
    /// The client's own name for itself.
    fn client_id(&self) -> &[u8];
    /// The topics that it is about.
    fn topics(&self) -> impl Iterator<Item = &[u8]>;
    /// The consumer group that it is about, if it is about one.
    fn group(&self) -> Option<&[u8]> {
        None
    }
}

/// APIs whose requests are about topics; a condition on topics says nothing of others.
const WITH_TOPICS: [i16; 19] = [0, 1, 2, 3, 4, 5, 6, 8, 9, 19, 20, 21, 23, 24, 27, 28, 34, 35, 37];

/// Kafka rules of one connection.
#[derive(Debug)]
pub(crate) struct KafkaRuleSet {
    rules: Vec<Arc<KafkaRule>>,
}

impl KafkaRuleSet {
    pub(crate) fn new(rules: Vec<Arc<KafkaRule>>) -> Self {
        Self { rules }
    }
}

impl<R: KafkaRequest> RuleSet<R> for KafkaRuleSet {
    /// A rule without topic allows the whole request; else every topic needs a rule of its own that
    /// matches in all the rest. A request of a kind that has topics, but names none, asks for all of
    /// them: no topic rule allows that.
    fn find(&self, request: &R) -> Option<u32> {
        let about_topics = WITH_TOPICS.contains(&request.api_key());
        let matching = || (0_u32..).zip(&self.rules).filter(|(_, rule)| rule.matches(request));
        let whole = matching().find(|(_, rule)| rule.topic.is_none() || !about_topics);
        if let Some((index, _)) = whole {
            return Some(index);
        }
        let mut first = None;
        for topic in request.topics() {
            let allows = |rule: &KafkaRule| rule.topic.as_ref().is_some_and(|t| t.matches(topic));
            let (index, _) = matching().find(|(_, rule)| allows(rule))?;
            first.get_or_insert(index);
        }
        first
    }
}

impl KafkaRule {
    /// In everything but the topic.
    fn matches(&self, request: &impl KafkaRequest) -> bool {
        self.api_keys.is_none_or(|keys| keys.contains(&request.api_key()))
            && self.api_version.is_none_or(|version| version == request.api_version())
            && self.client_id.as_ref().is_none_or(|id| id.as_bytes() == request.client_id())
            && match (&self.group, request.group()) {
                (Some(wanted), Some(group)) => wanted.matches(group),
                _ => true,
            }
    }

    /// A sentence for everything of the request that the rule does not match.
    pub(crate) fn mismatches(&self, request: &impl KafkaRequest) -> Vec<String> {
        let mut found = Vec::new();
        let key = request.api_key();
        if self.api_keys.is_some_and(|keys| !keys.contains(&key)) {
            found.push(format!("API key {key} is not among the rule's"));
        }
        if self.api_version.is_some_and(|version| version != request.api_version()) {
            found.push(format!("API version {} is another", request.api_version()));
        }
        if self.client_id.as_ref().is_some_and(|id| id.as_bytes() != request.client_id()) {
            let id = String::from_utf8_lossy(request.client_id());
            found.push(format!("client id `{id}` is another"));
        }
        if let (Some(wanted), Some(group)) = (&self.group, request.group())
            && !wanted.matches(group)
        {
            found.push(format!("group `{}` is another", String::from_utf8_lossy(group)));
        }
        if let Some(topic) = &self.topic
            && WITH_TOPICS.contains(&key)
        {
            let others = request.topics().filter(|own| !topic.matches(own));
            found.extend(
                others.map(|own| format!("topic `{}` is another", String::from_utf8_lossy(own))),
            );
            if request.topics().next().is_none() {
                found.push("the request names no topic, which means all".to_owned());
            }
        }
        found
    }
}
