//! Rules about what is said on a connection, as text: for who looks at a policy, not for a decision.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::rules::Spoken;
use super::{DnsRuleSet, GenericRuleSet, HttpRuleSet, KafkaRuleSet, ServerNames};
use crate::document::kafka_apis;
use crate::generic::{GenericMatch, KeyMatch};
use crate::name::NamePattern;
use crate::rule::{HeaderMatch, HttpRule, KafkaRule, Mismatch, QueryMatch, TextMatch, ValueMatch};
use crate::verdict::{Inspection, RuleId};

/// One rule about what is said on a connection. Of several, one must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRule {
    /// Which it is.
    pub rule: Option<RuleId>,
    /// What it allows, in one line, by the names of a policy's fields.
    pub text: String,
    /// It is in audit mode: what no such rule allows passes, marked.
    pub audited: bool,
}

impl Inspection {
    /// What may be said, rule by rule. What is handed to another proxy's listener is not known here.
    #[must_use]
    pub fn request_rules(&self) -> Vec<RequestRule> {
        match self {
            Self::Http(rules) => rows(rules.spoken()),
            Self::Kafka(rules) => rows(rules.spoken()),
            Self::Dns(rules) => rows(rules.spoken()),
            Self::Generic(rules) => rows(rules.spoken()),
            Self::Tls(tls) => {
                let inner = tls.inner.as_ref().map(Self::request_rules).unwrap_or_default();
                rows(tls.server_names.spoken()).into_iter().chain(inner).collect()
            }
            Self::Listener(_) => Vec::new(),
        }
    }
}

/// Rules of one protocol that can be put into words.
pub(super) trait Describe {
    /// One text for each rule, in their order.
    fn texts(&self) -> Vec<String>;
}

fn rows<S: Describe>(spoken: Spoken<'_, S>) -> Vec<RequestRule> {
    let (mut all, mut told) = (Vec::new(), FxHashSet::default());
    for (rules, audited) in [(spoken.enforced, false), (spoken.audited, true)] {
        let Some(rules) = rules else { continue };
        let ids = rules.ids.iter().chain(&rules.open).copied();
        let texts = rules.set.texts().into_iter().chain([ANYTHING.to_owned()]);
        for (rule, text) in ids.zip(texts) {
            // Rules in audit mode are seen together with those in force, which stand above.
            if told.insert(rule.index()) {
                all.push(RequestRule { rule: Some(rule), text, audited });
            }
        }
    }
    if let Some(rule) = spoken.would_be_denied {
        all.push(RequestRule { rule, text: "nothing".to_owned(), audited: true });
    }
    all
}

/// A rule without a condition.
const ANYTHING: &str = "anything";

fn joined(parts: Vec<String>) -> String {
    if parts.is_empty() { ANYTHING.to_owned() } else { parts.join(", ") }
}

impl Describe for HttpRuleSet {
    fn texts(&self) -> Vec<String> {
        self.rules().iter().map(http).collect()
    }
}

fn http(rule: &Arc<HttpRule>) -> String {
    let HttpRule { section: _, at: _, method, path, host, headers, query } = &**rule;
    let mut parts = Vec::new();
    for (name, pattern) in [("method", method), ("path", path), ("host", host)] {
        parts.extend(pattern.as_ref().map(|pattern| format!("{name} {}", pattern.as_str())));
    }
    parts.extend(headers.iter().map(header));
    parts.extend(query.iter().map(|QueryMatch { name, value: wanted }| {
        format!("query parameter {name} {}", value(wanted))
    }));
    joined(parts)
}

fn header(header: &HeaderMatch) -> String {
    let HeaderMatch { name, value: wanted, mismatch } = header;
    let otherwise = match mismatch {
        Mismatch::Fail => "",
        Mismatch::Log => " (otherwise logged)",
        Mismatch::Add(_) => " (otherwise added)",
        Mismatch::Delete => " (otherwise removed)",
        Mismatch::Replace(_) => " (otherwise replaced)",
    };
    format!("header {name} {}{otherwise}", value(wanted))
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Present => "present".to_owned(),
        ValueMatch::Absent => "absent".to_owned(),
        ValueMatch::Exact(text) => format!("`{text}`"),
        ValueMatch::Prefix(text) => format!("begins with `{text}`"),
        ValueMatch::Suffix(text) => format!("ends with `{text}`"),
        ValueMatch::Matches(pattern) => format!("matches `{}`", pattern.as_str()),
        ValueMatch::Inside(prefixes) => {
            let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
            format!("inside of {}", prefixes.join(" or "))
        }
        ValueMatch::Unknown => "of a secret that can't be read".to_owned(),
    }
}

impl Describe for KafkaRuleSet {
    fn texts(&self) -> Vec<String> {
        self.rules().iter().map(kafka).collect()
    }
}

fn kafka(rule: &Arc<KafkaRule>) -> String {
    let KafkaRule { section: _, api_keys, api_version, client_id, topic, group } = &**rule;
    let mut parts = Vec::new();
    parts.extend(api_keys.map(kafka_apis));
    parts.extend(api_version.map(|version| format!("version {version}")));
    parts.extend(client_id.as_ref().map(|id| format!("client id {id}")));
    for (name, wanted) in [("topic", topic), ("group", group)] {
        parts.extend(wanted.as_ref().map(|wanted| match wanted {
            TextMatch::Exact(text) => format!("{name} {text}"),
            TextMatch::Matches(pattern) => format!("{name} matches `{}`", pattern.as_str()),
        }));
    }
    joined(parts)
}

