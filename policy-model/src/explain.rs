//! Explaining an answer: which policies select the workload, which of their rules are about the peer
//! and the port, and what of a request did not match.

use crate::case::{Answer, DecidingRule, Normalise, Normalised, Question};
use crate::case::{HttpView, answer};
use crate::compiled::EndpointPolicy;
use crate::directory::Directory;
use crate::endpoint::Endpoint;
use crate::identity::{Identity, Known};
use crate::repository::Repository;
use crate::resolve::{Options, of_service, requirements_of, selects};
use crate::rule::{
    Entry, L7, Mode, PeerSelector, Peers, Policy, PortRef, PortRule, PortSpec, Ports, Protocol,
    Rule, TrafficDirection,
};
use crate::selector::Selector;
use crate::verdict::{Action, Inspection, Reason};

/// An answer and the way to it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The question in one line.
    pub question: String,
    /// The answer.
    pub answer: Answer,
    /// Why, in the words of the access log, or the error.
    pub reason: String,
    /// The rule that decided.
    pub rule: Option<DecidingRule>,
    /// Who the peer is to policy: its labels.
    pub peer: String,
    /// Whether the direction is restricted at all.
    pub enforced: bool,
    /// What became of the connection, before anything was said on it, and why: in a sentence.
    pub connection: String,
    /// Every policy, and whether it is about the workload.
    pub policies: Vec<PolicyTrace>,
    /// Every entry of the direction, of the policies that select the workload.
    pub entries: Vec<EntryTrace>,
}

/// A rule of a policy, and whether it selects the workload.
#[derive(Clone, Debug)]
pub struct PolicyTrace {
    /// Namespace and name.
    pub policy: String,
    /// Its kind.
    pub kind: &'static str,
    /// The file and line it was read from.
    pub source: String,
    /// Which `spec` it is, from 0.
    pub rule: usize,
    /// Whether it selects the workload.
    pub selects: bool,
    /// What it asks of a workload.
    pub subject: String,
    /// In audit mode it refuses nothing.
    pub audit: bool,
}

/// An entry, and how far it matches.
#[derive(Clone, Debug)]
pub struct EntryTrace {
    /// Where it is.
    pub rule: DecidingRule,
    /// It denies what it matches.
    pub denies: bool,
    /// In audit mode it neither grants nor refuses.
    pub audit: bool,
    /// Whom it is about.
    pub peers: String,
    /// Whether that is the peer.
    pub peer_matches: bool,
    /// Which ports it is about.
    pub ports: String,
    /// Whether that is the port.
    pub port_matches: bool,
    /// What may be said there; empty: anything.
    pub requests: Vec<RequestTrace>,
}

impl EntryTrace {
    /// Whether the entry is about the connection.
    #[must_use]
    pub fn matches(&self) -> bool {
        self.peer_matches && self.port_matches
    }
}

/// A rule about requests, and what of the request it does not match.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    /// Where it is.
    pub rule: DecidingRule,
    /// One sentence for each field that does not match; none: it does.
    pub mismatches: Vec<String>,
}

impl Explanation {
    /// The request rule that lacks least, of the entries that are about the connection.
    #[must_use]
    pub fn nearest(&self) -> Option<&RequestTrace> {
        let about = self.entries.iter().filter(|entry| entry.matches() && !entry.denies);
        about.flat_map(|entry| &entry.requests).min_by_key(|request| request.mismatches.len())
    }
}

/// Answers a question, and tells the way to the answer.
pub fn explain(
    repository: &Repository,
    subject: &Endpoint,
    directory: &Directory,
    options: &Options,
    question: &Question,
    normalise: Normalise<'_>,
) -> Explanation {
    let labels = subject.labels.clone().placed(&subject.namespace);
    let of = |policy: &Policy, rule: &Rule, index: usize| PolicyTrace {
        policy: policy.name.to_string(),
        kind: policy.name.kind,
        source: format!("{}:{}", policy.source, policy.line),
        rule: index,
        selects: selects(&rule.subject, &labels, options),
        subject: rule.subject.selector().to_string(),
        audit: rule.mode == Mode::Audit,
    };
    let policies: Vec<PolicyTrace> = repository
        .policies
        .iter()
        .flat_map(|policy| {
            policy.rules.iter().enumerate().map(move |(i, rule)| of(policy, rule, i))
        })
        .collect();
    let mut explanation = Explanation {
        question: question.describe(&subject.name),
        answer: Answer::ResolveError,
        reason: String::new(),
        rule: None,
        peer: String::new(),
        enforced: true,
        connection: String::new(),
        policies,
        entries: Vec::new(),
    };
    let policy = match EndpointPolicy::resolve(repository, subject, directory, options) {
        Ok(policy) => policy,
        Err(error) => {
            explanation.reason = error.to_string();
            return explanation;
        }
    };
    let who = question.peer.who(&policy);
    (explanation.answer, explanation.rule, explanation.reason) =
        answer(question, who, &policy, normalise);
    explanation.connection = connection(question, who, &policy);
    policy.labels(who).clone_into(&mut explanation.peer);
    explanation.enforced = policy.is_enforced(question.direction);
    if let Some(known) = policy.identities.get(who) {
        let tracer = Tracer { repository, subject, directory, question, known, normalise };
        explanation.entries = tracer.entries(&labels, options);
    }
    explanation
}

