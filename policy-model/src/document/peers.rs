//! Who a rule is about: label selectors, CIDRs, entities.

use ipnet::IpNet;
use std::net::IpAddr;

use super::node::{Key, Node, Value};
use super::reader::{Fields, Reader};
use super::spec::Scope;
use crate::diagnostic::Position;
use crate::entity;
use crate::label::{check_key, check_value, split_source};
use crate::rule::{PeerSelector, Peers, TrafficDirection};
use crate::selector::{Operator, Requirement, Selector};

/// The names of the peer fields of a direction.
struct Names {
    endpoints: &'static str,
    cidr: &'static str,
    cidr_set: &'static str,
    entities: &'static str,
    not_yet: &'static [&'static str],
}

const INGRESS: Names = Names {
    endpoints: "fromEndpoints",
    cidr: "fromCIDR",
    cidr_set: "fromCIDRSet",
    entities: "fromEntities",
    not_yet: &["fromRequires", "fromGroups", "fromNodes"],
};

const EGRESS: Names = Names {
    endpoints: "toEndpoints",
    cidr: "toCIDR",
    cidr_set: "toCIDRSet",
    entities: "toEntities",
    not_yet: &["toRequires", "toServices", "toGroups", "toNodes", "toFQDNs"],
};

/// Reads the peer fields of an entry.
pub(super) fn read(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    scope: &Scope<'_>,
) -> Option<Peers> {
    let names = match scope.direction {
        TrafficDirection::Ingress => INGRESS,
        TrafficDirection::Egress => EGRESS,
    };
    let at = fields.at;
    let mut said: Vec<(&str, Option<Vec<PeerSelector>>)> = Vec::new();
    if let Some(node) = fields.take(names.endpoints) {
        said.push((names.endpoints, endpoints(reader, names.endpoints, node, scope)));
    }
    if let Some(node) = fields.take(names.cidr) {
        said.push((names.cidr, listed(reader, names.cidr, node, cidr)));
    }
    if let Some(node) = fields.take(names.cidr_set) {
        said.push((names.cidr_set, listed(reader, names.cidr_set, node, cidr_set)));
    }
    if let Some(node) = fields.take(names.entities) {
        let lists = listed(reader, names.entities, node, entities);
        said.push((names.entities, lists.map(|lists| lists.into_iter().flatten().collect())));
    }
    fields.refuse(names.not_yet, reader);
    let filled: Vec<_> = said
        .iter()
        .filter(|(_, peers)| peers.as_ref().is_some_and(|peers| !peers.is_empty()))
        .map(|(name, _)| *name)
        .collect();
    if filled.len() > 1 {
        reader.error_hint(
            at,
            format_args!("`{}` can't stand together in one rule", filled.join("` and `")),
            "write one rule for each; they are alternatives",
        );
        return None;
    }
    if said.is_empty() {
        return Some(Peers::Unsaid);
    }
    let lists: Option<Vec<_>> = said.into_iter().map(|(_, peers)| peers).collect();
    let lists = lists?;
    // An empty list selects nobody, even beside another field that is filled.
    let poisoned = lists.iter().any(Vec::is_empty);
    Some(Peers::Of(if poisoned { Vec::new() } else { lists.into_iter().flatten().collect() }))
}

fn listed<'n, T>(
    reader: &mut Reader<'_>,
    name: &str,
    node: &'n Node,
    read: impl FnMut(&mut Reader<'_>, &'n Node) -> Option<T>,
) -> Option<Vec<T>> {
    let errors = reader.found.len();
    let list = reader.field(name, |reader| reader.list(node, read));
    list.filter(|list| !(list.is_empty() && reader.found.len() > errors))
}

fn endpoints(
    reader: &mut Reader<'_>,
    name: &str,
    node: &Node,
    scope: &Scope<'_>,
) -> Option<Vec<PeerSelector>> {
    listed(reader, name, node, |reader, node| {
        let mut selector = selector(reader, node)?;
        selector.scope(if scope.dialect.clusterwide { None } else { scope.namespace });
        Some(PeerSelector::Labels(selector))
    })
}

