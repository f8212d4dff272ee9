//! Port policy: (identity, protocol, port) → deny, allow, or inspect.

use rustc_hash::FxHashMap;

use crate::identity::Identity;
use crate::rule::{AuthenticationMode, Protocol};
use crate::verdict::{Inspection, Reason, RuleId};

/// What one direction allows.
#[derive(Debug)]
pub(crate) enum PortPolicy {
    /// No policy restricts it.
    Open,
    /// Default deny, but for what these grant.
    Classes(Classes),
}

/// Identities that policy treats alike share a class.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// A policy speaks of this direction; else all that is said here is what is to be seen.
    pub(crate) enforced: bool,
    /// The first is for those that no selector is about.
    pub(crate) classes: Vec<Class>,
    pub(crate) by_identity: FxHashMap<Identity, u32>,
}

/// What some identities may do: for each protocol, spans of ports that don't overlap, in order.
#[derive(Debug, Default)]
pub(crate) struct Class {
    protocols: Vec<(Protocol, Box<[Span]>)>,
    /// Protocols of which nothing is said by name.
    others: Box<[Span]>,
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
    Allow {
        rule: Option<RuleId>,
        authentication: Option<Authentication>,
    },
    Inspect {
        rule: Option<RuleId>,
        authentication: Option<Authentication>,
        as_what: Inspection,
    },
}

/// How the peer must have proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The mode.
    pub mode: AuthenticationMode,
    /// The entry that decided says so itself; else a wider one does.
    pub explicit: bool,
}

impl PortPolicy {
    /// The class that an identity is of; `None`: it is nobody known.
    pub(crate) fn class(&self, peer: Identity) -> Option<u32> {
        match self {
            Self::Open => Some(0),
            Self::Classes(_) if peer == Identity::UNKNOWN => None,
            Self::Classes(classes) => Some(classes.by_identity.get(&peer).copied().unwrap_or(0)),
        }
    }

    /// What happens with a connection of those who are of a class.
    pub(crate) fn lookup(
        &self,
        class: Option<u32>,
        protocol: Protocol,
        port: u16,
    ) -> (&PortAction, Reason) {
        static OPEN: PortAction = PortAction::Allow { rule: None, authentication: None };
        static CLOSED: PortAction = PortAction::Deny(None);
        let enforced = match self {
            Self::Open => return (&OPEN, Reason::NotEnforced),
            Self::Classes(_) if class.is_none() => return (&CLOSED, Reason::UnknownIdentity),
            Self::Classes(classes) => classes.enforced,
        };
        let spans = self.spans(class, protocol);
        let after = spans.partition_point(|span| span.first <= port);
        let found = spans[..after].last().filter(|span| port <= span.last);
        match found.map(|span| &span.action) {
            None if !enforced => (&OPEN, Reason::NotEnforced),
            None => (&CLOSED, Reason::NoRuleAllows),
            Some(action @ PortAction::Deny(_)) => (action, Reason::RuleDenies),
            Some(action) => (action, Reason::RuleAllows),
        }
    }

    /// Those of whom something is said.
    pub(crate) fn identities(&self) -> impl Iterator<Item = Identity> {
        let classes = match self {
            Self::Open => None,
            Self::Classes(classes) => Some(classes),
        };
        classes.into_iter().flat_map(|classes| classes.by_identity.keys().copied())
    }

    /// Spans of ports of which something is said.
    pub(crate) fn spans(&self, class: Option<u32>, protocol: Protocol) -> &[Span] {
        match (self, class) {
            (Self::Classes(classes), Some(class)) => {
                classes.classes.get(class as usize).map_or(&[], |class| class.spans(protocol))
            }
            _ => &[],
        }
    }
}

impl Class {
    pub(crate) fn new(protocols: Vec<(Protocol, Box<[Span]>)>, others: Box<[Span]>) -> Self {
        Self { protocols, others }
    }

    fn spans(&self, protocol: Protocol) -> &[Span] {
        let own = self.protocols.iter().find(|(own, _)| *own == protocol);
        own.map_or(&self.others, |(_, spans)| spans)
    }
}
