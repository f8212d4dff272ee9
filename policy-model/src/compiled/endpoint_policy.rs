//! The whole policy of one workload.

use std::net::IpAddr;
use std::sync::Arc;

use super::port_policy::{PortAction, PortPolicy};
use crate::identity::{Identities, Identity};
use crate::label::Labels;
use crate::rule::{Protocol, TrafficDirection};
use crate::verdict::{Action, ConnectionVerdict, Inspection, Reason, RuleId, RuleOrigin};

/// What one workload may do and who may do what with it. Made by [`EndpointPolicy::resolve`] or by an
/// [`Engine`](crate::Engine); immutable; answers without a lock.
#[derive(Clone, Debug)]
pub struct EndpointPolicy {
    pub(crate) workload: Identity,
    pub(crate) identities: Arc<Identities>,
    pub(crate) decisions: Arc<Decisions>,
}

/// What is decided by identity; it stays when others come and go that no rule is about.
#[derive(Debug)]
pub(crate) struct Decisions {
    pub(crate) origins: Vec<RuleOrigin>,
    pub(crate) ingress: DirectionPolicy,
    pub(crate) egress: DirectionPolicy,
}

/// The policy of one direction.
#[derive(Debug)]
pub(crate) struct DirectionPolicy {
    /// What is carried out.
    pub(crate) enforced: PortPolicy,
    /// What would be carried out if the policies in audit mode were in force; `None` when there
    /// are none.
    pub(crate) audited: Option<PortPolicy>,
}

/// Those that one direction treats alike: of one class in what is enforced, and of one in what is
/// audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Alike {
    pub(super) enforced: Option<u32>,
    pub(super) audited: Option<u32>,
}

impl EndpointPolicy {
    /// Who has this address.
    #[must_use]
    pub fn identify(&self, address: IpAddr) -> Identity {
        self.identities.identify(address)
    }

    /// Who has exactly these labels, somewhere; unknown if nobody has. For tools: it looks at
    /// everybody.
    #[must_use]
    pub fn identity_of(&self, labels: &Labels) -> Identity {
        self.identities.having(labels)
    }

    /// The workload's own identity.
    #[must_use]
    pub fn workload(&self) -> Identity {
        self.workload
    }

    /// An identity's labels in one line, joined by commas.
    #[must_use]
    pub fn labels(&self, identity: Identity) -> &str {
        self.identities.labels(identity)
    }

    /// Where a rule was written.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> &RuleOrigin {
        static NOWHERE: std::sync::LazyLock<RuleOrigin> =
            std::sync::LazyLock::new(|| RuleOrigin::new("".into(), "", ""));
        self.decisions.origins.get(id.index()).unwrap_or(&NOWHERE)
    }

    /// All rules that can decide, by the index of their id.
    #[must_use]
    pub fn rules(&self) -> &[RuleOrigin] {
        &self.decisions.origins
    }

    /// Whether policy restricts this direction at all.
    #[must_use]
    pub fn is_enforced(&self, direction: TrafficDirection) -> bool {
        match &self.direction(direction).enforced {
            PortPolicy::Open => false,
            PortPolicy::Classes(classes) => classes.enforced,
        }
    }

    /// What is to happen with a connection between the workload and `peer`: to the workload's
    /// `port` for ingress, to the peer's for egress.
    #[must_use]
    pub fn connection(
        &self,
        direction: TrafficDirection,
        peer: Identity,
        protocol: Protocol,
        port: u16,
    ) -> ConnectionVerdict {
        let policy = self.direction(direction);
        policy.verdict(policy.alike(peer), protocol, port)
    }

    pub(super) fn direction(&self, direction: TrafficDirection) -> &DirectionPolicy {
        match direction {
            TrafficDirection::Ingress => &self.decisions.ingress,
            TrafficDirection::Egress => &self.decisions.egress,
        }
    }
}

impl DirectionPolicy {
    /// With whom an identity is treated alike.
    pub(super) fn alike(&self, peer: Identity) -> Alike {
        let audited = self.audited.as_ref().and_then(|audited| audited.class(peer));
        Alike { enforced: self.enforced.class(peer), audited }
    }

