//! Conditions on a value: our own `exact`, `prefix`, `suffix`, `regex`, `present` and `cidr`, the same
//! for header fields, query parameters and gRPC metadata.

use super::cidr::prefix_or_address;
use super::node::Node;
use super::reader::{Fields, Reader};
use crate::pattern::{LONGEST_SUFFIX, Pattern};
use crate::rule::ValueMatch;

/// Reads at most one condition of a map; without any, the value must be there.
pub(super) fn condition(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ValueMatch> {
    let at = fields.at;
    let mut said = Vec::new();
    for (name, make) in [
        ("exact", ValueMatch::Exact as fn(String) -> ValueMatch),
        ("prefix", ValueMatch::Prefix),
        ("suffix", ValueMatch::Suffix),
    ] {
        if let Some(node) = fields.take(name) {
            let text = reader.field(name, |reader| reader.text(node));
            said.push((name, text.map(|text| make(text.to_owned()))));
        }
    }
    if let Some((_, Some(ValueMatch::Suffix(suffix)))) = said.last()
        && suffix.len() > LONGEST_SUFFIX
    {
        reader.error(at, format_args!("a `suffix` has at most {LONGEST_SUFFIX} characters"));
        return None;
    }
    if let Some(node) = fields.take("regex") {
        let pattern = reader.field("regex", |reader| regex(reader, node));
        said.push(("regex", pattern.map(ValueMatch::Matches)));
    }
    if let Some(node) = fields.take("present") {
        let present = reader.field("present", |reader| reader.boolean(node));
        let value = |present| if present { ValueMatch::Present } else { ValueMatch::Absent };
        said.push(("present", present.map(value)));
    }
    if let Some(node) = fields.take("cidr") {
        let list = reader.field("cidr", |reader| reader.list(node, prefix_or_address));
        said.push(("cidr", list.map(ValueMatch::Inside)));
    }
    if said.len() > 1 {
        let names: Vec<_> = said.iter().map(|(name, _)| *name).collect();
        let names = names.join("` and `");
        reader.error_hint(at, format_args!("`{names}` can't stand together"), "keep one of them");
        return None;
    }
    said.pop().map_or(Some(ValueMatch::Present), |(_, condition)| condition)
}

/// A regular expression for a whole value.
pub(super) fn regex(reader: &mut Reader<'_>, node: &Node) -> Option<Pattern> {
    let text = reader.text(node)?;
    match Pattern::new(text) {
        Ok(pattern) if reader.spend(pattern.memory()) => Some(pattern),
        Ok(_) => {
            reader.error_hint(
                node.at,
                format_args!("with `{text}`, the expressions of this file need more than 64 MiB"),
                "write simpler expressions: literals, `.*`, `[^/]+` between slashes",
            );
            None
        }
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

/// A field name (RFC 9110 section 5.1), or one of HTTP/2's pseudo-headers, as the reference has it.
pub(super) fn header_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let bare = name.strip_prefix(':').unwrap_or(name);
    if bare.is_empty() || !bare.bytes().all(token) {
        reader.error(node.at, format_args!("`{name}` is not a header name"));
        return None;
    }
    Some(name.to_owned())
}
