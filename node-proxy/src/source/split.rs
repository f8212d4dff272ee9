//! A file as documents, and lists as their items: an error in one must not touch the others, so each is
//! read on its own. Every piece knows how many lines stand before it.

use std::hash::{DefaultHasher, Hash, Hasher};

use portreeve_policy::yaml::{self, Node, Value};
use portreeve_policy::{Diagnostic, Source};

use crate::objects::{self, Found, LISTS};

/// One document, or one item of a list.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Lines of the file before the first of `text`.
    pub(super) before: u32,
    /// Its errors can be told no better than that they are here (line and column of the file).
    only_here: Option<(u32, u32)>,
}

impl Piece {
    /// Stands for the text: two pieces with the same say the same.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.text, self.only_here.is_some()).hash(&mut hasher);
        hasher.finish()
    }
}

/// The documents of a text. A line that begins with `---` can be nothing else (YAML 1.2, 9.1.2).
pub(super) fn documents(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut begin, mut before, mut line, mut at) = (0, 0, 0_u32, 0);
    for full in text.split_inclusive('\n') {
        let marks = full
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marks && at > begin {
            pieces.push(Piece { text: text[begin..at].to_owned(), before, only_here: None });
            (begin, before) = (at, line);
        }
        at += full.len();
        line += 1;
    }
    pieces.push(Piece { text: text[begin..].to_owned(), before, only_here: None });
    pieces.retain(|piece| !is_blank(&piece.text));
    pieces.iter_mut().for_each(trim);
    pieces
}

/// Takes away what stands before an object: it says the same with other comments above it.
fn trim(piece: &mut Piece) {
    let lines = piece.text.split_inclusive('\n').take_while(|line| is_blank(line));
    let (count, bytes) = lines.fold((0, 0), |(count, bytes), line| (count + 1, bytes + line.len()));
    piece.text.drain(..bytes);
    piece.before += count;
}

/// Whether a document has nothing in it but comments, directives and its own marks.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim_start_matches('\u{feff}').trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "..."
    })
}

/// What a piece says: one object, or all those of a list.
pub(super) fn read(file: &str, piece: &Piece) -> Vec<(Piece, Found)> {
    let source = Source::new(file, piece.text.as_str());
    let nodes = match yaml::parse(&source) {
        Ok(nodes) => nodes,
        Err(error) => {
            let found = Found { key: None, object: None, diagnostics: vec![*error] };
            return vec![(piece.clone(), found)];
        }
    };
    let mut all = Vec::new();
    for node in &nodes {
        match items(node) {
            Some(items) => {
                for item in items {
                    all.push(read_item(file, &piece.text, piece.before, item));
                }
            }
            None => all.push((piece.clone(), objects::read(&source, node))),
        }
    }
    all
}

/// The items of a list of objects.
fn items(node: &Node) -> Option<&[Node]> {
    let Value::Map(fields) = &node.value else { return None };
    let field = |name: &str| fields.iter().find(|(key, _)| key.name == name).map(|(_, node)| node);
    let Value::Text(kind) = &field("kind")?.value else { return None };
    if !LISTS.contains(&kind.as_str()) && !kind.ends_with("List") {
        return None;
    }
    match &field("items")?.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

fn read_item(file: &str, text: &str, before: u32, item: &Node) -> (Piece, Found) {
    if let Some(piece) = cut_out(text, before, item) {
        let source = Source::new(file, piece.text.as_str());
        // An alias may refer to what stands elsewhere in the list.
        if let Ok(nodes) = yaml::parse(&source)
            && let [node] = &nodes[..]
        {
            return (piece.clone(), objects::read(&source, node));
        }
    }
    let at = (before + item.at.line, item.at.column);
    let piece = Piece {
        text: json(item).to_string(),
        before: before + item.at.line - 1,
        only_here: Some(at),
    };
    let source = Source::new(file, piece.text.as_str());
    let found = match yaml::parse(&source).as_deref() {
        Ok([node]) => objects::read(&source, node),
        _ => objects::read(&source, item),
    };
    (piece, found)
}

/// The lines of an item in block style, its dash turned into a space.
fn cut_out(text: &str, before: u32, item: &Node) -> Option<Piece> {
    let indent = item.at.column.checked_sub(1)? as usize;
    let mut lines = text.split_inclusive('\n').skip(item.at.line.checked_sub(1)? as usize);
    let first = lines.next()?;
    let lead = first.get(..indent)?;
    if lead.trim() != "-" {
        return None;
    }
    let mut cut = " ".repeat(indent);
    cut.push_str(&first[indent..]);
    for line in lines {
        let content = line.trim_start();
        let own = line.len() - content.len() >= indent;
        if !own && !content.is_empty() && !content.starts_with('#') {
            break;
        }
        cut.push_str(line);
    }
    Some(Piece { text: cut, before: before + item.at.line - 1, only_here: None })
}

/// A tree as JSON, for items whose lines can't be cut out.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Float => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => serde_json::Value::Null,
        },
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(fields) => {
            let field = |(key, node): &(yaml::Key, Node)| (key.name.clone(), json(node));
            serde_json::Value::Object(fields.iter().map(field).collect())
        }
    }
}

/// What was found in a piece, with the lines of the file.
pub(super) fn placed(piece: &Piece, found: &[Diagnostic]) -> Vec<Diagnostic> {
    let place = |diagnostic: &Diagnostic| {
        let mut diagnostic = diagnostic.clone();
        match piece.only_here {
            Some((line, column)) => {
                (diagnostic.line, diagnostic.column) = (line, column);
                diagnostic.excerpt = None;
            }
            None if diagnostic.line > 0 => diagnostic.line += piece.before,
            None => {}
        }
        diagnostic
    };
    found.iter().map(place).collect()
}

/// The line that a piece's object begins at.
pub(super) fn first_line(piece: &Piece) -> u32 {
    let content = |line: &&str| !is_blank(line);
    let skipped = piece.text.lines().position(|line| content(&line)).unwrap_or(0);
    piece.before + u32::try_from(skipped).unwrap_or(u32::MAX - piece.before - 1) + 1
}