/// What becomes of a connection, and why.
fn connection(question: &Question, who: Identity, policy: &EndpointPolicy) -> String {
    let verdict = policy.connection(question.direction, who, question.protocol, question.port);
    let rule = verdict.rule.map(|id| policy.rule(id));
    let rule = rule.map_or_else(String::new, |rule| match rule.policy() {
        "" => format!("`{}`", rule.section()),
        policy => format!("{policy} `{}`", rule.section()),
    });
    let what = match (&verdict.action, verdict.reason) {
        (Action::Deny, Reason::RuleDenies) => {
            return format!("denied by {rule}: a deny entry beats everything that allows");
        }
        (Action::Deny, _) => {
            return "denied: no entry is about both the peer and the port".to_owned();
        }
        (Action::Allow, Reason::NotEnforced) => {
            return "allowed: no policy speaks of this direction".to_owned();
        }
        (Action::Allow, _) => {
            return format!(
                "allowed by {rule}, the most specific entry about the peer and the port; none asks \
                 for more"
            );
        }
        (Action::Inspect(Inspection::Http(_)), _) => "HTTP",
        (Action::Inspect(Inspection::Kafka(_)), _) => "Kafka",
        (Action::Inspect(Inspection::Dns(_)), _) => "DNS",
        (Action::Inspect(Inspection::Tls(_)), _) => "TLS",
        (Action::Inspect(Inspection::Listener(_)), _) => "a listener's affair",
        (Action::Inspect(Inspection::Generic(rules)), _) => rules.protocol(),
    };
    format!(
        "looked into as {what} because of {rule}: of the entries about the peer and the port, one that \
         has rules comes before one that has none"
    )
}

struct Tracer<'a> {
    repository: &'a Repository,
    subject: &'a Endpoint,
    directory: &'a Directory,
    question: &'a Question,
    known: &'a Known,
    normalise: Normalise<'a>,
}

