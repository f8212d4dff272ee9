//! The questions that rules suggest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::stranger;
use crate::case::{AskedPeer, HttpQuestion, KafkaQuestion, L7Request, Question};
use crate::endpoint::Endpoint;
use crate::label::{K8S, Label, Labels, NAMESPACE, RESERVED};
use crate::repository::Repository;
use crate::resolve::{Options, selects};
use crate::rule::{
    Directed, HttpRule, KafkaRule, L7, PeerSelector, Peers, PortRef, PortRule, PortSpec, Ports,
    Protocol, Subject, TextMatch, TrafficDirection, ValueMatch,
};
use crate::selector::{Operator, Selector};

/// Most questions about one workload and direction; beyond, peers and ports are asked about only
/// where a rule has them together.
const MOST_QUESTIONS: usize = 200_000;

/// What is asked of one workload.
pub(super) struct Suggested {
    pub(super) subject: Endpoint,
    /// Peers by labels.
    pub(super) labels: BTreeSet<Labels>,
    /// Addresses with the names they stand for.
    pub(super) names: Vec<(IpAddr, String)>,
    directions: [Asked; 2],
}

/// What is asked of one direction.
#[derive(Default)]
struct Asked {
    peers: Vec<AskedPeer>,
    /// With the requests that are made there.
    ports: BTreeMap<(Protocol, u16), Vec<L7Request>>,
    /// What a rule has together.
    together: Vec<(AskedPeer, Protocol, u16)>,
}

/// A workload for every subject of a rule, and what the rules that select it suggest.
pub(super) fn suggested(
    old: &Repository,
    new: &Repository,
    options: &Options,
) -> BTreeMap<String, Suggested> {
    let mut workloads = BTreeMap::new();
    let rules = || {
        let policies = old.policies.iter().chain(&new.policies);
        policies.flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
    };
    for (policy, rule) in rules() {
        let namespace = policy.name.namespace.as_deref().unwrap_or("default");
        let labels = subject(&rule.subject, namespace);
        let name = labels.short();
        workloads.entry(name.clone()).or_insert_with(|| {
            let own = labels.iter().find(|label| label.key == NAMESPACE);
            let namespace = own.map_or(namespace, |label| &label.value).to_owned();
            let subject = Endpoint::new(name, namespace.clone(), labels.clone());
            let mut suggested = Suggested {
                subject,
                labels: BTreeSet::new(),
                names: Vec::new(),
                directions: [Asked::default(), Asked::default()],
            };
            for (policy, rule) in rules().filter(|(_, r)| selects(&r.subject, &labels, options)) {
                let place = policy.name.namespace.as_deref().unwrap_or(&namespace);
                suggested.rule(place, &rule.ingress, TrafficDirection::Ingress, [old, new]);
                suggested.rule(place, &rule.egress, TrafficDirection::Egress, [old, new]);
            }
            suggested.others(&namespace);
            suggested
        });
    }
    workloads
}

/// Most workloads that are looked at.
const MOST_SUBJECTS: usize = 1000;

/// A workload for every subject of a rule.
pub(super) fn subjects(repository: &Repository) -> Vec<Endpoint> {
    let mut subjects = BTreeMap::new();
    for policy in &repository.policies {
        let namespace = policy.name.namespace.as_deref().unwrap_or("default");
        for rule in &policy.rules {
            let labels = subject(&rule.subject, namespace);
            subjects.entry(labels.short()).or_insert((labels, namespace));
        }
    }
    let endpoint = |(name, (labels, namespace)): (String, (Labels, &str))| {
        Endpoint::new(name, namespace, labels)
    };
    subjects.into_iter().take(MOST_SUBJECTS).map(endpoint).collect()
}

/// The labels of a workload, or a node, that a rule selects.
fn subject(subject: &Subject, namespace: &str) -> Labels {
    match subject {
        Subject::Endpoints(selector) => witness(selector).placed(namespace),
        Subject::Nodes(selector) => {
            let mut labels = witness(selector);
            labels.insert(Label::new(RESERVED, "host", ""));
            labels
        }
    }
}

impl Suggested {
    fn direction(&mut self, direction: TrafficDirection) -> &mut Asked {
        match direction {
            TrafficDirection::Ingress => &mut self.directions[0],
            TrafficDirection::Egress => &mut self.directions[1],
        }
    }

