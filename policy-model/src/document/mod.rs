//! What policy files say: text → tree → checked rules, with every error at once.
//!
//! | file | what |
//! | --- | --- |
//! | `node.rs` | the tree: values with their place in the file |
//! | `reader.rs` | walking it: paths, unknown fields, accounting of errors |
//! | `object.rs` | kinds, metadata, `spec` and `specs` |
//! | `spec.rs` | a rule: subject, directions, entries |
//! | `network_policy.rs` | Kubernetes' NetworkPolicy |
//! | `cidr_group.rs` | groups of prefixes |
//! | `peers.rs`, `selector.rs`, `cidr.rs`, `service.rs` | who |
//! | `ports.rs`, `tls.rs`, `icmp.rs` | on which ports, and how |
//! | `advice.rs` | what is legal and surely not meant |
//! | `http.rs`, `values.rs`, `grpc.rs`, `kafka.rs`, `dns.rs`, `l7proto.rs` | what may be said there |

mod advice;
mod cidr;
mod cidr_group;
mod dns;
mod grpc;
mod http;
mod icmp;
mod kafka;
mod l7proto;
mod network_policy;
pub(crate) mod node;
mod object;
mod peers;
mod ports;
pub(crate) mod reader;
mod selector;
mod service;
mod spec;
mod tls;
mod values;

pub(crate) use self::kafka::apis as kafka_apis;
use self::node::Node;
use self::reader::Reader;
use crate::diagnostic::Diagnostic;
use crate::rule::{CidrGroup, Policy};
use crate::source::Source;

/// What is read beyond the reference's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `fromNodes` and `toNodes` are known (Cilium `enable-node-selector-labels`).
    pub node_selectors: bool,
    /// IP protocols without ports may be named: GRE, ESP, … (Cilium
    /// `enable-extended-ip-protocols`).
    pub extended_protocols: bool,
}

/// The objects of a source.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) policies: Vec<Policy>,
    pub(crate) groups: Vec<CidrGroup>,
}

impl Objects {
    /// Takes in more.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.policies.append(&mut more.policies);
        self.groups.append(&mut more.groups);
    }
}

/// Reads all objects of a source. What has errors is left out, and the errors are reported.
pub(crate) fn read(source: &Source, features: Features, found: &mut Vec<Diagnostic>) -> Objects {
    let nodes = match node::parse(source) {
        Ok(nodes) => nodes,
        Err(error) => {
            found.push(*error);
            return Objects::default();
        }
    };
    read_nodes(source, &nodes.iter().collect::<Vec<_>>(), features, found)
}

/// Reads objects that are already a tree.
pub(crate) fn read_nodes(
    source: &Source,
    nodes: &[&Node],
    features: Features,
    found: &mut Vec<Diagnostic>,
) -> Objects {
    let mut reader = Reader::new(source);
    let mut objects = Objects::default();
    for node in nodes {
        object::read(&mut reader, node, features, &mut objects);
    }
    reader.found.sort_by_key(|found| (found.line, found.column));
    found.append(&mut reader.found);
    objects
}

/// What a kind of policy may say.
#[derive(Clone, Copy)]
pub(crate) struct Dialect {
    /// Whether our own fields are known.
    pub(crate) extended: bool,
    /// Whether rules may be for nodes.
    pub(crate) nodes: bool,
    pub(crate) features: Features,
}
