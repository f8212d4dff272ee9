//! HTTP rules: does any allow this request, and which?

use std::sync::Arc;

use super::index::{Asked, Decided, Index};
use super::rules::RuleSet;
use crate::pattern::Pattern;
use crate::rule::{HttpRule, Mismatch};

/// A request as policy sees it. Implement it on a borrowed view; nothing is copied.
pub trait HttpRequest {
    /// The method, case kept.
    fn method(&self) -> &[u8];
    /// Path and query, normalised.
    fn path(&self) -> &[u8];
    /// `Host`, port included.
    fn host(&self) -> &[u8];
    /// The values of the fields of this name, whatever its case, in order.
    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]>;
}

/// A change to the head of an allowed request that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderEdit<'a> {
    /// Add a field.
    Add {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Remove every field of this name.
    Remove {
        /// The name.
        name: &'a str,
    },
    /// Remove every field of this name, then add one.
    Replace {
        /// The name.
        name: &'a str,
        /// The new value.
        value: &'a str,
    },
}

/// Rules of which one must match, compiled together.
#[derive(Debug)]
pub(crate) struct HttpRuleSet {
    /// In the order of the policies.
    rules: Vec<Arc<HttpRule>>,
    index: Index,
    /// The rules that may change a request.
    amending: Vec<u32>,
}

impl HttpRuleSet {
    pub(crate) fn new(rules: Vec<Arc<HttpRule>>) -> Self {
        let amends = |rule: &HttpRule| {
            let amends = |mismatch: &Mismatch| !matches!(mismatch, Mismatch::Fail | Mismatch::Log);
            rule.headers.iter().any(|header| amends(&header.mismatch))
        };
        let amending = (0..).zip(&rules).filter(|(_, rule)| amends(rule)).map(|(i, _)| i).collect();
        let index = Index::new(&rules);
        Self { rules, index, amending }
    }

    pub(super) fn rules(&self) -> &[Arc<HttpRule>] {
        &self.rules
    }

    /// Carries out what the matching rules ask for; unlike the verdict, this takes all of them.
    pub(super) fn amend(&self, request: &impl HttpRequest, edit: &mut impl FnMut(HeaderEdit<'_>)) {
        for &index in &self.amending {
            let rule = &self.rules[index as usize];
            if rule.matches(request, Decided::default()) {
                rule.headers.iter().for_each(|header| header.amend(request, edit));
            }
        }
    }

    /// Most steps that judging a request can take.
    pub(crate) fn worst_cost(&self) -> usize {
        self.index.worst_cost() + self.amending.len()
    }

    /// Bytes held by automata.
    pub(crate) fn memory(&self) -> usize {
        self.index.memory(&mut rustc_hash::FxHashSet::default())
    }
}

impl<R: HttpRequest> RuleSet<R> for HttpRuleSet {
    fn find(&self, request: &R) -> Option<u32> {
        let mut best = u32::MAX;
        self.index.first(&self.rules, &Asked::new(request), &mut best);
        (best != u32::MAX).then_some(best)
    }
}

impl HttpRule {
    /// Whether the rule allows the request, but for what is decided.
    pub(super) fn matches(&self, request: &impl HttpRequest, decided: Decided) -> bool {
        let holds = |decided: bool, pattern: &Option<Pattern>, value| {
            decided || pattern.as_ref().is_none_or(|pattern| pattern.matches(value))
        };
        holds(decided.path, &self.path, request.path())
            && holds(decided.method, &self.method, request.method())
            && holds(decided.host, &self.host, request.host())
            && self.headers.iter().all(|header| header.lets_pass(request))
            && self.query.iter().all(|parameter| parameter.is_met(request.path()))
    }

    /// A sentence for everything of the request that the rule does not match.
    pub(crate) fn mismatches(&self, request: &impl HttpRequest) -> Vec<String> {
        let mut found = Vec::new();
        let parts = [
            ("method", &self.method, request.method()),
            ("path", &self.path, request.path()),
            ("host", &self.host, request.host()),
        ];
        for (name, pattern, value) in parts {
            if let Some(pattern) = pattern
                && !pattern.matches(value)
            {
                let value = String::from_utf8_lossy(value);
                found.push(format!("{name} `{value}` does not match `{}`", pattern.as_str()));
            }
        }
        for header in self.headers.iter().filter(|header| !header.lets_pass(request)) {
            found.push(match request.header_values(&header.name).next() {
                None => format!("header `{}` is not there", header.name),
                Some(value) => {
                    let value = String::from_utf8_lossy(value);
                    format!("header `{}: {value}` is not as the rule wants it", header.name)
                }
            });
        }
        for parameter in self.query.iter().filter(|query| !query.is_met(request.path())) {
            found.push(format!("query parameter `{}` is not as the rule wants it", parameter.name));
        }
        found
    }
}
