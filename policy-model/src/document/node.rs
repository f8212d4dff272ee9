//! A YAML or JSON document as a tree in which every value knows its place in the file.
//!
//! Serde's derive stops at the first error and does not know the field's path. A tree lets the
//! reader report everything at once, with line, column and path, and keeps the difference between
//! `80` and `"80"` that policies insist on.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Budget, Options, Spanned};

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::source::Source;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What a document may say.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// As Rust prints it; what policies count fits `u64`.
    Integer(i128),
    /// A number that is no whole one; none is asked for anywhere.
    Float,
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A field's name and where it stands.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it begins.
    pub at: Position,
    /// The name.
    pub name: String,
}

impl Node {
    /// What it is, for an error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
}

/// Reads all documents of a source; empty ones are left out.
///
/// # Errors
/// What is not YAML, and where.
pub fn parse(source: &Source) -> Result<Vec<Node>, Box<Diagnostic>> {
    let mut options = Options::default();
    options.budget = Some(budget());
    options.with_snippet = false;
    // `y` is a letter and `on` a word: topics, labels and hosts are called so.
    options.strict_booleans = true;
    let nodes = serde_saphyr::from_multiple_with_options::<Node>(&source.text, options)
        .map_err(|error| Box::new(syntax_error(source, &error)))?;
    Ok(nodes.into_iter().filter(|node| !node.is_null()).collect())
}

/// Bounds on what a file may make the reader build. Policies of 10,000 rules are real; a file that
/// grows by aliases is not.
fn budget() -> Budget {
    let mut budget = Budget::default();
    budget.max_events = 20_000_000;
    budget.max_nodes = 10_000_000;
    budget.max_total_scalar_bytes = 256 << 20;
    budget.max_documents = 100_000;
    budget.max_depth = 64;
    budget
}

fn syntax_error(source: &Source, error: &serde_saphyr::Error) -> Diagnostic {
    let at = error.location().map(position).unwrap_or_default();
    let mut diagnostic = Diagnostic::new(Severity::Error, source, at, "");
    // The first line says it; what follows repeats the position.
    let text = error.without_snippet().to_string();
    let message = text.lines().next().unwrap_or_default();
    let message = message.split(" at line ").next().unwrap_or(message);
    diagnostic.message = format!("not valid YAML: {message}");
    diagnostic
}

fn position(location: serde_saphyr::Location) -> Position {
    let bounded = |n| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: bounded(location.line()), column: bounded(location.column()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: position(referenced), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Float)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(Spanned { value: name, referenced, .. }) =
            fields.next_key::<Spanned<String>>()?
        {
            map.push((Key { at: position(referenced), name }, fields.next_value()?));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(&Source::new("t.yaml", text)).unwrap().remove(0)
    }

    #[test]
    fn numbers_and_strings_are_told_apart_and_placed() {
        let Value::Map(fields) = one("a: 80\nb: '80'\nc: [x, ~]\n").value else { panic!() };
        assert!(matches!(fields[0].1.value, Value::Integer(80)));
        assert!(matches!(&fields[1].1.value, Value::Text(text) if text == "80"));
        assert_eq!(fields[1].1.at, Position { line: 2, column: 4 });
        assert_eq!(fields[1].0.at, Position { line: 2, column: 1 });
        let Value::List(items) = &fields[2].1.value else { panic!() };
        assert!(items[1].is_null());
    }

    #[test]
    fn broken_yaml_is_reported_with_its_place() {
        let error = parse(&Source::new("t.yaml", "a: [1, 2\nb: }\n")).unwrap_err();
        assert!(error.line > 0, "{error}");
        assert!(error.message.starts_with("not valid YAML: "), "{error}");
    }

    #[test]
    fn a_key_written_twice_is_an_error() {
        assert!(parse(&Source::new("t.yaml", "a: 1\na: 2\n")).is_err());
    }

    #[test]
    fn a_billion_laughs_are_an_error() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert!(parse(&Source::new("t.yaml", text)).is_err());
    }
}
