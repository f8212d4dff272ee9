//! `rules.dns` and `toFQDNs`: names and patterns of names (Cilium `api.FQDNSelector`).

use std::sync::Arc;

use super::node::Node;
use super::reader::{Fields, Reader};
use crate::name::NamePattern;
use crate::rule::{DnsRule, PeerSelector};

/// Reads one DNS rule; `matchName` and `matchPattern` are alternatives.
pub(super) fn rule(reader: &mut Reader<'_>, node: &Node) -> Option<Arc<DnsRule>> {
    let section = reader.path().to_owned();
    let (at, names) = names(reader, node)?;
    if names.is_empty() {
        reader.warning(
            at,
            "a DNS rule without a name matches nothing",
            "write `matchName`, or `matchPattern: '*'` for every name",
        );
    }
    Some(Arc::new(DnsRule { section, names }))
}

/// Reads one item of `toFQDNs`: one or the other. Neither selects nobody, as the reference has it.
pub(super) fn peer(reader: &mut Reader<'_>, node: &Node) -> Option<Option<PeerSelector>> {
    let (at, mut names) = names(reader, node)?;
    if names.len() > 1 {
        reader.error_hint(
            at,
            "`matchName` and `matchPattern` can't stand together here",
            "write two items; they are alternatives",
        );
        return None;
    }
    Some(names.pop().map(PeerSelector::Name))
}

fn names(
    reader: &mut Reader<'_>,
    node: &Node,
) -> Option<(crate::diagnostic::Position, Vec<NamePattern>)> {
    let mut fields = reader.fields(node)?;
    let errors = reader.errors();
    let mut names = Vec::new();
    names.extend(name(reader, &mut fields, "matchName", NamePattern::name));
    names.extend(name(reader, &mut fields, "matchPattern", NamePattern::pattern));
    let at = fields.at;
    fields.finish(reader);
    (reader.errors() == errors).then_some((at, names))
}

fn name(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    field: &'static str,
    read: impl FnOnce(&str) -> Result<NamePattern, String>,
) -> Option<NamePattern> {
    let node = fields.take(field)?;
    reader.field(field, |reader| match reader.text(node)? {
        "" => None,
        text => match read(text) {
            Ok(name) => Some(name),
            Err(why) => {
                let what = if field == "matchName" { "a DNS name" } else { "a pattern of names" };
                reader.error_hint(node.at, format_args!("`{text}` is not {what}"), why);
                None
            }
        },
    })
}
