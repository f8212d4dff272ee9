//! Kubernetes objects: kind, metadata, `spec` and `specs`, and lists of them.

use super::node::Node;
use super::reader::{Fields, Reader};
use super::{Dialect, spec};
use crate::diagnostic::{Severity, nearest};
use crate::rule::{Mode, Policy, PolicyName, Rule};

/// Kind, API version, whether it is namespaced, whether it has our own fields.
const KINDS: [(&str, &str, bool, bool); 3] = [
    ("CiliumNetworkPolicy", "cilium.io/v2", true, false),
    ("CiliumClusterwideNetworkPolicy", "cilium.io/v2", false, false),
    ("TrafficPolicy", "portreeve.dev/v1alpha1", true, true),
];

/// Policies of other kinds, which can't be left out without leaving something open.
const NOT_YET: [&str; 3] = ["NetworkPolicy", "CiliumCIDRGroup", "ClusterNetworkPolicy"];

/// Reads one document: a policy, or a list of them.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, policies: &mut Vec<Policy>) {
    let Some(mut fields) = reader.fields(node) else { return };
    let kind = fields.required("kind", reader).and_then(|node| Some((node, reader.text(node)?)));
    let version = fields
        .required("apiVersion", reader)
        .and_then(|node| Some((node, reader.field("apiVersion", |reader| reader.text(node))?)));
    let (Some((kind_node, kind)), Some((version_node, version))) = (kind, version) else { return };
    if kind == "List" || kind.ends_with("PolicyList") {
        fields.ignore(&["metadata"]);
        if let Some(items) = fields.required("items", reader) {
            let read = |reader: &mut Reader<'_>, item| {
                read(reader, item, policies);
                None::<()>
            };
            reader.field("items", |reader| reader.list(items, read));
        }
        fields.finish(reader);
        return;
    }
    let Some((kind, expected, namespaced, extended)) =
        KINDS.iter().find(|(name, ..)| *name == kind)
    else {
        unknown_kind(reader, kind_node, kind);
        return;
    };
    if version != *expected {
        let message = format!("`{version}` has no kind `{kind}`");
        let hint = format!("write `apiVersion: {expected}`");
        reader.field("apiVersion", |reader| reader.error_hint(version_node.at, message, hint));
        return;
    }
    let errors = reader.found.len();
    let metadata = metadata(reader, &mut fields, *namespaced);
    // A namespaced policy without a namespace counts as clusterwide (Cilium).
    let clusterwide = metadata.as_ref().is_none_or(|(_, namespace)| namespace.is_none());
    let dialect = Dialect { clusterwide, extended: *extended };
    let namespace = metadata.as_ref().and_then(|(_, namespace)| namespace.as_deref());
    let (mode, rules) = specs(reader, &mut fields, dialect, namespace);
    fields.ignore(&["status"]);
    fields.finish(reader);
    let failed = reader.found[errors..].iter().any(|found| found.severity == Severity::Error);
    let (Some((name, namespace)), false) = (metadata, failed) else { return };
    policies.push(Policy {
        name: PolicyName { kind, namespace, name },
        mode,
        rules,
        source: reader.source().name.clone(),
        line: node.at.line,
    });
}

fn unknown_kind(reader: &mut Reader<'_>, node: &Node, kind: &str) {
    let message = format!("`{kind}` is not a kind of policy");
    let known = KINDS.iter().map(|(name, ..)| *name);
    let hint = match nearest(kind, known.clone()) {
        _ if NOT_YET.contains(&kind) => "this kind is not supported yet".to_owned(),
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "policies are {}; keep other objects elsewhere",
            Vec::from_iter(known).join(", ")
        ),
    };
    reader.field("kind", |reader| reader.error_hint(node.at, message, hint));
}

/// Name and namespace.
fn metadata(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    namespaced: bool,
) -> Option<(String, Option<String>)> {
    let node = fields.required("metadata", reader)?;
    reader.field("metadata", |reader| {
        let mut fields = reader.fields(node)?;
        let name = fields.required("name", reader);
        let name = name.and_then(|node| reader.field("name", |reader| name_of(reader, node)));
        let mut namespace = None;
        if let Some(node) = fields.take("namespace") {
            namespace = reader.field("namespace", |reader| name_of(reader, node));
            if !namespaced {
                reader.field("namespace", |reader| {
                    reader.error_hint(
                        node.at,
                        "a clusterwide policy has no namespace",
                        "remove it",
                    );
                });
            }
        }
        // Kubernetes' own book-keeping; nothing of it has a meaning here.
        Some((name?, namespace))
    })
}

/// A name that isn't empty.
fn name_of(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(good) {
        reader.error_hint(
            node.at,
            format_args!("`{name}` is not a name"),
            "use lower case letters, digits, `-` and `.`, at most 253",
        );
        return None;
    }
    Some(name.to_owned())
}

/// All rules of `spec` and `specs`, and our own `mode`.
fn specs(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    dialect: Dialect,
    namespace: Option<&str>,
) -> (Mode, Vec<Rule>) {
    let (one, many) = (fields.take("spec"), fields.take("specs"));
    if one.is_none() && many.is_none() {
        reader.error_hint(fields.at, "a policy without rules", "add a `spec`");
    }
    let mut mode = Mode::Enforce;
    let mut rules = Vec::new();
    let mut read = |reader: &mut Reader<'_>, node| -> Option<()> {
        let (rule, written) = spec::read(reader, node, dialect, namespace)?;
        if written == Mode::Audit {
            mode = Mode::Audit;
        }
        rules.push(rule);
        None
    };
    if let Some(node) = one {
        reader.field("spec", |reader| read(reader, node));
    }
    if let Some(node) = many {
        reader.field("specs", |reader| reader.list(node, read));
    }
    (mode, rules)
}
