//! Kubernetes' `Service`, as far as a node cares.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use portreeve_policy::yaml::{Fields, Node, Reader, Value};
use portreeve_policy::{Label, Labels, Protocol};

use super::{HealthCheck, ObjectKey, fields, health};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its own labels.
    pub labels: Labels,
    /// The labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// The addresses that stand for it inside of the cluster; none: it is headless.
    pub cluster_addresses: Vec<IpAddr>,
    /// Addresses of outside that lead here.
    pub external_addresses: Vec<IpAddr>,
    /// Addresses of load balancers that lead here, as the status has them.
    pub balancer_addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// From outside, only backends of the node that was asked answer (`externalTrafficPolicy: Local`).
    pub external_local: bool,
    /// From inside, likewise (`internalTrafficPolicy: Local`).
    pub internal_local: bool,
    /// For how long a client comes back to the backend it had.
    pub affinity: Option<Duration>,
    /// How its backends are asked whether they are well; none: nobody is asked.
    pub health_check: Option<HealthCheck>,
    /// Where load balancers of outside ask whether this node has backends (`healthCheckNodePort`).
    pub health_port: Option<u16>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which slices know it; empty when there is only one.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The port of its addresses.
    pub port: u16,
    /// The port of every node that leads to it.
    pub node_port: Option<u16>,
}

/// How long `ClientIP` holds by default (`core/v1`: `DefaultClientIPServiceAffinitySeconds`).
const AFFINITY: Duration = Duration::from_secs(10_800);
/// The longest time that it may hold (`core/v1`: `MaxClientIPServiceAffinitySeconds`).
const LONGEST_AFFINITY: i128 = 86_400;

pub(super) fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    key: &ObjectKey,
    labels: BTreeMap<String, String>,
) -> Option<ServiceObject> {
    let mut top = reader.fields(node)?;
    let spec = top.required("spec", reader)?;
    let balancer_addresses = top.take("status").map(balancers).unwrap_or_default();
    let health_check = health::read(reader, top.take("metadata"));
    reader.field("spec", |reader| {
        let mut fields = reader.fields(spec)?;
        let selector = fields.take("selector");
        let selector = selector
            .and_then(|node| reader.field("selector", |reader| fields::texts(reader, node)));
        let listed = fields.take("ports");
        let ports = fields::list(reader, listed, "ports", port);
        if let (Some(check), Some(node)) = (&health_check, listed) {
            reader.field("ports", |reader| health::can_be_asked(reader, node, check, &ports));
        }
        let external =
            fields::list(reader, fields.take("externalIPs"), "externalIPs", fields::address);
        Some(ServiceObject {
            namespace: key.namespace.clone().unwrap_or_default(),
            name: key.name.clone(),
            labels: labels.iter().map(|(k, v)| Label::of(&format!("{k}={v}"))).collect(),
            selector: selector.unwrap_or_default(),
            cluster_addresses: cluster_addresses(reader, &mut fields),
            external_addresses: external,
            balancer_addresses,
            ports,
            external_local: is_local(reader, &mut fields, "externalTrafficPolicy"),
            internal_local: is_local(reader, &mut fields, "internalTrafficPolicy"),
            affinity: affinity(reader, &mut fields),
            health_check,
            health_port: port_or_none(reader, &mut fields, "healthCheckNodePort"),
        })
    })
}

/// `clusterIPs`, or `clusterIP` alone.
fn cluster_addresses(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<IpAddr> {
    let (one, many) = (fields.take("clusterIP"), fields.take("clusterIPs"));
    let none =
        |node: &Node| matches!(&node.value, Value::Text(text) if text.is_empty() || text == "None");
    let mut addresses = fields::list(reader, many, "clusterIPs", |reader, node| {
        if none(node) { None } else { fields::address(reader, node) }
    });
    if many.is_none()
        && let Some(node) = one.filter(|node| !none(node))
    {
        addresses.extend(reader.field("clusterIP", |reader| fields::address(reader, node)));
    }
    addresses
}

fn is_local(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str) -> bool {
    let Some(node) = fields.take(name) else { return false };
    reader.field(name, |reader| {
        let Some(word) = reader.text(node) else { return false };
        reader.one_of(node.at, word, "a traffic policy", &["Cluster", "Local"]) == Some("Local")
    })
}

fn affinity(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Duration> {
    let (node, config) = (fields.take("sessionAffinity"), fields.take("sessionAffinityConfig"));
    let node = node?;
    let word = reader.field("sessionAffinity", |reader| {
        let word = reader.text(node)?;
        reader.one_of(node.at, word, "an affinity", &["None", "ClientIP"])
    });
    if word != Some("ClientIP") {
        return None;
    }
    let seconds = config
        .and_then(|config| super::read::field_of(config, "clientIP"))
        .and_then(|config| super::read::field_of(config, "timeoutSeconds"));
    let Some(node) = seconds else { return Some(AFFINITY) };
    let good = match node.value {
        Value::Integer(seconds) if (1..=LONGEST_AFFINITY).contains(&seconds) => {
            u64::try_from(seconds).ok()
        }
        _ => None,
    };
    if good.is_none() {
        reader.field("sessionAffinityConfig.clientIP.timeoutSeconds", |reader| {
            reader.error(node.at, "must be a number of seconds from 1 to 86400");
        });
    }
    good.map(Duration::from_secs)
}

fn port(reader: &mut Reader<'_>, node: &Node) -> Option<ServicePort> {
    let mut fields = reader.fields(node)?;
    let name = fields::text(reader, fields.take("name"), "name").unwrap_or_default();
    let number = fields.required("port", reader);
    let number = number.and_then(|node| reader.field("port", |r| fields::port(r, node)));
    let protocol = fields::protocol(reader, fields.take("protocol"));
    let node_port = port_or_none(reader, &mut fields, "nodePort");
    Some(ServicePort { name, protocol: protocol?, port: number?, node_port })
}

/// A port; 0 is what some tools write for none.
fn port_or_none(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Option<u16> {
    let node = fields.take(name).filter(|node| !matches!(node.value, Value::Integer(0)))?;
    reader.field(name, |reader| fields::port(reader, node))
}

/// `status.loadBalancer.ingress[].ip`; a status is nobody's to mend, so what is no address is left out.
fn balancers(status: &Node) -> Vec<IpAddr> {
    let ingress = super::read::field_of(status, "loadBalancer")
        .and_then(|balancer| super::read::field_of(balancer, "ingress"));
    let Some(Value::List(items)) = ingress.map(|node| &node.value) else { return Vec::new() };
    let address = |item: &Node| match &super::read::field_of(item, "ip")?.value {
        Value::Text(text) => text.parse::<IpAddr>().ok(),
        _ => None,
    };
    items.iter().filter_map(address).collect()
}
