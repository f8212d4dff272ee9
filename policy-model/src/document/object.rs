//! Kubernetes objects: kind, metadata, `spec` and `specs`, and lists of them.

use super::node::{Node, Value};
use super::reader::{Fields, Reader};
use super::{Dialect, Features, Objects, cidr_group, network_policy, spec};
use crate::diagnostic::nearest;
use crate::label::{Label, Labels};
use crate::rule::{CidrGroup, Policy, PolicyName, Rule};

/// A kind of object.
struct Kind {
    name: &'static str,
    versions: &'static [&'static str],
    form: Form,
}

/// What an object's `spec` looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Cilium's, for one namespace.
    Namespaced,
    /// Cilium's, for the cluster.
    Clusterwide,
    /// Cilium's, with our own additions.
    Extended,
    /// Kubernetes' NetworkPolicy.
    Kubernetes,
    /// A group of prefixes.
    CidrGroup,
}

const KINDS: [Kind; 5] = [
    Kind { name: "CiliumNetworkPolicy", versions: &["cilium.io/v2"], form: Form::Namespaced },
    Kind {
        name: "CiliumClusterwideNetworkPolicy",
        versions: &["cilium.io/v2"],
        form: Form::Clusterwide,
    },
    Kind { name: "NetworkPolicy", versions: &["networking.k8s.io/v1"], form: Form::Kubernetes },
    Kind { name: "TrafficPolicy", versions: &["portreeve.dev/v1alpha1"], form: Form::Extended },
    Kind {
        name: "CiliumCIDRGroup",
        versions: &["cilium.io/v2alpha1", "cilium.io/v2"],
        form: Form::CidrGroup,
    },
];

/// Reads one document: an object, or a list of them.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    features: Features,
    objects: &mut Objects,
) {
    let Some(mut fields) = reader.fields(node) else { return };
    let kind = fields.required("kind", reader).and_then(|node| Some((node, reader.text(node)?)));
    let version = fields
        .required("apiVersion", reader)
        .and_then(|node| Some((node, reader.field("apiVersion", |reader| reader.text(node))?)));
    let (Some((kind_node, kind)), Some((version_node, version))) = (kind, version) else { return };
    if kind == "List" || kind.ends_with("PolicyList") || kind == "CiliumCIDRGroupList" {
        fields.ignore(&["metadata"]);
        if let Some(items) = fields.required("items", reader) {
            let read = |reader: &mut Reader<'_>, item| {
                read(reader, item, features, objects);
                None::<()>
            };
            reader.field("items", |reader| reader.list(items, read));
        }
        fields.finish(reader);
        return;
    }
    let Some(kind) = KINDS.iter().find(|known| known.name == kind) else {
        unknown_kind(reader, kind_node, kind);
        return;
    };
    if !kind.versions.contains(&version) {
        let message = format!("`{version}` has no kind `{}`", kind.name);
        let hint = format!("write `apiVersion: {}`", kind.versions[0]);
        reader.field("apiVersion", |reader| reader.error_hint(version_node.at, message, hint));
        return;
    }
    let errors = reader.errors();
    let metadata = metadata(reader, &mut fields, kind.form);
    fields.ignore(&["status"]);
    let at = Place { kind, line: node.at.line, features };
    if kind.form == Form::CidrGroup {
        let prefixes = cidr_group::read(reader, &mut fields);
        fields.finish(reader);
        let (Some(metadata), Some(prefixes)) = (metadata, prefixes) else { return };
        let group = CidrGroup {
            name: metadata.name,
            labels: metadata.labels,
            prefixes,
            source: reader.source().name.clone(),
            line: at.line,
        };
        if reader.errors() == errors {
            objects.groups.push(group);
        }
        return;
    }
    let rules = rules(reader, &mut fields, &at, metadata.as_ref());
    fields.finish(reader);
    let (Some(metadata), true) = (metadata, reader.errors() == errors) else { return };
    let namespace = at.namespace(&metadata);
    objects.policies.push(Policy {
        name: PolicyName { kind: kind.name, namespace, name: metadata.name },
        rules,
        source: reader.source().name.clone(),
        line: at.line,
    });
}

/// What an object is, and where it stands.
struct Place {
    kind: &'static Kind,
    line: u32,
    features: Features,
}

