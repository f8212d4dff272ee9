//! Warnings: what is legal and surely not meant, as far as rules together show it.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Lines, Position, Severity};
use crate::rule::{
    Directed, Entry, HttpRule, L7, Mode, PeerSelector, Peers, Policy, PortRef, PortRule, PortSpec,
    Ports, TrafficDirection,
};
use crate::selector::{Operator, Requirement, Selector};
use crate::source::Source;

/// Most pairs of rules that are compared.
const MOST_PAIRS: usize = 4_000_000;

/// Looks at all policies.
pub(crate) fn warn(policies: &[Policy], sources: &[Source], found: &mut Vec<Diagnostic>) {
    let mut linter = Linter { sources, lines: HashMap::new(), found };
    // Rules for the same workloads, in one direction.
    let mut together: HashMap<(String, &str), Vec<(&Policy, &Directed)>> = HashMap::new();
    for policy in policies {
        for rule in &policy.rules {
            let subject = rule.subject.selector();
            if is_contradiction(subject) {
                let at = Position { line: policy.line, column: 1 };
                let message = format!("`{subject}` selects no workload, whatever its labels");
                linter.warning(policy, at, "spec", message, "two requirements exclude each other");
            }
            for direction in [TrafficDirection::Ingress, TrafficDirection::Egress] {
                let directed = rule.directed(direction);
                linter.entries(policy, directed);
                if rule.mode == Mode::Enforce {
                    let subject = subject.clone().canonical().to_string();
                    let key = (subject, direction.as_str());
                    together.entry(key).or_default().push((policy, directed));
                }
            }
        }
    }
    let mut together: Vec<_> = together.into_iter().collect();
    together.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, rules) in together {
        linter.opened(&rules);
    }
}

struct Linter<'a> {
    sources: &'a [Source],
    /// Where the lines of sources are that something was found in.
    lines: HashMap<String, Lines>,
    found: &'a mut Vec<Diagnostic>,
}

impl Linter<'_> {
    fn warning(&mut self, policy: &Policy, at: Position, path: &str, message: String, hint: &str) {
        let nowhere = Source::new(policy.source.as_str(), "");
        let known = self.sources.iter().find(|source| source.name == policy.source);
        let source = known.unwrap_or(&nowhere);
        let lines =
            self.lines.entry(source.name.clone()).or_insert_with(|| Lines::of(&source.text));
        let mut warning = Diagnostic::placed(Severity::Warning, source, lines, at, path);
        warning.message = message;
        warning.hint = Some(hint.to_owned());
        self.found.push(warning);
    }

    /// Each entry for itself: what can never match.
    fn entries(&mut self, policy: &Policy, directed: &Directed) {
        for (entry, _) in directed.entries() {
            let peers = match &entry.peers {
                Peers::Unsaid => &[],
                Peers::Of(peers) => peers.as_slice(),
            };
            let nobody = matches!(&entry.peers, Peers::Of(peers) if peers.is_empty());
            if nobody && matches!(entry.ports, Ports::Of(_)) {
                self.warning(
                    policy,
                    entry.at,
                    &entry.section,
                    "this is about nobody, so its ports are about nothing".to_owned(),
                    "an empty list of peers selects nobody; leave the field out to mean everybody",
                );
            }
            for peer in peers {
                if let PeerSelector::Endpoints(selector) = peer
                    && is_contradiction(selector)
                {
                    let message = format!("`{selector}` selects nobody, whatever the labels");
                    let hint = "two requirements exclude each other";
                    self.warning(policy, entry.at, &entry.section, message, hint);
                }
            }
            let Ports::Of(rules) = &entry.ports else { continue };
            for rule in rules {
                self.port_rule(policy, rule);
            }
        }
    }

    fn port_rule(&mut self, policy: &Policy, rule: &PortRule) {
        if rule.ports.is_empty() {
            self.warning(
                policy,
                rule.at,
                &rule.section,
                "without `ports` this allows nothing".to_owned(),
                "name ports, or leave `toPorts` out to mean all of them",
            );
        }
        let L7::Http(rules) = &rule.rules else { return };
        let mut seen: HashMap<String, &str> = HashMap::new();
        let mut open: Option<&str> = None;
        for rule in rules {
            let last = short(&rule.section);
            if let Some(open) = open {
                let message = format!("`{open}` allows every request, so this one adds nothing");
                let hint = "remove one of them";
                self.warning(policy, rule.at, &rule.section, message, hint);
            } else if let Some(first) = seen.insert(signature(rule), last) {
                let message = format!("this says the same as `{first}`");
                self.warning(policy, rule.at, &rule.section, message, "remove one of them");
            }
            if rule.is_empty() {
                open = Some(last);
            }
        }
    }

    /// Entries that another makes ineffective: one without rules opens one with rules, and what is
    /// denied is not allowed.
    fn opened(&mut self, rules: &[(&Policy, &Directed)]) {
        let of = |denies: bool| {
            rules.iter().flat_map(move |(policy, directed)| {
                let entries = if denies { &directed.deny } else { &directed.allow };
                entries.iter().map(move |entry| (*policy, entry))
            })
        };
        let plain: Vec<(&Policy, &Entry, Reach<'_>)> = of(false)
            .flat_map(|(policy, entry)| reaches(entry).map(move |r| (policy, entry, r)))
            .collect();
        let denied: Vec<(&Policy, &Entry, Reach<'_>)> = of(true)
            .flat_map(|(policy, entry)| reaches(entry).map(move |r| (policy, entry, r)))
            .collect();
        let mut pairs = 0;
        for (policy, entry) in of(false).filter(|(_, entry)| entry.mode == Mode::Enforce) {
            let Ports::Of(port_rules) = &entry.ports else { continue };
            for rule in port_rules.iter().filter(|rule| !rule.ports.is_empty()) {
                pairs += plain.len() + denied.len();
                if pairs > MOST_PAIRS {
                    return;
                }
                let covers = |other: &&(&Policy, &Entry, Reach<'_>)| {
                    !std::ptr::eq(other.1, entry) && other.2.covers(rule) && wider(other.1, entry)
                };
                if let Some((by, other, _)) = denied.iter().find(covers) {
                    let message = format!(
                        "{} `{}` denies all of this, so it allows nothing",
                        by.name, other.section
                    );
                    let hint = "a deny entry beats everything; remove one of the two";
                    self.warning(policy, rule.at, &rule.section, message, hint);
                    continue;
                }
                if matches!(rule.rules, L7::Opaque | L7::Dns(_)) {
                    continue;
                }
                if let Some((by, other, _)) = plain.iter().find(covers) {
                    let message = format!(
                        "{} `{}` allows the same peers on this port whatever they ask, so these rules \
                         refuse nothing",
                        by.name, other.section
                    );
                    let hint =
                        "take the port or the peers out of the other entry, or give it rules, too";
                    self.warning(policy, rule.at, &rule.section, message, hint);
                }
            }
        }
    }
}

/// The ports that an entry is about without rules.
enum Reach<'a> {
    All,
    Of(&'a PortRule),
}

fn reaches(entry: &Entry) -> impl Iterator<Item = Reach<'_>> {
    let (all, rules) = match &entry.ports {
        Ports::All => (Some(Reach::All), &[][..]),
        Ports::Of(rules) => (None, rules.as_slice()),
    };
    let plain = |rule: &&PortRule| {
        matches!(rule.rules, L7::Opaque) && rule.server_names.is_empty() && rule.listener.is_none()
    };
    let enforced = entry.mode == Mode::Enforce;
    all.into_iter().chain(rules.iter().filter(plain).map(Reach::Of)).filter(move |_| enforced)
}

