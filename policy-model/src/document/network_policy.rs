//! Kubernetes' `NetworkPolicy` (`networking.k8s.io/v1`), as a rule of ours.

use super::cidr;
use super::node::{Node, Value};
use super::ports::{is_service_name, number};
use super::reader::{Fields, Reader};
use super::selector;
use crate::diagnostic::Position;
use crate::label::{K8S, NAMESPACE, NAMESPACE_LABELS};
use crate::rule::{
    Directed, Entry, Mode, PeerSelector, Peers, PortRef, PortRule, PortSpec, Ports, Protocol, Rule,
    Subject, TrafficDirection,
};
use crate::selector::{Requirement, Selector};

/// Reads the `spec` of a NetworkPolicy.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, namespace: &str) -> Option<Rule> {
    let mut fields = reader.fields(node)?;
    let subject = match fields.take("podSelector") {
        Some(node) => reader.field("podSelector", |reader| pods(reader, node)),
        None => {
            reader.error_hint(
                fields.at,
                "`podSelector` is missing",
                "`podSelector: {}` selects every pod of the namespace",
            );
            None
        }
    };
    let types = policy_types(reader, &mut fields);
    let mut read = |direction| directed(reader, &mut fields, direction, namespace);
    let mut ingress = read(TrafficDirection::Ingress);
    let mut egress = read(TrafficDirection::Egress);
    fields.finish(reader);
    let (mut subject, types) = (subject?, types?);
    subject.force_namespace(namespace);
    // A direction that the policy is about and has no rules for is closed.
    if !ingress.has_entries() && types.ingress {
        ingress.allow.push(nothing("spec.ingress"));
    }
    if !egress.has_entries() && types.egress {
        egress.allow.push(nothing("spec.egress"));
    }
    Some(Rule { subject: Subject::Endpoints(subject), ingress, egress, mode: Mode::Enforce })
}

/// The directions that a policy is about.
struct Types {
    ingress: bool,
    egress: bool,
}

/// Without `policyTypes`: ingress always, egress if there are rules for it, which then need no type.
fn policy_types(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Types> {
    let Some(node) = fields.take("policyTypes") else {
        return Some(Types { ingress: true, egress: false });
    };
    let types = reader.field("policyTypes", |reader| {
        reader.list(node, |reader, node| {
            let word = reader.text(node)?;
            reader.one_of(node.at, word, "a policy type", &["Ingress", "Egress"])
        })
    })?;
    let ingress = types.is_empty() || types.contains(&"Ingress");
    Some(Types { ingress, egress: types.contains(&"Egress") })
}

/// An entry that selects nobody: default deny and nothing else.
fn nothing(section: &str) -> Entry {
    Entry {
        section: section.to_owned(),
        at: Position::default(),
        peers: Peers::Of(Vec::new()),
        requires: Vec::new(),
        ports: Ports::All,
        authentication: None,
        mode: Mode::Enforce,
    }
}

fn directed(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    direction: TrafficDirection,
    namespace: &str,
) -> Directed {
    let (name, peers) = match direction {
        TrafficDirection::Ingress => ("ingress", "from"),
        TrafficDirection::Egress => ("egress", "to"),
    };
    let Some(node) = fields.take(name) else { return Directed::default() };
    let allow = reader.field(name, |reader| {
        reader.list(node, |reader, node| entry(reader, node, peers, namespace))
    });
    Directed { allow: allow.unwrap_or_default(), ..Directed::default() }
}

fn entry(
    reader: &mut Reader<'_>,
    node: &Node,
    field: &'static str,
    namespace: &str,
) -> Option<Entry> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let peers = match fields.take(field) {
        None => Some(Vec::new()),
        Some(node) => reader.field(field, |reader| {
            let errors = reader.errors();
            let list = reader.list(node, |reader, node| peer(reader, node, namespace));
            list.filter(|_| reader.errors() == errors)
        }),
    };
    let ports = match fields.take("ports") {
        None => Some(Vec::new()),
        Some(node) => reader.field("ports", |reader| reader.list(node, port)),
    };
    fields.finish(reader);
    let (mut peers, ports) = (peers?, ports?);
    if peers.is_empty() {
        peers.push(PeerSelector::All);
    }
    let ports = match ports.as_slice() {
        [] => Ports::All,
        _ => Ports::Of(vec![PortRule::plain(section.clone(), node.at, ports)]),
    };
    Some(Entry { section, at: node.at, peers: Peers::Of(peers), ports, ..nothing("") })
}

