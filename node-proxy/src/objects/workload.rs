//! `Workload`: somebody with labels and addresses. With an interface or a network namespace it is an
//! endpoint of this node and under policy; without, it is a peer elsewhere.
//!
//! ```yaml
//! apiVersion: portreeve.dev/v1alpha1
//! kind: Workload
//! metadata: {name: shop-1, namespace: default, labels: {app: shop}}
//! spec:
//!   addresses: [10.0.0.7, "fd00::7"]
//!   interface: veth7f3a        # the end on the host's side, or: netns: /run/netns/shop-1
//!   namedPorts: [{name: http, port: 8080}]
//!   limits: {connections: 500, bufferedBytes: 16Mi, cpuShare: 50}
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use portreeve_core::EndpointLimits;
use portreeve_policy::yaml::{Node, Reader};
use portreeve_policy::{Labels, NamedPort};

use super::read::field_of;
use super::{ObjectKey, fields, limits};

/// Somebody with labels and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, without those of its namespace.
    pub labels: Labels,
    /// Its addresses; of a peer elsewhere, prefixes too.
    pub prefixes: Vec<IpNet>,
    /// Where it is attached to this node; `None`: it is elsewhere.
    pub attachment: Option<Attachment>,
    /// Ports that rules may call by name.
    pub named_ports: Vec<NamedPort>,
    /// What it may use of the proxy that it shares with the others.
    pub limits: EndpointLimits,
}

/// Where a workload of this node is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attachment {
    /// By this interface of the host.
    Interface(String),
    /// By whichever interface of the host leads into this network namespace.
    NetworkNamespace(PathBuf),
}

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => f.write_str(name),
            Self::NetworkNamespace(path) => write!(f, "netns:{}", path.display()),
        }
    }
}

impl Workload {
    /// Its addresses, of one that is attached here.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.prefixes.iter().map(IpNet::addr)
    }
}

/// Longest name of an interface (`IFNAMSIZ`, less the final NUL).
const LONGEST_INTERFACE: usize = 15;

/// Kubernetes' own book-keeping.
const BOOK_KEEPING: [&str; 12] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "ownerReferences",
    "finalizers",
];

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    key: &ObjectKey,
    labels: BTreeMap<String, String>,
) -> Option<Workload> {
    let mut top = reader.fields(node)?;
    top.ignore(&["apiVersion", "kind", "status"]);
    if let Some(metadata) = top.take("metadata") {
        reader.field("metadata", |reader| {
            let mut fields = reader.fields(metadata)?;
            fields.ignore(&BOOK_KEEPING);
            fields.finish(reader);
            Some(())
        });
    }
    let at = field_of(node, "metadata").and_then(|metadata| field_of(metadata, "labels"));
    let labels = fields::labels(reader, at, &labels);
    let spec = top.required("spec", reader);
    top.finish(reader);
    let spec = spec?;
    let namespace = key.namespace.clone().unwrap_or_default();
    let mut workload = reader.field("spec", |reader| {
        let mut fields = reader.fields(spec)?;
        let attachment = attachment(reader, &mut fields);
        let limits = limits::read(reader, fields.take("limits"));
        let named_ports = fields.take("namedPorts");
        let named_ports = fields::list(reader, named_ports, "namedPorts", fields::named_port);
        // For people: where it is, if it is elsewhere.
        let _ = fields::text(reader, fields.take("node"), "node");
        let addresses = fields.required("addresses", reader);
        let whole = attachment.is_some();
        let prefixes = fields::list(reader, addresses, "addresses", |reader, node| match whole {
            true => fields::address(reader, node).map(IpNet::from),
            false => fields::prefix(reader, node),
        });
        fields.finish(reader);
        let (name, labels) = (key.name.clone(), Labels::default());
        Some(Workload { namespace, name, labels, prefixes, attachment, named_ports, limits })
    })?;
    let reserved = labels.iter().any(|label| label.source == portreeve_policy::label::RESERVED);
    if reserved && workload.attachment.is_some() {
        reader.error_hint(
            at.unwrap_or(node).at,
            "a workload of this node can't have a reserved identity",
            "remove the label; `reserved:host` and the like are for peers without an interface",
        );
    }
    workload.labels = labels;
    Some(workload)
}

fn attachment(
    reader: &mut Reader<'_>,
    fields: &mut portreeve_policy::yaml::Fields<'_>,
) -> Option<Attachment> {
    let (interface, netns) = (fields.take("interface"), fields.take("netns"));
    match (interface, netns) {
        (Some(_), Some(node)) => {
            reader.error_hint(
                node.at,
                "`interface` and `netns` both say where the workload is attached",
                "keep one of them",
            );
            None
        }
        (Some(node), None) => reader.field("interface", |reader| {
            let name = reader.text(node)?;
            let good = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
            let is_name = (1..=LONGEST_INTERFACE).contains(&name.len()) && name.bytes().all(good);
            if !is_name || matches!(name, "." | "..") {
                reader.error_hint(
                    node.at,
                    format_args!("`{name}` is not an interface's name"),
                    "at most 15 printable characters, as `ip link` shows it",
                );
                return None;
            }
            Some(Attachment::Interface(name.to_owned()))
        }),
        (None, Some(node)) => reader.field("netns", |reader| {
            let path = reader.text(node)?;
            if !path.starts_with('/') {
                reader.error_hint(
                    node.at,
                    format_args!("`{path}` is not an absolute path"),
                    "write it as `/run/netns/shop-1`",
                );
                return None;
            }
            Some(Attachment::NetworkNamespace(path.into()))
        }),
        (None, None) => None,
    }
}
