//! Questions from YAML or JSON.

use std::net::IpAddr;

use super::read::labels;
use super::request::{HttpQuestion, L7Request};
use super::{Answer, AskedPeer, Query, Question};
use crate::document::node::{Node, Value};
use crate::document::reader::{Fields, Reader};
use crate::endpoint::Endpoint;
use crate::label::{Label, RESERVED};
use crate::rule::{Protocol, TrafficDirection};

/// Reads one question.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, endpoints: &[Endpoint]) -> Option<Query> {
    let mut fields = reader.fields(node)?;
    fields.ignore(&["note", "title"]);
    let direction = fields.required("direction", reader);
    let direction = direction.and_then(|node| {
        reader.field("direction", |reader| {
            let word = reader.text(node)?;
            Some(match reader.one_of(node.at, word, "a direction", &["ingress", "egress"])? {
                "ingress" => TrafficDirection::Ingress,
                _ => TrafficDirection::Egress,
            })
        })
    });
    let subject = fields.required("subject", reader);
    let subject = subject.and_then(|node| reader.field("subject", |r| known(r, node, endpoints)));
    let peer = fields.required("peer", reader);
    let peer = peer.and_then(|node| reader.field("peer", |r| peer_of(r, node, endpoints)));
    let protocol = match fields.take("protocol") {
        None => Some(Protocol::Tcp),
        Some(node) => reader.field("protocol", |reader| protocol(reader, node)),
    };
    let mut number = |name| match fields.take(name) {
        None => Some(None),
        Some(node) => reader.field(name, |reader| port(reader, node)).map(Some),
    };
    let (port, icmp_type) = (number("port"), number("icmp_type"));
    let l7 = match fields.take("l7") {
        None => Some(None),
        Some(node) => reader.field("l7", |reader| l7(reader, node)).map(Some),
    };
    let expect = match fields.take("expect") {
        None => Some(None),
        Some(node) => reader.field("expect", |reader| answer(reader, node)).map(Some),
    };
    let effective = match fields.take("effective") {
        None => Some(None),
        Some(node) => reader.field("effective", |reader| {
            let word = reader.text(node)?;
            let word = reader.one_of(node.at, word, "an effect", &["allow", "deny"])?;
            Some(Some(word == "allow"))
        }),
    };
    fields.finish(reader);
    let question = Question {
        direction: direction?,
        peer: peer?,
        protocol: protocol?,
        port: icmp_type?.or(port?).unwrap_or(0),
        l7: l7?,
    };
    Some(Query { subject: subject?, question, expect: expect?, effective: effective? })
}

fn answer(reader: &mut Reader<'_>, node: &Node) -> Option<Answer> {
    let names = Answer::ALL.map(|(name, _)| name);
    let word = reader.text(node)?;
    let word = reader.one_of(node.at, word, "an answer", &names)?;
    Answer::ALL.iter().find(|(name, _)| *name == word).map(|(_, answer)| *answer)
}

/// The name of an endpoint of the case.
fn known(reader: &mut Reader<'_>, node: &Node, endpoints: &[Endpoint]) -> Option<String> {
    let name = reader.text(node)?;
    let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    reader.one_of(node.at, name, "an endpoint of this case", &names).map(str::to_owned)
}

fn peer_of(reader: &mut Reader<'_>, node: &Node, endpoints: &[Endpoint]) -> Option<AskedPeer> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    if let Some(node) = fields.take("endpoint") {
        let name = reader.field("endpoint", |reader| known(reader, node, endpoints));
        fields.finish(reader);
        return name.map(AskedPeer::Endpoint);
    }
    if let Some(node) = fields.take("entity") {
        let name = reader.field("entity", |reader| reader.text(node));
        fields.finish(reader);
        let label = Label::new(RESERVED, name?, "");
        return Some(AskedPeer::Labels([label].into_iter().collect()));
    }
    if let Some(node) = fields.take("labels") {
        let labels = reader.field("labels", |reader| labels(reader, node));
        fields.finish(reader);
        return labels.map(AskedPeer::Labels);
    }
    let ip = fields.take("ip").map(|node| reader.field("ip", |reader| address(reader, node)));
    let names = match fields.take("dns_names") {
        None => Some(None),
        Some(node) => reader
            .field("dns_names", |reader| {
                reader.list(node, |reader, node| reader.text(node).map(str::to_owned))
            })
            .map(Some),
    };
    fields.finish(reader);
    match (ip, names?) {
        (Some(ip), None) => ip.map(AskedPeer::Address),
        (Some(ip), Some(names)) => ip.map(|ip| AskedPeer::Named(ip, names)),
        (None, _) => {
            reader.error(at, "a peer is `endpoint`, `entity`, `labels` or `ip`");
            None
        }
    }
}

pub(super) fn address(reader: &mut Reader<'_>, node: &Node) -> Option<IpAddr> {
    let text = reader.text(node)?;
    let address = text.parse();
    address.map_err(|_| reader.error(node.at, format_args!("`{text}` is not an address"))).ok()
}

