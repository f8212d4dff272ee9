//! Cases from YAML or JSON.

use super::read_query;
use super::{Case, Load, PolicySource};
use crate::diagnostic::Diagnostics;
use crate::document::Features;
use crate::document::node::{Node, Value};
use crate::document::reader::{Fields, Reader};
use crate::endpoint::{Endpoint, NamedPort};
use crate::label::{Label, Labels};
use crate::resolve::{Enforcement, Options};
use crate::rule::Protocol;
use crate::source::Source;

/// Reads all cases of a file.
///
/// # Errors
/// Every error of the file at once. Errors in policies are not among them: a case may be about just
/// those.
pub fn read(source: &Source) -> Result<Vec<Case>, Diagnostics> {
    let nodes = crate::document::node::parse(source).map_err(|error| Diagnostics(vec![*error]))?;
    let mut reader = Reader::new(source);
    let mut cases = Vec::new();
    for node in &nodes {
        cases.extend(file(&mut reader, node, source).unwrap_or_default());
    }
    let found = Diagnostics(reader.found);
    if found.has_errors() { Err(found) } else { Ok(cases) }
}

/// What all cases of a file have, unless they say otherwise.
#[derive(Default)]
struct Shared {
    options: Options,
    features: Features,
    endpoints: Vec<Endpoint>,
    policies: Vec<PolicySource>,
}

fn file(reader: &mut Reader<'_>, node: &Node, source: &Source) -> Option<Vec<Case>> {
    let mut fields = reader.fields(node)?;
    fields.ignore(&["category", "description"]);
    let shared = shared(reader, &mut fields, &Shared::default());
    let list = fields.required("cases", reader);
    fields.finish(reader);
    let list = list?;
    reader.field("cases", |reader| {
        reader.list(list, |reader, node| case(reader, node, source, &shared))
    })
}

fn shared(reader: &mut Reader<'_>, fields: &mut Fields<'_>, outer: &Shared) -> Shared {
    let (mut options, mut features) = (outer.options.clone(), outer.features);
    if let Some(node) = fields.take("config") {
        reader.field("config", |reader| config(reader, node, &mut options, &mut features));
    }
    let mut list = |name, read: &mut dyn FnMut(&mut Reader<'_>, &Node)| {
        let node = fields.take(name)?;
        reader.field(name, |reader| {
            reader.list(node, |reader, node| {
                read(reader, node);
                None::<()>
            })
        })
    };
    let (mut endpoints, mut policies) = (Vec::new(), Vec::new());
    let own_endpoints =
        list("endpoints", &mut |reader, node| endpoints.extend(endpoint(reader, node)));
    let own_policies = list("policies", &mut |_, node| {
        policies.push(match &node.value {
            Value::Text(path) => PolicySource::Path(path.clone()),
            _ => PolicySource::Carried(node.clone()),
        });
    });
    Shared {
        options,
        features,
        endpoints: if own_endpoints.is_some() { endpoints } else { outer.endpoints.clone() },
        policies: if own_policies.is_some() { policies } else { outer.policies.clone() },
    }
}

/// One case. What is wrong with it is its own failure: the others of the file run all the same.
fn case(reader: &mut Reader<'_>, node: &Node, source: &Source, outer: &Shared) -> Option<Case> {
    let begin = reader.found.len();
    let mut fields = reader.fields(node)?;
    // For the reader of the file.
    fields.ignore(&["note", "source", "baseline", "confidence", "oracle_checked", "error"]);
    let id = fields.required("id", reader);
    let id = id.and_then(|node| reader.field("id", |reader| scalar(reader, node)))?;
    let title = fields.take("title").and_then(|node| reader.field("title", |r| scalar(r, node)));
    let shared = shared(reader, &mut fields, outer);
    let load = match fields.take("load") {
        None => Some(Load::Ok),
        Some(node) => reader.field("load", |reader| load(reader, node)),
    };
    let queries = match fields.take("queries") {
        None => Some(Vec::new()),
        Some(node) => reader.field("queries", |reader| {
            reader.list(node, |reader, node| read_query::read(reader, node, &shared.endpoints))
        }),
    };
    fields.finish(reader);
    let broken = reader.take_since(begin);
    Some(Case {
        id,
        title: title.unwrap_or_default(),
        source: source.clone(),
        options: shared.options,
        features: shared.features,
        endpoints: shared.endpoints,
        policies: shared.policies,
        load: load.unwrap_or_default(),
        queries: queries.unwrap_or_default(),
        broken: (!broken.0.is_empty()).then(|| broken.to_string()),
    })
}

