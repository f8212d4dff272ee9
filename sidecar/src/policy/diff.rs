//! `portreeve policy diff`: who gains and who loses access.

use std::fmt::Write;
use std::path::Path;

use portreeve_policy::{Comparison, Difference, Effect, Options, Repository, diff};
use serde_json::json;

use super::Output;
use super::test::rule;
use crate::Failure;
use crate::cli::PolicyDiffArguments;

/// Compares two sets of policies.
pub(crate) fn run(arguments: &PolicyDiffArguments) -> Result<(), Failure> {
    let (old, new) = (read(&arguments.old)?, read(&arguments.new)?);
    let found = diff(&old, &new, &Options::default());
    let text = match arguments.output {
        Output::Text => text(&found),
        Output::Json => found.differences.iter().map(line).collect(),
    };
    crate::print(&text)?;
    match found.differences.len() {
        0 => Ok(()),
        _ => Err(Failure::silent(1)),
    }
}

fn read(path: &Path) -> Result<Repository, Failure> {
    let sources = portreeve_core::read_policy_files(&[path.to_owned()]).map_err(Failure::new)?;
    Repository::parse(sources).map_err(|errors| Failure { code: 1, message: errors.to_string() })
}

fn text(found: &Comparison) -> String {
    let mut out = String::new();
    for difference in &found.differences {
        // Writing to a string can't fail.
        let _ = writeln!(out, "{}  {}", difference.effect().as_str(), difference.question);
        let by = |rule: &Option<portreeve_policy::case::DecidingRule>| match rule {
            Some(rule) => format!(" by {} {}", rule.policy, rule.entry),
            None => String::new(),
        };
        let _ = writeln!(
            out,
            "       was {}{}, becomes {}{}",
            difference.old.as_str(),
            by(&difference.old_rule),
            difference.new.as_str(),
            by(&difference.new_rule)
        );
        if let Some(error) = &difference.error {
            let _ = writeln!(out, "       {error}");
        }
    }
    let count = |effect| found.differences.iter().filter(|d| d.effect() == effect).count();
    let _ = writeln!(
        out,
        "{} questions: {} gain access, {} lose it, {} change otherwise",
        found.questions,
        count(Effect::Gains),
        count(Effect::Loses),
        count(Effect::Changes)
    );
    out
}

fn line(difference: &Difference) -> String {
    let line = json!({
        "effect": difference.effect().as_str(),
        "question": difference.question,
        "old": difference.old.as_str(),
        "new": difference.new.as_str(),
        "old_rule": difference.old_rule.as_ref().map(rule),
        "new_rule": difference.new_rule.as_ref().map(rule),
        "error": difference.error,
    });
    format!("{line}\n")
}
