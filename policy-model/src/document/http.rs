//! `rules.http`: method, path, host, headers (Cilium `api.PortRuleHTTP`), and our own header
//! conditions.

use std::sync::Arc;

use super::Dialect;
use super::node::Node;
use super::reader::{Fields, Reader};
use crate::pattern::Pattern;
use crate::rule::{HeaderMatch, HeaderValue, HttpRule, Mismatch};

/// Reads one HTTP rule.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    dialect: Dialect,
) -> Option<Arc<HttpRule>> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let errors = reader.found.len();
    let path = pattern(reader, &mut fields, "path");
    let method = pattern(reader, &mut fields, "method");
    let host = pattern(reader, &mut fields, "host");
    let mut headers = Vec::new();
    if let Some(node) = fields.take("headers") {
        let read = reader.field("headers", |reader| reader.list(node, header));
        headers.extend(read.unwrap_or_default());
    }
    if let Some(node) = fields.take("headerMatches") {
        let read = reader.field("headerMatches", |reader| {
            reader.list(node, |reader, node| header_match(reader, node, dialect))
        });
        headers.extend(read.unwrap_or_default());
    }
    fields.finish(reader);
    let failed = reader.found[errors..]
        .iter()
        .any(|found| found.severity == crate::diagnostic::Severity::Error);
    (!failed).then(|| Arc::new(HttpRule { section, method, path, host, headers }))
}

/// A regular expression; an empty one says nothing.
fn pattern(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Option<Pattern> {
    let node = fields.take(name)?;
    reader.field(name, |reader| match reader.text(node)? {
        "" => None,
        text => compile(reader, node, text),
    })
}

fn compile(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<Pattern> {
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("`{text}` is not a regular expression: {error}");
            match text.strip_prefix('*') {
                Some(_) => reader.error_hint(
                    node.at,
                    message,
                    "`.*` matches anything, `*` repeats what stands before it",
                ),
                None => reader.error(node.at, message),
            }
            None
        }
    }
}

/// `Name: value`, split at the first space; without one, a field of exactly that name must be
/// there.
fn header(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderMatch> {
    let text = reader.text(node)?;
    let (name, value) = match text.split_once(' ') {
        Some((name, value)) => {
            (name.strip_suffix(':').unwrap_or(name), HeaderValue::Exact(value.to_owned()))
        }
        None => (text, HeaderValue::Present),
    };
    if name.is_empty() {
        reader.error_hint(node.at, "a header without a name", "write `Name: value`");
        return None;
    }
    Some(HeaderMatch { name: name.to_owned(), value, mismatch: Mismatch::Fail })
}

fn header_match(reader: &mut Reader<'_>, node: &Node, dialect: Dialect) -> Option<HeaderMatch> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("name", reader);
    let name = name.and_then(|node| reader.field("name", |reader| header_name(reader, node)));
    let value = field_text(reader, &mut fields, "value").unwrap_or_default();
    let condition = condition(reader, &mut fields, value, dialect);
    let mismatch = mismatch(reader, &mut fields, value);
    fields.finish(reader);
    Some(HeaderMatch { name: name?, value: condition?, mismatch: mismatch? })
}

fn field_text<'n>(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'n>,
    name: &'static str,
) -> Option<&'n str> {
    let node = fields.take(name)?;
    reader.field(name, |reader| reader.text(node))
}

/// A field name (RFC 9110 section 5.1), or one of HTTP/2's pseudo-headers, as the reference has it.
fn header_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let bare = name.strip_prefix(':').unwrap_or(name);
    if bare.is_empty() || !bare.bytes().all(token) {
        reader.error(node.at, format_args!("`{name}` is not a header name"));
        return None;
    }
    Some(name.to_owned())
}

/// What the value must be: `value`, `secret`, or our own `regex`, `prefix`, `present`. At most one.
fn condition(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    value: &str,
    dialect: Dialect,
) -> Option<HeaderValue> {
    let at = fields.at;
    let mut said = Vec::new();
    if !value.is_empty() {
        said.push(("value", Some(HeaderValue::Exact(value.to_owned()))));
    }
    if let Some(node) = fields.take("secret") {
        said.push(("secret", secret(reader, node)));
    }
    if dialect.extended {
        if let Some(node) = fields.take("regex") {
            let pattern = reader.field("regex", |reader| {
                let text = reader.text(node)?;
                compile(reader, node, text)
            });
            said.push(("regex", pattern.map(HeaderValue::Matches)));
        }
        if let Some(prefix) = field_text(reader, fields, "prefix") {
            said.push(("prefix", Some(HeaderValue::Prefix(prefix.to_owned()))));
        }
        if let Some(node) = fields.take("present") {
            let present = reader.field("present", |reader| reader.boolean(node));
            let value = |present| if present { HeaderValue::Present } else { HeaderValue::Absent };
            said.push(("present", present.map(value)));
        }
    }
    // A secret takes the place of `value` (Cilium); our own conditions stand alone.
    let names: Vec<_> = said.iter().map(|(name, _)| *name).collect();
    if names.len() > 1 && names != ["value", "secret"] {
        let names = names.join("` and `");
        reader.error_hint(at, format_args!("`{names}` can't stand together"), "keep one of them");
        return None;
    }
    said.pop().map_or(Some(HeaderValue::Present), |(_, condition)| condition)
}

/// Secrets live in the cluster's API, which this engine does not read: the rule matches nothing.
fn secret(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderValue> {
    reader.field("secret", |reader| {
        let mut fields = reader.fields(node)?;
        fields.ignore(&["namespace"]);
        let name = fields.required("name", reader);
        fields.finish(reader);
        name?;
        reader.warning(
            node.at,
            "secrets can't be read here, so this rule matches no request",
            "give the value itself, or a `regex` in a TrafficPolicy",
        );
        Some(HeaderValue::Unknown)
    })
}

fn mismatch(reader: &mut Reader<'_>, fields: &mut Fields<'_>, value: &str) -> Option<Mismatch> {
    let Some(node) = fields.take("mismatch") else { return Some(Mismatch::Fail) };
    reader.field("mismatch", |reader| {
        let word = reader.text(node)?;
        if word.is_empty() {
            return Some(Mismatch::Fail);
        }
        let actions = ["LOG", "ADD", "DELETE", "REPLACE"];
        let action = reader.one_of(node.at, word, "a mismatch action", &actions)?;
        if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
            reader.error(node.at, "the value to be written has a control character in it");
            return None;
        }
        Some(match action {
            "LOG" => Mismatch::Log,
            "ADD" => Mismatch::Add(value.to_owned()),
            "DELETE" => Mismatch::Delete,
            _ => Mismatch::Replace(value.to_owned()),
        })
    })
}
