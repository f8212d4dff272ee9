//! `icmps`: types of ICMP and ICMPv6 messages (Cilium `api.ICMPRule`).

use super::node::{Node, Value};
use super::reader::Reader;
use crate::diagnostic::nearest;
use crate::rule::{PortRef, PortRule, PortSpec, Protocol};

/// Most fields of one item (Cilium `MaxICMPFields`).
const MAX_FIELDS: usize = 40;

/// Reads one item of `icmps`. A message's type stands where others have their port.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<PortRule> {
    let mut fields = reader.fields(node)?;
    let (section, at) = (reader.path().to_owned(), node.at);
    let ports = match fields.take("fields") {
        None => Some(Vec::new()),
        Some(node) => reader.field("fields", |reader| {
            let list = reader.list(node, field)?;
            reader.at_most(node, list.len(), MAX_FIELDS, "fields", "use several items");
            Some(list)
        }),
    };
    fields.finish(reader);
    Some(PortRule::plain(section, at, ports?))
}

fn field(reader: &mut Reader<'_>, node: &Node) -> Option<PortSpec> {
    let mut fields = reader.fields(node)?;
    let family = match fields.take("family") {
        None => Some("IPv4"),
        Some(node) => reader.field("family", |reader| match reader.text(node)? {
            "" => Some("IPv4"),
            word => reader.one_of(node.at, word, "an address family", &["IPv4", "IPv6"]),
        }),
    };
    let node = fields.required("type", reader);
    fields.finish(reader);
    let (protocol, names) = match family? {
        "IPv6" => (Protocol::IcmpV6, IPV6),
        _ => (Protocol::Icmp, IPV4),
    };
    let kind = reader.field("type", |reader| icmp_type(reader, node?, names))?;
    Some(PortSpec {
        port: PortRef::Numbers(u16::from(kind), u16::from(kind)),
        protocol: Some(protocol),
    })
}

fn icmp_type(reader: &mut Reader<'_>, node: &Node, names: &[(&str, u8)]) -> Option<u8> {
    let number = match &node.value {
        Value::Integer(number) => u8::try_from(*number).ok(),
        Value::Text(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Value::Text(text) => {
            let found = names.iter().find(|(name, _)| name == text);
            if found.is_none() {
                let hint = match nearest(text, names.iter().map(|(name, _)| *name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write a number from 0 to 255, or one of the names".to_owned(),
                };
                let message = format!("`{text}` is not a type of ICMP message of this family");
                reader.error_hint(node.at, message, hint);
                return None;
            }
            found.map(|(_, number)| *number)
        }
        _ => None,
    };
    if number.is_none() {
        reader.error(node.at, "must be a type: a number from 0 to 255, or a name");
    }
    number
}

/// IANA `icmp-parameters`, by the names that Cilium has for them.
const IPV4: &[(&str, u8)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// IANA `icmpv6-parameters`, likewise.
const IPV6: &[(&str, u8)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];