    fn rule(
        &mut self,
        namespace: &str,
        directed: &Directed,
        direction: TrafficDirection,
        repositories: [&Repository; 2],
    ) {
        for (entry, _) in directed.entries() {
            let peers: Vec<AskedPeer> = match &entry.peers {
                Peers::Unsaid => vec![AskedPeer::Labels(stranger(namespace))],
                Peers::Of(list) => {
                    list.iter().flat_map(|p| self.peer(p, namespace, repositories)).collect()
                }
            };
            let rules = match &entry.ports {
                Ports::All => &[],
                Ports::Of(rules) => rules.as_slice(),
            };
            let asked = self.direction(direction);
            for rule in rules {
                let requests = requests(rule);
                for (protocol, port) in rule.ports.iter().flat_map(ports) {
                    let known = asked.ports.entry((protocol, port)).or_default();
                    known.extend(requests.iter().cloned());
                    let together = peers.iter().map(|peer| (peer.clone(), protocol, port));
                    asked.together.extend(together);
                }
            }
            asked.together.extend(peers.iter().map(|peer| (peer.clone(), Protocol::Tcp, 1)));
            asked.peers.extend(peers);
        }
    }

    /// Those that no rule is about.
    fn others(&mut self, namespace: &str) {
        let world = |address: &str| address.parse().ok().map(AskedPeer::Address);
        let reserved = |name| [Label::new(RESERVED, name, "")].into_iter().collect::<Labels>();
        let others = [
            Some(AskedPeer::Labels(stranger(namespace))),
            Some(AskedPeer::Labels(reserved("host"))),
            world("203.0.113.250"),
            world("2001:db8::250"),
        ];
        self.labels.insert(stranger(namespace));
        for asked in &mut self.directions {
            asked.peers.extend(others.iter().flatten().cloned());
            asked.ports.entry((Protocol::Tcp, 1)).or_default();
            asked.ports.entry((Protocol::Udp, 1)).or_default();
            asked.ports.entry((Protocol::Icmp, 8)).or_default();
        }
    }

    fn peer(
        &mut self,
        peer: &PeerSelector,
        namespace: &str,
        repositories: [&Repository; 2],
    ) -> Vec<AskedPeer> {
        let address = |prefix: IpNet| prefix.hosts().next().unwrap_or(prefix.addr());
        match peer {
            PeerSelector::All => vec![AskedPeer::Labels(stranger(namespace))],
            PeerSelector::Endpoints(selector) | PeerSelector::Labels(selector) => {
                let labels = witness(selector);
                let built_in = labels.has_source(RESERVED);
                let labels = if built_in { labels } else { labels.placed(namespace) };
                self.labels.insert(labels.clone());
                vec![AskedPeer::Labels(labels)]
            }
            PeerSelector::Cidr { prefix, except } => {
                let taken_out = except.iter().map(|except| AskedPeer::Address(address(*except)));
                // An address that no exception takes out, if one is easily found.
                let inside = |ip: &IpAddr| !except.iter().any(|except| except.contains(ip));
                let first = prefix.hosts().take(4096).find(inside).unwrap_or(address(*prefix));
                taken_out.chain([AskedPeer::Address(first)]).collect()
            }
            PeerSelector::CidrGroup { group, .. } => {
                let prefixes = repositories.into_iter().flat_map(|r| r.group(group));
                prefixes.map(|prefix| AskedPeer::Address(address(prefix))).collect()
            }
            PeerSelector::Name(pattern) => {
                let name = pattern.as_str().replace('*', "x");
                let known = self.names.iter().find(|(_, known)| *known == name);
                let number = u8::try_from(self.names.len() % 250 + 1).unwrap_or(1);
                let new = IpAddr::from([198, 18, 0, number]);
                let address = known.map_or(new, |(address, _)| *address);
                self.names.push((address, name.clone()));
                vec![AskedPeer::Named(address, vec![name])]
            }
            PeerSelector::Service(_) => Vec::new(),
        }
    }

    /// Every question.
    pub(super) fn questions(&self) -> Vec<Question> {
        let directions = [TrafficDirection::Ingress, TrafficDirection::Egress];
        let mut questions = Vec::new();
        for (direction, asked) in directions.into_iter().zip(&self.directions) {
            let mut seen = BTreeSet::new();
            let few = asked.peers.len().saturating_mul(asked.ports.len()) <= MOST_QUESTIONS;
            let all = asked.peers.iter().flat_map(|peer| {
                asked.ports.keys().map(move |(protocol, port)| (peer.clone(), *protocol, *port))
            });
            let pairs: Vec<_> = if few { all.collect() } else { asked.together.clone() };
            for (peer, protocol, port) in pairs {
                // The connection first, then what is said on it.
                let requests = asked.ports.get(&(protocol, port)).into_iter().flatten();
                for l7 in std::iter::once(None).chain(requests.map(Some)) {
                    let l7 = l7.cloned();
                    let question = Question { direction, peer: peer.clone(), protocol, port, l7 };
                    if seen.insert(question.describe("")) {
                        questions.push(question);
                    }
                }
            }
        }
        questions
    }
}

