//! HTTP rules: does any allow this request, and which?

use std::sync::Arc;

use crate::pattern::{Pattern, PatternSet};
use crate::rule::{HttpRule, Mismatch};
use crate::verdict::{HttpVerdict, Outcome, Reason, RuleId};

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

/// The rules of one connection.
#[derive(Debug)]
pub struct HttpRules {
    /// `None`: everything is allowed.
    pub(super) enforced: Option<Arc<HttpRuleSet>>,
    pub(super) audited: Audited,
}

/// What policies in audit mode would say.
#[derive(Debug)]
pub(super) enum Audited {
    Nothing,
    /// The whole connection would be denied.
    Denied(Option<RuleId>, Reason),
    Rules(Arc<HttpRuleSet>),
}

impl HttpRules {
    /// Judges a request. `edit` is called for every change that the matching rules ask for. Costs
    /// no allocation, and hardly more with many rules than with few.
    pub fn decide(
        &self,
        request: &impl HttpRequest,
        edit: &mut impl FnMut(HeaderEdit<'_>),
    ) -> HttpVerdict {
        let allowed = match &self.enforced {
            None => Ok((None, Reason::NotEnforced)),
            Some(rules) => match rules.find(request) {
                Some(rule) => Ok((Some(rule), Reason::RuleAllows)),
                None => Err(Reason::NoRuleAllows),
            },
        };
        let (rule, reason) = match allowed {
            Ok(allowed) => allowed,
            Err(reason) => return HttpVerdict { outcome: Outcome::Deny, rule: None, reason },
        };
        if let Some(rules) = &self.enforced {
            rules.amend(request, edit);
        }
        let (outcome, rule, reason) = match &self.audited {
            Audited::Nothing => (Outcome::Allow, rule, reason),
            Audited::Denied(rule, reason) => (Outcome::Audit, *rule, *reason),
            Audited::Rules(rules) => match rules.find(request) {
                Some(found) => (Outcome::Allow, rule.or(Some(found)), Reason::RuleAllows),
                None => (Outcome::Audit, None, Reason::NoRuleAllows),
            },
        };
        HttpVerdict { outcome, rule, reason }
    }
}

/// Rules of which one must match, compiled together.
#[derive(Debug)]
pub(crate) struct HttpRuleSet {
    /// In the order of the policies.
    rules: Vec<Compiled>,
    paths: PatternSet,
    /// For each pattern of `paths`, the rules that have it, ascending.
    by_path: Vec<Vec<u32>>,
    /// The rules that say nothing of the path, ascending.
    any_path: Vec<u32>,
    /// The rules that may change a request.
    amending: Vec<u32>,
}

#[derive(Debug)]
struct Compiled {
    id: RuleId,
    rule: Arc<HttpRule>,
}

impl HttpRuleSet {
    pub(crate) fn new(rules: impl IntoIterator<Item = (RuleId, Arc<HttpRule>)>) -> Self {
        let rules: Vec<_> = rules.into_iter().map(|(id, rule)| Compiled { id, rule }).collect();
        let mut paths: Vec<&Pattern> = Vec::new();
        let mut by_text = std::collections::HashMap::new();
        let mut by_path: Vec<Vec<u32>> = Vec::new();
        let mut any_path = Vec::new();
        let mut amending = Vec::new();
        for (index, Compiled { rule, .. }) in (0_u32..).zip(&rules) {
            match &rule.path {
                None => any_path.push(index),
                Some(path) => {
                    let place = *by_text.entry(path.as_str()).or_insert_with(|| {
                        paths.push(path);
                        by_path.push(Vec::new());
                        paths.len() - 1
                    });
                    by_path[place].push(index);
                }
            }
            let amends = |mismatch: &Mismatch| !matches!(mismatch, Mismatch::Fail | Mismatch::Log);
            if rule.headers.iter().any(|header| amends(&header.mismatch)) {
                amending.push(index);
            }
        }
        let paths = PatternSet::new(paths);
        Self { rules, paths, by_path, any_path, amending }
    }

    /// The first rule, in the order of the policies, that matches.
    fn find(&self, request: &impl HttpRequest) -> Option<RuleId> {
        let mut best = u32::MAX;
        self.first(&self.any_path, request, &mut best);
        self.paths.each_match(request.path(), &mut |pattern| {
            self.first(&self.by_path[pattern as usize], request, &mut best);
        });
        self.rules.get(best as usize).map(|found| found.id)
    }

    /// Lowers `best` to the first of `candidates` that matches in everything but the path.
    fn first(&self, candidates: &[u32], request: &impl HttpRequest, best: &mut u32) {
        for &index in candidates {
            if index >= *best {
                return;
            }
            if self.rules[index as usize].rule.matches_beyond_path(request) {
                *best = index;
                return;
            }
        }
    }

    /// Carries out what the matching rules ask for; unlike the verdict, this takes all of them.
    fn amend(&self, request: &impl HttpRequest, edit: &mut impl FnMut(HeaderEdit<'_>)) {
        for &index in &self.amending {
            let rule = &self.rules[index as usize].rule;
            let path = rule.path.as_ref().is_none_or(|path| path.matches(request.path()));
            if path && rule.matches_beyond_path(request) {
                rule.headers.iter().for_each(|header| header.amend(request, edit));
            }
        }
    }
}

impl HttpRule {
    fn matches_beyond_path(&self, request: &impl HttpRequest) -> bool {
        let holds = |pattern: &Option<Pattern>, value| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(value))
        };
        holds(&self.method, request.method())
            && holds(&self.host, request.host())
            && self.headers.iter().all(|header| header.lets_pass(request))
    }
}