/// A Kubernetes label selector with label sources.
pub(super) fn selector(reader: &mut Reader<'_>, node: &Node) -> Option<Selector> {
    let mut fields = reader.fields(node)?;
    let mut requirements = Vec::new();
    let mut good = true;
    if let Some(node) = fields.take("matchLabels") {
        reader.field("matchLabels", |reader| match &node.value {
            Value::Map(labels) => {
                for (key, value) in labels {
                    match match_label(reader, key, value) {
                        Some(requirement) => requirements.push(requirement),
                        None => good = false,
                    }
                }
            }
            _ => {
                reader.error(node.at, format_args!("must be a map, not {}", node.kind()));
                good = false;
            }
        });
    }
    if let Some(node) = fields.take("matchExpressions") {
        let errors = reader.found.len();
        let read = reader.field("matchExpressions", |reader| reader.list(node, expression));
        good &= errors == reader.found.len();
        requirements.extend(read.unwrap_or_default());
    }
    fields.finish(reader);
    good.then_some(Selector { requirements })
}

fn match_label(reader: &mut Reader<'_>, key: &Key, value: &Node) -> Option<Requirement> {
    reader.field(&key.name, |reader| {
        let (source, name) = label_key(reader, key.at, &key.name)?;
        let value = label_value(reader, value)?;
        Some(Requirement::equals(source.as_deref(), &name, &value))
    })
}

fn expression(reader: &mut Reader<'_>, node: &Node) -> Option<Requirement> {
    const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
    let mut fields = reader.fields(node)?;
    let key = fields.required("key", reader).and_then(|node| {
        reader.field("key", |reader| {
            let text = reader.text(node)?;
            label_key(reader, node.at, text)
        })
    });
    let operator = fields.required("operator", reader).and_then(|node| {
        reader.field("operator", |reader| {
            let word = reader.text(node)?;
            reader.one_of(node.at, word, "an operator", &OPERATORS)
        })
    });
    let values = match fields.take("values") {
        Some(node) => reader.field("values", |reader| reader.list(node, label_value)),
        None => Some(Vec::new()),
    };
    let at = fields.at;
    fields.finish(reader);
    let ((source, key), operator, values) = (key?, operator?, values?);
    let operator = match (operator, values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        (name, true) => {
            reader.error(at, format_args!("`{name}` needs `values`"));
            return None;
        }
        (name, false) => {
            reader.error(at, format_args!("`{name}` takes no `values`"));
            return None;
        }
    };
    Some(Requirement { source, key, operator })
}

/// Source and key; `any:` means any source, like none.
fn label_key(
    reader: &mut Reader<'_>,
    at: Position,
    text: &str,
) -> Option<(Option<String>, String)> {
    let (source, key) = split_source(text);
    if let Err(error) = check_key(key) {
        reader.error(at, error);
        return None;
    }
    Some((source.filter(|source| *source != "any").map(str::to_owned), key.to_owned()))
}

fn label_value(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let value = reader.text(node)?;
    if let Err(error) = check_value(value) {
        reader.error(node.at, error);
        return None;
    }
    Some(value.to_owned())
}

fn entities(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<PeerSelector>> {
    let name = reader.text(node)?;
    let name = reader.one_of(node.at, name, "an entity", &entity::NAMES)?;
    entity::selectors(name)
}

/// A prefix, or an address, which is a prefix of its full length.
fn cidr(reader: &mut Reader<'_>, node: &Node) -> Option<PeerSelector> {
    let text = reader.text(node)?;
    let prefix = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => prefix(reader, node)?,
    };
    Some(PeerSelector::Cidr { prefix: prefix.trunc(), except: Vec::new() })
}

fn prefix(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    let text = reader.text(node)?;
    match text.parse::<IpNet>() {
        Ok(prefix) => Some(prefix.trunc()),
        Err(_) => {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not a CIDR"),
                "write an address and a prefix length: 10.0.0.0/8 or 2001:db8::/32",
            );
            None
        }
    }
}

fn cidr_set(reader: &mut Reader<'_>, node: &Node) -> Option<PeerSelector> {
    let mut fields = reader.fields(node)?;
    fields.refuse(&["cidrGroupRef", "cidrGroupSelector"], reader);
    let at = fields.at;
    let cidr = fields.required("cidr", reader);
    let cidr = cidr.and_then(|node| reader.field("cidr", |reader| prefix(reader, node)));
    let except = match fields.take("except") {
        Some(node) => reader.field("except", |reader| reader.list(node, prefix)),
        None => Some(Vec::new()),
    };
    fields.finish(reader);
    let (prefix, except) = (cidr?, except?);
    if let Some(outside) = except.iter().find(|except| !prefix.contains(*except)) {
        reader.error_hint(
            at,
            format_args!("the exception `{outside}` is not inside `{prefix}`"),
            "an exception takes addresses out of `cidr`; it denies nothing by itself",
        );
        return None;
    }
    Some(PeerSelector::Cidr { prefix, except })
}
