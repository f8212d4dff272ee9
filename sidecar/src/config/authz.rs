//! What `portreeve authz` is told: the parts of the sidecar's configuration that are about policy.

use portreeve_core::PolicyFiles;
use portreeve_core::guard::GuardConfig;
use portreeve_policy::{Endpoint, Labels, TrafficDirection};

use super::resolve::{Wrong, flag_peer, usage, wrong};
use super::{from_file, read};
use crate::Failure;
use crate::authz::ServeArguments;

/// From flags alone, or from a sidecar's file.
pub(crate) fn guard_from_flags(arguments: &ServeArguments) -> Result<GuardConfig, Failure> {
    let mut config = match &arguments.config {
        Some(path) => {
            let proxy = from_file(&read(path)?, path)?.proxy;
            let mut config = GuardConfig::new(proxy.endpoint, 0, proxy.policy);
            (config.peers, config.options) = (proxy.peers, proxy.options);
            config
        }
        None => flags_only(arguments)
            .map_err(|Wrong { key, message }| usage(&format!("--{key}: {message}")))?,
    };
    // Without the flag, the port comes with each check.
    config.port = arguments.port.unwrap_or_default();
    config.direction = match arguments.direction.as_str() {
        "egress" => TrafficDirection::Egress,
        _ => TrafficDirection::Ingress,
    };
    config.trust_domains.clone_from(&arguments.trust_domain);
    config.options.audit |= arguments.audit;
    Ok(config)
}

fn flags_only(arguments: &ServeArguments) -> Result<GuardConfig, Wrong> {
    let workload = arguments.workload_labels.as_deref().unwrap_or_default();
    let labels: Labels = workload.parse().map_err(|error| wrong("workload-labels", error))?;
    if labels.is_empty() {
        return Err(wrong("workload-labels", "name at least one label, such as app=shop"));
    }
    let endpoint = Endpoint::new("workload", arguments.workload_namespace.as_str(), labels);
    let policy = PolicyFiles { paths: arguments.policy.clone(), watch: true };
    let mut config = GuardConfig::new(endpoint, 0, policy);
    config.peers = arguments.peer.iter().map(|text| flag_peer(text)).collect::<Result<_, _>>()?;
    Ok(config)
}
