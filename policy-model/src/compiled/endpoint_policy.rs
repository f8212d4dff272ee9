//! The whole policy of one workload.

use std::net::IpAddr;
use std::sync::Arc;

use super::http::{Audited, HttpRules};
use super::port_policy::{PortAction, PortPolicy};
use crate::identity::{Identities, Identity};
use crate::rule::{Protocol, TrafficDirection};
use crate::verdict::{Action, ConnectionVerdict, Inspection, Reason, RuleId, RuleOrigin};

/// What one workload may do and who may do what with it. Made by
/// [`EndpointPolicy::resolve`]; immutable; answers without a lock.
#[derive(Debug)]
pub struct EndpointPolicy {
    pub(crate) identities: Identities,
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

impl EndpointPolicy {
    /// Who has this address.
    #[must_use]
    pub fn identify(&self, address: IpAddr) -> Identity {
        self.identities.identify(address)
    }

    /// The workload's own identity.
    #[must_use]
    pub fn workload(&self) -> Identity {
        self.identities.workload
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
            std::sync::LazyLock::new(|| RuleOrigin::new("".into(), ""));
        self.origins.get(id.index()).unwrap_or(&NOWHERE)
    }

    /// All rules that can decide, by the index of their id.
    #[must_use]
    pub fn rules(&self) -> &[RuleOrigin] {
        &self.origins
    }

    /// Whether policy restricts this direction at all.
    #[must_use]
    pub fn is_enforced(&self, direction: TrafficDirection) -> bool {
        matches!(self.direction(direction).enforced, PortPolicy::Rules(_))
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
        let (enforced, reason) = policy.enforced.lookup(peer, protocol, port);
        let audited = policy.audited.as_ref().map(|audited| audited.lookup(peer, protocol, port));
        let verdict =
            |action, audited, rule, reason| ConnectionVerdict { action, audited, rule, reason };
        match (enforced, audited) {
            (PortAction::Deny(rule), _) => verdict(Action::Deny, false, *rule, reason),
            (PortAction::Allow(rule), None | Some((PortAction::Allow(_), _))) => {
                verdict(Action::Allow, false, *rule, reason)
            }
            (PortAction::Allow(_), Some((PortAction::Deny(rule), reason))) => {
                verdict(Action::Allow, true, *rule, reason)
            }
            (PortAction::Allow(rule), Some((PortAction::Http(set), _))) => {
                let rules = HttpRules { enforced: None, audited: Audited::Rules(set.clone()) };
                verdict(inspect(rules), false, *rule, reason)
            }
            (PortAction::Http(set), audited) => {
                let audited = match audited {
                    None | Some((PortAction::Allow(_), _)) => Audited::Nothing,
                    Some((PortAction::Deny(rule), reason)) => Audited::Denied(*rule, reason),
                    Some((PortAction::Http(set), _)) => Audited::Rules(set.clone()),
                };
                let rules = HttpRules { enforced: Some(set.clone()), audited };
                verdict(inspect(rules), false, None, Reason::RuleAllows)
            }
        }
    }

    fn direction(&self, direction: TrafficDirection) -> &DirectionPolicy {
        match direction {
            TrafficDirection::Ingress => &self.ingress,
            TrafficDirection::Egress => &self.egress,
        }
    }
}

fn inspect(rules: HttpRules) -> Action {
    Action::Inspect(Inspection::Http(Arc::new(rules)))
}