impl Place {
    /// The namespace a policy is for. Cilium counts its own without one as clusterwide; Kubernetes
    /// puts objects without one into `default`.
    fn namespace(&self, metadata: &Metadata) -> Option<String> {
        let fallback = (self.kind.form == Form::Kubernetes).then(|| "default".to_owned());
        metadata.namespace.clone().or(fallback)
    }
}

fn rules(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    at: &Place,
    metadata: Option<&Metadata>,
) -> Vec<Rule> {
    let namespace = metadata.and_then(|metadata| at.namespace(metadata));
    if at.kind.form == Form::Kubernetes {
        let namespace = namespace.as_deref().unwrap_or("default");
        let Some(node) = fields.required("spec", reader) else { return Vec::new() };
        let rule = reader.field("spec", |reader| network_policy::read(reader, node, namespace));
        return rule.into_iter().collect();
    }
    let dialect = Dialect {
        extended: at.kind.form == Form::Extended,
        nodes: at.kind.form == Form::Clusterwide,
        features: at.features,
    };
    specs(reader, fields, dialect, namespace.as_deref())
}

fn unknown_kind(reader: &mut Reader<'_>, node: &Node, kind: &str) {
    let message = format!("`{kind}` is not a kind of policy");
    let known = KINDS.iter().map(|kind| kind.name);
    let hint = match nearest(kind, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "policies are {}; keep other objects elsewhere",
            Vec::from_iter(known).join(", ")
        ),
    };
    reader.field("kind", |reader| reader.error_hint(node.at, message, hint));
}

/// What of an object's metadata has a meaning here.
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Labels,
}

fn metadata(reader: &mut Reader<'_>, fields: &mut Fields<'_>, form: Form) -> Option<Metadata> {
    let node = fields.required("metadata", reader)?;
    reader.field("metadata", |reader| {
        let mut fields = reader.fields(node)?;
        let name = fields.required("name", reader);
        let name = name.and_then(|node| reader.field("name", |reader| name_of(reader, node)));
        let mut namespace = None;
        if let Some(node) = fields.take("namespace") {
            let empty = matches!(&node.value, Value::Text(text) if text.is_empty());
            if !empty {
                namespace = reader.field("namespace", |reader| name_of(reader, node));
            }
            if !empty && matches!(form, Form::Clusterwide | Form::CidrGroup) {
                reader.field("namespace", |reader| {
                    reader.error_hint(
                        node.at,
                        "a clusterwide object has no namespace",
                        "remove it",
                    );
                });
            }
        }
        let labels = fields.take("labels").map(|node| reader.field("labels", |r| labels(r, node)));
        // The rest is Kubernetes' own book-keeping; nothing of it has a meaning here.
        Some(Metadata { name: name?, namespace, labels: labels.unwrap_or_default() })
    })
}

/// An object's labels; what is no text is none.
fn labels(reader: &mut Reader<'_>, node: &Node) -> Labels {
    let Some(Value::Map(map)) = Some(&node.value) else {
        reader.error(node.at, format_args!("must be a map, not {}", node.kind()));
        return Labels::default();
    };
    let label = |(key, value): &(super::node::Key, Node)| match &value.value {
        Value::Text(text) => Some(Label::new(crate::label::K8S, &key.name, text)),
        _ => None,
    };
    map.iter().filter_map(label).collect()
}

/// A name that isn't empty.
pub(super) fn name_of(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
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

/// All rules of `spec` and `specs`.
fn specs(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    dialect: Dialect,
    namespace: Option<&str>,
) -> Vec<Rule> {
    let (one, many) = (fields.take("spec"), fields.take("specs"));
    let none = |node: &Node| matches!(&node.value, Value::List(items) if items.is_empty());
    if one.is_none() && many.is_none_or(none) {
        reader.error_hint(fields.at, "a policy without rules", "add a `spec`");
    }
    let mut rules = Vec::new();
    if let Some(node) = one {
        rules.extend(reader.field("spec", |r| spec::read(r, node, dialect, namespace)));
    }
    if let Some(node) = many {
        let read = |r: &mut Reader<'_>| r.list(node, |r, n| spec::read(r, n, dialect, namespace));
        rules.extend(reader.field("specs", read).unwrap_or_default());
    }
    rules
}
