//! Reads a tree into typed values and keeps account of everything that is wrong with it.

use std::fmt::Display;

use super::node::{Key, Node, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, Lines, Position, Severity, nearest};
use crate::source::Source;

/// Walks one source. Every error is recorded with the path walked so far; what could not be read
/// is `None` and the walk goes on.
pub struct Reader<'s> {
    source: &'s Source,
    path: String,
    pub(crate) found: Vec<Diagnostic>,
    errors: usize,
    /// Bytes of the automata of all expressions so far.
    spent: usize,
    lines: Option<Lines>,
}

impl<'s> Reader<'s> {
    /// Begins at the top of a source.
    #[must_use]
    pub fn new(source: &'s Source) -> Self {
        Self { source, path: String::new(), found: Vec::new(), errors: 0, spent: 0, lines: None }
    }

    /// What is read.
    #[must_use]
    pub fn source(&self) -> &'s Source {
        self.source
    }

    /// The path walked so far.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Accounts for an expression's memory; `false` when all together need too much.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        /// Most bytes that the expressions of one file may need.
        const MOST: usize = 64 << 20;
        self.spent = self.spent.saturating_add(bytes);
        self.spent <= MOST
    }

    /// How many errors there are; what was read between two equal counts is good.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Takes out what was found since there were so many findings.
    pub(crate) fn take_since(&mut self, begin: usize) -> Diagnostics {
        let taken = self.found.split_off(begin);
        let errors = taken.iter().filter(|found| found.severity == Severity::Error).count();
        self.errors -= errors;
        Diagnostics(taken)
    }

    /// Everything that was found, in the order of the lines.
    #[must_use]
    pub fn into_found(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|found| (found.line, found.column));
        self.found
    }

    /// Something is wrong.
    pub fn error(&mut self, at: Position, message: impl Display) {
        self.report(Severity::Error, at, message, None);
    }

    /// Something is wrong, and what to do about it is known.
    pub fn error_hint(&mut self, at: Position, message: impl Display, hint: impl Display) {
        self.report(Severity::Error, at, message, Some(hint.to_string()));
    }

    pub(crate) fn warning(&mut self, at: Position, message: impl Display, hint: impl Display) {
        self.report(Severity::Warning, at, message, Some(hint.to_string()));
    }

    /// A warning that is worth a look while policy is written, and no more later.
    pub(crate) fn advice(&mut self, at: Position, message: impl Display, hint: impl Display) {
        self.warning(at, message, hint);
        if let Some(last) = self.found.last_mut() {
            last.advice = true;
        }
    }

    fn report(
        &mut self,
        severity: Severity,
        at: Position,
        message: impl Display,
        hint: Option<String>,
    ) {
        let lines = self.lines.get_or_insert_with(|| Lines::of(&self.source.text));
        let mut diagnostic = Diagnostic::placed(severity, self.source, lines, at, &self.path);
        diagnostic.message = message.to_string();
        diagnostic.hint = hint;
        self.errors += usize::from(severity == Severity::Error);
        self.found.push(diagnostic);
    }

    /// Reads below a field.
    pub fn field<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let walked = self.path.len();
        if walked > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let value = read(self);
        self.path.truncate(walked);
        value
    }

    fn item<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let walked = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let value = read(self);
        self.path.truncate(walked);
        value
    }

    /// The fields of a map.
    pub fn fields<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        match &node.value {
            Value::Map(map) => Some(Fields { at: node.at, map, known: Vec::new() }),
            _ => {
                self.error(node.at, format_args!("must be a map, not {}", node.kind()));
                None
            }
        }
    }

    /// Every item of a list, each with its index in the path. `None` only if it is no list.
    pub fn list<'n, T>(
        &mut self,
        node: &'n Node,
        mut read: impl FnMut(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.error_hint(
                node.at,
                format_args!("must be a list, not {}", node.kind()),
                "begin each item with `- `",
            );
            return None;
        };
        let read_item = |(index, node)| self.item(index, |reader| read(reader, node));
        Some(items.iter().enumerate().filter_map(read_item).collect())
    }

    /// An error if a list has more items than it may.
    pub(crate) fn at_most(
        &mut self,
        node: &Node,
        count: usize,
        most: usize,
        what: &str,
        hint: &str,
    ) {
        if count > most {
            let message = format_args!("{count} {what}, and {most} are allowed");
            self.error_hint(node.at, message, hint);
        }
    }

    /// A string.
    pub fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            Value::Integer(number) => {
                self.error_hint(
                    node.at,
                    format_args!("must be a string, not the number {number}"),
                    format_args!("put it in quotes: \"{number}\""),
                );
                None
            }
            Value::Bool(value) => {
                self.error_hint(
                    node.at,
                    format_args!("must be a string, not the boolean {value}"),
                    format_args!("put it in quotes: \"{value}\""),
                );
                None
            }
            _ => {
                self.error(node.at, format_args!("must be a string, not {}", node.kind()));
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.error(node.at, format_args!("must be true or false, not {}", node.kind()));
                None
            }
        }
    }

    /// One of `names`, else an error that suggests the nearest.
    pub fn one_of<'c>(
        &mut self,
        at: Position,
        word: &str,
        what: &str,
        names: &[&'c str],
    ) -> Option<&'c str> {
        let found = names.iter().find(|name| **name == word);
        if found.is_none() {
            let hint = match nearest(word, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of {}", names.join(", ")),
            };
            self.error_hint(at, format_args!("`{word}` is not {what}"), hint);
        }
        found.copied()
    }
}

/// The fields of one map. What is never asked for is unknown and an error.
pub struct Fields<'n> {
    /// Where the map begins.
    pub at: Position,
    map: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// A field's value; a field that is `null` counts as absent.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.take_nullable(name).filter(|node| !node.is_null())
    }

    fn take_nullable(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        self.map.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// Whether a field is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.iter().any(|(key, node)| key.name == name && !node.is_null())
    }

    /// A field that must be there.
    pub fn required(&mut self, name: &'static str, reader: &mut Reader<'_>) -> Option<&'n Node> {
        let node = self.take(name);
        if node.is_none() {
            reader.error(self.at, format_args!("`{name}` is missing"));
        }
        node
    }

    /// A field that is read and kept out of the verdict: comments, Kubernetes' own book-keeping.
    pub fn ignore(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    /// Reports every field that nobody asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.map {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            let message = format!("unknown field `{}`", key.name);
            let hint = match nearest(&key.name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            reader.error_hint(key.at, message, hint);
        }
    }
}
