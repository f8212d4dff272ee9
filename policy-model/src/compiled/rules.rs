//! What may be said on one connection: rules that are carried out, and rules in audit mode.

use std::sync::Arc;

use super::http::{HeaderEdit, HttpRequest, HttpRuleSet};
use super::kafka::{KafkaRequest, KafkaRuleSet};
use super::{DnsRuleSet, GenericRuleSet, ServerNames};
use crate::generic::GenericRequest;
use crate::verdict::{Outcome, Reason, RequestVerdict, RuleId};

/// Rules of one protocol, of which one must match a request of type `R`.
pub(crate) trait RuleSet<R: ?Sized> {
    /// The index of the first rule that matches.
    fn find(&self, request: &R) -> Option<u32>;

    /// Nothing passes, whatever else allows it: a rule of the set can't be understood.
    fn is_closed(&self) -> bool {
        false
    }
}

/// A set of rules with the numbers they have in one workload's policy. The set itself may be shared.
#[derive(Debug)]
pub(crate) struct Alternatives<S> {
    pub(crate) set: Arc<S>,
    /// By the index of the rule in the set.
    pub(crate) ids: Box<[RuleId]>,
    /// A rule that allows the connection whatever is said on it.
    pub(crate) open: Option<RuleId>,
}

impl<S> Alternatives<S> {
    fn judge<R: ?Sized>(&self, request: &R) -> Result<(Option<RuleId>, Reason), Reason>
    where
        S: RuleSet<R>,
    {
        match self.open {
            Some(open) if !self.set.is_closed() => Ok((Some(open), Reason::ConnectionAllowed)),
            _ => match self.set.find(request) {
                Some(index) => Ok((self.ids.get(index as usize).copied(), Reason::RuleAllows)),
                None => Err(Reason::NoRuleAllows),
            },
        }
    }
}

/// What policies in audit mode would say.
#[derive(Debug)]
enum Audited<S> {
    Nothing,
    /// The whole connection would be denied.
    Denied(Option<RuleId>, Reason),
    Rules(Arc<Alternatives<S>>),
}

impl<S> Clone for Audited<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Denied(rule, reason) => Self::Denied(*rule, *reason),
            Self::Rules(rules) => Self::Rules(rules.clone()),
        }
    }
}

/// The rules of one connection.
#[derive(Debug)]
pub(crate) struct Rules<S> {
    /// `None`: everything is allowed.
    enforced: Option<Arc<Alternatives<S>>>,
    audited: Audited<S>,
}

impl<S> Rules<S> {
    pub(crate) fn new(enforced: Alternatives<S>) -> Self {
        Self { enforced: Some(Arc::new(enforced)), audited: Audited::Nothing }
    }

    /// These rules as what is only audited.
    fn audit_only(&self) -> Self {
        let audited = match &self.enforced {
            Some(rules) => Audited::Rules(rules.clone()),
            None => Audited::Nothing,
        };
        Self { enforced: None, audited }
    }

    /// These rules, enforced, beside `other` ones that are audited.
    fn audited_by(&self, other: &Self) -> Self {
        Self { enforced: self.enforced.clone(), audited: other.audit_only().audited }
    }

    /// These rules, where an audited policy would deny the whole connection.
    fn audited_as_denied(&self, rule: Option<RuleId>, reason: Reason) -> Self {
        Self { enforced: self.enforced.clone(), audited: Audited::Denied(rule, reason) }
    }

    fn judge<R: ?Sized>(&self, request: &R) -> RequestVerdict
    where
        S: RuleSet<R>,
    {
        let allowed = match &self.enforced {
            None => Ok((None, Reason::NotEnforced)),
            Some(rules) => rules.judge(request),
        };
        let (rule, reason) = match allowed {
            Ok(allowed) => allowed,
            Err(reason) => return RequestVerdict { outcome: Outcome::Deny, rule: None, reason },
        };
        let (outcome, rule, reason) = match &self.audited {
            Audited::Nothing => (Outcome::Allow, rule, reason),
            Audited::Denied(rule, reason) => (Outcome::Audit, *rule, *reason),
            Audited::Rules(rules) => match rules.judge(request) {
                Ok((found, reason)) => (Outcome::Allow, rule.or(found), reason),
                Err(reason) => (Outcome::Audit, None, reason),
            },
        };
        RequestVerdict { outcome, rule, reason }
    }
}

/// The rules of one connection, to be put into words.
pub(super) struct Spoken<'a, S> {
    /// Those in force; `None`: everything is allowed.
    pub(super) enforced: Option<&'a Alternatives<S>>,
    /// Those in audit mode.
    pub(super) audited: Option<&'a Alternatives<S>>,
    /// A policy in audit mode would deny the whole connection, by this rule or by none.
    pub(super) would_be_denied: Option<Option<RuleId>>,
}

