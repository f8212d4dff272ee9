//! Objects: what one document of the source of truth says, checked and typed.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Object`], its key, and the kinds there are |
//! | `read.rs` | kind and metadata, and handing on to the kind |
//! | `fields.rs` | what several kinds have: labels, addresses, ports |
//! | `workload.rs` | `Workload`: a kind of our own, strict |
//! | `service.rs`, `health.rs` | Kubernetes' `Service`, and how its backends are asked whether they are well |
//! | `slice.rs` | Kubernetes' `EndpointSlice` |
//!
//! Objects of Kubernetes come from clusters that know more fields than are read here: those are left
//! alone. A field of our own kind that is not known is an error.

mod fields;
mod health;
mod limits;
mod read;
mod service;
mod slice;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::BTreeMap;
use std::fmt;

use portreeve_policy::Repository;

pub use self::health::{HealthCheck, Question};
pub use self::read::{Found, LISTS, read};
pub use self::service::{ServiceObject, ServicePort};
pub use self::slice::{EndpointSlice, SliceEndpoint, SlicePort};
pub use self::workload::{Attachment, Workload};

/// What an object is called. Two objects of one key are one, wherever they are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// As in the document: `Workload`, ….
    pub kind: String,
    /// `None`: it belongs to no namespace.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What an object says.
#[derive(Clone, Debug)]
pub enum Object {
    /// One policy, or one group of prefixes: what the policy engine reads itself.
    Policy(Box<Repository>),
    /// Somebody with labels and addresses.
    Workload(Workload),
    /// Addresses that stand for many.
    Service(ServiceObject),
    /// Who is behind a service.
    EndpointSlice(EndpointSlice),
    /// The labels of a namespace.
    Namespace(BTreeMap<String, String>),
}

/// Kinds that the policy engine reads.
pub const POLICY_KINDS: [&str; 5] = [
    "CiliumNetworkPolicy",
    "CiliumClusterwideNetworkPolicy",
    "NetworkPolicy",
    "TrafficPolicy",
    "CiliumCIDRGroup",
];

/// The version of our own kinds.
pub const OWN_VERSION: &str = "portreeve.dev/v1alpha1";

/// Kinds that are read here, and the version each has.
pub const OTHER_KINDS: [(&str, &str); 4] = [
    ("Workload", OWN_VERSION),
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("Namespace", "v1"),
];

/// Whether a kind restricts what workloads may do: without it, more might be allowed.
#[must_use]
pub fn is_policy(kind: &str) -> bool {
    POLICY_KINDS.contains(&kind)
}