impl Describe for DnsRuleSet {
    fn texts(&self) -> Vec<String> {
        self.rules().iter().map(|rule| names(&rule.names)).collect()
    }
}

fn names(all: &[NamePattern]) -> String {
    match all {
        [] => ANYTHING.to_owned(),
        all => {
            let all: Vec<_> = all.iter().map(NamePattern::as_str).collect();
            format!("name {}", all.join(" or "))
        }
    }
}

impl Describe for ServerNames {
    fn texts(&self) -> Vec<String> {
        self.lists().iter().map(|list| names(list)).collect()
    }
}

impl Describe for GenericRuleSet {
    fn texts(&self) -> Vec<String> {
        self.rules().iter().map(|rule| generic(&rule.meaning)).collect()
    }
}

fn generic(meaning: &GenericMatch) -> String {
    let mut parts = Vec::new();
    match meaning {
        GenericMatch::Cassandra { action, table } => {
            parts.extend(action.as_ref().map(|action| format!("query_action {action}")));
            parts.extend(table.as_ref().map(|table| format!("query_table {}", table.as_str())));
        }
        GenericMatch::Memcache { commands, key } => {
            parts.extend(commands.map(|commands| format!("command {}", commands.join(" or "))));
            parts.extend(key.as_ref().map(|key| match key {
                KeyMatch::Exact(key) => format!("key {key}"),
                KeyMatch::Prefix(key) => format!("key begins with `{key}`"),
                KeyMatch::Matches(key) => format!("key matches `{}`", key.as_str()),
            }));
        }
        GenericMatch::R2d2 { command, file } => {
            parts.extend(command.as_ref().map(|command| format!("cmd {command}")));
            parts.extend(file.as_ref().map(|file| format!("file {}", file.as_str())));
        }
        GenericMatch::Unreadable(why) => return format!("nothing: {why}"),
    }
    joined(parts)
}

#[cfg(test)]
mod tests {
    use crate::{
        Action, Directory, Endpoint, EndpointPolicy, Options, Protocol, Repository, Source,
        TrafficDirection,
    };

    /// What the rules of a port say, as `rules` has them in a policy.
    fn said(kind: &str, rules: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: {kind}\nmetadata: {{name: p, namespace: default}}\nspec:\n  \
             endpointSelector: {{}}\n  ingress:\n  - toPorts:\n    - ports: [{{port: '80', protocol: \
             TCP}}]\n      {rules}\n"
        );
        let repository = Repository::parse([Source::new("p.yaml", &*text)]).expect("a good policy");
        let endpoint = Endpoint::new("w", "default", "app=w".parse().expect("labels"));
        let (nobody, options) = (Directory::default(), Options::default());
        let policy = EndpointPolicy::resolve(&repository, &endpoint, &nobody, &options);
        let policy = policy.expect("a good policy");
        let world = policy.identify([192, 0, 2, 1].into());
        let verdict = policy.connection(TrafficDirection::Ingress, world, Protocol::Tcp, 80);
        let Action::Inspect(what) = verdict.action else { panic!("{verdict:?}") };
        what.request_rules()
            .into_iter()
            .map(|rule| {
                let audit = if rule.audited { "audit: " } else { "" };
                let section = rule.rule.map(|id| policy.rule(id).section().to_owned());
                assert!(section.is_some_and(|section| section.starts_with("spec.ingress[")));
                format!("{audit}{}", rule.text)
            })
            .collect()
    }

    const CILIUM: &str = "cilium.io/v2\nkind: CiliumNetworkPolicy";
    const OURS: &str = "portreeve.dev/v1alpha1\nkind: TrafficPolicy";

    #[test]
    fn rules_about_requests_are_told_by_the_names_of_their_fields() {
        let http = "rules: {http: [{method: GET, path: /public/.*}, {headers: ['X-Role: admin', X-Any], \
                    headerMatches: [{name: x-id, value: '7', mismatch: REPLACE}]}]}";
        assert_eq!(
            said(CILIUM, http),
            [
                "method GET, path /public/.*",
                "header X-Role `admin`, header X-Any present, header x-id `7` (otherwise replaced)",
            ]
        );
        let kafka =
            "rules: {kafka: [{role: produce, topic: orders}, {apiKey: fetch, clientID: c}]}";
        assert_eq!(
            said(CILIUM, kafka),
            ["role produce, topic orders", "apiKey fetch, client id c"]
        );
        let ours = "rules: {http: [{query: [{name: page, prefix: a}]}]}";
        assert_eq!(said(OURS, ours), ["query parameter page begins with `a`"]);
    }

    #[test]
    fn rules_in_audit_mode_are_told_beside_those_in_force() {
        let both = "rules: {http: [{method: GET}]}\n  - mode: audit\n    toPorts:\n    - ports: \
                    [{port: '80', protocol: TCP}]\n      rules: {http: [{method: GET, path: /a}]}";
        assert_eq!(said(OURS, both), ["method GET", "audit: method GET, path /a"]);
    }
}
