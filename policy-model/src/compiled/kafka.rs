//! Kafka rules: does any allow this request? (Cilium `proxylib/kafka`)

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::rules::RuleSet;
use crate::pattern::PatternSet;
use crate::rule::{KafkaRule, TextMatch};

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
    /// Whether it is about every topic there is, though requests of its kind need not be about topics
    /// (a subscription by a regular expression).
    fn is_about_everything(&self) -> bool {
        false
    }
    /// The consumer group that it is about, if it is about one.
    fn group(&self) -> Option<&[u8]> {
        None
    }
}

/// APIs whose requests are about topics; a condition on topics says nothing of others. One that names
/// no topic asks for all of them. The reference's list, and what came after it.
const WITH_TOPICS: u128 = bits(&[
    0, 1, 2, 3, 4, 5, 6, 8, 9, 19, 20, 21, 23, 24, 27, 28, 34, 35, 37, 43, 45, 46, 47, 61, 75,
]);

/// APIs whose requests may name topics, and are about them if they do: configurations, heartbeats,
/// share fetches.
const MAY_NAME_TOPICS: u128 = bits(&[32, 33, 44, 55, 68, 76, 78, 79, 88, 90, 91, 92]);

/// Numbers of APIs as bits. None is above 127 yet.
const fn bits(keys: &[i16]) -> u128 {
    let (mut bits, mut index) = (0, 0);
    while index < keys.len() {
        bits |= 1 << keys[index];
        index += 1;
    }
    bits
}

/// The bit of an API; none for those that nobody knows.
fn bit(key: i16) -> u128 {
    match key {
        0..128 => 1 << key,
        _ => 0,
    }
}

fn is_about_topics(request: &impl KafkaRequest) -> bool {
    let api = bit(request.api_key());
    WITH_TOPICS & api != 0
        || request.is_about_everything()
        || (MAY_NAME_TOPICS & api != 0 && request.topics().next().is_some())
}

/// Kafka rules of one connection.
#[derive(Debug)]
pub(crate) struct KafkaRuleSet {
    rules: Vec<Arc<KafkaRule>>,
    /// Of each rule, the APIs as bits.
    apis: Vec<u128>,
    /// Rules about any topic.
    open: Vec<u32>,
    /// Rules by the one topic that they are about.
    exact: FxHashMap<Box<[u8]>, Vec<u32>>,
    /// Rules about topics of a pattern.
    patterns: PatternSet,
    /// The rules of `patterns`.
    patterned: Vec<u32>,
    /// The first rule of each kind: those of a kind differ in the topic alone.
    kinds: Vec<u32>,
}

impl KafkaRuleSet {
    pub(crate) fn new(rules: Vec<Arc<KafkaRule>>) -> Self {
        let (mut open, mut patterned, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        let mut exact: FxHashMap<Box<[u8]>, Vec<u32>> = FxHashMap::default();
        let mut seen = FxHashSet::default();
        for (index, rule) in (0..).zip(&rules) {
            match &rule.topic {
                None => open.push(index),
                Some(TextMatch::Exact(topic)) => {
                    exact.entry(topic.as_bytes().into()).or_default().push(index);
                }
                Some(TextMatch::Matches(_)) => patterned.push(index),
            }
            if seen.insert(rule.kind()) {
                kinds.push(index);
            }
        }
        let patterns = PatternSet::new(rules.iter().filter_map(|rule| match &rule.topic {
            Some(TextMatch::Matches(pattern)) => Some(pattern),
            _ => None,
        }));
        let apis = rules.iter().map(|rule| rule.api_keys.map_or(u128::MAX, bits)).collect();
        Self { rules, apis, open, exact, patterns, patterned, kinds }
    }

    pub(super) fn rules(&self) -> &[Arc<KafkaRule>] {
        &self.rules
    }

    /// The first of these rules that matches in everything but the topic.
    fn first(&self, indices: &[u32], request: &impl KafkaRequest) -> Option<u32> {
        indices.iter().copied().find(|index| self.matches(*index, request))
    }

    /// Whether a rule matches in everything but the topic.
    fn matches(&self, index: u32, request: &impl KafkaRequest) -> bool {
        let rule = &self.rules[index as usize];
        let is_its_api = match rule.api_keys {
            Some(_) => self.apis[index as usize] & bit(request.api_key()) != 0,
            None => true,
        };
        is_its_api && rule.matches_beyond_api(request)
    }

    /// The first rule that allows this topic of the request.
    fn for_topic(&self, topic: &[u8], request: &impl KafkaRequest) -> Option<u32> {
        let exact = self.exact.get(topic).and_then(|rules| self.first(rules, request));
        let mut found = exact;
        if !self.patterned.is_empty() {
            self.patterns.each_match(topic, &mut |place| {
                let index = self.patterned[place as usize];
                let earlier = found.is_none_or(|found| index < found);
                if earlier && self.matches(index, request) {
                    found = Some(index);
                }
            });
        }
        found
    }

    /// Whether some rule would allow such a request, if it named the right topics.
    pub(super) fn may_allow(&self, request: &impl KafkaRequest) -> bool {
        self.first(&self.kinds, request).is_some()
    }

    /// Whether some rule is about certain groups only.
    pub(super) fn distinguishes_groups(&self) -> bool {
        self.kinds.iter().any(|index| self.rules[*index as usize].group.is_some())
    }
}

impl<R: KafkaRequest> RuleSet<R> for KafkaRuleSet {
    /// A rule without topic allows the whole request; else every topic needs a rule of its own that
    /// matches in all the rest. A request of a kind that has topics, but names none, asks for all of
    /// them: no topic rule allows that.
    fn find(&self, request: &R) -> Option<u32> {
        if !is_about_topics(request) {
            return self.first(&self.kinds, request);
        }
        if let Some(index) = self.first(&self.open, request) {
            return Some(index);
        }
        let mut first = None;
        for topic in request.topics() {
            let index = self.for_topic(topic, request)?;
            first.get_or_insert(index);
        }
        first
    }
}

/// What a rule says of everything but the topic: APIs, version, client, and the group, which is exact
/// or a pattern.
type Kind<'a> = (Option<&'static [i16]>, Option<i16>, Option<&'a str>, Option<(bool, &'a str)>);