/// Pods, pods of namespaces, or addresses.
fn peer(reader: &mut Reader<'_>, node: &Node, namespace: &str) -> Option<PeerSelector> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let pod = fields.take("podSelector").map(|node| reader.field("podSelector", |r| pods(r, node)));
    let space = fields
        .take("namespaceSelector")
        .map(|node| reader.field("namespaceSelector", |reader| namespaces(reader, node)));
    let block = fields.take("ipBlock").map(|node| reader.field("ipBlock", |r| ip_block(r, node)));
    fields.finish(reader);
    match (pod, space, block) {
        (None, None, Some(block)) => block,
        (pod, space, None) if pod.is_some() || space.is_some() => {
            let mut selector = match pod {
                Some(pod) => pod?,
                None => Selector::default(),
            };
            match space {
                Some(space) => selector.requirements.extend(space?.requirements),
                None => selector.force_namespace(namespace),
            }
            Some(PeerSelector::Labels(selector))
        }
        _ => {
            reader.error_hint(
                at,
                "a peer is `podSelector`, `namespaceSelector`, both of them, or `ipBlock`",
                "leave the list out to mean everybody",
            );
            None
        }
    }
}

/// A selector of pods: its labels come from Kubernetes.
fn pods(reader: &mut Reader<'_>, node: &Node) -> Option<Selector> {
    let mut selector = selector::read(reader, node)?;
    for requirement in &mut selector.requirements {
        requirement.source = Some(K8S.to_owned());
    }
    Some(selector)
}

/// A selector of namespaces: by their own labels, which their pods have under a prefix. Without
/// any, every pod.
fn namespaces(reader: &mut Reader<'_>, node: &Node) -> Option<Selector> {
    let mut selector = selector::read(reader, node)?;
    for requirement in &mut selector.requirements {
        requirement.source = Some(K8S.to_owned());
        requirement.key.insert_str(0, NAMESPACE_LABELS);
    }
    if selector.requirements.is_empty() {
        selector.requirements.push(Requirement::exists(Some(K8S), NAMESPACE));
    }
    Some(selector)
}

fn ip_block(reader: &mut Reader<'_>, node: &Node) -> Option<PeerSelector> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let prefix = fields.required("cidr", reader);
    let prefix = prefix.and_then(|node| reader.field("cidr", |r| cidr::prefix(r, node)));
    let except = match fields.take("except") {
        None => Some(Vec::new()),
        Some(node) => reader.field("except", |reader| reader.list(node, cidr::prefix)),
    };
    fields.finish(reader);
    let (prefix, except) = (prefix?, except?);
    cidr::inside(reader, at, prefix, &except)?;
    Some(PeerSelector::Cidr { prefix, except })
}

/// A port: number or name; without one, every port of the protocol, which is TCP unless said.
fn port(reader: &mut Reader<'_>, node: &Node) -> Option<PortSpec> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let port = match fields.take("port") {
        None => Some(PortRef::Numbers(0, 0)),
        Some(node) => reader.field("port", |reader| match &node.value {
            Value::Integer(_) => number(reader, node).map(|port| PortRef::Numbers(port, port)),
            Value::Text(name) if is_service_name(name) => {
                Some(PortRef::Named(name.to_ascii_lowercase()))
            }
            Value::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().map(|port| PortRef::Numbers(port, port))
            }
            _ => {
                reader.error(node.at, "must be the number or the name of a port");
                None
            }
        }),
    };
    let end = match fields.take("endPort") {
        None => Some(0),
        Some(node) => reader.field("endPort", |reader| number(reader, node)),
    };
    let protocol = match fields.take("protocol") {
        None => Some("TCP"),
        Some(node) => reader.field("protocol", |reader| {
            let word = reader.text(node)?;
            reader.one_of(node.at, word, "a protocol", &["TCP", "UDP", "SCTP"])
        }),
    };
    fields.finish(reader);
    let protocol = match protocol? {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let port = match (port?, end?) {
        (PortRef::Numbers(0, _), end) if end > 0 => {
            reader.error(at, "`endPort` needs a `port` to begin at");
            return None;
        }
        (PortRef::Numbers(first, _), end) if end > first => PortRef::Numbers(first, end),
        (port, _) => port,
    };
    Some(PortSpec { port, protocol: Some(protocol) })
}
