//! The section `services`: addresses that stand for backends.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::file::Timeout;
use super::resolve::{Wrong, labels, wrong};
use crate::redirect::{BackendConfig, ServiceConfig, Transport};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
    ports: Vec<Port>,
    #[serde(default)]
    backends: Vec<Backend>,
    #[serde(default = "off")]
    session_affinity: Timeout,
}

fn off() -> Timeout {
    Timeout(None)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    port: u16,
    #[serde(default)]
    protocol: Protocol,
    target_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Protocol {
    #[default]
    Tcp,
    Udp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backend {
    address: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    draining: bool,
}

fn one() -> u32 {
    1
}

/// All of them, one for each port. `namespace` is that of services that name none.
pub(super) fn resolve(services: &[Service], namespace: &str) -> Result<Vec<ServiceConfig>, Wrong> {
    let mut resolved: Vec<ServiceConfig> = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let key = |name: &str| format!("services[{index}].{name}");
        let namespace = service.namespace.as_deref().unwrap_or(namespace);
        if resolved.iter().any(|other| other.name == service.name && other.namespace == namespace) {
            let message = format!("another service is called `{namespace}/{}`", service.name);
            return Err(wrong(key("name"), message));
        }
        for (list, is_empty) in
            [("addresses", service.addresses.is_empty()), ("ports", service.ports.is_empty())]
        {
            if is_empty {
                return Err(wrong(key(list), "name at least one"));
            }
        }
        for port in &service.ports {
            let frontends = service.addresses.iter().map(|address| (*address, port.port));
            let to = port.target_port.unwrap_or(port.port);
            let backends: Result<_, Wrong> = (0..)
                .zip(&service.backends)
                .map(|(index, backend): (usize, _)| {
                    backend
                        .resolve(to)
                        .map_err(|error| wrong(key(&format!("backends[{index}].address")), error))
                })
                .collect();
            resolved.push(ServiceConfig {
                name: service.name.clone(),
                namespace: namespace.to_owned(),
                labels: labels(&key("labels"), &service.labels)?,
                frontends: frontends.collect(),
                protocol: match port.protocol {
                    Protocol::Tcp => Transport::Tcp,
                    Protocol::Udp => Transport::Udp,
                },
                backends: backends?,
                external: false,
                affinity: service.session_affinity.0,
            });
        }
    }
    Ok(resolved)
}

impl Backend {
    fn resolve(&self, port: u16) -> Result<BackendConfig, String> {
        let text = &self.address;
        let address = match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
            (Ok(address), _) => address,
            (_, Ok(address)) => SocketAddr::new(address, port),
            _ => return Err(format!("`{text}` is not an address, with or without a port")),
        };
        Ok(BackendConfig { address, weight: self.weight, draining: self.draining })
    }
}
