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
}