/// Labels that a selector matches, if any can be given.
fn witness(selector: &Selector) -> Labels {
    let label = |requirement: &crate::selector::Requirement| {
        let source = requirement.source.as_deref().unwrap_or(K8S);
        match &requirement.operator {
            Operator::In(values) => {
                let value = values.first().map_or("", String::as_str);
                Some(Label::new(source, &requirement.key, value))
            }
            Operator::Exists if source == RESERVED => {
                Some(Label::new(source, &requirement.key, ""))
            }
            Operator::Exists if requirement.key == NAMESPACE => None,
            Operator::Exists => Some(Label::new(source, &requirement.key, "x")),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        }
    };
    selector.requirements.iter().filter_map(label).collect()
}

/// The ports at which a specification begins and ends.
fn ports(spec: &PortSpec) -> Vec<(Protocol, u16)> {
    let protocols = match &spec.protocol {
        Some(protocol) => std::slice::from_ref(protocol),
        None => &[Protocol::Tcp, Protocol::Udp][..],
    };
    let numbers = match &spec.port {
        PortRef::Numbers(0, _) => vec![1],
        PortRef::Numbers(first, last) => vec![*first, *last, last.saturating_add(1)],
        PortRef::Named(_) => Vec::new(),
    };
    protocols.iter().flat_map(|p| numbers.iter().map(move |number| (*p, *number))).collect()
}

/// Requests that the rules of a port allow, and one that they surely don't name.
fn requests(rule: &PortRule) -> Vec<L7Request> {
    let mut found: Vec<L7Request> = Vec::new();
    match &rule.rules {
        L7::Opaque | L7::Generic { .. } => {}
        L7::Http(rules) => {
            found.extend(rules.iter().map(|rule| http(rule)));
            let other = HttpQuestion {
                method: "GET".to_owned(),
                path: Ok("/something/else".to_owned()),
                host: String::new(),
                headers: Vec::new(),
            };
            found.push(L7Request { http: Some(other), ..L7Request::default() });
        }
        L7::Kafka(rules) => found.extend(rules.iter().flat_map(|rule| kafka(rule))),
        L7::Dns(rules) => {
            let names = rules.iter().flat_map(|rule| &rule.names);
            let names = names.map(|name| name.as_str().replace('*', "x"));
            let ask = |name| L7Request { dns: Some(name), ..L7Request::default() };
            found.extend(names.chain(["something.else".to_owned()]).map(ask));
        }
    }
    for name in &rule.server_names {
        let tls = Some(name.as_str().replace("**", "x").replace('*', "x"));
        found.push(L7Request { tls, ..L7Request::default() });
    }
    found
}

fn http(rule: &HttpRule) -> L7Request {
    let example = |pattern: &Option<crate::Pattern>, fallback: &str| match pattern {
        Some(pattern) => String::from_utf8_lossy(&pattern.example()).into_owned(),
        None => fallback.to_owned(),
    };
    let headers = rule.headers.iter().filter_map(|header| {
        let value = match &header.value {
            ValueMatch::Present => "x".to_owned(),
            ValueMatch::Exact(text) | ValueMatch::Prefix(text) | ValueMatch::Suffix(text) => {
                text.clone()
            }
            ValueMatch::Matches(pattern) => {
                String::from_utf8_lossy(&pattern.example()).into_owned()
            }
            ValueMatch::Inside(prefixes) => prefixes.first()?.addr().to_string(),
            ValueMatch::Absent | ValueMatch::Unknown => return None,
        };
        Some((header.name.clone(), value))
    });
    let question = HttpQuestion {
        method: example(&rule.method, "GET"),
        path: Ok(example(&rule.path, "/something/else")),
        host: example(&rule.host, ""),
        headers: headers.collect(),
    };
    L7Request { http: Some(question), ..L7Request::default() }
}

fn kafka(rule: &KafkaRule) -> Vec<L7Request> {
    let text = |wanted: &TextMatch| match wanted {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Matches(pattern) => String::from_utf8_lossy(&pattern.example()).into_owned(),
    };
    let keys = rule.api_keys.unwrap_or(&[0, 1, 3]);
    let ask = |api_key: &i16| L7Request {
        kafka: Some(KafkaQuestion {
            api_key: *api_key,
            api_version: rule.api_version.unwrap_or(0),
            client_id: rule.client_id.clone().unwrap_or_default(),
            topics: vec![rule.topic.as_ref().map_or_else(|| "something".to_owned(), text)],
            group: rule.group.as_ref().map(text),
        }),
        ..L7Request::default()
    };
    keys.iter().map(ask).collect()
}