/// The public face of the rules of one protocol.
macro_rules! protocol_rules {
    ($(#[$doc:meta])* $name:ident, $set:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Rules<$set>);

        impl $name {
            pub(crate) fn new(enforced: Alternatives<$set>) -> Arc<Self> {
                Arc::new(Self(Rules::new(enforced)))
            }

            /// Whether what is said is only to be seen, or audited: no rule in force is about it, and
            /// nothing is to be refused for what it is.
            #[must_use]
            pub fn is_observed_only(&self) -> bool {
                let enforced = self.0.enforced.as_ref();
                enforced.is_none_or(|rules| rules.open.is_some() && rules.ids.is_empty())
            }

            pub(super) fn spoken(&self) -> Spoken<'_, $set> {
                let Rules { enforced, audited } = &self.0;
                let (audited, would_be_denied) = match audited {
                    Audited::Nothing => (None, None),
                    Audited::Denied(rule, _) => (None, Some(*rule)),
                    Audited::Rules(rules) => (Some(&**rules), None),
                };
                Spoken { enforced: enforced.as_deref(), audited, would_be_denied }
            }
        }
    };
}

/// Rules that can be in force beside others in audit mode, or be in audit mode themselves.
macro_rules! auditable {
    ($($name:ident),*) => {
        $(impl $name {
            pub(crate) fn audit_only(&self) -> Arc<Self> {
                Arc::new(Self(self.0.audit_only()))
            }

            pub(crate) fn audited_by(&self, other: &Self) -> Arc<Self> {
                Arc::new(Self(self.0.audited_by(&other.0)))
            }

            pub(crate) fn audited_as_denied(
                &self,
                rule: Option<RuleId>,
                reason: Reason,
            ) -> Arc<Self> {
                Arc::new(Self(self.0.audited_as_denied(rule, reason)))
            }
        })*
    };
}

auditable!(HttpRules, KafkaRules, DnsRules, GenericRules);

protocol_rules!(
    /// The HTTP rules of one connection.
    HttpRules,
    HttpRuleSet
);
protocol_rules!(
    /// The Kafka rules of one connection.
    KafkaRules,
    KafkaRuleSet
);
protocol_rules!(
    /// The DNS rules of one server.
    DnsRules,
    DnsRuleSet
);
protocol_rules!(
    /// The rules of a protocol that policies name by word.
    GenericRules,
    GenericRuleSet
);
protocol_rules!(
    /// The names that TLS clients may ask for.
    ServerNameRules,
    ServerNames
);

impl HttpRules {
    /// Judges a request. `edit` is called for every change that the matching rules ask for. Costs
    /// no allocation, and hardly more with many rules than with few.
    pub fn decide<R: HttpRequest>(
        &self,
        request: &R,
        edit: &mut impl FnMut(HeaderEdit<'_>),
    ) -> RequestVerdict {
        let verdict = self.0.judge(request);
        if verdict.outcome != Outcome::Deny
            && let Some(rules) = &self.0.enforced
        {
            rules.set.amend(request, edit);
        }
        verdict
    }
}

impl KafkaRules {
    /// Judges a request. One that is about several topics may be asked about topic by topic.
    pub fn decide<R: KafkaRequest>(&self, request: &R) -> RequestVerdict {
        self.0.judge(request)
    }

    /// Whether such a request would be allowed if it named the right topics. A proxy asks this of one
    /// that is about all topics: it may be answered with those that the client may see.
    pub fn may_allow<R: KafkaRequest>(&self, request: &R) -> bool {
        self.0.enforced.as_ref().is_none_or(|rules| {
            (rules.open.is_some() && !RuleSet::<R>::is_closed(&*rules.set))
                || rules.set.may_allow(request)
        })
    }

    /// Whether some groups are allowed what others are not.
    #[must_use]
    pub fn distinguishes_groups(&self) -> bool {
        let enforced = self.0.enforced.as_ref();
        enforced.is_some_and(|rules| rules.open.is_none() && rules.set.distinguishes_groups())
    }
}

impl DnsRules {
    /// Judges a question by its name: any case, with or without the final dot.
    #[must_use]
    pub fn decide(&self, name: &str) -> RequestVerdict {
        self.0.judge(name)
    }
}

impl GenericRules {
    /// Judges a request.
    #[must_use]
    pub fn decide(&self, request: &GenericRequest<'_>) -> RequestVerdict {
        self.0.judge(request)
    }

    /// The protocol's name, as the policy has it.
    #[must_use]
    pub fn protocol(&self) -> &str {
        let audited = match &self.0.audited {
            Audited::Rules(rules) => Some(rules),
            _ => None,
        };
        self.0.enforced.as_ref().or(audited).map_or("", |rules| rules.set.protocol())
    }
}

impl ServerNameRules {
    /// Judges a TLS connection by the name the client asks for; empty: none.
    #[must_use]
    pub fn decide(&self, server_name: &str) -> RequestVerdict {
        self.0.judge(server_name)
    }
}
