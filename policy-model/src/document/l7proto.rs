//! `rules.l7proto` and `rules.l7`: protocols by name, with rules of keys and values.

use std::sync::Arc;

use super::node::{Node, Value};
use super::reader::Reader;
use crate::diagnostic::nearest;
use crate::generic::{self, GenericMatch, PROTOCOLS};
use crate::rule::{GenericRule, L7};

/// Reads the protocol's name and its rules.
pub(super) fn read(reader: &mut Reader<'_>, protocol: &Node, rules: Option<&Node>) -> Option<L7> {
    let name = reader.field("l7proto", |reader| reader.text(protocol))?;
    if !PROTOCOLS.contains(&name) {
        let hint = match nearest(name, PROTOCOLS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("protocols are {}", PROTOCOLS.join(", ")),
        };
        reader.field("l7proto", |reader| {
            reader.warning(
                protocol.at,
                format_args!("`{name}` can't be read here, so nothing passes on these ports"),
                hint,
            );
        });
    }
    let rules = match rules {
        None => Vec::new(),
        Some(node) => reader
            .field("l7", |reader| reader.list(node, |reader, node| rule(reader, node, name)))?,
    };
    Some(L7::Generic { protocol: name.into(), rules })
}

fn rule(reader: &mut Reader<'_>, node: &Node, protocol: &str) -> Option<Arc<GenericRule>> {
    let section = reader.path().to_owned();
    let Value::Map(fields) = &node.value else {
        reader.error(node.at, format_args!("must be a map, not {}", node.kind()));
        return None;
    };
    let mut pairs = Vec::new();
    let mut good = true;
    for (key, value) in fields {
        if key.name.is_empty() {
            reader.error(key.at, "a key can't be empty");
            good = false;
            continue;
        }
        match reader.field(&key.name, |reader| reader.text(value)) {
            Some(value) => pairs.push((key.name.clone(), value.to_owned())),
            None => good = false,
        }
    }
    if !good {
        return None;
    }
    let meaning = generic::read(protocol, &pairs);
    if let GenericMatch::Unreadable(why) = &meaning
        && PROTOCOLS.contains(&protocol)
    {
        reader.warning(
            node.at,
            format_args!("{why}, so nothing passes on these ports"),
            "the reference accepts such a rule and drops the traffic, and so do we",
        );
    }
    Some(Arc::new(GenericRule { section, meaning }))
}
