//! What policies mean: checked and typed, not yet bound to a workload. Made by `document`, read by
//! `resolve`.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::pattern::Pattern;
use crate::selector::Selector;

/// One policy object.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) name: PolicyName,
    pub(crate) mode: Mode,
    pub(crate) rules: Vec<Rule>,
    /// The file it was read from.
    pub(crate) source: String,
    pub(crate) line: u32,
}

/// A policy's name: kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyName {
    /// As in the document: `CiliumNetworkPolicy`, ….
    pub kind: &'static str,
    /// `None`: clusterwide.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Whether a policy's denials are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// They pass, marked as such; what the policy would allow is not granted either.
    Audit,
}

/// Which way a connection is opened, as the workload sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficDirection {
    /// Towards the workload.
    Ingress,
    /// From the workload.
    Egress,
}

impl TrafficDirection {
    /// `ingress` or `egress`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP; it has no ports, and only rules without ports allow it.
    Icmp,
    /// ICMP for IPv6.
    IcmpV6,
}

/// One `spec`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) subject: Selector,
    pub(crate) ingress: Directed,
    pub(crate) egress: Directed,
}

impl Rule {
    pub(crate) fn directed(&self, direction: TrafficDirection) -> &Directed {
        match direction {
            TrafficDirection::Ingress => &self.ingress,
            TrafficDirection::Egress => &self.egress,
        }
    }
}

/// What a rule says of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directed {
    pub(crate) allow: Vec<Entry>,
    pub(crate) deny: Vec<Entry>,
    /// `enableDefaultDeny`; `None`: as the entries say.
    pub(crate) default_deny: Option<bool>,
}

impl Directed {
    /// A direction without entries has no say, whatever `enableDefaultDeny` is.
    pub(crate) fn has_entries(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    pub(crate) fn wants_default_deny(&self) -> bool {
        self.has_entries() && self.default_deny.unwrap_or(true)
    }
}

/// One item of `ingress`, `egress`, `ingressDeny` or `egressDeny`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its place in the document: `spec.ingress[0]`.
    pub(crate) section: String,
    pub(crate) peers: Peers,
    pub(crate) ports: Ports,
}

/// Who an entry is about.
#[derive(Clone, Debug)]
pub(crate) enum Peers {
    /// No peer field: anybody, if there are ports, else nobody.
    Unsaid,
    /// At least one peer field; an empty list selects nobody.
    Of(Vec<PeerSelector>),
}

/// Some peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerSelector {
    /// Everybody, known or not.
    All,
    Labels(Selector),
    /// Addresses that no peer is known by.
    Cidr {
        prefix: IpNet,
        except: Vec<IpNet>,
    },
}

/// Which ports an entry is about.
#[derive(Clone, Debug)]
pub(crate) enum Ports {
    /// No `toPorts`: every port and protocol, ICMP included.
    All,
    Of(Vec<PortRule>),
}

/// One item of `toPorts`. Without ports it allows nothing.
#[derive(Clone, Debug)]
pub(crate) struct PortRule {
    pub(crate) section: String,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) rules: L7,
}

/// What may be said on a port.
#[derive(Clone, Debug)]
pub(crate) enum L7 {
    /// Anything.
    Opaque,
    /// HTTP that one of these allows.
    Http(Vec<Arc<HttpRule>>),
}

/// One item of `ports`.
#[derive(Clone, Debug)]
pub(crate) struct PortSpec {
    pub(crate) port: PortRef,
    /// `None`: TCP, UDP and SCTP.
    pub(crate) protocol: Option<Protocol>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortRef {
    /// First and last, inclusive; `0..=65535` is written as port 0.
    Numbers(u16, u16),
    /// Lower case.
    Named(String),
}

/// One item of `rules.http`. All that is said must match.
#[derive(Clone, Debug)]
pub(crate) struct HttpRule {
    pub(crate) section: String,
    pub(crate) method: Option<Pattern>,
    pub(crate) path: Option<Pattern>,
    pub(crate) host: Option<Pattern>,
    pub(crate) headers: Vec<HeaderMatch>,
}

/// A condition on one header field.
#[derive(Clone, Debug)]
pub(crate) struct HeaderMatch {
    pub(crate) name: String,
    pub(crate) value: HeaderValue,
    pub(crate) mismatch: Mismatch,
}

/// What a header's value must be. Several fields of one name are compared as one value, joined by
/// commas.
#[derive(Clone, Debug)]
pub(crate) enum HeaderValue {
    Present,
    Absent,
    Exact(String),
    Prefix(String),
    Matches(Pattern),
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
