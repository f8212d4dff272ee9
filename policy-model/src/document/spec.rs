//! A rule: its subject, and what it says of each direction (Cilium `api.Rule`).

use super::node::Node;
use super::reader::{Fields, Reader};
use super::{Dialect, icmp, peers, ports, selector};
use crate::rule::{
    AuthenticationMode, Directed, Entry, Mode, Peers, Ports, Rule, Subject, TrafficDirection,
    Visibility,
};
use crate::selector::Selector;

/// Reads one `spec`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    dialect: Dialect,
    namespace: Option<&str>,
) -> Option<Rule> {
    let mut fields = reader.fields(node)?;
    let errors = reader.errors();
    let subject = subject(reader, &mut fields, dialect, namespace);
    let place = Place {
        dialect,
        namespace,
        host: matches!(subject, Some(Subject::Nodes(_))),
        unplaced: namespace.is_none()
            && subject.as_ref().is_some_and(|subject| subject.selector().names_init()),
    };
    let mut ingress = directed(reader, &mut fields, TrafficDirection::Ingress, place);
    let mut egress = directed(reader, &mut fields, TrafficDirection::Egress, place);
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
    if dialect.extended {
        visibility(reader, &mut fields, dialect, &mut ingress, &mut egress);
    }
    fields.ignore(&["labels", "description"]);
    log(reader, &mut fields);
    let at = fields.at;
    fields.finish(reader);
    let watches = !ingress.visibility.is_empty() || !egress.visibility.is_empty();
    let silent = !ingress.has_entries() && !egress.has_entries() && !watches;
    // After other errors, what was meant to be said may have been lost to them.
    if silent && reader.errors() == errors {
        reader.error_hint(
            at,
            "a rule that says nothing",
            "add `ingress`, `egress`, `ingressDeny` or `egressDeny`; `ingress: [{}]` allows nothing",
        );
    }
    Some(Rule { subject: subject?, ingress, egress, mode })
}

/// Workloads or nodes: one of the two.
fn subject(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    dialect: Dialect,
    namespace: Option<&str>,
) -> Option<Subject> {
    let (endpoints, nodes) = (fields.take("endpointSelector"), fields.take("nodeSelector"));
    let at = fields.at;
    match (endpoints, nodes) {
        (None, None) => {
            reader.error_hint(
                at,
                "`endpointSelector` is missing",
                "`endpointSelector: {}` selects every workload of the namespace",
            );
            None
        }
        (Some(_), Some(_)) => {
            reader.error_hint(
                at,
                "`endpointSelector` and `nodeSelector` can't stand together",
                "a rule is for workloads or for nodes; write two",
            );
            None
        }
        (None, Some(node)) => {
            if !dialect.nodes {
                reader.error_hint(
                    at,
                    "`nodeSelector` is for clusterwide policies",
                    "write a CiliumClusterwideNetworkPolicy",
                );
                return None;
            }
            let selector = reader.field("nodeSelector", |reader| selector::read(reader, node))?;
            Some(Subject::Nodes(selector))
        }
        (Some(node), None) => {
            let mut selector =
                reader.field("endpointSelector", |reader| selector::read(reader, node))?;
            if let Some(namespace) = namespace {
                force_namespace(reader, node, &mut selector, namespace);
            }
            Some(Subject::Endpoints(selector))
        }
    }
}

