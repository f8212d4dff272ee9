//! Compiled HTTP rule sets, kept as long as somebody uses them: a change of one policy compiles again
//! what it changes and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::ResolveError;
use crate::compiled::HttpRuleSet;
use crate::rule::HttpRule;
use crate::verdict::RuleId;

/// Most steps that judging one request may take, whatever is asked: a step is an automaton run or a
/// rule tried, some 20 to 100 ns. An honest set of 10,000 rules needs less than a hundred.
const MOST_STEPS: usize = 4096;
/// Most bytes that the automata of one set may need.
const MOST_MEMORY: usize = 64 << 20;

/// Sets by the rules they were compiled from.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    http: HashMap<Vec<usize>, Weak<HttpRuleSet>>,
}

// A rule's address is its name here; a set that is still there keeps its rules alive, so that no other
// rule can have the name.
impl Sets {
    /// The set of these rules, and their numbers by their place in it.
    pub(super) fn http(
        &mut self,
        rules: &[(RuleId, Arc<HttpRule>)],
    ) -> Result<(Arc<HttpRuleSet>, Box<[RuleId]>), ResolveError> {
        let ids = rules.iter().map(|(id, _)| *id).collect();
        let key: Vec<usize> = rules.iter().map(|(_, rule)| Arc::as_ptr(rule).addr()).collect();
        if let Some(set) = self.http.get(&key).and_then(Weak::upgrade) {
            return Ok((set, ids));
        }
        let set = Arc::new(compile(rules));
        if is_too_expensive(&set) {
            return Err(too_expensive(rules));
        }
        self.http.insert(key, Arc::downgrade(&set));
        Ok((set, ids))
    }

    /// Forgets sets that nobody uses.
    pub(crate) fn tidy(&mut self) {
        self.http.retain(|_, set| set.strong_count() > 0);
    }
}

fn compile(rules: &[(RuleId, Arc<HttpRule>)]) -> HttpRuleSet {
    HttpRuleSet::new(rules.iter().map(|(_, rule)| rule.clone()).collect())
}

fn is_too_expensive(set: &HttpRuleSet) -> bool {
    set.worst_cost() > MOST_STEPS || set.memory() > MOST_MEMORY
}

/// Finds the rule with which a set becomes too expensive.
fn too_expensive(rules: &[(RuleId, Arc<HttpRule>)]) -> ResolveError {
    let (mut fits, mut too_many) = (0, rules.len());
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        match is_too_expensive(&compile(&rules[..middle])) {
            true => too_many = middle,
            false => fits = middle,
        }
    }
    let rule = too_many.checked_sub(1).and_then(|last| rules.get(last));
    ResolveError::TooExpensive {
        section: rule.map(|(_, rule)| rule.section.clone()).unwrap_or_default(),
        rules: too_many,
        id: rule.map_or(RuleId(0), |(id, _)| *id),
        policy: String::new(),
    }
}
