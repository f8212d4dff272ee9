//! What policies mean: checked and typed, not yet bound to a workload. Made by `document`, read by
//! `resolve`.

mod request;

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

pub(crate) use self::request::{
    DnsRule, GenericRule, HeaderMatch, HttpRule, KafkaRule, Mismatch, QueryMatch, TextMatch,
    ValueMatch,
};
use crate::diagnostic::Position;
use crate::label::Labels;
use crate::name::NamePattern;
use crate::selector::Selector;

/// One policy object.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) name: PolicyName,
    pub(crate) rules: Vec<Rule>,
    /// The file it was read from.
    pub(crate) source: String,
    pub(crate) line: u32,
}

impl Policy {
    /// In audit mode as a whole: nothing of it is carried out.
    pub(crate) fn mode(&self) -> Mode {
        let enforced = self.rules.iter().any(|rule| rule.mode == Mode::Enforce);
        if enforced || self.rules.is_empty() { Mode::Enforce } else { Mode::Audit }
    }
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
    /// ICMP; where others have ports, it has types.
    Icmp,
    /// ICMP for IPv6, likewise.
    IcmpV6,
    /// Another IP protocol, by its number (IANA `protocol-numbers`). It has no ports.
    Ip(u8),
}

/// Every protocol by its name.
pub(crate) const PROTOCOLS: [(&str, Protocol); 12] = [
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
    ("SCTP", Protocol::Sctp),
    ("ICMP", Protocol::Icmp),
    ("ICMPv6", Protocol::IcmpV6),
    ("VRRP", Protocol::Ip(112)),
    ("IGMP", Protocol::Ip(2)),
    ("GRE", Protocol::Ip(47)),
    ("IPIP", Protocol::Ip(4)),
    ("IPv6", Protocol::Ip(41)),
    ("ESP", Protocol::Ip(50)),
    ("AH", Protocol::Ip(51)),
];

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (PROTOCOLS.iter().find(|(_, known)| known == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Self::Ip(number)) => write!(f, "IP protocol {number}"),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}

/// One `spec`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) subject: Subject,
    pub(crate) ingress: Directed,
    pub(crate) egress: Directed,
    pub(crate) mode: Mode,
}

impl Rule {
    pub(crate) fn directed(&self, direction: TrafficDirection) -> &Directed {
        match direction {
            TrafficDirection::Ingress => &self.ingress,
            TrafficDirection::Egress => &self.egress,
        }
    }
}

/// Whom a rule is for.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// Workloads (`endpointSelector`); never a node.
    Endpoints(Selector),
    /// Nodes (`nodeSelector`); never a workload.
    Nodes(Selector),
}

impl Subject {
    pub(crate) fn selector(&self) -> &Selector {
        match self {
            Self::Endpoints(selector) | Self::Nodes(selector) => selector,
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
    /// Our own `visibility`: ports whose requests are to be seen, whoever asks.
    pub(crate) visibility: Vec<Visibility>,
}

impl Directed {
    /// A direction without entries has no say, whatever `enableDefaultDeny` is.
    pub(crate) fn has_entries(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Entry, bool)> {
        let allow = self.allow.iter().map(|entry| (entry, false));
        allow.chain(self.deny.iter().map(|entry| (entry, true)))
    }
}

/// Ports whose HTTP requests are to be seen; no verdict depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Visibility {
    pub(crate) section: String,
    pub(crate) ports: Vec<PortSpec>,
}

/// One item of `ingress`, `egress`, `ingressDeny` or `egressDeny`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its place in the document: `spec.ingress[0]`.
    pub(crate) section: String,
    pub(crate) at: Position,
    pub(crate) peers: Peers,
    /// `fromRequires`, `toRequires`: what peers named by labels must fulfil, too.
    pub(crate) requires: Vec<Selector>,
    pub(crate) ports: Ports,
    pub(crate) authentication: Option<AuthenticationMode>,
    pub(crate) mode: Mode,
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
    /// Workloads by their labels (`fromEndpoints`); requirements of other rules narrow it.
    Endpoints(Selector),
    /// Built-in identities and nodes: no requirement narrows it.
    Labels(Selector),
    /// Addresses that no peer is known by.
    Cidr { prefix: IpNet, except: Vec<IpNet> },
    /// The prefixes of the groups that this names.
    CidrGroup { group: GroupRef, except: Vec<IpNet> },
    /// Addresses that these names were resolved to.
    Name(NamePattern),
    /// What stands behind a service.
    Service(ServiceRef),
}

