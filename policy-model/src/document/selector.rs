//! Label selectors: `matchLabels` and `matchExpressions`.

use super::node::{Key, Node, Value};
use super::reader::Reader;
use crate::diagnostic::Position;
use crate::label::{check_key, check_value, split_source};
use crate::selector::{Operator, Requirement, Selector};

/// A Kubernetes label selector with label sources.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Selector> {
    let mut fields = reader.fields(node)?;
    let mut requirements = Vec::new();
    let mut good = true;
    if let Some(node) = fields.take("matchLabels") {
        reader.field("matchLabels", |reader| match &node.value {
            Value::Map(labels) => {
                for (key, value) in labels {
                    match match_label(reader, key, value) {
                        Some(requirement) => requirements.push(requirement),
                        None => good = false,
                    }
                }
            }
            _ => {
                reader.error(node.at, format_args!("must be a map, not {}", node.kind()));
                good = false;
            }
        });
    }
    if let Some(node) = fields.take("matchExpressions") {
        let errors = reader.errors();
        let read = reader.field("matchExpressions", |reader| reader.list(node, expression));
        good &= errors == reader.errors();
        requirements.extend(read.unwrap_or_default());
    }
    fields.finish(reader);
    good.then_some(Selector { requirements })
}

fn match_label(reader: &mut Reader<'_>, key: &Key, value: &Node) -> Option<Requirement> {
    reader.field(&key.name, |reader| {
        let (source, name) = label_key(reader, key.at, &key.name)?;
        let value = label_value(reader, value)?;
        Some(Requirement::equals(source.as_deref(), &name, &value))
    })
}

fn expression(reader: &mut Reader<'_>, node: &Node) -> Option<Requirement> {
    const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
    let mut fields = reader.fields(node)?;
    let key = fields.required("key", reader).and_then(|node| {
        reader.field("key", |reader| {
            let text = reader.text(node)?;
            label_key(reader, node.at, text)
        })
    });
    let operator = fields.required("operator", reader).and_then(|node| {
        reader.field("operator", |reader| {
            let word = reader.text(node)?;
            reader.one_of(node.at, word, "an operator", &OPERATORS)
        })
    });
    let values = match fields.take("values") {
        Some(node) => reader.field("values", |reader| reader.list(node, label_value)),
        None => Some(Vec::new()),
    };
    let at = fields.at;
    fields.finish(reader);
    let ((source, key), operator, values) = (key?, operator?, values?);
    let operator = match (operator, values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        (name, true) => {
            reader.error(at, format_args!("`{name}` needs `values`"));
            return None;
        }
        (name, false) => {
            reader.error(at, format_args!("`{name}` takes no `values`"));
            return None;
        }
    };
    Some(Requirement { source, key, operator })
}

/// Source and key; `any:` means any source, like none.
fn label_key(
    reader: &mut Reader<'_>,
    at: Position,
    text: &str,
) -> Option<(Option<String>, String)> {
    let (source, key) = split_source(text);
    if let Err(error) = check_key(key) {
        reader.error(at, error);
        return None;
    }
    Some((source.filter(|source| *source != "any").map(str::to_owned), key.to_owned()))
}

fn label_value(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let value = reader.text(node)?;
    if let Err(error) = check_value(value) {
        reader.error(node.at, error);
        return None;
    }
    Some(value.to_owned())
}
