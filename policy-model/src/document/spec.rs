//! A rule: its subject, and what it says of each direction (Cilium `api.Rule`).

use super::node::Node;
use super::reader::{Fields, Reader};
use super::{Dialect, peers, ports};
use crate::rule::{Directed, Entry, Mode, Peers, Ports, Rule, TrafficDirection};

/// Reads one `spec`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    dialect: Dialect,
    namespace: Option<&str>,
) -> Option<(Rule, Mode)> {
    let mut fields = reader.fields(node)?;
    let errors = reader.found.len();
    let subject = subject(reader, &mut fields, namespace);
    let mut ingress = directed(reader, &mut fields, TrafficDirection::Ingress, dialect, namespace);
    let mut egress = directed(reader, &mut fields, TrafficDirection::Egress, dialect, namespace);
    if let Some(node) = fields.take("enableDefaultDeny") {
        reader.field("enableDefaultDeny", |reader| {
            let mut fields = reader.fields(node)?;
            for (name, directed) in [("ingress", &mut ingress), ("egress", &mut egress)] {
                if let Some(node) = fields.take(name) {
                    directed.default_deny = reader.field(name, |reader| reader.boolean(node));
                }
            }
            fields.finish(reader);
            Some(())
        });
    }
    let mode = mode(reader, &mut fields, dialect);
    fields.ignore(&["labels", "description", "log"]);
    let at = fields.at;
    fields.finish(reader);
    let silent = !ingress.has_entries() && !egress.has_entries();
    // After other errors, what was meant to be said may have been lost to them.
    if silent && reader.found.len() == errors {
        reader.error_hint(
            at,
            "a rule that says nothing",
            "add `ingress`, `egress`, `ingressDeny` or `egressDeny`; `ingress: [{}]` allows nothing",
        );
    }
    Some((Rule { subject: subject?, ingress, egress }, mode))
}

fn subject(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    namespace: Option<&str>,
) -> Option<crate::selector::Selector> {
    fields.refuse(&["nodeSelector"], reader);
    let node = match fields.take("endpointSelector") {
        Some(node) => node,
        None => {
            reader.error_hint(
                fields.at,
                "`endpointSelector` is missing",
                "`endpointSelector: {}` selects every workload of the namespace",
            );
            return None;
        }
    };
    let mut selector = reader.field("endpointSelector", |reader| peers::selector(reader, node))?;
    if let Some(namespace) = namespace {
        if selector.names_other_namespace(namespace) {
            reader.field("endpointSelector", |reader| {
                reader.warning(
                    node.at,
                    format_args!("the policy's own namespace `{namespace}` replaces the one here"),
                    "a namespaced policy selects workloads of its namespace only",
                );
            });
        }
        selector.force_namespace(namespace);
    }
    Some(selector)
}

/// Our own `mode: enforce|audit`.
fn mode(reader: &mut Reader<'_>, fields: &mut Fields<'_>, dialect: Dialect) -> Mode {
    if !dialect.extended {
        return Mode::Enforce;
    }
    let Some(node) = fields.take("mode") else { return Mode::Enforce };
    reader.field("mode", |reader| {
        let word = reader.text(node).unwrap_or("enforce");
        match reader.one_of(node.at, word, "a mode", &["enforce", "audit"]) {
            Some("audit") => Mode::Audit,
            _ => Mode::Enforce,
        }
    })
}

fn directed(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    direction: TrafficDirection,
    dialect: Dialect,
    namespace: Option<&str>,
) -> Directed {
    let (allow, deny) = match direction {
        TrafficDirection::Ingress => ("ingress", "ingressDeny"),
        TrafficDirection::Egress => ("egress", "egressDeny"),
    };
    let mut read = |name: &'static str, denies| {
        let Some(node) = fields.take(name) else { return Vec::new() };
        let scope = Scope { direction, denies, dialect, namespace };
        reader.field(name, |reader| {
            reader.list(node, |reader, node| entry(reader, node, &scope)).unwrap_or_default()
        })
    };
    Directed { allow: read(allow, false), deny: read(deny, true), default_deny: None }
}

/// Where an entry stands.
pub(super) struct Scope<'a> {
    pub(super) direction: TrafficDirection,
    pub(super) denies: bool,
    pub(super) dialect: Dialect,
    pub(super) namespace: Option<&'a str>,
}

fn entry(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<Entry> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let peers = peers::read(reader, &mut fields, scope);
    let ports = match fields.take("toPorts") {
        None => Some(Ports::All),
        Some(node) => reader.field("toPorts", |reader| {
            let rules = reader.list(node, |reader, node| ports::read(reader, node, scope))?;
            // An empty list says as little as none.
            Some(if rules.is_empty() { Ports::All } else { Ports::Of(rules) })
        }),
    };
    fields.refuse(&["icmps"], reader);
    if !scope.denies {
        fields.refuse(&["authentication"], reader);
    }
    fields.finish(reader);
    let (peers, ports) = (peers?, ports?);
    // Neither peers nor ports: `ingress: [{}]` is default deny and nothing else.
    let peers = match (&peers, &ports) {
        (Peers::Unsaid, Ports::All) => Peers::Of(Vec::new()),
        _ => peers,
    };
    Some(Entry { section, peers, ports })
}