impl KafkaRule {
    /// What it says of everything but the topic.
    fn kind(&self) -> Kind<'_> {
        let group = self.group.as_ref().map(|group| match group {
            TextMatch::Exact(name) => (true, name.as_str()),
            TextMatch::Matches(pattern) => (false, pattern.as_str()),
        });
        (self.api_keys, self.api_version, self.client_id.as_deref(), group)
    }

    /// In everything but the API and the topic.
    fn matches_beyond_api(&self, request: &impl KafkaRequest) -> bool {
        self.api_version.is_none_or(|version| version == request.api_version())
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
            && is_about_topics(request)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    struct Asked {
        key: i16,
        topics: Vec<&'static str>,
        group: Option<&'static str>,
        everything: bool,
    }

    impl KafkaRequest for Asked {
        fn api_key(&self) -> i16 {
            self.key
        }
        fn api_version(&self) -> i16 {
            1
        }
        fn client_id(&self) -> &[u8] {
            b"c"
        }
        fn topics(&self) -> impl Iterator<Item = &[u8]> {
            self.topics.iter().map(|topic| topic.as_bytes())
        }
        fn is_about_everything(&self) -> bool {
            self.everything
        }
        fn group(&self) -> Option<&[u8]> {
            self.group.map(str::as_bytes)
        }
    }

    fn rule(keys: Option<&'static [i16]>, topic: Option<&str>, group: Option<&str>) -> KafkaRule {
        let text = |text: &str| match text.strip_suffix('*') {
            Some(start) => TextMatch::Matches(Pattern::new(&format!("{start}.*")).unwrap()),
            None => TextMatch::Exact(text.to_owned()),
        };
        KafkaRule {
            section: String::new(),
            api_keys: keys,
            api_version: None,
            client_id: None,
            topic: topic.map(text),
            group: group.map(text),
        }
    }

    /// The specification, word by word: each rule in turn, nothing looked up.
    fn naive(rules: &[KafkaRule], asked: &Asked) -> bool {
        let api = |rule: &KafkaRule| rule.api_keys.is_none_or(|keys| keys.contains(&asked.key));
        let matches = |rule: &&KafkaRule| api(rule) && rule.matches_beyond_api(asked);
        if !is_about_topics(asked) {
            return rules.iter().any(|rule| matches(&rule));
        }
        let all = rules.iter().filter(matches).any(|rule| rule.topic.is_none());
        let one = |topic: &&str| {
            let wanted = |rule: &KafkaRule| rule.topic.as_ref().unwrap().matches(topic.as_bytes());
            rules.iter().filter(matches).any(|rule| rule.topic.is_none() || wanted(rule))
        };
        all || (!asked.topics.is_empty() && asked.topics.iter().all(one))
    }

    #[test]
    fn looked_up_rules_decide_as_each_rule_in_turn_does() {
        let keys: [Option<&'static [i16]>; 4] =
            [None, Some(&[0, 3]), Some(&[1, 3, 8]), Some(&[11])];
        let names = [None, Some("a"), Some("b"), Some("a*"), Some("*")];
        let mut random = 1_u32;
        let mut next = |n: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) as usize % n
        };
        for _ in 0..300 {
            let mut rules = Vec::new();
            for _ in 0..next(5) {
                rules.push(rule(keys[next(4)], names[next(5)], names[next(5)]));
            }
            let set = KafkaRuleSet::new(rules.iter().cloned().map(Arc::new).collect());
            for _ in 0..60 {
                let topics = ["a", "b", "ab", "z"];
                let asked = Asked {
                    key: [0, 1, 3, 8, 11, 68, 22, 200][next(8)],
                    topics: (0..next(3)).map(|_| topics[next(4)]).collect(),
                    group: [None, Some("a"), Some("z")][next(3)],
                    everything: next(8) == 0,
                };
                let found = RuleSet::find(&set, &asked);
                assert_eq!(found.is_some(), naive(&rules, &asked), "{rules:?} {}", asked.key);
                if found.is_some() {
                    assert!(set.may_allow(&asked), "what is allowed may be");
                }
            }
        }
    }
}
