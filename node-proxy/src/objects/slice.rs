//! Kubernetes' `EndpointSlice`: who is behind a service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portreeve_policy::Protocol;
use portreeve_policy::yaml::{Node, Reader};

use super::{ObjectKey, fields};

/// Some of the backends of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its namespace.
    pub namespace: String,
    /// The service it is about.
    pub service: String,
    /// The ports that its backends answer on.
    pub ports: Vec<SlicePort>,
    /// The backends.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of the backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the service's port it stands behind.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Where it is.
    pub address: IpAddr,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, whether it is about to leave or not.
    pub serving: bool,
    /// It is about to leave.
    pub terminating: bool,
    /// The node it is on.
    pub node: Option<String>,
}

/// The label that names the service (`discovery/v1`: `LabelServiceName`).
const SERVICE: &str = "kubernetes.io/service-name";

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    key: &ObjectKey,
    labels: &BTreeMap<String, String>,
) -> Option<EndpointSlice> {
    let mut top = reader.fields(node)?;
    let Some(service) = labels.get(SERVICE).filter(|service| !service.is_empty()) else {
        let hint = format!("add the label `{SERVICE}: …`");
        reader.field("metadata.labels", |reader| {
            reader.error_hint(node.at, "the slice belongs to no service", hint);
        });
        return None;
    };
    let kind = top.required("addressType", reader);
    let kind = fields::text(reader, kind, "addressType");
    let ports = fields::list(reader, top.take("ports"), "ports", port);
    let endpoints = top.take("endpoints");
    // Names are for others to resolve; no packet is addressed to one.
    let endpoints = match kind.as_deref() {
        Some("FQDN") => Vec::new(),
        _ => fields::list(reader, endpoints, "endpoints", endpoint),
    };
    Some(EndpointSlice {
        namespace: key.namespace.clone().unwrap_or_default(),
        service: service.clone(),
        ports: ports.into_iter().flatten().collect(),
        endpoints,
    })
}

/// `Some(None)`: a port without a number, which means all of them: nothing to balance.
fn port(reader: &mut Reader<'_>, node: &Node) -> Option<Option<SlicePort>> {
    let mut fields = reader.fields(node)?;
    let name = fields::text(reader, fields.take("name"), "name").unwrap_or_default();
    let protocol = fields::protocol(reader, fields.take("protocol"))?;
    let Some(number) = fields.take("port") else { return Some(None) };
    let port = reader.field("port", |reader| fields::port(reader, number))?;
    Some(Some(SlicePort { name, protocol, port }))
}

fn endpoint(reader: &mut Reader<'_>, node: &Node) -> Option<SliceEndpoint> {
    let mut fields = reader.fields(node)?;
    let addresses = fields.required("addresses", reader);
    // All addresses of one endpoint are the same backend; consumers take the first (`discovery/v1`).
    let address = fields::list(reader, addresses, "addresses", fields::address).first().copied();
    let at = fields.take("nodeName");
    let on = fields::text(reader, at, "nodeName");
    let mut endpoint = SliceEndpoint {
        address: address?,
        ready: true,
        serving: true,
        terminating: false,
        node: on,
    };
    if let Some(conditions) = fields.take("conditions") {
        reader.field("conditions", |reader| {
            let mut fields = reader.fields(conditions)?;
            let mut condition = |name: &'static str| {
                let node = fields.take(name)?;
                reader.field(name, |reader| reader.boolean(node))
            };
            // What is not said counts as ready; what is not said of serving is as ready.
            endpoint.ready = condition("ready").unwrap_or(true);
            endpoint.serving = condition("serving").unwrap_or(endpoint.ready);
            endpoint.terminating = condition("terminating").unwrap_or(false);
            Some(())
        });
    }
    Some(endpoint)
}
