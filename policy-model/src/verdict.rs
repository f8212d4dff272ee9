//! Verdicts: what was decided, by which rule, and why.

use std::sync::Arc;

use crate::compiled::{
    Authentication, DnsRules, GenericRules, HttpRules, KafkaRules, TlsInspection,
};
use crate::rule::{AuthenticationMode, Listener};

/// What policy says of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionVerdict {
    /// What is to happen.
    pub action: Action,
    /// A policy in audit mode would have denied it.
    pub audited: bool,
    /// How the peer must have proved who it is. Where it can't be asked to, the connection is to be
    /// refused.
    pub authentication: Option<Authentication>,
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// Why.
    pub reason: Reason,
}

/// What is to happen with a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// It is refused.
    Deny,
    /// It passes unseen.
    Allow,
    /// It is read, and each of its requests is judged.
    Inspect(Inspection),
}

/// The protocol that a connection is read in, with its rules.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Inspection {
    /// HTTP.
    Http(Arc<HttpRules>),
    /// Kafka.
    Kafka(Arc<KafkaRules>),
    /// DNS: each question is judged.
    Dns(Arc<DnsRules>),
    /// A protocol that policies name by word.
    Generic(Arc<GenericRules>),
    /// TLS: the server name is judged, and what is inside, where TLS ends here.
    Tls(Arc<TlsInspection>),
    /// Nothing here: another proxy's listener is to have the connection.
    Listener(Arc<Listener>),
}

impl Inspection {
    /// Whether no rule in force is about what is said: it is only to be seen, or audited.
    #[must_use]
    pub fn is_observed_only(&self) -> bool {
        match self {
            Self::Http(rules) => rules.is_observed_only(),
            Self::Kafka(rules) => rules.is_observed_only(),
            Self::Dns(rules) => rules.is_observed_only(),
            Self::Generic(rules) => rules.is_observed_only(),
            Self::Tls(_) | Self::Listener(_) => false,
        }
    }
}

impl ConnectionVerdict {
    /// The same verdict, where what policy would audit can't be read: the connection passes, marked.
    #[must_use]
    pub fn passed_unread(self) -> Self {
        Self { action: Action::Allow, audited: true, reason: Reason::NotInspectable, ..self }
    }

    /// Whether the peer must have proved who it is.
    #[must_use]
    pub fn needs_authentication(&self) -> bool {
        self.authentication.is_some_and(|auth| auth.mode != AuthenticationMode::Disabled)
    }

    /// The same verdict, refused for a reason of the one who was to carry it out.
    #[must_use]
    pub fn refused(self, reason: Reason) -> Self {
        Self { action: Action::Deny, audited: false, reason, ..self }
    }
}

/// What policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVerdict {
    /// What is to happen.
    pub outcome: Outcome,
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// Why.
    pub reason: Reason,
}

impl RequestVerdict {
    /// The verdict on a request of a connection that policy has come to deny.
    #[must_use]
    pub fn denied_connection() -> Self {
        Self { outcome: Outcome::Deny, rule: None, reason: Reason::NoRuleAllows }
    }

    /// The verdict on a request of a connection that policy has come to allow unseen.
    #[must_use]
    pub fn allowed_connection() -> Self {
        Self { outcome: Outcome::Allow, rule: None, reason: Reason::ConnectionAllowed }
    }
}

/// What is to happen with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is forwarded.
    Allow,
    /// It is refused.
    Deny,
    /// It is forwarded, though a policy in audit mode would have refused it.
    Audit,
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A rule allows it.
    RuleAllows,
    /// No rule allows it, and the direction is under default deny.
    NoRuleAllows,
    /// A deny rule names it.
    RuleDenies,
    /// No policy selects the workload in this direction.
    NotEnforced,
    /// The connection as a whole is allowed, whatever is said on it.
    ConnectionAllowed,
    /// The peer has no identity.
    UnknownIdentity,
    /// The peer would have to prove who it is, and can't be asked to.
    AuthenticationRequired,
    /// What is said on the connection is to be judged, by somebody who can't read it.
    NotInspectable,
    /// The policies of its two ends want to judge what is said on it, each in another protocol.
    ProtocolsDiffer,
}

impl Reason {
    /// A stable name, for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RuleAllows => "rule_allows",
            Self::NoRuleAllows => "no_rule_allows",
            Self::RuleDenies => "rule_denies",
            Self::NotEnforced => "not_enforced",
            Self::ConnectionAllowed => "connection_allowed",
            Self::UnknownIdentity => "unknown_identity",
            Self::AuthenticationRequired => "authentication_required",
            Self::NotInspectable => "not_inspectable",
            Self::ProtocolsDiffer => "protocols_differ",
        }
    }
}

/// A rule of an [`EndpointPolicy`](crate::EndpointPolicy): an index into its
/// [`rules`](crate::EndpointPolicy::rules).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub(crate) u32);

impl RuleId {
    /// The index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOrigin {
    policy: Arc<str>,
    kind: &'static str,
    section: Box<str>,
}

impl RuleOrigin {
    pub(crate) fn new(policy: Arc<str>, kind: &'static str, section: &str) -> Self {
        Self { policy, kind, section: section.into() }
    }

    /// The kind of the policy; empty when no policy says it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The policy: `namespace/name`, or `name` when it is clusterwide.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The place in it: `spec.ingress[0].toPorts[0].rules.http[1]`.
    #[must_use]
    pub fn section(&self) -> &str {
        &self.section
    }
}
