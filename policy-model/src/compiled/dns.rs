//! DNS rules: may this name be asked for?

use std::sync::Arc;

use super::rules::RuleSet;
use crate::rule::DnsRule;

/// DNS rules of one server.
#[derive(Debug)]
pub(crate) struct DnsRuleSet {
    rules: Vec<Arc<DnsRule>>,
}

impl DnsRuleSet {
    pub(crate) fn new(rules: Vec<Arc<DnsRule>>) -> Self {
        Self { rules }
    }

    pub(super) fn rules(&self) -> &[Arc<DnsRule>] {
        &self.rules
    }
}

impl RuleSet<str> for DnsRuleSet {
    fn find(&self, name: &str) -> Option<u32> {
        let mut rules = (0_u32..).zip(&self.rules);
        let allows = |rule: &DnsRule| rule.names.iter().any(|pattern| pattern.matches(name));
        rules.find(|(_, rule)| allows(rule)).map(|(index, _)| index)
    }
}