impl fmt::Display for PeerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let but = |f: &mut fmt::Formatter<'_>, except: &[IpNet]| match except {
            [] => Ok(()),
            except => {
                let list: Vec<_> = except.iter().map(ToString::to_string).collect();
                write!(f, " but {}", list.join(","))
            }
        };
        match self {
            Self::All => f.write_str("everybody"),
            Self::Endpoints(selector) | Self::Labels(selector) => selector.fmt(f),
            Self::Cidr { prefix, except } => {
                prefix.fmt(f)?;
                but(f, except)
            }
            Self::CidrGroup { group: GroupRef::Name(name), except } => {
                write!(f, "group {name}")?;
                but(f, except)
            }
            Self::CidrGroup { group: GroupRef::Labels(selector), except } => {
                write!(f, "groups with {selector}")?;
                but(f, except)
            }
            Self::Name(pattern) => write!(f, "name {}", pattern.as_str()),
            Self::Service(ServiceRef::Name { name, .. }) => write!(f, "service {name}"),
            Self::Service(ServiceRef::Labels { selector, .. }) => {
                write!(f, "services with {selector}")
            }
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(protocol) => protocol.fmt(f)?,
            None => f.write_str("any protocol")?,
        }
        match &self.port {
            PortRef::Numbers(0, _) => f.write_str(" every port"),
            PortRef::Numbers(first, last) if first == last => write!(f, " {first}"),
            PortRef::Numbers(first, last) => write!(f, " {first} to {last}"),
            PortRef::Named(name) => write!(f, " {name}"),
        }
    }
}

/// `cidrGroupRef` or `cidrGroupSelector`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GroupRef {
    Name(String),
    Labels(Selector),
}

/// `toServices`: one service, or those that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServiceRef {
    Name { namespace: Option<String>, name: String },
    Labels { namespace: Option<String>, selector: Selector },
}

/// A `CiliumCIDRGroup`.
#[derive(Clone, Debug)]
pub(crate) struct CidrGroup {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) prefixes: Vec<IpNet>,
    pub(crate) source: String,
    pub(crate) line: u32,
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
    pub(crate) at: Position,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) rules: L7,
    pub(crate) tls: TlsContexts,
    /// `serverNames`; empty: any.
    pub(crate) server_names: Vec<NamePattern>,
    pub(crate) listener: Option<Listener>,
}

impl PortRule {
    /// Ports on which anything may be said.
    pub(crate) fn plain(section: String, at: Position, ports: Vec<PortSpec>) -> Self {
        let (tls, server_names) = (TlsContexts::default(), Vec::new());
        Self { section, at, ports, rules: L7::Opaque, tls, server_names, listener: None }
    }
}

/// What may be said on a port.
#[derive(Clone, Debug)]
pub(crate) enum L7 {
    /// Anything.
    Opaque,
    /// HTTP that one of these allows.
    Http(Vec<Arc<HttpRule>>),
    /// Kafka requests that these allow.
    Kafka(Vec<Arc<KafkaRule>>),
    /// DNS questions that one of these allows.
    Dns(Vec<Arc<DnsRule>>),
    /// A protocol by its name (`l7proto`). Without rules, everything is allowed.
    Generic { protocol: Arc<str>, rules: Vec<Arc<GenericRule>> },
}

/// `terminatingTLS` and `originatingTLS`: read and kept; where a proxy can't terminate, it refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsContexts {
    pub(crate) terminating: Option<TlsContext>,
    pub(crate) originating: Option<TlsContext>,
}

impl TlsContexts {
    pub(crate) fn is_empty(&self) -> bool {
        self.terminating.is_none() && self.originating.is_none()
    }
}

/// Where certificates and keys are kept (Cilium `api.TLSContext`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsContext {
    /// Namespace and name of the secret.
    pub secret: (Option<String>, String),
    /// The item of the secret that has the trusted CA.
    pub trusted_ca: Option<String>,
    /// The item that has the certificate.
    pub certificate: Option<String>,
    /// The item that has the private key.
    pub private_key: Option<String>,
}

/// A listener of another proxy that is to have the connection (Cilium `api.Listener`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// `CiliumEnvoyConfig` or `CiliumClusterwideEnvoyConfig`.
    pub kind: &'static str,
    /// The configuration's name.
    pub config: String,
    /// The listener's name in it.
    pub name: String,
    /// 1 to 100, the smaller wins; 0: after every parser.
    pub priority: u8,
}

/// How peers must have proved who they are (Cilium `api.Authentication`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthenticationMode {
    /// They need not.
    Disabled,
    /// Both sides, by mutual authentication.
    Required,
    /// Never succeeds; for tests.
    TestAlwaysFail,
}

impl AuthenticationMode {
    /// As policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Required => "required",
            Self::TestAlwaysFail => "test-always-fail",
        }
    }
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