pub(super) fn port(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let port = match &node.value {
        Value::Integer(number) => u16::try_from(*number).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    if port.is_none() {
        reader.error(node.at, "must be a number from 0 to 65535");
    }
    port
}

/// A protocol by its name; those without ports by Cilium's.
pub(super) fn protocol(reader: &mut Reader<'_>, node: &Node) -> Option<Protocol> {
    let text = reader.text(node)?;
    let found = crate::rule::PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if found.is_none() {
        let names = crate::rule::PROTOCOLS.map(|(name, _)| name);
        reader.one_of(node.at, text, "a protocol", &names);
    }
    found.map(|(_, protocol)| *protocol)
}

/// What is said on the connection.
fn l7(reader: &mut Reader<'_>, node: &Node) -> Option<L7Request> {
    let mut fields = reader.fields(node)?;
    let at = fields.at;
    let mut request = L7Request::default();
    let errors = reader.errors();
    if let Some(node) = fields.take("http") {
        request.http = reader.field("http", |reader| http(reader, node));
    }
    if let Some(node) = fields.take("tls") {
        request.tls = reader.field("tls", |reader| {
            let mut fields = reader.fields(node)?;
            let sni = text(reader, &mut fields, "sni");
            fields.finish(reader);
            Some(sni)
        });
    }
    for name in ["kafka", "dns", "cassandra", "memcached", "r2d2"] {
        let Some(node) = fields.take(name) else { continue };
        reader.field(name, |reader| other(reader, node, name, &mut request));
    }
    fields.finish(reader);
    if request.is_empty() && reader.errors() == errors {
        reader.error(at, "no request: write `http`, `kafka`, `dns`, `tls`, …");
    }
    (reader.errors() == errors).then_some(request)
}

fn http(reader: &mut Reader<'_>, node: &Node) -> Option<HttpQuestion> {
    let mut fields = reader.fields(node)?;
    let mut field = |name| fields.take(name).and_then(|n| reader.field(name, |r| r.text(n)));
    let method = field("method").unwrap_or("GET").to_owned();
    let path = field("path").map(str::to_owned);
    let raw_path = field("raw_path").map(str::to_owned);
    let host = field("host").unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    if let Some(node) = fields.take("headers") {
        let read = reader.field("headers", |reader| reader.list(node, header));
        headers.extend(read.unwrap_or_default());
    }
    fields.finish(reader);
    let path = match (path, raw_path) {
        (None, Some(raw)) => Err(raw),
        (path, _) => Ok(path.unwrap_or_else(|| "/".to_owned())),
    };
    Some(HttpQuestion { method, path, host, headers })
}

/// `[name, value]`.
fn header(reader: &mut Reader<'_>, node: &Node) -> Option<(String, String)> {
    let parts = reader.list(node, |reader, node| reader.text(node).map(str::to_owned))?;
    match <[String; 2]>::try_from(parts) {
        Ok([name, value]) => Some((name, value)),
        Err(_) => {
            reader.error(node.at, "a header is a list of name and value");
            None
        }
    }
}

fn text(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str) -> String {
    let node = fields.take(name);
    let text = node.and_then(|node| reader.field(name, |reader| reader.text(node)));
    text.unwrap_or_default().to_owned()
}

fn texts(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str) -> Vec<String> {
    let Some(node) = fields.take(name) else { return Vec::new() };
    let list = reader.field(name, |reader| {
        reader.list(node, |reader, node| reader.text(node).map(str::to_owned))
    });
    list.unwrap_or_default()
}

fn integer(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str) -> Option<i16> {
    let node = fields.take(name)?;
    reader.field(name, |reader| {
        let number = match &node.value {
            Value::Integer(number) => i16::try_from(*number).ok(),
            _ => None,
        };
        if number.is_none() {
            reader.error(node.at, "must be a number");
        }
        number
    })
}

fn other(reader: &mut Reader<'_>, node: &Node, name: &str, request: &mut L7Request) -> Option<()> {
    let mut fields = reader.fields(node)?;
    match name {
        "kafka" => {
            request.kafka = Some(super::request::KafkaQuestion {
                api_key: integer(reader, &mut fields, "api_key").unwrap_or_default(),
                api_version: integer(reader, &mut fields, "api_version").unwrap_or_default(),
                client_id: text(reader, &mut fields, "client_id"),
                topics: texts(reader, &mut fields, "topics"),
                group: Some(text(reader, &mut fields, "group")).filter(|group| !group.is_empty()),
            });
        }
        "dns" => request.dns = Some(text(reader, &mut fields, "name")),
        "cassandra" => {
            let mut field = |name| text(reader, &mut fields, name);
            request.cassandra = Some([field("opcode"), field("action"), field("table")]);
        }
        "memcached" => {
            let command = text(reader, &mut fields, "command");
            request.memcached = Some((command, texts(reader, &mut fields, "keys")));
        }
        _ => {
            let mut field = |name| text(reader, &mut fields, name);
            request.r2d2 = Some([field("cmd"), field("file")]);
        }
    }
    fields.finish(reader);
    Some(())
}
