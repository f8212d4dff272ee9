//! The cases in `tests/cases`: policies with expected answers, as data. The end-to-end tests run the
//! same files with the binary, whose HTTP gate brings paths into normal form.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use portreeve_policy::Source;
use portreeve_policy::case::{self, CaseReport, Normalised};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// The few raw targets in the data, as the gate normalises them.
fn normalise(raw: &str) -> Normalised {
    Normalised::Path(match raw {
        "/%61dmin" | "/public/%2e%2e/admin" => "/admin".to_owned(),
        other => other.to_owned(),
    })
}

fn failures(report: &CaseReport) -> Vec<String> {
    let mut failures = Vec::new();
    if !report.loads_as_expected() {
        let error = report.error.clone().unwrap_or_default();
        failures
            .push(format!("{}: {} expected, {} {error}", report.id, report.expected, report.got));
    }
    for (index, query) in report.queries.iter().enumerate() {
        // In detail, too: what is looked into here and what is not is part of the promise.
        let in_detail = query.expected.is_none_or(|expected| expected == query.got);
        if !query.passed() || !in_detail {
            failures.push(format!(
                "{} query {index}: {}: {:?} expected, {:?} ({})",
                report.id, query.question, query.expected, query.got, query.reason
            ));
        }
    }
    failures
}

#[test]
fn policy_cases_have_their_expected_answers() {
    let (mut passed, mut failed) = (0, Vec::new());
    for path in files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = Source::new(name, fs::read_to_string(&path).unwrap());
        let cases = case::read(&source).unwrap_or_else(|errors| panic!("{errors}"));
        for case in cases {
            let report = case.run(&|path| Err(format!("no {path} here")), &normalise);
            match failures(&report) {
                none if none.is_empty() => passed += 1,
                some => failed.extend(some),
            }
        }
    }
    assert!(failed.is_empty(), "{passed} passed, these not:\n{}", failed.join("\n"));
    assert!(passed >= 119, "only {passed} cases ran");
}
