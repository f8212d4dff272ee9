//! `rules.http`: method, path, host, headers (Cilium `api.PortRuleHTTP`), and our own conditions on
//! path segments, header fields and the query.

use std::sync::Arc;

use super::node::Node;
use super::reader::{Fields, Reader};
use super::{Dialect, advice, tls, values};
use crate::pattern::Pattern;
use crate::rule::{HeaderMatch, HttpRule, Mismatch, QueryMatch, ValueMatch};

/// Reads one HTTP rule.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    dialect: Dialect,
) -> Option<Arc<HttpRule>> {
    let mut fields = reader.fields(node)?;
    let section = reader.path().to_owned();
    let errors = reader.errors();
    let at = fields.at;
    let mut path = pattern(reader, &mut fields, "path");
    if dialect.extended
        && let Some(glob) = path_glob(reader, &mut fields)
    {
        if path.is_some() {
            reader.error(at, "`path` and `pathGlob` can't stand together");
        }
        path = Some(glob);
    }
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
    let mut query = Vec::new();
    if dialect.extended
        && let Some(node) = fields.take("query")
    {
        let read = reader.field("query", |reader| reader.list(node, query_match));
        query.extend(read.unwrap_or_default());
    }
    fields.finish(reader);
    let failed = reader.errors() > errors;
    (!failed).then(|| Arc::new(HttpRule { section, at, method, path, host, headers, query }))
}

/// A regular expression; an empty one says nothing.
fn pattern(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Option<Pattern> {
    let node = fields.take(name)?;
    reader.field(name, |reader| {
        let text = match reader.text(node)? {
            "" => return None,
            text => text,
        };
        let pattern = values::regex(reader, node)?;
        advice::on_pattern(reader, node, name, text, &pattern);
        Some(pattern)
    })
}

/// Our own `pathGlob`: segments, of which `*` is any one and a final `**` all that follow. It is about
/// the path alone; the query is free.
fn path_glob(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Pattern> {
    let node = fields.take("pathGlob")?;
    reader.field("pathGlob", |reader| {
        let text = reader.text(node)?;
        let wrong = |reader: &mut Reader<'_>, why: &str| {
            reader.error_hint(
                node.at,
                format_args!("`{text}` is not a path glob: {why}"),
                "`/a/*/b` has any one segment in the middle, `/a/**` is everything below `/a/`",
            );
        };
        let Some(path) = text.strip_prefix('/') else {
            wrong(reader, "it does not begin with `/`");
            return None;
        };
        let mut expression = String::new();
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            expression.push('/');
            match segment {
                "*" => expression.push_str("[^/?]+"),
                "**" if segments.peek().is_none() => expression.push_str("[^?]*"),
                "**" => {
                    wrong(reader, "`**` can only be the last segment");
                    return None;
                }
                segment if segment.contains(['*', '?', '#']) => {
                    wrong(reader, "`*` stands for a whole segment, and a path has no `?` or `#`");
                    return None;
                }
                segment => expression.push_str(&regex_syntax::escape(segment)),
            }
        }
        expression.push_str("([?].*)?");
        Pattern::new(&expression).map_err(|error| reader.error(node.at, error)).ok()
    })
}

/// A condition on one parameter of the query.
fn query_match(reader: &mut Reader<'_>, node: &Node) -> Option<QueryMatch> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("name", reader);
    let name = name.and_then(|node| {
        reader.field("name", |reader| {
            let name = reader.text(node)?;
            if name.is_empty() {
                reader.error(node.at, "a parameter needs a name");
                return None;
            }
            Some(name.to_owned())
        })
    });
    let value = values::condition(reader, &mut fields);
    fields.finish(reader);
    Some(QueryMatch { name: name?, value: value? })
}

/// `Name: value`, split at the first space; without one, a field of exactly that name must be
/// there.
fn header(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderMatch> {
    let text = reader.text(node)?;
    let (name, value) = match text.split_once(' ') {
        Some((name, value)) => {
            (name.strip_suffix(':').unwrap_or(name), ValueMatch::Exact(value.to_owned()))
        }
        None => (text, ValueMatch::Present),
    };
    if name.is_empty() {
        reader.error_hint(node.at, "a header without a name", "write `Name: value`");
        return None;
    }
    if matches!(value, ValueMatch::Present)
        && let Some((name, value)) = text.split_once(':')
    {
        reader.warning(
            node.at,
            format_args!("without a space, this asks for a header field called `{text}`"),
            format_args!("write `{name}: {value}`"),
        );
    }
    Some(HeaderMatch { name: name.to_owned(), value, mismatch: Mismatch::Fail })
}

fn header_match(reader: &mut Reader<'_>, node: &Node, dialect: Dialect) -> Option<HeaderMatch> {
    let mut fields = reader.fields(node)?;
    let name = fields.required("name", reader);
    let name =
        name.and_then(|node| reader.field("name", |reader| values::header_name(reader, node)));
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

/// What the value must be: `value` or `secret`, or one of our own conditions.
fn condition(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    value: &str,
    dialect: Dialect,
) -> Option<ValueMatch> {
    let at = fields.at;
    let secret = fields.take("secret").map(|node| secret(reader, node));
    if dialect.extended {
        let own = values::condition(reader, fields)?;
        let said = !matches!(own, ValueMatch::Present) || fields.has("present");
        if said && (secret.is_some() || !value.is_empty()) {
            reader.error_hint(
                at,
                "`value` or `secret` can't stand together with another condition",
                "keep one of them",
            );
            return None;
        }
        if said {
            return Some(own);
        }
    }
    if secret.is_none() && value.is_empty() && fields.has("value") {
        reader.advice(
            at,
            "an empty `value` asks only that the field is there",
            "leave `value` out to say just that",
        );
    }
    // A secret takes the place of `value` (Cilium).
    match secret {
        Some(secret) => secret,
        None if value.is_empty() => Some(ValueMatch::Present),
        None => Some(ValueMatch::Exact(value.to_owned())),
    }
}

/// Secrets live in the cluster's API, which this engine does not read: the rule matches nothing.
fn secret(reader: &mut Reader<'_>, node: &Node) -> Option<ValueMatch> {
    reader.field("secret", |reader| {
        tls::secret_ref(reader, node)?;
        reader.warning(
            node.at,
            "secrets can't be read here, so this rule matches no request",
            "give the value itself, or a `regex` in a TrafficPolicy",
        );
        Some(ValueMatch::Unknown)
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
