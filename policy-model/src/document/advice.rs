//! What is legal in a rule and surely not meant, as far as the rule alone shows it.

use super::node::Node;
use super::reader::Reader;
use crate::pattern::Pattern;

/// Looks at the expression of a `path`, `method` or `host`.
pub(super) fn on_pattern(
    reader: &mut Reader<'_>,
    node: &Node,
    name: &str,
    text: &str,
    pattern: &Pattern,
) {
    match name {
        "path" => on_path(reader, node, text, pattern),
        "method" => on_method(reader, node, text, pattern),
        _ => on_host(reader, node, text),
    }
}

/// Expressions match the whole path; who thinks of prefixes writes them otherwise.
fn on_path(reader: &mut Reader<'_>, node: &Node, text: &str, pattern: &Pattern) {
    let begins = pattern.required_prefix();
    if begins.first().is_some_and(|first| *first != b'/' && *first != b'*') {
        reader.warning(
            node.at,
            format_args!("`{text}` matches no request: a path begins with `/`"),
            format_args!("write `/{text}`"),
        );
        return;
    }
    if text.ends_with('$') || text.contains(".*") || text.ends_with(['+', ')']) {
        return;
    }
    let bare = text.strip_prefix('^').unwrap_or(text);
    if text.starts_with('^') || pattern.is_literal() {
        let example = pattern.example();
        let only = String::from_utf8_lossy(&example);
        reader.advice(
            node.at,
            format_args!("`{text}` matches the whole path, and so only `{only}`, without a query"),
            format_args!(
                "write `{bare}.*` for what begins so, or `{bare}$` to say that only this is meant"
            ),
        );
    }
}

fn on_method(reader: &mut Reader<'_>, node: &Node, text: &str, pattern: &Pattern) {
    let upper = text.to_ascii_uppercase();
    let lower = text.bytes().any(|b| b.is_ascii_lowercase());
    if pattern.is_literal() && lower {
        reader.warning(
            node.at,
            format_args!("`{text}` matches no method that is in use: case matters"),
            format_args!("write `{upper}`"),
        );
    }
}

/// A dot between letters is a dot in a host's name, and any character in an expression.
fn on_host(reader: &mut Reader<'_>, node: &Node, text: &str) {
    let bytes = text.as_bytes();
    let letter = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'-');
    let dot = (1..bytes.len())
        .find(|&at| bytes[at] == b'.' && letter(bytes.get(at - 1)) && letter(bytes.get(at + 1)));
    if let Some(at) = dot {
        let mut escaped = String::new();
        for (index, c) in text.char_indices() {
            let plain = c == '.'
                && letter(index.checked_sub(1).and_then(|before| bytes.get(before)))
                && letter(bytes.get(index + 1));
            escaped.push_str(if plain { "[.]" } else { "" });
            if !plain {
                escaped.push(c);
            }
        }
        let mut other = text.to_owned();
        other.replace_range(at..=at, "x");
        reader.advice(
            node.at,
            format_args!("the dot in `{text}` stands for any character: `{other}` matches, too"),
            format_args!("write `{escaped}`"),
        );
    }
}