    /// What is to happen with a connection of theirs.
    pub(super) fn verdict(&self, alike: Alike, protocol: Protocol, port: u16) -> ConnectionVerdict {
        let (enforced, reason) = self.enforced.lookup(alike.enforced, protocol, port);
        let audited = self.audited.as_ref();
        let audited = audited.map(|audited| audited.lookup(alike.audited, protocol, port));
        let (rule, authentication) = match enforced {
            PortAction::Deny(rule) => (*rule, None),
            PortAction::Allow { rule, authentication }
            | PortAction::Inspect { rule, authentication, .. } => (*rule, *authentication),
        };
        let verdict =
            |action| ConnectionVerdict { action, audited: false, authentication, rule, reason };
        match (enforced, audited) {
            (PortAction::Deny(_), _) => verdict(Action::Deny),
            (PortAction::Allow { .. }, None | Some((PortAction::Allow { .. }, _))) => {
                verdict(Action::Allow)
            }
            (PortAction::Allow { .. }, Some((PortAction::Deny(rule), reason))) => {
                let verdict = verdict(Action::Allow);
                ConnectionVerdict { audited: true, rule: *rule, reason, ..verdict }
            }
            (PortAction::Allow { .. }, Some((PortAction::Inspect { as_what, .. }, _))) => {
                match as_what.audit_only() {
                    Some(as_what) => verdict(Action::Inspect(as_what)),
                    None => verdict(Action::Allow).passed_unread(),
                }
            }
            (PortAction::Inspect { as_what, .. }, None | Some((PortAction::Allow { .. }, _))) => {
                verdict(Action::Inspect(as_what.clone()))
            }
            (PortAction::Inspect { as_what, .. }, Some((PortAction::Deny(rule), reason))) => {
                verdict(Action::Inspect(as_what.audited_as_denied(*rule, reason)))
            }
            (
                PortAction::Inspect { as_what, .. },
                Some((PortAction::Inspect { as_what: other, .. }, _)),
            ) => verdict(Action::Inspect(as_what.audited_by(other))),
        }
    }
}

impl Inspection {
    /// What these rules would say, if they were in force. To look into TLS, or to hand a connection to
    /// another, is not something to try out.
    fn audit_only(&self) -> Option<Self> {
        Some(match self {
            Self::Http(rules) => Self::Http(rules.audit_only()),
            Self::Kafka(rules) => Self::Kafka(rules.audit_only()),
            Self::Dns(rules) => Self::Dns(rules.audit_only()),
            Self::Generic(rules) => Self::Generic(rules.audit_only()),
            Self::Tls(_) | Self::Listener(_) => return None,
        })
    }

    fn audited_as_denied(&self, rule: Option<RuleId>, reason: Reason) -> Self {
        match self {
            Self::Http(rules) => Self::Http(rules.audited_as_denied(rule, reason)),
            Self::Kafka(rules) => Self::Kafka(rules.audited_as_denied(rule, reason)),
            Self::Dns(rules) => Self::Dns(rules.audited_as_denied(rule, reason)),
            Self::Generic(rules) => Self::Generic(rules.audited_as_denied(rule, reason)),
            Self::Tls(_) | Self::Listener(_) => self.clone(),
        }
    }

    /// These rules in force, beside others that would be. A port speaks one protocol: rules of
    /// another would deny all of this one.
    fn audited_by(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Http(rules), Self::Http(other)) => Self::Http(rules.audited_by(other)),
            (Self::Kafka(rules), Self::Kafka(other)) => Self::Kafka(rules.audited_by(other)),
            (Self::Dns(rules), Self::Dns(other)) => Self::Dns(rules.audited_by(other)),
            (Self::Generic(rules), Self::Generic(other)) => Self::Generic(rules.audited_by(other)),
            _ => self.audited_as_denied(None, Reason::NoRuleAllows),
        }
    }
}
