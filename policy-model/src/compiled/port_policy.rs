//! Port policy: (identity, protocol, port) → deny, allow, or inspect.

use std::collections::HashMap;
use std::sync::Arc;

use super::http::HttpRuleSet;
use crate::identity::Identity;
use crate::rule::Protocol;
use crate::verdict::{Reason, RuleId};

/// What one direction allows.
#[derive(Debug)]
pub(crate) enum PortPolicy {
    /// No policy restricts it.
    Open,
    /// Default deny, but for what these grant.
    Rules(Rules),
}

#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Identities that policy treats alike share a class.
    pub(crate) classes: Vec<Class>,
    pub(crate) by_identity: HashMap<Identity, u32>,
}

/// What some identities may do.
#[derive(Debug, Default)]
pub(crate) struct Class {
    /// For each protocol, spans of ports that don't overlap, in order.
    pub(crate) spans: HashMap<Protocol, Vec<Span>>,
}

/// Ports `first..=last` and what happens there.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) action: PortAction,
}

/// What happens with a connection.
#[derive(Clone, Debug)]
pub(crate) enum PortAction {
    /// The rule that denies it; none if no rule allows it.
    Deny(Option<RuleId>),
    Allow(Option<RuleId>),
    Http(Arc<HttpRuleSet>),
}

impl PortPolicy {
    pub(crate) fn lookup(
        &self,
        peer: Identity,
        protocol: Protocol,
        port: u16,
    ) -> (&PortAction, Reason) {
        let rules = match self {
            Self::Open => return (&PortAction::Allow(None), Reason::NotEnforced),
            Self::Rules(rules) => rules,
        };
        let Some(class) = rules.by_identity.get(&peer) else {
            return (&PortAction::Deny(None), Reason::UnknownIdentity);
        };
        let spans = rules.classes.get(*class as usize).and_then(|class| class.spans.get(&protocol));
        let found = spans.and_then(|spans| {
            let after = spans.partition_point(|span| span.first <= port);
            spans[..after].last().filter(|span| port <= span.last)
        });
        match found.map(|span| &span.action) {
            None => (&PortAction::Deny(None), Reason::NoRuleAllows),
            Some(action @ PortAction::Deny(_)) => (action, Reason::RuleDenies),
            Some(action) => (action, Reason::RuleAllows),
        }
    }
}

/// One thing that a rule grants or denies to the identities it selects.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// `None`: every protocol.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) denies: bool,
    /// The rules that a request must fulfil one of; `None`: any request, any protocol.
    pub(crate) http: Option<Arc<[u32]>>,
    pub(crate) rule: RuleId,
}

impl Grant {
    /// Every protocol and port.
    pub(crate) fn of_everything(rule: RuleId, denies: bool) -> Self {
        Self { protocol: None, first: 0, last: u16::MAX, denies, http: None, rule }
    }
}

/// Every protocol there is.
const PROTOCOLS: [Protocol; 5] =
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::IcmpV6];

impl Class {
    /// Joins grants. On every port a denial beats all; what grants anything beats what grants some
    /// requests; those that grant some requests are alternatives (Cilium: the rules of all selectors
    /// that contain the peer are ORed). `compile` turns the indices of HTTP rules, sorted and each
    /// once, into a set.
    pub(crate) fn new(
        grants: &[&Grant],
        mut compile: impl FnMut(Vec<u32>) -> Arc<HttpRuleSet>,
    ) -> Self {
        let mut spans = HashMap::new();
        for protocol in PROTOCOLS {
            let about: Vec<&Grant> = grants
                .iter()
                .copied()
                .filter(|grant| grant.protocol.is_none_or(|own| own == protocol))
                .collect();
            if !about.is_empty() {
                spans.insert(protocol, join(&about, &mut compile));
            }
        }
        Self { spans }
    }
}

/// The ports at which the answer may change, and the answer between each two.
fn join(grants: &[&Grant], compile: &mut impl FnMut(Vec<u32>) -> Arc<HttpRuleSet>) -> Vec<Span> {
    let mut edges: Vec<u32> = grants
        .iter()
        .flat_map(|grant| [u32::from(grant.first), u32::from(grant.last) + 1])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let mut spans = Vec::new();
    for edge in edges.windows(2) {
        let (Ok(first), Ok(last)) = (u16::try_from(edge[0]), u16::try_from(edge[1] - 1)) else {
            continue;
        };
        let covering =
            grants.iter().copied().filter(|grant| grant.first <= first && last <= grant.last);
        if let Some(action) = action(covering, compile) {
            spans.push(Span { first, last, action });
        }
    }
    spans
}

fn action<'g>(
    covering: impl Iterator<Item = &'g Grant> + Clone,
    compile: &mut impl FnMut(Vec<u32>) -> Arc<HttpRuleSet>,
) -> Option<PortAction> {
    if let Some(denial) = covering.clone().find(|grant| grant.denies) {
        return Some(PortAction::Deny(Some(denial.rule)));
    }
    if let Some(open) = covering.clone().find(|grant| grant.http.is_none()) {
        return Some(PortAction::Allow(Some(open.rule)));
    }
    let mut rules: Vec<u32> =
        covering.filter_map(|grant| grant.http.as_deref()).flatten().copied().collect();
    rules.sort_unstable();
    rules.dedup();
    (!rules.is_empty()).then(|| PortAction::Http(compile(rules)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(first: u16, last: u16, denies: bool, rule: u32) -> Grant {
        let protocol = Some(Protocol::Tcp);
        Grant { protocol, first, last, denies, http: None, rule: RuleId(rule) }
    }

    fn lookup(grants: &[Grant], port: u16) -> (bool, Reason) {
        let identity = Identity::UNKNOWN;
        let class = Class::new(&grants.iter().collect::<Vec<_>>(), |_| unreachable!());
        let by_identity = [(identity, 0)].into_iter().collect();
        let policy = PortPolicy::Rules(Rules { classes: vec![class], by_identity });
        let (action, reason) = policy.lookup(identity, Protocol::Tcp, port);
        (matches!(action, PortAction::Allow(_)), reason)
    }

    #[test]
    fn ranges_overlap_and_a_denial_cuts_a_hole() {
        let grants = [grant(80, 90, false, 0), grant(85, 100, false, 1), grant(88, 88, true, 2)];
        for (port, allowed) in
            [(79, false), (80, true), (87, true), (88, false), (100, true), (101, false)]
        {
            assert_eq!(lookup(&grants, port).0, allowed, "{port}");
        }
        assert_eq!(lookup(&grants, 88).1, Reason::RuleDenies);
        assert_eq!(lookup(&grants, 101).1, Reason::NoRuleAllows);
    }

    #[test]
    fn the_last_port_is_a_port() {
        assert!(lookup(&[grant(0, u16::MAX, false, 0)], u16::MAX).0);
        assert!(lookup(&[grant(0, u16::MAX, false, 0)], 0).0);
    }

    #[test]
    fn an_identity_that_policy_does_not_know_is_denied() {
        let policy = PortPolicy::Rules(Rules::default());
        let (action, reason) = policy.lookup(Identity::UNKNOWN, Protocol::Tcp, 80);
        assert!(matches!(action, PortAction::Deny(None)));
        assert_eq!(reason, Reason::UnknownIdentity);
    }
}
