//! Errors and warnings about policy files: where, what is wrong, what is meant.

use std::fmt;

use crate::source::Source;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The policy is not loaded.
    Error,
    /// It is loaded, and surely not what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name.
    pub source: String,
    /// Line, from 1; 0 when it concerns the whole file.
    pub line: u32,
    /// Column in characters, from 1; 0 when it concerns the whole file.
    pub column: u32,
    /// The field, as `spec.ingress[0].toPorts[1].ports[0].port`; empty for the document itself.
    pub path: String,
    /// What is wrong: lower case, no full stop, the user's input in backticks.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The line of the file it is about.
    pub excerpt: Option<String>,
    /// A warning that is worth a look while policy is written, and need not be repeated whenever it is
    /// loaded.
    pub advice: bool,
}

impl Diagnostic {
    pub(crate) fn new(severity: Severity, source: &Source, at: Position, path: &str) -> Self {
        Self::placed(severity, source, &Lines::of(&source.text), at, path)
    }

    /// One of many of the same source.
    pub(crate) fn placed(
        severity: Severity,
        source: &Source,
        lines: &Lines,
        at: Position,
        path: &str,
    ) -> Self {
        Self {
            severity,
            source: source.name.clone(),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message: String::new(),
            hint: None,
            excerpt: excerpt(source, lines, at),
            advice: false,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.source)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        match self.path.as_str() {
            "" => write!(f, ": {}", self.message)?,
            path => write!(f, ": `{path}`: {}", self.message)?,
        }
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            let before = excerpt.chars().take((self.column.max(1) - 1) as usize);
            let margin: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let gutter = " ".repeat(number.len());
            write!(f, "\n  {number} | {excerpt}\n  {gutter} | {margin}^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything found in a load that failed: errors first, then warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether there is an error among them.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|found| found.severity == Severity::Error)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A place in a file: line and column, from 1; zeros for the file itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// Longest excerpt worth showing.
const EXCERPT: usize = 160;

/// Where the lines of a text are, for who looks for many of them.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begins: Vec<usize>,
}

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        let after = memchr::memchr_iter(b'\n', text.as_bytes()).map(|place| place + 1);
        Self { begins: std::iter::once(0).chain(after).collect() }
    }

    fn line<'t>(&self, text: &'t str, number: u32) -> Option<&'t str> {
        let begin = *self.begins.get(number.checked_sub(1)? as usize)?;
        text.get(begin..)?.lines().next()
    }
}

fn excerpt(source: &Source, lines: &Lines, at: Position) -> Option<String> {
    let line = lines.line(&source.text, at.line)?;
    // Where lone carriage returns end lines, ours are not the reader's.
    if line.contains('\r') {
        return None;
    }
    (line.chars().count() <= EXCERPT).then(|| line.to_owned())
}

/// The candidate nearest to `word`, if it is near enough to be what was meant.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["endpointSelector", "ingress", "egress", "ingressDeny"];
        assert_eq!(nearest("endpointSelecter", names), Some("endpointSelector"));
        assert_eq!(nearest("ingres", names), Some("ingress"));
        assert_eq!(nearest("labels", names), None);
    }

    #[test]
    fn a_diagnostic_shows_the_line_and_points_at_the_column() {
        let source = Source::new("a.yaml", "spec:\n  port: 99999\n");
        let at = Position { line: 2, column: 9 };
        let mut shown = Diagnostic::new(Severity::Error, &source, at, "spec.port");
        shown.message = "`99999` is not a port".to_owned();
        shown.hint = Some("ports go from 1 to 65535".to_owned());
        let expected = "error: a.yaml:2:9: `spec.port`: `99999` is not a port\n  \
                        2 |   port: 99999\n    |         ^\n  hint: ports go from 1 to 65535";
        assert_eq!(shown.to_string(), expected);
    }
}
