//! The policy engine: documents in, verdicts out. No I/O, no async, no clock.
//!
//! A policy goes through four forms, each with a module, each consuming the one before:
//!
//! | form | module | what |
//! | --- | --- | --- |
//! | text | `document` | what the file said: a tree with a position on every value |
//! | rule | `rule` | what it means: checked and typed |
//! | repository | [`Repository`] | all policies by name |
//! | compiled | `resolve` → [`EndpointPolicy`] | what one workload may do, fast |
//!
//! [`EndpointPolicy::resolve`] computes one workload's policy once. An [`Engine`] keeps those of many
//! up to date while policies, peers, services and DNS names come and go, and tells who asks of every
//! change. Both answer alike.
//!
//! Before policy is applied: [`case`] runs policy unit tests, [`explain`] shows the way to an answer,
//! [`diff`] says who gains and who loses access, [`conflicts`] finds what makes no sense together, and
//! [`Repository::warnings`] what is surely not meant. [`yaml`] reads what stands beside policies as they
//! are read.
//!
//! Around them: [`label`] and `selector` (who), `identity` (numbers for who), `pattern` (regular
//! expressions, thousands at the cost of a few), [`diagnostic`] (errors a person can act on).
//!
//! ```
//! use portreeve_policy::{
//!     Action, Directory, Endpoint, EndpointPolicy, Options, Peer, Protocol, Repository, Source,
//!     TrafficDirection,
//! };
//!
//! let policy = "
//! apiVersion: cilium.io/v2
//! kind: CiliumNetworkPolicy
//! metadata: {name: shop, namespace: default}
//! spec:
//!   endpointSelector: {matchLabels: {app: shop}}
//!   ingress:
//!   - fromEndpoints: [{matchLabels: {app: client}}]
//!     toPorts: [{ports: [{port: '80', protocol: TCP}]}]
//! ";
//! let repository = Repository::parse([Source::new("shop.yaml", policy)])?;
//! let shop = Endpoint::new("shop", "default", "app=shop".parse()?);
//! let client = Peer::new(["10.0.0.7/32".parse()?], "app=client".parse()?);
//! let directory = Directory::from(vec![client]);
//! let policy = EndpointPolicy::resolve(&repository, &shop, &directory, &Options::default())?;
//!
//! let who = policy.identify("10.0.0.7".parse()?);
//! let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
//! assert!(matches!(verdict.action, Action::Allow));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod case;
mod compiled;
pub mod diagnostic;
mod diff;
mod directory;
mod document;
mod endpoint;
mod engine;
mod entity;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod generic;
mod identity;
pub mod label;
mod lint;
mod name;
mod pattern;
mod repository;
mod resolve;
mod rule;
mod selector;
mod source;
mod verdict;
pub mod yaml;

pub use self::compiled::{
    Authentication, DnsRules, EndpointPolicy, GenericRules, HeaderEdit, HttpRequest, HttpRules,
    IdentityClass, IdentityClasses, KafkaRequest, KafkaRules, PortSpan, RequestRule,
    ServerNameRules, TlsInspection,
};
pub use self::diagnostic::{Diagnostic, Diagnostics, Severity};
pub use self::diff::{Comparison, Difference, Effect, conflicts, diff};
pub use self::directory::{Directory, Names, Service};
pub use self::document::Features;
pub use self::endpoint::{Endpoint, NamedPort, Peer};
pub use self::engine::{Change, Engine};
pub use self::explain::{EntryTrace, Explanation, PolicyTrace, RequestTrace, explain};
pub use self::generic::GenericRequest;
pub use self::identity::{Identity, IdentityAllocator, InMemoryIdentities};
pub use self::label::{Label, Labels};
pub use self::pattern::{Pattern, PatternError};
pub use self::repository::{PolicySummary, Repository};
pub use self::resolve::{Enforcement, Options, ResolveError};
pub use self::rule::{
    AuthenticationMode, Listener, Mode, PolicyName, Protocol, TlsContext, TrafficDirection,
};
pub use self::source::Source;
pub use self::verdict::{
    Action, ConnectionVerdict, Inspection, Outcome, Reason, RequestVerdict, RuleId, RuleOrigin,
};
