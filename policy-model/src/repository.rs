//! All policies by name: what a set of files says, as one.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::document;
use crate::rule::{Mode, Policy, PolicyName};
use crate::source::Source;

/// Policies that were read together and had no errors.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub(crate) policies: Vec<Policy>,
    summaries: Vec<PolicySummary>,
    warnings: Vec<Diagnostic>,
}

/// One policy, as a person would list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySummary {
    /// Kind, namespace and name.
    pub name: PolicyName,
    /// Whether its denials are carried out.
    pub mode: Mode,
    /// How many rules it has (`spec` and `specs`).
    pub rules: usize,
    /// The file it was read from.
    pub source: String,
    /// The line it begins at.
    pub line: u32,
}

impl Repository {
    /// Reads policies.
    ///
    /// # Errors
    /// All errors of all sources at once, with the warnings; nothing is loaded then.
    pub fn parse(sources: impl IntoIterator<Item = Source>) -> Result<Self, Diagnostics> {
        let mut found = Vec::new();
        let mut policies = Vec::new();
        for source in sources {
            policies.append(&mut document::read(&source, &mut found));
        }
        find_doubles(&policies, &mut found);
        found.sort_by_key(|found| found.severity == Severity::Warning);
        let found = Diagnostics(found);
        if found.has_errors() {
            return Err(found);
        }
        let summaries = policies.iter().map(summary).collect();
        Ok(Self { policies, summaries, warnings: found.0 })
    }

    /// What is legal and surely not meant.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The policies, in the order they were read.
    pub fn policies(&self) -> impl Iterator<Item = &PolicySummary> {
        self.summaries.iter()
    }
}

fn summary(policy: &Policy) -> PolicySummary {
    PolicySummary {
        name: policy.name.clone(),
        mode: policy.mode,
        rules: policy.rules.len(),
        source: policy.source.clone(),
        line: policy.line,
    }
}

/// Two objects of one name: which of them is meant can't be known.
fn find_doubles(policies: &[Policy], found: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<&PolicyName, &Policy> = HashMap::new();
    for policy in policies {
        if let Some(first) = seen.insert(&policy.name, policy) {
            let at = crate::diagnostic::Position { line: policy.line, column: 1 };
            let source = Source::new(policy.source.as_str(), "");
            let mut error = Diagnostic::new(Severity::Error, &source, at, "metadata.name");
            error.message = format!(
                "{} `{}` was already read from {}:{}",
                policy.name.kind, policy.name, first.source, first.line
            );
            error.hint = Some("rename one of them, or remove it".to_owned());
            found.push(error);
        }
    }
}