impl Tracer<'_> {
    fn entries(&self, labels: &crate::label::Labels, options: &Options) -> Vec<EntryTrace> {
        let direction = self.question.direction;
        let rules = || {
            let of = |policy| std::iter::repeat(policy);
            let rules = self.repository.policies.iter().flat_map(move |p| of(p).zip(&p.rules));
            rules.filter(|(_, rule)| selects(&rule.subject, labels, options))
        };
        let requires = requirements_of(rules().map(|(_, rule)| rule.directed(direction)));
        let mut traces = Vec::new();
        for (policy, rule) in rules() {
            for (entry, denies) in rule.directed(direction).entries() {
                let requires = if denies { &requires.1 } else { &requires.0 };
                let audit = rule.mode == Mode::Audit || entry.mode == Mode::Audit;
                self.entry(policy, entry, requires, &mut |trace| {
                    traces.push(EntryTrace { denies, audit, ..trace });
                });
            }
        }
        traces
    }

    /// An entry is as many traces as it has items of `toPorts`.
    fn entry(
        &self,
        policy: &Policy,
        entry: &Entry,
        requires: &Selector,
        found: &mut impl FnMut(EntryTrace),
    ) {
        let (peers, peer_matches) = self.peers(policy, &entry.peers, requires);
        let name = policy.name.to_string();
        let trace = |section: &str, ports, port_matches, requests| EntryTrace {
            rule: DecidingRule::new(&name, section),
            denies: false,
            audit: false,
            peers: peers.clone(),
            peer_matches,
            ports,
            port_matches,
            requests,
        };
        match &entry.ports {
            Ports::All => {
                found(trace(
                    &entry.section,
                    "every port and protocol".to_owned(),
                    true,
                    Vec::new(),
                ));
            }
            Ports::Of(rules) => {
                for rule in rules {
                    let matches = rule.ports.iter().any(|port| self.is_port(port));
                    let requests = if peer_matches && matches {
                        self.requests(&name, rule)
                    } else {
                        Vec::new()
                    };
                    let ports: Vec<_> = rule.ports.iter().map(ToString::to_string).collect();
                    let ports = match ports.as_slice() {
                        [] => "no port".to_owned(),
                        ports => ports.join(", "),
                    };
                    found(trace(&rule.section, ports, matches, requests));
                }
            }
        }
    }

    fn peers(&self, policy: &Policy, peers: &Peers, requires: &Selector) -> (String, bool) {
        let list = match peers {
            Peers::Unsaid => return ("everybody".to_owned(), true),
            Peers::Of(list) if list.is_empty() => return ("nobody".to_owned(), false),
            Peers::Of(list) => list,
        };
        let selected = |peer: &PeerSelector| match peer {
            PeerSelector::Endpoints(_) => {
                self.known.is_selected(peer) && requires.matches(&self.known.labels)
            }
            PeerSelector::CidrGroup { group, except } => {
                self.repository.group(group).any(|prefix| {
                    let except = except.clone();
                    self.known.is_selected(&PeerSelector::Cidr { prefix, except })
                })
            }
            PeerSelector::Service(service) => {
                let namespace = policy.name.namespace.as_deref();
                let behind = of_service(service, namespace, &self.directory.services);
                behind.iter().any(|peer| self.known.is_selected(peer))
            }
            peer => self.known.is_selected(peer),
        };
        let mut text = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        let named = list.iter().any(|peer| matches!(peer, PeerSelector::Endpoints(_)));
        if named && !requires.requirements.is_empty() {
            text.push_str(&format!(", required to be {requires}"));
        }
        (text, list.iter().any(selected))
    }

    fn is_port(&self, spec: &PortSpec) -> bool {
        let Question { protocol, port, direction, .. } = *self.question;
        let own = match spec.protocol {
            Some(own) => own == protocol,
            None => matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp),
        };
        let icmp = matches!(protocol, Protocol::Icmp | Protocol::IcmpV6);
        own && match &spec.port {
            PortRef::Numbers(0, _) if !icmp => true,
            PortRef::Numbers(first, last) => (*first..=*last).contains(&port),
            PortRef::Named(name) => {
                let ports = match direction {
                    TrafficDirection::Ingress => self.subject.named_ports.clone(),
                    TrafficDirection::Egress => {
                        let peers = self.directory.peers.iter();
                        peers.flat_map(|peer| peer.named_ports.clone()).collect()
                    }
                };
                ports.iter().any(|named| {
                    named.name.eq_ignore_ascii_case(name)
                        && named.port == port
                        && named.protocol == protocol
                })
            }
        }
    }

    fn requests(&self, policy: &str, rule: &PortRule) -> Vec<RequestTrace> {
        let Some(asked) = &self.question.l7 else { return Vec::new() };
        let trace = |section: &str, mismatches| RequestTrace {
            rule: DecidingRule::new(policy, section),
            mismatches,
        };
        let other = |what: &str| vec![format!("the request is not {what}")];
        match &rule.rules {
            L7::Opaque => Vec::new(),
            L7::Http(rules) => rules
                .iter()
                .map(|rule| {
                    let mismatches = match &asked.http {
                        None => other("HTTP"),
                        Some(http) => match http.normalised(self.normalise) {
                            Normalised::Path(path) => {
                                rule.mismatches(&HttpView { question: http, path: &path })
                            }
                            _ => vec!["the path has no normal form".to_owned()],
                        },
                    };
                    trace(&rule.section, mismatches)
                })
                .collect(),
            L7::Kafka(rules) => rules
                .iter()
                .map(|rule| {
                    let mismatches =
                        asked.kafka.as_ref().map_or_else(|| other("Kafka"), |k| rule.mismatches(k));
                    trace(&rule.section, mismatches)
                })
                .collect(),
            L7::Dns(rules) => rules
                .iter()
                .map(|rule| {
                    let names = || rule.names.iter().map(|name| name.as_str()).collect::<Vec<_>>();
                    let mismatches = match &asked.dns {
                        None => other("DNS"),
                        Some(name) if rule.names.iter().any(|own| own.matches(name)) => Vec::new(),
                        Some(name) => vec![format!("`{name}` is not {}", names().join(" or "))],
                    };
                    trace(&rule.section, mismatches)
                })
                .collect(),
            L7::Generic { protocol, rules } => rules
                .iter()
                .map(|rule| {
                    let allowed = asked.generic_allows(&rule.meaning);
                    let mismatches = match allowed {
                        None => other(protocol),
                        Some(true) => Vec::new(),
                        Some(false) => vec!["the rule allows something else".to_owned()],
                    };
                    trace(&rule.section, mismatches)
                })
                .collect(),
        }
    }
}
