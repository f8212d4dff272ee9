//! `toPorts`: ports, protocols, and what may be said on them (Cilium `api.PortRule`).

use super::node::{Node, Value};
use super::reader::Reader;
use super::spec::Scope;
use super::{Features, dns, grpc, http, kafka, l7proto, tls};
use crate::diagnostic::Position;
use crate::rule::{L7, PROTOCOLS, PortRef, PortRule, PortSpec, Protocol, TrafficDirection};

/// Most ports of one item (Cilium `MaxPorts`).
const MAX_PORTS: usize = 40;

/// Reads one item of `toPorts`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<PortRule> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let ports = match fields.take("ports") {
        None => Some(Vec::new()),
        Some(node) => reader.field("ports", |reader| list(reader, node, scope.dialect.features)),
    };
    let at = fields.at;
    if scope.denies {
        if fields.take("rules").is_some() {
            reader.error_hint(
                at,
                "a deny rule can't have `rules`",
                "deny the port, or allow only the requests that are meant",
            );
        }
        fields.finish(reader);
        return Some(PortRule::plain(section, at, ports?));
    }
    let tls = tls::contexts(reader, &mut fields);
    let server_names = tls::server_names(reader, &mut fields);
    let listener = tls::listener(reader, &mut fields, scope);
    let rules = match fields.take("rules") {
        None => Some(L7::Opaque),
        Some(node) => reader.field("rules", |reader| l7(reader, node, scope)),
    };
    fields.finish(reader);
    let rule = PortRule {
        section,
        at,
        ports: ports?,
        rules: rules?,
        tls: tls?,
        server_names: server_names?,
        listener: listener?,
    };
    check(reader, at, &rule, scope);
    Some(rule)
}

/// A list of ports.
pub(super) fn list(
    reader: &mut Reader<'_>,
    node: &Node,
    features: Features,
) -> Option<Vec<PortSpec>> {
    let ports = reader.list(node, |reader, node| port(reader, node, features))?;
    let hint = "use `endPort` for a range, or several items";
    reader.at_most(node, ports.len(), MAX_PORTS, "ports", hint);
    Some(ports)
}

/// What can't stand together in one item.
fn check(reader: &mut Reader<'_>, at: Position, rule: &PortRule, scope: &Scope<'_>) {
    let inspected = !matches!(rule.rules, L7::Opaque);
    if !rule.server_names.is_empty() && inspected && rule.tls.terminating.is_none() {
        reader.error_hint(
            at,
            "`serverNames` with `rules` needs `terminatingTLS`",
            "what is said inside of TLS can be read only where TLS ends",
        );
    }
    if rule.listener.is_some() && inspected {
        reader.error_hint(
            at,
            "`listener` and `rules` can't stand together",
            "the listener judges what it gets",
        );
    }
    if scope.host && inspected {
        let dns = matches!(rule.rules, L7::Dns(_));
        if scope.direction == TrafficDirection::Ingress || !dns {
            reader.error_hint(
                at,
                "a policy for nodes can't have these `rules`",
                "for nodes there are DNS rules on egress, and no others",
            );
        }
    }
    match &rule.rules {
        L7::Opaque => {}
        L7::Dns(_) => check_dns(reader, at, rule, scope),
        _ => rule.ports.iter().for_each(|port| check_l7_port(reader, at, port)),
    }
}

/// Requests are read from TCP only, and on a port that is known.
fn check_l7_port(reader: &mut Reader<'_>, at: Position, port: &PortSpec) {
    if port.protocol != Some(Protocol::Tcp) {
        reader.error_hint(at, "these rules need `protocol: TCP` on every port", "write it out");
    }
    if matches!(port.port, PortRef::Numbers(0, _)) {
        reader.error(at, "these rules need a port other than 0");
    }
}

fn check_dns(reader: &mut Reader<'_>, at: Position, rule: &PortRule, scope: &Scope<'_>) {
    if scope.direction == TrafficDirection::Ingress {
        reader.error_hint(
            at,
            "DNS rules are for egress only",
            "they say which names a workload may ask for",
        );
    }
    if rule.ports.is_empty() {
        reader.error_hint(at, "DNS rules need a port", "write `ports: [{port: \"53\"}]`");
    }
    for port in &rule.ports {
        match port.port {
            PortRef::Numbers(0, _) => reader.error(at, "DNS rules need a port other than 0"),
            PortRef::Numbers(first, last) if first != last => {
                reader.error(at, "DNS rules can't have a range of ports");
            }
            _ => {}
        }
    }
}

