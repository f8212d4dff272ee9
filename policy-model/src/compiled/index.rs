//! Finding the rules that may match a request without trying all of them.
//!
//! Rules are parted by whatever tells most of them apart (path, host, method, a header field), each
//! part again by something else, until few are left to be tried one by one. The patterns of each
//! parting are compiled together.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::http::HttpRequest;
use crate::pattern::{Pattern, PatternSet, joined};
use crate::rule::{HttpRule, Mismatch, ValueMatch};

/// So many rules are tried one by one rather than parted again.
const FEW: usize = 4;
/// Header names that are looked at as something to part by.
const HEADERS: usize = 4;

/// Rules, by their place in the order of the policies.
#[derive(Debug)]
pub(super) enum Index {
    /// Only one.
    One(Candidate),
    /// Ascending; to be tried one by one.
    List(Box<[Candidate]>),
    Split(Box<Split>),
}

/// A rule, with what is cheap to ask of a request before the rule itself is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    rule: u32,
    /// A bit for each of the usual methods that it allows.
    methods: u16,
    /// What the way here and the methods have decided.
    decided: Decided,
    /// There is more to look at.
    more: bool,
}

/// A request with what is asked of it often.
pub(super) struct Asked<'r, R> {
    pub(super) request: &'r R,
    method: u16,
}

impl<'r, R: HttpRequest> Asked<'r, R> {
    pub(super) fn new(request: &'r R) -> Self {
        Self { request, method: method_bit(request.method()) }
    }
}

/// The usual methods; the last bit stands for all others.
const METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"CONNECT", b"TRACE"];
const OTHER_METHOD: u16 = 1 << 15;

fn method_bit(method: &[u8]) -> u16 {
    METHODS.iter().position(|known| *known == method).map_or(OTHER_METHOD, |bit| 1 << bit)
}

impl Candidate {
    fn new(index: u32, rule: &HttpRule, mut decided: Decided) -> Self {
        let mut methods = u16::MAX;
        if let Some(pattern) = &rule.method
            && !decided.method
            && let Some(mask) = method_mask(pattern)
        {
            methods = mask;
            decided.method = true;
        }
        let left = |decided: bool, pattern: &Option<Pattern>| !decided && pattern.is_some();
        let more = left(decided.path, &rule.path)
            || left(decided.method, &rule.method)
            || left(decided.host, &rule.host)
            || !rule.headers.is_empty()
            || !rule.query.is_empty();
        Self { rule: index, methods, decided, more }
    }

    fn matches<R: HttpRequest>(&self, rules: &[Arc<HttpRule>], asked: &Asked<'_, R>) -> bool {
        self.methods & asked.method != 0
            && (!self.more || rules[self.rule as usize].matches(asked.request, self.decided))
    }
}

/// The methods of a pattern that names nothing but usual ones.
fn method_mask(pattern: &Pattern) -> Option<u16> {
    let mut mask = 0;
    for literal in pattern.literals()? {
        mask |= match method_bit(literal) {
            OTHER_METHOD => return None,
            bit => bit,
        };
    }
    Some(mask)
}

/// Rules parted by one property of requests.
#[derive(Debug)]
pub(super) struct Split {
    by: Dimension,
    patterns: PatternSet,
    /// For each pattern, the rules that have it.
    having: Vec<Index>,
    /// The rules that say nothing of this property.
    other: Index,
}

/// A property of requests that rules have patterns for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dimension {
    Path,
    Method,
    Host,
    Header(String),
}

/// The properties that need not be looked at again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decided {
    pub(super) path: bool,
    pub(super) method: bool,
    pub(super) host: bool,
}

impl Index {
    pub(super) fn new(rules: &[Arc<HttpRule>]) -> Self {
        let all: Vec<u32> = (0_u32..).zip(rules).map(|(index, _)| index).collect();
        build(rules, all, &mut Vec::new())
    }

    /// Lowers `best` to the first rule that matches, if it comes before.
    pub(super) fn first<R: HttpRequest>(
        &self,
        rules: &[Arc<HttpRule>],
        asked: &Asked<'_, R>,
        best: &mut u32,
    ) {
        let split = match self {
            Self::Split(split) => split,
            Self::One(candidate) => {
                if candidate.rule < *best && candidate.matches(rules, asked) {
                    *best = candidate.rule;
                }
                return;
            }
            Self::List(list) => {
                let first = list
                    .iter()
                    .take_while(|candidate| candidate.rule < *best)
                    .find(|candidate| candidate.matches(rules, asked));
                if let Some(candidate) = first {
                    *best = candidate.rule;
                }
                return;
            }
        };
        split.other.first(rules, asked, best);
        let mut found = |pattern: u32| split.having[pattern as usize].first(rules, asked, best);
        let request = asked.request;
        match &split.by {
            Dimension::Path => split.patterns.each_match(request.path(), &mut found),
            Dimension::Method => split.patterns.each_match(request.method(), &mut found),
            Dimension::Host => split.patterns.each_match(request.host(), &mut found),
            Dimension::Header(name) => {
                joined(request.header_values(name), &mut |value| {
                    split.patterns.each_match(value, &mut found);
                });
            }
        }
    }

