//! The table: what was asked, what came back, which rule decided.

use std::fmt::Write;

use serde_json::Value;

/// What came back.
pub(super) struct Answer {
    /// What was asked.
    pub(super) line: &'static str,
    /// A status, an error's name, `reset`, or what went wrong.
    pub(super) seen: String,
    /// It is what was to come.
    pub(super) good: bool,
    /// It was allowed.
    pub(super) passed: bool,
}

/// Renders it. Lines of the access log belong to the answers of the same place.
pub(super) fn render(answers: &[Answer], lines: &[Value], colour: bool) -> String {
    let mut out = String::new();
    let longest = |of: fn(&Answer) -> &str| answers.iter().map(|answer| of(answer).len()).max();
    let asked = longest(|answer| answer.line).unwrap_or_default();
    let seen = longest(|answer| &answer.seen).unwrap_or_default().max("answer".len());
    let mut row = |cells: [&str; 3], paint: &str| {
        let (begin, end) = if paint.is_empty() { ("", "") } else { (paint, "\u{1b}[0m") };
        // Writing to a string can't fail.
        let _ = writeln!(out, "{:asked$}  {begin}{:seen$}{end}  {}", cells[0], cells[1], cells[2]);
    };
    row(["asked", "answer", "decided by"], "");
    row([&"-".repeat(asked), &"-".repeat(seen), "----------"], "");
    for (answer, line) in answers.iter().zip(lines.iter().map(Some).chain(std::iter::repeat(None)))
    {
        let paint = match (colour, answer.passed) {
            (false, _) => "",
            (true, true) => "\u{1b}[32m",
            (true, false) => "\u{1b}[31m",
        };
        row([answer.line, &answer.seen, &decided(line)], paint);
    }
    out
}

/// The rule, or the reason why there is none, in words.
fn decided(line: Option<&Value>) -> String {
    let text = |key: &str| line.and_then(|line| line[key].as_str()).unwrap_or_default();
    let filtered = line.is_some_and(|line| line["filtered"] == true);
    match (text("policy"), text("reason")) {
        _ if filtered => "shown what may be seen".to_owned(),
        ("", "no_rule_allows") => "no rule allows it".to_owned(),
        ("", "answered_by_proxy") if text("type") == "kafka" => "refused for what it is".to_owned(),
        ("", "answered_by_proxy") => "sent to the clean path".to_owned(),
        ("", reason) if text("type") == "refused" => format!("malformed: {reason}"),
        ("", reason) => reason.to_owned(),
        (policy, _) => format!("{policy} {}", text("rule")),
    }
}
