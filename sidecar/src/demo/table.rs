//! The table: what was asked, what came back, which rule decided.

use std::fmt::Write;

use serde_json::Value;

use super::requests::Answer;

/// Renders it. Lines of the access log belong to the answers of the same place.
pub(super) fn render(answers: &[Answer], lines: &[Value], colour: bool) -> String {
    let mut out = String::new();
    let width = answers.iter().map(|answer| answer.line.len()).max().unwrap_or_default();
    row(&mut out, width, "asked", "answer", "decided by");
    row(&mut out, width, &"-".repeat(width), "------", "----------");
    for (answer, line) in answers.iter().zip(lines.iter().map(Some).chain(std::iter::repeat(None)))
    {
        let seen = match (colour, answer.seen.as_str()) {
            (true, "200") => "\u{1b}[32m200   \u{1b}[0m".to_owned(),
            (true, other) => format!("\u{1b}[31m{other:6}\u{1b}[0m"),
            (false, other) => other.to_owned(),
        };
        row(&mut out, width, answer.line, &seen, &decided(line));
    }
    out
}

fn row(out: &mut String, width: usize, asked: &str, answer: &str, decided: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "{asked:width$}  {answer:6}  {decided}");
}

/// The rule, or the reason why there is none, in words.
fn decided(line: Option<&Value>) -> String {
    let text = |key: &str| line.and_then(|line| line[key].as_str()).unwrap_or_default();
    match (text("policy"), text("reason")) {
        ("", "no_rule_allows") => "no rule allows it".to_owned(),
        ("", "answered_by_proxy") => "sent to the clean path".to_owned(),
        ("", reason) if text("type") == "refused" => format!("malformed: {reason}"),
        ("", reason) => reason.to_owned(),
        (policy, _) => format!("{policy} {}", text("rule")),
    }
}
