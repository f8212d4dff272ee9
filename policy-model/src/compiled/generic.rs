//! Rules of protocols that policies name by word.

use std::sync::Arc;

use super::rules::RuleSet;
use crate::generic::{GenericMatch, GenericRequest, PROTOCOLS};
use crate::rule::GenericRule;

/// Rules of one protocol.
#[derive(Debug)]
pub(crate) struct GenericRuleSet {
    protocol: Arc<str>,
    rules: Vec<Arc<GenericRule>>,
    /// The protocol is unknown, or a rule of it makes no sense.
    closed: bool,
}

impl GenericRuleSet {
    pub(crate) fn new(protocol: Arc<str>, rules: Vec<Arc<GenericRule>>) -> Self {
        let unreadable =
            |rule: &Arc<GenericRule>| matches!(rule.meaning, GenericMatch::Unreadable(_));
        let closed = !PROTOCOLS.contains(&&*protocol) || rules.iter().any(unreadable);
        Self { protocol, rules, closed }
    }

    pub(super) fn rules(&self) -> &[Arc<GenericRule>] {
        &self.rules
    }

    pub(super) fn protocol(&self) -> &str {
        &self.protocol
    }
}

impl RuleSet<GenericRequest<'_>> for GenericRuleSet {
    fn find(&self, request: &GenericRequest<'_>) -> Option<u32> {
        if self.closed {
            return None;
        }
        let mut rules = (0_u32..).zip(&self.rules);
        rules.find(|(_, rule)| rule.meaning.allows(request)).map(|(index, _)| index)
    }

    fn is_closed(&self) -> bool {
        self.closed
    }
}
