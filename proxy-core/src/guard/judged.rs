//! What was decided of a request, and by which rule.

use std::sync::Arc;

use portreeve_policy::{Outcome, Reason, RuleId};
use portreeve_protocols::http2::Reply;

use crate::edits::Edits;
use crate::snapshot::Snapshot;

/// What was decided of a request.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Allowed, denied, or allowed though a policy in audit mode would deny it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// What rules ask to be changed in the head of an allowed request.
    pub edits: Edits,
    pub(super) rule: Option<RuleId>,
    /// The policy that it was judged by.
    pub(super) snapshot: Arc<Snapshot>,
}

impl Judged {
    /// Whether the request may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.outcome != Outcome::Deny
    }

    /// The place in the policy that decided: `spec.ingress[0].toPorts[0].rules.http[1]`; empty: no
    /// rule did.
    #[must_use]
    pub fn rule(&self) -> &str {
        self.rule.map_or("", |rule| self.snapshot.policy.rule(rule).section())
    }

    /// Its policy: `namespace/name`; empty: no rule decided.
    #[must_use]
    pub fn policy(&self) -> &str {
        self.rule.map_or("", |rule| self.snapshot.policy.rule(rule).policy())
    }

    /// The policy's revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.snapshot.revision
    }
}

/// What is to be done with a request.
#[derive(Clone, Debug)]
pub enum Checked {
    /// It goes on, its head as it is now.
    Forward(Judged),
    /// Policy denies it: this is the answer.
    Deny(Judged, Reply),
    /// Whatever policy says, it has no meaning that all readers agree on: why, as logs name it, and the
    /// answer.
    Refuse(&'static str, Reply),
}
