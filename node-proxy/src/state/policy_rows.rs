//! What an endpoint may do with whom, to be shown: those whom policy treats alike in one line.

use std::collections::{BTreeMap, BTreeSet};

use portreeve_policy::label::NAMESPACE_LABELS;
use portreeve_policy::{
    Action, EndpointPolicy, Identity, IdentityClass, IdentityClasses, Inspection, Labels, PortSpan,
    Protocol, RequestRule, RuleOrigin, TrafficDirection,
};
use serde::Serialize;

/// What some may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyRow {
    /// The endpoint.
    pub endpoint: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Those who are treated alike, as a person calls them; `everybody`, or `everybody else`.
    pub who: Vec<String>,
    /// Their identities; none: everybody, or everybody else.
    pub identities: Vec<u32>,
    /// The protocol, or `any`.
    pub protocol: String,
    /// The ports: one, from and to, or `any`. Of ICMP, types.
    pub ports: String,
    /// `allow`, `deny`, or `inspect` and as what.
    pub action: String,
    /// Policies in audit mode would deny it.
    pub audited: bool,
    /// The rule that says so.
    pub rule: Option<String>,
    /// What may be said, where that is inspected: one of these has to match.
    pub requests: Vec<RequestRow>,
}

/// A rule about requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestRow {
    /// What it allows, by the names of a policy's fields.
    pub allows: String,
    /// It is in audit mode: what no such rule allows passes, marked.
    pub audited: bool,
    /// Which it is.
    pub rule: Option<String>,
}

/// The built-in identities (Cilium `pkg/identity/numericidentity.go`).
const BUILT_IN: std::ops::RangeInclusive<u32> = 1..=10;

/// Nobody has this number: how he is treated is how everybody is of whom nothing is said.
const NOBODY: u32 = u32::MAX;

const PROTOCOLS: [Protocol; 5] =
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::IcmpV6];

/// The rows of one endpoint. `known`: everybody it may be about.
pub(super) fn of(endpoint: &str, policy: &EndpointPolicy, known: Vec<Identity>) -> Vec<PolicyRow> {
    let mut known: BTreeSet<Identity> = known.into_iter().collect();
    known.extend(BUILT_IN.map(Identity::new));
    known.remove(&Identity::UNKNOWN);
    let mut rows = Vec::new();
    for direction in [TrafficDirection::Ingress, TrafficDirection::Egress] {
        let classes = policy.classes(direction);
        let others = classes.of(Identity::new(NOBODY));
        let mut alike: BTreeMap<Option<Identity>, (IdentityClass, Vec<Identity>)> = BTreeMap::new();
        for identity in &known {
            let class = classes.of(*identity);
            alike.entry(class.name()).or_insert((class, Vec::new())).1.push(*identity);
        }
        alike.remove(&others.name());
        let rest = if alike.is_empty() { "everybody" } else { "everybody else" };
        let spoken_of = alike.into_values().map(|(class, all)| {
            let who = all.iter().map(|identity| short(&labels(policy.labels(*identity)))).collect();
            (class, who, all.into_iter().map(Identity::get).collect())
        });
        let rest = (others, vec![rest.to_owned()], Vec::new());
        for (class, who, identities) in spoken_of.chain([rest]) {
            let row = PolicyRow {
                endpoint: endpoint.to_owned(),
                direction: direction.as_str().to_owned(),
                who,
                identities,
                protocol: String::new(),
                ports: String::new(),
                action: String::new(),
                audited: false,
                rule: None,
                requests: Vec::new(),
            };
            rows.extend(of_class(policy, &classes, class, &row));
        }
    }
    rows
}

/// The rows of those who are treated alike; one for all protocols, if those are.
fn of_class(
    policy: &EndpointPolicy,
    classes: &IdentityClasses<'_>,
    class: IdentityClass,
    row: &PolicyRow,
) -> Vec<PolicyRow> {
    let rows = |protocol: Protocol| -> Vec<PolicyRow> {
        classes.ports(class, protocol).filter_map(|span| of_span(policy, &span, row)).collect()
    };
    let all: Vec<Vec<PolicyRow>> = PROTOCOLS.into_iter().map(rows).collect();
    if all.iter().all(|rows| *rows == all[0]) {
        let any = |row: &PolicyRow| PolicyRow { protocol: "any".to_owned(), ..row.clone() };
        return all[0].iter().map(any).collect();
    }
    let named = PROTOCOLS.into_iter().zip(all).flat_map(|(protocol, rows)| {
        rows.into_iter().map(move |row| PolicyRow { protocol: protocol.to_string(), ..row })
    });
    named.collect()
}

/// What no rule allows is not shown.
fn of_span(policy: &EndpointPolicy, span: &PortSpan, row: &PolicyRow) -> Option<PolicyRow> {
    let PortSpan { first, last, verdict } = span;
    if matches!(verdict.action, Action::Deny) && verdict.rule.is_none() {
        return None;
    }
    Some(PolicyRow {
        ports: match (*first, *last) {
            (0, u16::MAX) => "any".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        },
        action: action(&verdict.action),
        audited: verdict.audited,
        rule: verdict.rule.map(|id| place(policy.rule(id))),
        requests: requests(policy, &verdict.action),
        ..row.clone()
    })
}

/// Where a rule is written: its policy, if one says it, and the place in it.
pub(crate) fn place(rule: &RuleOrigin) -> String {
    match rule.policy() {
        "" => rule.section().to_owned(),
        policy => format!("{policy} {}", rule.section()),
    }
}

fn requests(policy: &EndpointPolicy, action: &Action) -> Vec<RequestRow> {
    let Action::Inspect(what) = action else { return Vec::new() };
    let row = |RequestRule { rule, text, audited }| RequestRow {
        allows: text,
        audited,
        rule: rule.map(|id| place(policy.rule(id))),
    };
    what.request_rules().into_iter().map(row).collect()
}

fn action(action: &Action) -> String {
    match action {
        Action::Deny => "deny".to_owned(),
        Action::Allow => "allow".to_owned(),
        Action::Inspect(what) => format!("inspect {}", inspection(what)),
        _ => "unknown".to_owned(),
    }
}

fn inspection(what: &Inspection) -> &'static str {
    match what {
        Inspection::Http(_) => "http",
        Inspection::Kafka(_) => "kafka",
        Inspection::Dns(_) => "dns",
        Inspection::Tls(_) => "tls",
        Inspection::Generic(_) => "l7proto",
        Inspection::Listener(_) => "listener",
        _ => "unknown",
    }
}

fn labels(text: &str) -> Labels {
    text.split(',').map(portreeve_policy::Label::of).collect()
}

/// Labels as a person calls a workload: its namespace, then what it was given itself.
pub(crate) fn short(labels: &Labels) -> String {
    let own = labels.iter().filter(|label| !label.key.starts_with(NAMESPACE_LABELS));
    own.cloned().collect::<Labels>().short()
}