/// Text, or a number taken as such: names of cases may look like numbers.
fn scalar(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    match &node.value {
        Value::Integer(number) => Some(number.to_string()),
        _ => reader.text(node).map(str::to_owned),
    }
}

fn load(reader: &mut Reader<'_>, node: &Node) -> Option<Load> {
    let names = ["ok", "error", "schema-error", "resolve-error"];
    let word = reader.text(node)?;
    Some(match reader.one_of(node.at, word, "a result of loading", &names)? {
        "ok" => Load::Ok,
        "error" => Load::Error,
        "schema-error" => Load::SchemaError,
        _ => Load::ResolveError,
    })
}

fn config(
    reader: &mut Reader<'_>,
    node: &Node,
    options: &mut Options,
    features: &mut Features,
) -> Option<()> {
    let mut fields = reader.fields(node)?;
    if let Some(node) = fields.take("policy_enforcement") {
        options.enforcement = reader.field("policy_enforcement", |reader| {
            let word = reader.text(node)?;
            let names = ["default", "always", "never"];
            Some(match reader.one_of(node.at, word, "an enforcement mode", &names)? {
                "always" => Enforcement::Always,
                "never" => Enforcement::Never,
                _ => Enforcement::Default,
            })
        })?;
    }
    if let Some(node) = fields.take("allow_localhost") {
        options.allow_localhost = reader.field("allow_localhost", |reader| {
            let word = reader.text(node)?;
            let names = ["policy", "always", "auto"];
            Some(reader.one_of(node.at, word, "a way to treat the local host", &names)? == "always")
        })?;
    }
    let mut flag = |name: &'static str, target: &mut bool, inverted: bool| {
        if let Some(node) = fields.take(name)
            && let Some(value) = reader.field(name, |reader| reader.boolean(node))
        {
            *target = value != inverted;
        }
    };
    flag("dual_stack", &mut options.single_stack, true);
    flag("host_firewall", &mut options.host_firewall, false);
    flag("audit", &mut options.audit, false);
    flag("node_selector_labels", &mut features.node_selectors, false);
    flag("extended_ip_protocols", &mut features.extended_protocols, false);
    fields.finish(reader);
    Some(())
}

fn endpoint(reader: &mut Reader<'_>, node: &Node) -> Option<Endpoint> {
    let mut fields = reader.fields(node)?;
    let mut text = |name: &'static str, reader: &mut Reader<'_>| {
        let node = fields.take(name)?;
        reader.field(name, |reader| reader.text(node)).map(str::to_owned)
    };
    let name = text("name", reader);
    let namespace = text("namespace", reader).unwrap_or_else(|| "default".to_owned());
    let labels = match fields.take("labels") {
        None => Some(Labels::default()),
        Some(node) => reader.field("labels", |reader| labels(reader, node)),
    };
    let addresses = match fields.take("ips") {
        None => Some(Vec::new()),
        Some(node) => reader.field("ips", |reader| reader.list(node, read_query::address)),
    };
    let named_ports = match fields.take("named_ports") {
        None => Some(Vec::new()),
        Some(node) => reader.field("named_ports", |reader| reader.list(node, named_port)),
    };
    let at = fields.at;
    fields.finish(reader);
    if name.is_none() {
        reader.error(at, "`name` is missing");
    }
    let mut endpoint = Endpoint::new(name?, namespace.as_str(), labels?.placed(&namespace));
    endpoint.addresses = addresses?;
    endpoint.named_ports = named_ports?;
    Some(endpoint)
}

/// Labels as a list, each with its source.
pub(super) fn labels(reader: &mut Reader<'_>, node: &Node) -> Option<Labels> {
    let errors = reader.errors();
    let list = reader.list(node, |reader, node| reader.text(node).map(Label::of))?;
    (reader.errors() == errors).then(|| list.into_iter().collect())
}

fn named_port(reader: &mut Reader<'_>, node: &Node) -> Option<NamedPort> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("name", reader);
    let name = name.and_then(|node| reader.field("name", |reader| reader.text(node)));
    let port = fields.required("port", reader);
    let port = port.and_then(|node| reader.field("port", |r| read_query::port(r, node)));
    let protocol = match fields.take("protocol") {
        None => Some(Protocol::Tcp),
        Some(node) => reader.field("protocol", |reader| read_query::protocol(reader, node)),
    };
    fields.finish(reader);
    Some(NamedPort { name: name?.to_ascii_lowercase(), port: port?, protocol: protocol? })
}
