//! Labels: `source:key=value`. A workload is known by its labels, never by its address.

use std::fmt;
use std::str::FromStr;

/// The label that carries a workload's namespace.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label that carries a workload's cluster.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The cluster that everything known belongs to.
pub(crate) const LOCAL_CLUSTER: &str = "default";
/// Prefix of the labels that a workload has from its namespace.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Source of labels that come from Kubernetes, and of labels written without one.
pub const K8S: &str = "k8s";
/// Source of the labels of built-in identities.
pub const RESERVED: &str = "reserved";

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Where it comes from: `k8s`, `reserved`, ….
    pub source: String,
    /// Its key.
    pub key: String,
    /// Its value; may be empty.
    pub value: String,
}

impl Label {
    /// As [`Label::from_str`], of a label that somebody has: what is there need not follow any syntax.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = split_source(name);
        Self::new(source.unwrap_or(K8S), key, value)
    }

    /// A label of these parts, unchecked.
    pub fn new(source: &str, key: &str, value: &str) -> Self {
        Self { source: source.to_owned(), key: key.to_owned(), value: value.to_owned() }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        match self.value.as_str() {
            "" => Ok(()),
            value => write!(f, "={value}"),
        }
    }
}

/// Why a label could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The key does not follow Kubernetes' syntax.
    #[error(
        "`{0}` is not a label key: letters, digits, `-`, `_` and `.`, at most 63, beginning and \
         ending with a letter or digit, after an optional DNS prefix and `/`"
    )]
    Key(String),
    /// The value does not follow Kubernetes' syntax.
    #[error(
        "`{0}` is not a label value: letters, digits, `-`, `_` and `.`, at most 63, beginning and \
         ending with a letter or digit"
    )]
    Value(String),
}

impl FromStr for Label {
    type Err = LabelError;

    /// `key=value`, `key`, or either with a source before it: `reserved:host`.
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = split_source(name);
        check_key(key)?;
        check_value(value)?;
        Ok(Self::new(source.unwrap_or(K8S), key, value))
    }
}

/// A set of labels, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Vec<Label>);

impl Labels {
    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a label, replacing one of the same source and key.
    pub fn insert(&mut self, label: Label) {
        self.0.retain(|old| (&old.source, &old.key) != (&label.source, &label.key));
        let place = self.0.partition_point(|old| *old < label);
        self.0.insert(place, label);
    }

    /// Whether any label has this key, from whatever source.
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.0.iter().any(|label| label.key == key)
    }

    /// Whether any label comes from this source.
    #[must_use]
    pub fn has_source(&self, source: &str) -> bool {
        self.0.iter().any(|label| label.source == source)
    }

    /// The labels as a person calls a workload: its namespace, then what it was given.
    #[must_use]
    pub fn short(&self) -> String {
        let namespace = self.0.iter().find(|label| label.key == NAMESPACE);
        let own = self.0.iter().filter(|label| label.key != NAMESPACE && label.key != CLUSTER);
        let text = |label: &Label| {
            let text = label.to_string();
            text.strip_prefix("k8s:").map_or(text.clone(), str::to_owned)
        };
        let own: Vec<String> = own.map(text).collect();
        match namespace {
            Some(namespace) => format!("{}/{}", namespace.value, own.join(",")),
            None => own.join(","),
        }
    }

    /// Adds what every managed workload has: its namespace and its cluster. Labels of built-in
    /// identities are left alone.
    #[must_use]
    pub fn placed(mut self, namespace: &str) -> Self {
        if self.has_source(RESERVED) {
            return self;
        }
        for (key, value) in [(NAMESPACE, namespace), (CLUSTER, LOCAL_CLUSTER)] {
            if !self.has_key(key) {
                self.insert(Label::new(K8S, key, value));
            }
        }
        self
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut set = Self::default();
        for label in labels {
            set.insert(label);
        }
        set
    }
}

impl FromStr for Labels {
    type Err = LabelError;

    /// Labels joined by commas: `app=shop,env=prod`.
    fn from_str(text: &str) -> Result<Self, LabelError> {
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| part.trim().parse())
            .collect()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            label.fmt(f)?;
        }
        Ok(())
    }
}

/// Splits `source:key`; a source is a word before the first colon.
pub(crate) fn split_source(name: &str) -> (Option<&str>, &str) {
    match name.split_once(':') {
        Some((source, key)) if !source.is_empty() => (Some(source), key),
        _ => (None, name),
    }
}

/// Kubernetes' syntax of a qualified name.
pub(crate) fn check_key(key: &str) -> Result<(), LabelError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    // Namespace metadata keys carry a whole key behind their prefix, so they may be long.
    let longest = if key.starts_with(NAMESPACE_LABELS) { 253 } else { 63 };
    let good_prefix = prefix.is_none_or(|prefix| {
        !prefix.is_empty() && prefix.len() <= 253 && prefix.split('.').all(is_dns_label)
    });
    if good_prefix && is_name(name, longest) {
        Ok(())
    } else {
        Err(LabelError::Key(key.to_owned()))
    }
}

/// Kubernetes' syntax of a label value.
pub(crate) fn check_value(value: &str) -> Result<(), LabelError> {
    if value.is_empty() || is_name(value, 63) {
        Ok(())
    } else {
        Err(LabelError::Value(value.to_owned()))
    }
}

fn is_name(name: &str, longest: usize) -> bool {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= longest && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn is_dns_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !label.is_empty() && label.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_without_a_source_come_from_kubernetes() {
        let labels: Labels = "app=shop,reserved:host,env=prod".parse().unwrap();
        assert_eq!(labels.to_string(), "k8s:app=shop,k8s:env=prod,reserved:host");
    }

    #[test]
    fn labels_with_bad_syntax_are_refused() {
        for bad in ["a b=c", "app=-x", "/x=1", "app=a/b", "=x"] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn built_in_identities_get_no_namespace() {
        let host: Labels = "reserved:host".parse().unwrap();
        assert_eq!(host.placed("default").to_string(), "reserved:host");
    }
}