    /// Most steps that a request can cost: patterns run, and rules tried.
    pub(super) fn worst_cost(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::List(list) => list.len(),
            Self::Split(split) => {
                let cost = |pattern: u32| split.having[pattern as usize].worst_cost();
                split.other.worst_cost() + split.patterns.worst_cost(&cost)
            }
        }
    }

    /// Bytes held by automata, each counted once.
    pub(super) fn memory(&self, seen: &mut FxHashSet<usize>) -> usize {
        match self {
            Self::One(_) | Self::List(_) => 0,
            Self::Split(split) => {
                let below: usize = split.having.iter().map(|index| index.memory(seen)).sum();
                split.other.memory(seen) + split.patterns.memory(seen) + below
            }
        }
    }
}

fn build(rules: &[Arc<HttpRule>], part: Vec<u32>, used: &mut Vec<Dimension>) -> Index {
    if part.len() > FEW
        && let Some(parting) = best_parting(rules, &part, used)
    {
        return split(rules, &part, used, parting);
    }
    let decided = Decided {
        path: used.contains(&Dimension::Path),
        method: used.contains(&Dimension::Method),
        host: used.contains(&Dimension::Host),
    };
    let candidate = |index: u32| Candidate::new(index, &rules[index as usize], decided);
    match part.as_slice() {
        [only] => Index::One(candidate(*only)),
        part => Index::List(part.iter().copied().map(candidate).collect()),
    }
}

fn split(rules: &[Arc<HttpRule>], part: &[u32], used: &mut Vec<Dimension>, by: Dimension) -> Index {
    let mut patterns: Vec<Cow<'_, Pattern>> = Vec::new();
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    let mut having: Vec<Vec<u32>> = Vec::new();
    let mut other = Vec::new();
    for &index in part {
        match by.of(&rules[index as usize]) {
            None => other.push(index),
            Some(pattern) => {
                let place = *places.entry(pattern.text()).or_insert(having.len());
                if place == having.len() {
                    patterns.push(pattern);
                    having.push(Vec::new());
                }
                having[place].push(index);
            }
        }
    }
    let patterns = PatternSet::new(patterns.iter().map(AsRef::as_ref));
    used.push(by.clone());
    let having = having.into_iter().map(|part| build(rules, part, used)).collect();
    // What says nothing of this property has not been decided by it; that there is none to look at
    // comes to the same.
    let other = build(rules, other, used);
    used.pop();
    Index::Split(Box::new(Split { by, patterns, having, other }))
}

/// The property by which the largest part becomes smallest.
fn best_parting(rules: &[Arc<HttpRule>], part: &[u32], used: &[Dimension]) -> Option<Dimension> {
    let mut candidates = vec![Dimension::Path, Dimension::Host, Dimension::Method];
    candidates.extend(frequent_headers(rules, part));
    candidates
        .into_iter()
        .filter(|dimension| !used.contains(dimension))
        .map(|dimension| (largest_part(rules, part, &dimension), dimension))
        .min_by_key(|(largest, _)| *largest)
        .filter(|(largest, _)| *largest < part.len())
        .map(|(_, dimension)| dimension)
}

/// How many rules are left to be tried in the largest part.
fn largest_part(rules: &[Arc<HttpRule>], part: &[u32], by: &Dimension) -> usize {
    let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
    let mut other = 0;
    for &index in part {
        match by.of(&rules[index as usize]) {
            Some(pattern) => *counts.entry(pattern.text()).or_default() += 1,
            None => other += 1,
        }
    }
    other + counts.into_values().max().unwrap_or(0)
}

fn frequent_headers(rules: &[Arc<HttpRule>], part: &[u32]) -> Vec<Dimension> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for &index in part {
        for header in &rules[index as usize].headers {
            if !header.name.starts_with(':') && header.mismatch == Mismatch::Fail {
                *counts.entry(header.name.to_ascii_lowercase()).or_default() += 1;
            }
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.into_iter().take(HEADERS).map(|(name, _)| Dimension::Header(name)).collect()
}

impl Dimension {
    /// The pattern that a rule has for this property.
    fn of<'r>(&self, rule: &'r HttpRule) -> Option<Cow<'r, Pattern>> {
        match self {
            Self::Path => rule.path.as_ref().map(Cow::Borrowed),
            Self::Method => rule.method.as_ref().map(Cow::Borrowed),
            Self::Host => rule.host.as_ref().map(Cow::Borrowed),
            Self::Header(name) => rule
                .headers
                .iter()
                .filter(|header| header.mismatch == Mismatch::Fail)
                .filter(|header| header.name.eq_ignore_ascii_case(name))
                .find_map(|header| match &header.value {
                    ValueMatch::Exact(value) => Some(Cow::Owned(Pattern::literal(value))),
                    ValueMatch::Prefix(prefix) => Some(Cow::Owned(Pattern::prefix(prefix))),
                    ValueMatch::Matches(pattern) => Some(Cow::Borrowed(pattern)),
                    _ => None,
                }),
        }
    }
}
