//! Rules about what is said on a connection.

use ipnet::IpNet;

use crate::diagnostic::Position;
use crate::generic::GenericMatch;
use crate::name::NamePattern;
use crate::pattern::Pattern;

/// One item of `rules.http` or `rules.grpc`. All that is said must match.
#[derive(Clone, Debug)]
pub(crate) struct HttpRule {
    pub(crate) section: String,
    pub(crate) at: Position,
    pub(crate) method: Option<Pattern>,
    pub(crate) path: Option<Pattern>,
    pub(crate) host: Option<Pattern>,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) query: Vec<QueryMatch>,
}

impl HttpRule {
    /// A rule that says nothing, and so allows everything.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { section: _, at: _, method, path, host, headers, query } = self;
        let any = |pattern: &Option<Pattern>| pattern.as_ref().is_none_or(|p| p.as_str() == ".*");
        any(method) && any(path) && any(host) && headers.is_empty() && query.is_empty()
    }
}

/// A condition on one header field.
#[derive(Clone, Debug)]
pub(crate) struct HeaderMatch {
    pub(crate) name: String,
    pub(crate) value: ValueMatch,
    pub(crate) mismatch: Mismatch,
}

/// A condition on one parameter of the query. Every parameter of that name must fulfil it.
#[derive(Clone, Debug)]
pub(crate) struct QueryMatch {
    pub(crate) name: String,
    pub(crate) value: ValueMatch,
}

/// What a value must be. Several header fields of one name are compared as one value, joined by
/// commas.
#[derive(Clone, Debug)]
pub(crate) enum ValueMatch {
    Present,
    Absent,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Matches(Pattern),
    /// An address inside of one of these.
    Inside(Vec<IpNet>),
    /// Its secret can't be read: no request fulfils it.
    Unknown,
}

/// What happens when a header condition is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The rule does not match.
    Fail,
    /// It matches.
    Log,
    /// It matches, and the field is added.
    Add(String),
    /// It matches, and the fields of that name are removed.
    Delete,
    /// It matches, and the fields of that name are replaced by one.
    Replace(String),
}

/// One item of `rules.kafka`. All that is said must match.
#[derive(Clone, Debug)]
pub(crate) struct KafkaRule {
    pub(crate) section: String,
    /// The keys that `role` or `apiKey` stands for; `None`: any.
    pub(crate) api_keys: Option<&'static [i16]>,
    pub(crate) api_version: Option<i16>,
    pub(crate) client_id: Option<String>,
    pub(crate) topic: Option<TextMatch>,
    pub(crate) group: Option<TextMatch>,
}

/// A name, or an expression for it.
#[derive(Clone, Debug)]
pub(crate) enum TextMatch {
    Exact(String),
    Matches(Pattern),
}

impl TextMatch {
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == text,
            Self::Matches(pattern) => pattern.matches(text),
        }
    }
}

/// One item of `rules.dns`; its names are alternatives.
#[derive(Clone, Debug)]
pub(crate) struct DnsRule {
    pub(crate) section: String,
    pub(crate) names: Vec<NamePattern>,
}

/// One item of `rules.l7`: what it says, still as text, and what that means.
#[derive(Clone, Debug)]
pub(crate) struct GenericRule {
    pub(crate) section: String,
    pub(crate) meaning: GenericMatch,
}