/// Reads `rules`: at most one protocol's. A list that is there and empty counts as said when another
/// has rules.
fn l7(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<L7> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let (http, kafka, dns) = (fields.take("http"), fields.take("kafka"), fields.take("dns"));
    let grpc = if scope.dialect.extended { fields.take("grpc") } else { None };
    let (l7proto, l7) = (fields.take("l7proto"), fields.take("l7"));
    let l7proto =
        l7proto.filter(|node| !matches!(&node.value, Value::Text(text) if text.is_empty()));
    fields.finish(reader);
    let said = [
        ("http", http.is_some() || grpc.is_some()),
        ("kafka", kafka.is_some()),
        ("dns", dns.is_some()),
        ("l7proto", l7proto.is_some() || l7.is_some()),
    ];
    let said: Vec<_> = said.iter().filter(|(_, said)| *said).map(|(name, _)| *name).collect();
    let empty = |node: Option<&Node>| {
        node.is_none_or(|node| matches!(&node.value, Value::List(items) if items.is_empty()))
    };
    if empty(http) && empty(grpc) && empty(kafka) && empty(dns) && empty(l7) && l7proto.is_none() {
        return Some(L7::Opaque);
    }
    if said.len() > 1 {
        reader.error_hint(
            at,
            format_args!("`{}` can't stand together", said.join("` and `")),
            "a port speaks one protocol; write one item of `toPorts` for each",
        );
        return None;
    }
    let dialect = scope.dialect;
    if http.is_some() || grpc.is_some() {
        let errors = reader.errors();
        let mut rules = Vec::new();
        if let Some(node) = http {
            let read = |r: &mut Reader<'_>| r.list(node, |r, node| http::read(r, node, dialect));
            rules.extend(reader.field("http", read)?);
        }
        if let Some(node) = grpc {
            let read = |r: &mut Reader<'_>| r.list(node, grpc::read);
            rules.extend(reader.field("grpc", read)?);
        }
        return (reader.errors() == errors).then_some(L7::Http(rules));
    }
    if let Some(node) = kafka {
        let read = |r: &mut Reader<'_>| r.list(node, |r, node| kafka::read(r, node, dialect));
        return reader.field("kafka", read).map(L7::Kafka);
    }
    if let Some(node) = dns {
        return reader.field("dns", |r| r.list(node, dns::rule)).map(L7::Dns);
    }
    match (l7proto, l7) {
        (Some(protocol), rules) => l7proto::read(reader, protocol, rules),
        (None, _) => {
            reader.error_hint(
                at,
                "`l7` needs `l7proto`",
                "name the protocol: `l7proto: cassandra`",
            );
            None
        }
    }
}

fn port(reader: &mut Reader<'_>, node: &Node, features: Features) -> Option<PortSpec> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let port = fields.take("port");
    let written = port.is_some();
    let port = match port {
        Some(node) => reader.field("port", |reader| port_ref(reader, node)),
        None => Some(PortRef::Numbers(0, 0)),
    };
    let end = match fields.take("endPort") {
        Some(node) => reader.field("endPort", |reader| number(reader, node)),
        None => Some(0),
    };
    let protocol = match fields.take("protocol") {
        Some(node) => reader.field("protocol", |reader| protocol(reader, node, features)),
        None => Some(None),
    };
    fields.finish(reader);
    let portless = matches!(protocol, Some(Some(Protocol::Ip(_))));
    if !written && !portless {
        reader.error(at, "`port` is missing");
        return None;
    }
    if portless && port.as_ref().is_some_and(|port| *port != PortRef::Numbers(0, 0)) {
        reader.error_hint(at, "this protocol has no ports", "remove `port`");
        return None;
    }
    let port = match (port?, end?) {
        (PortRef::Numbers(first, _), end) if end > first && first > 0 => {
            PortRef::Numbers(first, end)
        }
        (port, _) => port,
    };
    Some(PortSpec { port, protocol: protocol? })
}

/// A number, or the name of a port: 1 to 15 letters, digits and hyphens with at least one letter
/// (RFC 6335 section 5.1).
fn port_ref(reader: &mut Reader<'_>, node: &Node) -> Option<PortRef> {
    let text = reader.text(node)?;
    if is_service_name(text) {
        return Some(PortRef::Named(text.to_ascii_lowercase()));
    }
    // The reference reads a leading zero as octal: `010` would mean 8. Whoever writes it means 10.
    if text.len() > 1 && text.starts_with('0') {
        reader.error_hint(
            node.at,
            format_args!("`{text}` begins with a zero"),
            "a leading zero means octal to some readers; write the port without it",
        );
        return None;
    }
    match text.parse::<u16>() {
        Ok(0) => Some(PortRef::Numbers(0, 0)),
        Ok(port) if text.bytes().all(|b| b.is_ascii_digit()) => Some(PortRef::Numbers(port, port)),
        _ => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not a port"),
                "ports are numbers from 1 to 65535, 0 for all, or a name",
            );
            None
        }
    }
}

pub(super) fn is_service_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=15).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// A port as a number.
pub(super) fn number(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let number = match node.value {
        Value::Integer(number) => u16::try_from(number).ok(),
        _ => None,
    };
    if number.is_none() {
        reader.error(node.at, "must be a number from 0 to 65535");
    }
    number
}

/// `None`: any.
fn protocol(reader: &mut Reader<'_>, node: &Node, features: Features) -> Option<Option<Protocol>> {
    let text = reader.text(node)?;
    let upper = text.to_ascii_uppercase();
    if upper.is_empty() {
        return Some(None);
    }
    let known = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&upper));
    if let Some((_, portless @ Protocol::Ip(_))) = known {
        if features.extended_protocols {
            return Some(Some(*portless));
        }
        reader.error_hint(
            node.at,
            format_args!("`{text}` can be named only where extended IP protocols are on"),
            "without ports, a peer is allowed or denied with every protocol",
        );
        return None;
    }
    match reader.one_of(node.at, &upper, "a protocol", &["TCP", "UDP", "SCTP", "ANY"])? {
        "TCP" => Some(Some(Protocol::Tcp)),
        "UDP" => Some(Some(Protocol::Udp)),
        "SCTP" => Some(Some(Protocol::Sctp)),
        _ => Some(None),
    }
}
