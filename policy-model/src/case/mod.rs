//! Policy unit tests: policies, workloads, and questions with the answers that are expected.
//!
//! A file is `{cases: [...]}`; what a case may have is in `docs/policy-testing.md`. The engine that
//! answers is the one that runs in the proxy.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | a case, and what came out of it |
//! | `read.rs`, `read_query.rs` | from YAML or JSON |
//! | `run.rs` | loading, resolving, asking |
//! | `request.rs` | requests of every protocol, as questions have them |

mod read;
mod read_query;
mod request;
mod run;

use std::net::IpAddr;

pub use self::read::read;
pub(crate) use self::request::View as HttpView;
pub use self::request::{HttpQuestion, KafkaQuestion, L7Request, Normalise, Normalised};
pub(crate) use self::run::answer;
use crate::document::Features;
use crate::document::node::Node;
use crate::endpoint::Endpoint;
use crate::label::Labels;
use crate::resolve::Options;
use crate::rule::{Protocol, TrafficDirection};
use crate::source::Source;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What it shows.
    pub title: String,
    source: Source,
    options: Options,
    features: Features,
    endpoints: Vec<Endpoint>,
    policies: Vec<PolicySource>,
    load: Load,
    queries: Vec<Query>,
    /// What is wrong with the case itself; it fails, whatever its policies do.
    broken: Option<String>,
}

/// Where a case's policies are.
#[derive(Clone, Debug)]
enum PolicySource {
    /// In the case itself.
    Carried(Node),
    /// In a file of their own.
    Path(String),
}

/// What is expected of loading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Load {
    #[default]
    Ok,
    /// At least one policy is refused.
    Error,
    /// The same; elsewhere it may be accepted.
    SchemaError,
    /// All load, and make no sense together.
    ResolveError,
}

impl Load {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::SchemaError => "schema-error",
            Self::ResolveError => "resolve-error",
        }
    }
}

/// One question: may this be?
#[derive(Clone, Debug)]
pub struct Question {
    /// Which way, as the subject sees it.
    pub direction: TrafficDirection,
    /// Who asks, or is asked.
    pub peer: AskedPeer,
    /// The transport.
    pub protocol: Protocol,
    /// The port, or the type of an ICMP message.
    pub port: u16,
    /// What is said on the connection.
    pub l7: Option<L7Request>,
}

/// A question of a case, and what is expected.
#[derive(Clone, Debug)]
struct Query {
    /// The workload whose policy is asked.
    subject: String,
    question: Question,
    expect: Option<Answer>,
    /// Whether it is to get through at all.
    effective: Option<bool>,
}

/// Who asks, or is asked.
#[derive(Clone, Debug)]
pub enum AskedPeer {
    /// A workload of the case.
    Endpoint(String),
    /// These labels and no others.
    Labels(Labels),
    /// An address.
    Address(IpAddr),
    /// An address that was learnt for these names.
    Named(IpAddr, Vec<String>),
}

/// What policy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Forwarded, and nobody looks inside.
    Allow,
    /// The same, if the peer has proved who it is.
    AllowAuthenticated,
    /// Refused as a connection.
    Deny,
    /// Looked into; nothing was asked yet.
    Redirect,
    /// Looked into, and the request is forwarded.
    L7Allow,
    /// Looked into, and the request is refused.
    L7Deny,
    /// Looked into, and answered with the clean form of the path.
    Http307,
    /// There is no answer: the subject's policies make no sense together.
    ResolveError,
    /// There is no answer: a policy did not load.
    LoadError,
}

impl Answer {
    const ALL: [(&'static str, Self); 9] = [
        ("allow", Self::Allow),
        ("allow+auth", Self::AllowAuthenticated),
        ("deny", Self::Deny),
        ("redirect", Self::Redirect),
        ("l7-allow", Self::L7Allow),
        ("l7-deny", Self::L7Deny),
        ("http-307", Self::Http307),
        ("resolve-error", Self::ResolveError),
        ("error", Self::LoadError),
    ];

    /// As cases write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, answer)| *answer == self).map_or("", |(name, _)| name)
    }

    /// Whether what was asked gets through.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allow | Self::AllowAuthenticated | Self::Redirect | Self::L7Allow)
    }
}

/// What came out of a case.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// The case's name.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// What was expected of loading: `ok`, `error`, `schema-error`, `resolve-error`.
    pub expected: &'static str,
    /// What came of it.
    pub got: &'static str,
    /// Why something did not load or resolve.
    pub error: Option<String>,
    /// The case itself can't be understood; `error` says why.
    pub broken: bool,
    /// Its questions, in order.
    pub queries: Vec<QueryReport>,
}

impl CaseReport {
    /// Whether loading went as expected.
    #[must_use]
    pub fn loads_as_expected(&self) -> bool {
        self.expected == self.got
    }

    /// Whether everything went as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.broken && self.loads_as_expected() && self.queries.iter().all(QueryReport::passed)
    }
}

/// What came of a question.
#[derive(Clone, Debug)]
pub struct QueryReport {
    /// The question in one line.
    pub question: String,
    /// What was expected, in detail.
    pub expected: Option<Answer>,
    /// Whether it was expected to get through.
    pub expected_effective: Option<bool>,
    /// The answer.
    pub got: Answer,
    /// The rule that decided.
    pub rule: Option<DecidingRule>,
    /// Why, in the words of the access log, or the error.
    pub reason: String,
}

impl QueryReport {
    /// Whether the answer is the expected one. Where a case says whether the request gets through,
    /// that counts; else the answer in detail does.
    #[must_use]
    pub fn passed(&self) -> bool {
        match (self.expected_effective, self.expected) {
            (Some(effective), _) => effective == self.got.is_allowed(),
            (None, Some(expected)) => expected == self.got,
            (None, None) => true,
        }
    }
}

/// A rule by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidingRule {
    /// Namespace and name of the policy; empty when no policy says it.
    pub policy: String,
    /// Which `spec` of the policy, from 0.
    pub rule: usize,
    /// The place in it: `ingress[0].toPorts[0].rules.http[1]`.
    pub entry: String,
}

impl DecidingRule {
    pub(crate) fn new(policy: &str, section: &str) -> Self {
        let (head, entry) = section.split_once('.').unwrap_or((section, ""));
        let index = head.strip_prefix("specs[").and_then(|rest| rest.strip_suffix(']'));
        let rule = index.and_then(|index| index.parse().ok()).unwrap_or(0);
        let entry = if entry.is_empty() { head } else { entry };
        Self { policy: policy.to_owned(), rule, entry: entry.to_owned() }
    }
}
