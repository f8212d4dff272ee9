//! From a tree to an object: kind and metadata, then what the kind says.

use std::collections::BTreeMap;

use portreeve_policy::yaml::{Node, Reader, Value, nearest};
use portreeve_policy::{Diagnostic, Features, Repository, Severity, Source};

use super::{
    OTHER_KINDS, Object, ObjectKey, POLICY_KINDS, fields, is_policy, service, slice, workload,
};

/// Kinds that are lists of objects.
pub const LISTS: [&str; 2] = ["List", "CiliumCIDRGroupList"];

/// What a document says, as far as it could be read.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is called; `None`: not even that could be read, or of what kind it is.
    pub key: Option<ObjectKey>,
    /// What it says; `None`: it has errors.
    pub object: Option<Object>,
    /// Errors and warnings. Lines are those of the text that was read.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the tree of one object. `text` is what it was made of.
#[must_use]
pub fn read(text: &Source, node: &Node) -> Found {
    let mut reader = Reader::new(text);
    let head = head(&mut reader, node);
    let Some(Head { kind, key, labels }) = head else {
        return Found { key: None, object: None, diagnostics: reader.into_found() };
    };
    if is_policy(&kind) {
        return policy(text, key, reader);
    }
    let object = match kind.as_str() {
        "Workload" => workload::read(&mut reader, node, &key, labels).map(Object::Workload),
        "Service" => service::read(&mut reader, node, &key, labels).map(Object::Service),
        "EndpointSlice" => slice::read(&mut reader, node, &key, &labels).map(Object::EndpointSlice),
        "Namespace" => Some(Object::Namespace(labels)),
        _ => {
            // What it was meant to be is not known, and so not which object it was.
            unknown_kind(&mut reader, node, &kind);
            return Found { key: None, object: None, diagnostics: reader.into_found() };
        }
    };
    let object = object.filter(|_| reader.errors() == 0);
    Found { key: Some(key), object, diagnostics: reader.into_found() }
}

/// What every object begins with.
struct Head {
    kind: String,
    key: ObjectKey,
    labels: BTreeMap<String, String>,
}

fn head(reader: &mut Reader<'_>, node: &Node) -> Option<Head> {
    let mut fields = reader.fields(node)?;
    let kind = fields.required("kind", reader);
    let kind = kind.and_then(|kind| reader.field("kind", |reader| reader.text(kind)));
    let version = fields.required("apiVersion", reader);
    let metadata = fields.required("metadata", reader)?;
    let kind = kind?;
    if let Some((_, known)) = OTHER_KINDS.iter().find(|(name, _)| *name == kind)
        && let Some(version) = version
    {
        reader.field("apiVersion", |reader| check_version(reader, version, kind, known));
    }
    let (name, namespace, labels) = reader.field("metadata", |reader| {
        let mut fields = reader.fields(metadata)?;
        let name = fields.required("name", reader)?;
        let name = reader.field("name", |reader| fields::name(reader, name))?;
        let namespace = fields.take("namespace").filter(|node| !is_empty(node));
        let namespace = match namespace {
            Some(node) => Some(reader.field("namespace", |reader| fields::name(reader, node))?),
            None => None,
        };
        let labels = match fields.take("labels") {
            Some(node) => reader.field("labels", |reader| fields::texts(reader, node)),
            None => Some(BTreeMap::new()),
        };
        Some((name, namespace, labels.unwrap_or_default()))
    })?;
    let namespace = match kind {
        "Namespace" | "CiliumClusterwideNetworkPolicy" | "CiliumCIDRGroup" => None,
        // Cilium counts a policy of its own without a namespace as clusterwide.
        "CiliumNetworkPolicy" | "TrafficPolicy" => namespace,
        _ => Some(namespace.unwrap_or_else(|| "default".to_owned())),
    };
    let key = ObjectKey { kind: kind.to_owned(), namespace, name };
    Some(Head { kind: kind.to_owned(), key, labels })
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text.is_empty())
}

fn check_version(reader: &mut Reader<'_>, node: &Node, kind: &str, known: &str) {
    let Some(version) = reader.text(node) else { return };
    if version != known {
        let message = format!("`{version}` has no kind `{kind}`");
        reader.error_hint(node.at, message, format_args!("write `apiVersion: {known}`"));
    }
}

fn unknown_kind(reader: &mut Reader<'_>, node: &Node, kind: &str) {
    let known = || POLICY_KINDS.into_iter().chain(OTHER_KINDS.into_iter().map(|(kind, _)| kind));
    let hint = match nearest(kind, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "read here: {}; keep other objects elsewhere",
            Vec::from_iter(known()).join(", ")
        ),
    };
    let at = field_of(node, "kind").map_or(node.at, |kind| kind.at);
    reader.field("kind", |reader| {
        reader.error_hint(at, format_args!("`{kind}` is not a kind that is read here"), hint);
    });
}

/// A field of a map, without any account of it.
pub(super) fn field_of<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(fields) = &node.value else { return None };
    fields.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
}

/// A policy is read by the engine, from its text.
fn policy(text: &Source, key: ObjectKey, reader: Reader<'_>) -> Found {
    let (object, diagnostics) = match Repository::parse_with([text.clone()], Features::default()) {
        Ok(repository) => {
            let warnings = repository.warnings().iter().filter(|warning| !warning.advice).cloned();
            let diagnostics = warnings.collect();
            (Some(Object::Policy(Box::new(repository))), diagnostics)
        }
        Err(errors) => (None, errors.0),
    };
    // The engine is stricter about names than the head; what only the head found must not get lost.
    let known = diagnostics.iter().any(|found: &Diagnostic| found.severity == Severity::Error);
    let own = reader.into_found();
    match known || own.is_empty() {
        true => Found { key: Some(key), object, diagnostics },
        false => Found { key: Some(key), object: None, diagnostics: own },
    }
}
