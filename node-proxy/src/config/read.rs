//! A configuration's text, read; what is wrong with it, in our own words.

use std::fmt::Display;
use std::str::FromStr;

use portreeve_policy::{Diagnostic, Severity};
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Error;

use super::File;

/// Reads a configuration's text.
pub(super) fn parse(name: &str, text: &str) -> Result<File, Box<Diagnostic>> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        let bounded = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let (line, column) =
            location.map_or((0, 0), |at| (bounded(at.line()), bounded(at.column())));
        Box::new(Diagnostic {
            advice: false,
            severity: Severity::Error,
            source: name.to_owned(),
            line,
            column,
            path: String::new(),
            message: message(text, error.without_snippet()),
            hint: Some("`portreeve-node config example` shows every key".to_owned()),
            excerpt: text.lines().nth((line.max(1) - 1) as usize).map(str::to_owned),
        })
    })
}

/// What is wrong, without its place, which is shown by itself.
fn message(text: &str, error: &Error) -> String {
    let is_empty = text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    });
    match error {
        _ if is_empty => "it is empty: `objects` is missing".to_owned(),
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is there twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is there twice".to_owned(),
        Error::Eof { .. } => "it ends before it is complete".to_owned(),
        Error::MultipleDocuments { .. } => {
            "more than one document: a configuration is one".to_owned()
        }
        error => {
            let said = error.to_string();
            let said = said.lines().next().unwrap_or_default();
            said.find(" at line ").map_or(said, |at| &said[..at]).to_owned()
        }
    }
}

/// What is written as text, as what it stands for.
pub(super) fn parsed<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// The same for each of a list, so that the one that is wrong is shown.
pub(super) fn all_parsed<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    struct One<T>(T);
    impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for One<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            parsed(deserializer).map(Self)
        }
    }
    let all = Option::<Vec<One<T>>>::deserialize(deserializer)?;
    Ok(all.map(|all| all.into_iter().map(|One(one)| one).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words_that_are_about_the_configuration() {
        for (text, said) in [
            ("", "it is empty: `objects` is missing"),
            ("---\n# objects: o/\n", "it is empty: `objects` is missing"),
            ("admin: 'off'\n", "`objects` is missing"),
            ("objects: o/\nworkers: 1\nworkers: 2\n", "`workers` is there twice"),
            ("objects: o/\nkernel: {instance: a, instance: b}\n", "`instance` is there twice"),
            ("objects: o/\n---\nobjects: o/\n", "more than one document: a configuration is one"),
        ] {
            let error = parse("node.yaml", text).unwrap_err();
            assert_eq!(error.message, said, "{text:?}");
            assert!(error.to_string().contains("config example"), "{error}");
        }
    }
}
