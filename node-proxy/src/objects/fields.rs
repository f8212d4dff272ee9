//! What several kinds have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portreeve_policy::yaml::{Node, Reader, Value};
use portreeve_policy::{Label, Labels, NamedPort, Protocol};

/// Longest name of an object (RFC 1123 subdomain, as Kubernetes has it).
const LONGEST_NAME: usize = 253;

/// The name of an object.
pub(super) fn name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(good) {
        reader.error_hint(
            node.at,
            format_args!("`{name}` is not a name"),
            "use lower case letters, digits, `-` and `.`, at most 253",
        );
        return None;
    }
    Some(name.to_owned())
}

/// A map of strings.
pub(super) fn texts(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeMap<String, String>> {
    let Value::Map(map) = &node.value else {
        reader.error(node.at, format_args!("must be a map, not {}", node.kind()));
        return None;
    };
    let read = |(key, node): &(portreeve_policy::yaml::Key, Node)| {
        let text = reader.field(&key.name, |reader| match node.is_null() {
            true => Some(""),
            false => reader.text(node),
        })?;
        Some((key.name.clone(), text.to_owned()))
    };
    Some(map.iter().filter_map(read).collect())
}

/// Labels of a workload: each `key: value`, the key with a source before it where it has one.
pub(super) fn labels(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    texts: &BTreeMap<String, String>,
) -> Labels {
    let at = node.map(|node| node.at).unwrap_or_default();
    let read = |(key, value): (&String, &String)| match format!("{key}={value}").parse::<Label>() {
        Ok(label) => Some(label),
        Err(error) => {
            reader.field("metadata", |reader| {
                reader.field("labels", |reader| reader.error(at, error));
            });
            None
        }
    };
    texts.iter().filter_map(read).collect()
}

/// An address that somebody can have.
pub(super) fn address(reader: &mut Reader<'_>, node: &Node) -> Option<IpAddr> {
    let text = reader.text(node)?;
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            reader.error(node.at, format_args!("`{text}` is nobody's address"));
            None
        }
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not an address"),
                "write it as `10.0.0.7` or `fd00::7`",
            );
            None
        }
    }
}

/// An address, or all those of a prefix.
pub(super) fn prefix(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    let text = reader.text(node)?;
    if !text.contains('/') {
        return address(reader, node).map(IpNet::from);
    }
    match text.parse::<IpNet>() {
        Ok(prefix) if prefix.prefix_len() == 0 => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is everybody"),
                "name the addresses of this peer; everybody else is the world",
            );
            None
        }
        Ok(prefix) => Some(prefix.trunc()),
        Err(_) => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not a prefix"),
                "write it as `10.0.0.0/24` or `fd00::/64`",
            );
            None
        }
    }
}

/// A port, which is not 0.
pub(super) fn port(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let Value::Integer(number) = node.value else {
        reader.error(node.at, format_args!("must be a number, not {}", node.kind()));
        return None;
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            reader.error_hint(
                node.at,
                format_args!("`{number}` is not a port"),
                "ports go from 1 to 65535",
            );
            None
        }
    }
}

/// A protocol with ports; TCP when none is named.
pub(super) fn protocol(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Protocol> {
    let Some(node) = node else { return Some(Protocol::Tcp) };
    reader.field("protocol", |reader| {
        let word = reader.text(node)?;
        let known = reader.one_of(node.at, word, "a protocol", &["TCP", "UDP", "SCTP"])?;
        Some(match known {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        })
    })
}

/// `{name, port, protocol}`.
pub(super) fn named_port(reader: &mut Reader<'_>, node: &Node) -> Option<NamedPort> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("name", reader);
    let name = name.and_then(|node| reader.field("name", |reader| reader.text(node)));
    let number = fields.required("port", reader);
    let number = number.and_then(|node| reader.field("port", |reader| port(reader, node)));
    let protocol = protocol(reader, fields.take("protocol"));
    fields.finish(reader);
    Some(NamedPort { name: name?.to_ascii_lowercase(), port: number?, protocol: protocol? })
}

/// A list of what `read` reads, below `name`; none if it is not there.
pub(super) fn list<'n, T>(
    reader: &mut Reader<'_>,
    node: Option<&'n Node>,
    name: &str,
    read: impl FnMut(&mut Reader<'_>, &'n Node) -> Option<T>,
) -> Vec<T> {
    let Some(node) = node else { return Vec::new() };
    reader.field(name, |reader| reader.list(node, read)).unwrap_or_default()
}

/// A string below `name`.
pub(super) fn text(reader: &mut Reader<'_>, node: Option<&Node>, name: &str) -> Option<String> {
    let node = node?;
    reader.field(name, |reader| reader.text(node)).map(str::to_owned)
}
