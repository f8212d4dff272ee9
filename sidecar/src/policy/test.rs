//! `portreeve policy test`: policy unit tests, printed like a test runner.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use portreeve_policy::Source;
use portreeve_policy::case::{self, Case, CaseReport, DecidingRule, Normalised, QueryReport};
use portreeve_protocols::http1::{Normalized, normalize};
use serde_json::{Value, json};

use super::Output;
use crate::Failure;
use crate::cli::PolicyTestArguments;

/// Runs all cases of all files.
pub(crate) fn run(arguments: &PolicyTestArguments) -> Result<(), Failure> {
    let mut counts = Counts::default();
    for file in &arguments.files {
        let (cases, folder) = read(file)?;
        if arguments.output == Output::Text {
            crate::print(&format!("{}\n", file.display()))?;
        }
        for case in cases {
            let open = |path: &str| open(&folder.join(path));
            let report = case.run(&open, &normalise);
            counts.add(&report);
            let text = match arguments.output {
                Output::Text => text(&report, arguments.verbose),
                Output::Json => lines(&report),
            };
            crate::print(&text)?;
        }
    }
    if arguments.output == Output::Text {
        crate::print(&counts.text())?;
    }
    match counts.failed {
        0 => Ok(()),
        // What failed was printed in its place.
        _ => Err(Failure::silent(1)),
    }
}

/// The cases of a file, and the folder that paths in it begin at.
fn read(file: &Path) -> Result<(Vec<Case>, PathBuf), Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::new(format!("can't read `{}`: {error}", file.display())))?;
    let source = Source::new(file.display().to_string(), text);
    let cases =
        case::read(&source).map_err(|errors| Failure { code: 1, message: errors.to_string() })?;
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    Ok((cases, folder))
}

fn open(path: &Path) -> Result<Source, String> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| format!("can't read policy `{}`: {error}", path.display()))?;
    Ok(Source::new(path.display().to_string(), text))
}

/// A request target as the HTTP gate brings it into normal form.
pub(super) fn normalise(raw: &str) -> Normalised {
    match normalize(raw) {
        Ok(Normalized::Path(path)) => Normalised::Path(path.into_owned()),
        Ok(Normalized::Redirect(_)) => Normalised::Redirect,
        Err(_) => Normalised::Refused,
    }
}

#[derive(Default)]
struct Counts {
    cases: usize,
    queries: usize,
    failed: usize,
}

impl Counts {
    fn add(&mut self, report: &CaseReport) {
        self.cases += 1;
        self.queries += report.queries.len();
        self.failed += usize::from(!report.passed());
    }

    fn text(&self) -> String {
        let passed = self.cases - self.failed;
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (cases, questions) = (count(self.cases, "case"), count(self.queries, "question"));
        format!("\n{cases}, {questions}: {passed} passed, {} failed\n", self.failed)
    }
}

/// A case as a person reads it: one line when it passed, what went wrong when it did not.
fn text(report: &CaseReport, verbose: bool) -> String {
    let mut out = String::new();
    let mark = if report.passed() { "ok  " } else { "FAIL" };
    // Writing to a string can't fail.
    let _ = writeln!(out, "  {mark} {}  {}", report.id, report.title);
    if !report.broken && !report.loads_as_expected() {
        let _ = writeln!(out, "       loading: {} expected, {} got", report.expected, report.got);
    }
    if let Some(error) = report.error.as_ref().filter(|_| verbose || !report.passed()) {
        for line in error.lines() {
            let _ = writeln!(out, "       {line}");
        }
    }
    for (index, query) in report.queries.iter().enumerate() {
        if verbose || !query.passed() {
            let _ = writeln!(out, "       {}", question(index, query));
        }
    }
    out
}

fn question(index: usize, query: &QueryReport) -> String {
    let mark = if query.passed() { "ok" } else { "FAIL" };
    let expected = match (query.expected, query.expected_effective) {
        (Some(expected), _) => expected.as_str(),
        (None, Some(true)) => "allow",
        (None, Some(false)) => "deny",
        (None, None) => "anything",
    };
    let rule = match &query.rule {
        Some(rule) => format!("{} {}", rule.policy, rule.entry),
        None => query.reason.clone(),
    };
    let got = query.got.as_str();
    format!("{mark} [{index}] {}: {expected} expected, {got} got ({})", query.question, rule.trim())
}

/// A case as a program reads it: one object for the case, one for each question.
fn lines(report: &CaseReport) -> String {
    let mut out = String::new();
    let case = json!({
        "case": report.id,
        "query": null,
        "expected": report.expected,
        "got": report.got,
        "error": report.error,
        "passed": !report.broken && report.loads_as_expected(),
    });
    let _ = writeln!(out, "{case}");
    for (index, query) in report.queries.iter().enumerate() {
        let expected =
            query.expected.map(|expected| expected.as_str()).or(match query.expected_effective {
                Some(true) => Some("allow"),
                Some(false) => Some("deny"),
                None => None,
            });
        let line = json!({
            "case": report.id,
            "query": index,
            "expected": expected,
            "got": query.got.as_str(),
            "effective": if query.got.is_allowed() { "allow" } else { "deny" },
            "rule": query.rule.as_ref().map(rule),
            "reason": query.reason,
            "passed": query.passed(),
        });
        let _ = writeln!(out, "{line}");
    }
    out
}

pub(super) fn rule(rule: &DecidingRule) -> Value {
    json!({ "policy": rule.policy, "rule": rule.rule, "entry": rule.entry })
}
