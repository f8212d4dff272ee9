//! `portreeve policy check`: every error at once, and what is legal and surely not meant.

use std::fmt::Write;

use portreeve_policy::{
    Diagnostic, Features, Options, Repository, ResolveError, Severity, conflicts,
};
use serde_json::json;

use super::Output;
use crate::Failure;
use crate::cli::PolicyCheckArguments;

/// Checks files and folders, as one set.
pub(crate) fn run(arguments: &PolicyCheckArguments) -> Result<(), Failure> {
    let sources = portreeve_core::read_policy_files(&arguments.files).map_err(Failure::new)?;
    let files = sources.len();
    let features = Features {
        node_selectors: arguments.node_selectors,
        extended_protocols: arguments.extended_protocols,
    };
    let (found, policies) = match Repository::parse_with(sources, features) {
        Ok(repository) => {
            let policies = repository.policies().count();
            let conflicts = conflicts(&repository, &Options::default());
            let mut found: Vec<_> = conflicts.iter().map(conflict).collect();
            found.extend_from_slice(repository.warnings());
            (found, policies)
        }
        Err(errors) => (errors.0, 0),
    };
    let errors = found.iter().filter(|found| found.severity == Severity::Error).count();
    let warnings = found.len() - errors;
    let text = match arguments.output {
        Output::Text => text(&found, files, policies, errors, warnings),
        Output::Json => found.iter().map(line).collect(),
    };
    crate::print(&text)?;
    match errors {
        0 => Ok(()),
        _ => Err(Failure::silent(1)),
    }
}

/// Policies that load one by one, and make no sense together.
fn conflict((subject, error): &(String, ResolveError)) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        source: format!("workload {subject}"),
        line: 0,
        column: 0,
        path: String::new(),
        message: error.to_string(),
        hint: Some("the workload would keep the policy it had; change one of the rules".to_owned()),
        excerpt: None,
        advice: false,
    }
}

fn text(
    found: &[Diagnostic],
    files: usize,
    policies: usize,
    errors: usize,
    warnings: usize,
) -> String {
    let mut out = String::new();
    for diagnostic in found {
        // Writing to a string can't fail.
        let _ = writeln!(out, "{diagnostic}\n");
    }
    let warned = match warnings {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        n => format!(", {n} warnings"),
    };
    let count = |n: usize, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    let (policies, files) = (count(policies, "policy", "policies"), count(files, "file", "files"));
    let _ = match errors {
        0 => writeln!(out, "good: {policies} in {files}{warned}"),
        1 => writeln!(out, "1 error{warned}; nothing of this would come into force"),
        n => writeln!(out, "{n} errors{warned}; nothing of this would come into force"),
    };
    out
}

fn line(found: &Diagnostic) -> String {
    let line = json!({
        "severity": found.severity.as_str(),
        "file": found.source,
        "line": found.line,
        "column": found.column,
        "path": found.path,
        "message": found.message,
        "hint": found.hint,
    });
    format!("{line}\n")
}