impl Reach<'_> {
    fn covers(&self, rule: &PortRule) -> bool {
        match self {
            Self::All => true,
            Self::Of(own) => {
                rule.ports.iter().all(|port| own.ports.iter().any(|o| contains(o, port)))
            }
        }
    }
}

fn contains(outer: &PortSpec, inner: &PortSpec) -> bool {
    let protocol = outer.protocol.is_none() || outer.protocol == inner.protocol;
    protocol
        && match (&outer.port, &inner.port) {
            (PortRef::Numbers(0, _), _) => true,
            (PortRef::Numbers(a, b), PortRef::Numbers(c, d)) => *c > 0 && a <= c && d <= b,
            (outer, inner) => outer == inner,
        }
}

/// Whether one entry is about everybody that the other is about.
fn wider(outer: &Entry, inner: &Entry) -> bool {
    let outer = match &outer.peers {
        Peers::Unsaid => return true,
        Peers::Of(outer) => outer,
    };
    let Peers::Of(inner) = &inner.peers else { return outer.contains(&PeerSelector::All) };
    !inner.is_empty() && inner.iter().all(|inner| outer.iter().any(|outer| includes(outer, inner)))
}

fn includes(outer: &PeerSelector, inner: &PeerSelector) -> bool {
    match (outer, inner) {
        (PeerSelector::All, _) => true,
        (PeerSelector::Endpoints(outer), PeerSelector::Endpoints(inner)) => {
            outer.requirements.iter().all(|own| inner.requirements.contains(own))
        }
        (outer, inner) => outer == inner,
    }
}

/// Whether two requirements of a selector can't both be fulfilled.
fn is_contradiction(selector: &Selector) -> bool {
    let requirements = &selector.requirements;
    requirements.iter().enumerate().any(|(index, one)| {
        requirements[index + 1..].iter().any(|two| excludes(one, two) || excludes(two, one))
    })
}

fn excludes(one: &Requirement, two: &Requirement) -> bool {
    if one.key != two.key || one.source != two.source {
        return false;
    }
    match (&one.operator, &two.operator) {
        (Operator::In(one), Operator::In(two)) => !one.iter().any(|value| two.contains(value)),
        (Operator::In(wanted), Operator::NotIn(unwanted)) => {
            wanted.iter().all(|value| unwanted.contains(value))
        }
        (Operator::In(_) | Operator::Exists, Operator::DoesNotExist) => true,
        _ => false,
    }
}

/// What a rule says, to find it said twice.
fn signature(rule: &HttpRule) -> String {
    let text = |pattern: &Option<crate::Pattern>| {
        pattern.as_ref().map(|pattern| pattern.as_str().to_owned()).unwrap_or_default()
    };
    let headers: Vec<String> = rule
        .headers
        .iter()
        .map(|header| format!("{} {:?} {:?}", header.name, header.value, header.mismatch))
        .collect();
    let (method, path, host) = (text(&rule.method), text(&rule.path), text(&rule.host));
    format!("{method}\n{path}\n{host}\n{}\n{:?}", headers.join("\n"), rule.query)
}

/// The last part of a place: `http[1]`.
fn short(section: &str) -> &str {
    section.rsplit('.').next().unwrap_or(section)
}
