//! Who is under policy and who its peers are.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::label::Labels;
use crate::rule::Protocol;

/// The workload under policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// For logs.
    pub name: String,
    /// Its namespace; becomes a label.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports that ingress rules may call by name.
    pub named_ports: Vec<NamedPort>,
}

impl Endpoint {
    /// A workload without addresses and named ports.
    pub fn new(name: impl Into<String>, namespace: impl Into<String>, labels: Labels) -> Self {
        Self { name: name.into(), namespace: namespace.into(), labels, ..Self::default() }
    }
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name, lower case.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// Somebody the workload talks to, known by addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it is; the longest prefix of all peers decides.
    pub prefixes: Vec<IpNet>,
    /// Its labels. Without a namespace label it is in the workload's namespace.
    pub labels: Labels,
    /// Ports that egress rules may call by name.
    pub named_ports: Vec<NamedPort>,
}

impl Peer {
    /// A peer without named ports.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>, labels: Labels) -> Self {
        Self { prefixes: prefixes.into_iter().collect(), labels, named_ports: Vec::new() }
    }
}