fn force_namespace(reader: &mut Reader<'_>, node: &Node, selector: &mut Selector, namespace: &str) {
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

/// `log.value` is carried for the reader of logs; it has no part in the verdict.
fn log(reader: &mut Reader<'_>, fields: &mut Fields<'_>) {
    const LONGEST: usize = 32;
    let Some(node) = fields.take("log") else { return };
    reader.field("log", |reader| {
        let mut fields = reader.fields(node)?;
        if let Some(node) = fields.take("value") {
            reader.field("value", |reader| {
                let text = reader.text(node)?;
                let printable = text.chars().all(|c| !c.is_control());
                if text.chars().count() > LONGEST || !printable {
                    reader.error(node.at, "must be at most 32 printable characters");
                }
                Some(())
            });
        }
        fields.finish(reader);
        Some(())
    });
}

/// Our own `visibility`: ports whose requests are to be seen.
fn visibility(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    dialect: Dialect,
    ingress: &mut Directed,
    egress: &mut Directed,
) {
    let Some(node) = fields.take("visibility") else { return };
    reader.field("visibility", |reader| {
        let mut fields = reader.fields(node)?;
        for (name, directed) in [("ingress", ingress), ("egress", egress)] {
            let Some(node) = fields.take(name) else { continue };
            let list = reader.field(name, |reader| {
                reader.list(node, |reader, node| seen(reader, node, dialect))
            });
            directed.visibility = list.unwrap_or_default();
        }
        fields.finish(reader);
        Some(())
    });
}

fn seen(reader: &mut Reader<'_>, node: &Node, dialect: Dialect) -> Option<Visibility> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let ports = fields.required("ports", reader);
    let ports =
        ports.and_then(|node| reader.field("ports", |r| ports::list(r, node, dialect.features)));
    if let Some(node) = fields.required("protocol", reader) {
        reader.field("protocol", |reader| {
            let word = reader.text(node)?;
            reader.one_of(node.at, word, "a protocol that can be made visible", &["http"])
        });
    }
    fields.finish(reader);
    Some(Visibility { section, ports: ports? })
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

/// Where a rule stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    dialect: Dialect,
    namespace: Option<&'a str>,
    host: bool,
    unplaced: bool,
}

fn directed(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    direction: TrafficDirection,
    place: Place<'_>,
) -> Directed {
    let (allow, deny) = match direction {
        TrafficDirection::Ingress => ("ingress", "ingressDeny"),
        TrafficDirection::Egress => ("egress", "egressDeny"),
    };
    let Place { dialect, namespace, host, unplaced } = place;
    let mut read = |name: &'static str, denies| {
        let Some(node) = fields.take(name) else { return Vec::new() };
        let scope = Scope { direction, denies, dialect, namespace, host, unplaced };
        reader.field(name, |reader| {
            reader.list(node, |reader, node| entry(reader, node, &scope)).unwrap_or_default()
        })
    };
    Directed { allow: read(allow, false), deny: read(deny, true), ..Directed::default() }
}

/// Where an entry stands.
pub(super) struct Scope<'a> {
    pub(super) direction: TrafficDirection,
    pub(super) denies: bool,
    pub(super) dialect: Dialect,
    pub(super) namespace: Option<&'a str>,
    /// The rule is for nodes.
    pub(super) host: bool,
    /// Peers are not put into any namespace.
    pub(super) unplaced: bool,
}

fn entry(reader: &mut Reader<'_>, node: &Node, scope: &Scope<'_>) -> Option<Entry> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let at = fields.at;
    let peers = peers::read(reader, &mut fields, scope);
    let to_ports = listed(reader, &mut fields, "toPorts", &mut |reader, node| {
        ports::read(reader, node, scope)
    });
    let icmps = listed(reader, &mut fields, "icmps", &mut |reader, node| icmp::read(reader, node));
    let authentication =
        if scope.denies { Some(None) } else { authentication(reader, &mut fields) };
    let mode = mode(reader, &mut fields, scope.dialect);
    fields.finish(reader);
    let ports = match (to_ports?, icmps?) {
        (ports, icmps) if !ports.is_empty() && !icmps.is_empty() => {
            reader.error_hint(
                at,
                "`toPorts` and `icmps` can't stand together in one rule",
                "write one rule for each; they are alternatives",
            );
            return None;
        }
        // An empty list says as little as none.
        (ports, icmps) if ports.is_empty() && icmps.is_empty() => Ports::All,
        (ports, icmps) => Ports::Of(ports.into_iter().chain(icmps).collect()),
    };
    let (peers, requires) = peers?;
    // Neither peers nor ports: `ingress: [{}]` is default deny and nothing else.
    let peers = match (&peers, &ports) {
        (Peers::Unsaid, Ports::All) => Peers::Of(Vec::new()),
        _ => peers,
    };
    Some(Entry { section, at, peers, requires, ports, authentication: authentication?, mode })
}

/// The items of a list; none if it isn't there.
fn listed<T>(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    read: &mut dyn FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    match fields.take(name) {
        None => Some(Vec::new()),
        Some(node) => reader.field(name, |reader| reader.list(node, read)),
    }
}

/// `Some(None)`: not said.
fn authentication(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
) -> Option<Option<AuthenticationMode>> {
    let Some(node) = fields.take("authentication") else { return Some(None) };
    reader.field("authentication", |reader| {
        let mut fields = reader.fields(node)?;
        let mode = fields.required("mode", reader);
        fields.finish(reader);
        let node = mode?;
        let names = ["disabled", "required", "test-always-fail"];
        let word = reader.field("mode", |reader| reader.text(node));
        let word = reader.field("mode", |reader| {
            reader.one_of(node.at, word?, "an authentication mode", &names)
        });
        Some(Some(match word? {
            "disabled" => AuthenticationMode::Disabled,
            "required" => AuthenticationMode::Required,
            _ => AuthenticationMode::TestAlwaysFail,
        }))
    })
}
