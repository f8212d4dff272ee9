//! `toPorts`: ports, protocols, and what may be said on them (Cilium `api.PortRule`).

use super::http;
use super::node::{Node, Value};
use super::reader::Reader;
use super::spec::Scope;
use crate::rule::{L7, PortRef, PortRule, PortSpec, Protocol};

/// Most ports of one item (Cilium `MaxPorts`).
const MAX_PORTS: usize = 40;

/// Reads one item of `toPorts`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<PortRule> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let ports = match fields.take("ports") {
        None => Some(Vec::new()),
        Some(node) => reader.field("ports", |reader| {
            let ports = reader.list(node, port)?;
            if ports.len() > MAX_PORTS {
                reader.error_hint(
                    node.at,
                    format_args!("{} ports, and {MAX_PORTS} are allowed", ports.len()),
                    "use `endPort` for a range, or several items",
                );
            }
            Some(ports)
        }),
    };
    if !scope.denies {
        fields.refuse(&["terminatingTLS", "originatingTLS", "serverNames", "listener"], reader);
    }
    let rules = match fields.take("rules").filter(|_| !scope.denies) {
        None => Some(L7::Opaque),
        Some(node) => reader.field("rules", |reader| l7(reader, node, scope)),
    };
    let at = fields.at;
    if scope.denies && fields.take("rules").is_some() {
        reader.error_hint(
            at,
            "a deny rule can't have `rules`",
            "deny the port, or allow only the requests that are meant",
        );
    }
    fields.finish(reader);
    let (ports, rules) = (ports?, rules?);
    if let L7::Http(_) = rules {
        for port in &ports {
            check_l7_port(reader, at, port);
        }
    }
    Some(PortRule { section, ports, rules })
}

/// HTTP is read from TCP only, and on a port that is known.
fn check_l7_port(reader: &mut Reader<'_>, at: crate::diagnostic::Position, port: &PortSpec) {
    if port.protocol != Some(Protocol::Tcp) {
        reader.error_hint(at, "HTTP rules need `protocol: TCP` on every port", "write it out");
    }
    if matches!(port.port, PortRef::Numbers(0, _)) {
        reader.error(at, "HTTP rules need a port other than 0");
    }
}

fn l7(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<L7> {
    let mut fields = reader.fields(node)?;
    let http = fields.take("http");
    fields.refuse(&["kafka", "dns", "l7proto", "l7"], reader);
    fields.finish(reader);
    let Some(http) = http else { return Some(L7::Opaque) };
    let rules = reader.field("http", |reader| {
        reader.list(http, |reader, node| http::read(reader, node, scope.dialect))
    })?;
    // An empty list asks for nothing.
    Some(if rules.is_empty() && matches!(&http.value, Value::List(items) if items.is_empty()) {
        L7::Opaque
    } else {
        L7::Http(rules)
    })
}

fn port(reader: &mut Reader<'_>, node: &Node) -> Option<PortSpec> {
    let mut fields = reader.fields(node)?;
    let port = fields.required("port", reader);
    let port = port.and_then(|node| reader.field("port", |reader| port_ref(reader, node)));
    let end = match fields.take("endPort") {
        Some(node) => reader.field("endPort", |reader| end_port(reader, node)),
        None => Some(0),
    };
    let protocol = match fields.take("protocol") {
        Some(node) => reader.field("protocol", |reader| protocol(reader, node)),
        None => Some(None),
    };
    fields.finish(reader);
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

fn is_service_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=15).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

fn end_port(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
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
fn protocol(reader: &mut Reader<'_>, node: &Node) -> Option<Option<Protocol>> {
    let text = reader.text(node)?;
    let upper = text.to_ascii_uppercase();
    if upper.is_empty() {
        return Some(None);
    }
    match reader.one_of(node.at, &upper, "a protocol", &["TCP", "UDP", "SCTP", "ANY"])? {
        "TCP" => Some(Some(Protocol::Tcp)),
        "UDP" => Some(Some(Protocol::Udp)),
        "SCTP" => Some(Some(Protocol::Sctp)),
        _ => Some(None),
    }
}
