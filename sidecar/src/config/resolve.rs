//! From a file, or from flags alone, to what the proxy is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{
    Limits, ListenerConfig, PolicyFiles, ProxyConfig, Transparent, UpstreamConfig,
};
use portreeve_policy::{Endpoint, Enforcement, Labels, Options, Peer, Protocol, TrafficDirection};

use super::{advertised, file, limits, redirect, services as service};
use crate::Failure;
use crate::cli::RunArguments;
use crate::redirect::{self as kernel, ServiceConfig};

/// What `portreeve run` is told.
#[derive(Debug)]
pub(crate) struct RunConfig {
    pub(crate) proxy: ProxyConfig,
    /// Programs inside of the kernel that feed it.
    pub(crate) redirect: Option<kernel::Config>,
    /// What they balance load between.
    pub(crate) services: Vec<ServiceConfig>,
}

/// What is wrong with one key.
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) message: String,
}

pub(super) fn wrong(key: impl Into<String>, message: impl ToString) -> Wrong {
    Wrong { key: key.into(), message: message.to_string() }
}

/// From a file. `path` is where relative policy paths begin, and what errors call it by.
pub(crate) fn from_file(file: &file::File, path: &Path) -> Result<RunConfig, Failure> {
    resolve(file, path).map_err(|wrong| in_file(path, &wrong))
}

/// The services of a file alone.
pub(crate) fn services(path: &Path) -> Result<Vec<ServiceConfig>, Failure> {
    resolve_services(&super::read(path)?).map_err(|wrong| in_file(path, &wrong))
}

fn in_file(path: &Path, Wrong { key, message }: &Wrong) -> Failure {
    Failure::config(format!("error: {}: `{key}`: {message}", path.display()))
}

fn resolve_services(file: &file::File) -> Result<Vec<ServiceConfig>, Wrong> {
    let services = service::resolve(&file.services, &file.workload.namespace)?;
    kernel::check_services(&services, &file.redirect.capacity()?)
        .map_err(|error| wrong("services", error))?;
    Ok(services)
}

fn resolve(file: &file::File, path: &Path) -> Result<RunConfig, Wrong> {
    let workload = &file.workload;
    let endpoint = Endpoint {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        labels: labels("workload.labels", &workload.labels)?,
        addresses: workload.addresses.clone(),
        named_ports: workload.named_ports.iter().map(named_port).collect(),
    };
    let services = resolve_services(file)?;
    let mut listeners = Vec::new();
    for (index, listener) in file.inbound.iter().enumerate() {
        listeners.push(resolve_listener(listener, "inbound", index, TrafficDirection::Ingress)?);
    }
    for (index, listener) in file.outbound.iter().enumerate() {
        listeners.push(resolve_listener(listener, "outbound", index, TrafficDirection::Egress)?);
    }
    let redirect = add_listeners(&file.redirect, &mut listeners)?;
    if listeners.is_empty() {
        return Err(wrong(
            "inbound",
            "nothing to listen on; name an inbound or an outbound listener, or a redirection",
        ));
    }
    let mut peers = Vec::new();
    for (index, peer) in file.peers.iter().enumerate() {
        let labels = labels(&format!("peers[{index}].labels"), &peer.labels)?;
        let mut resolved = Peer::new(peer.addresses.iter().copied(), labels);
        resolved.named_ports = peer.named_ports.iter().map(named_port).collect();
        peers.push(resolved);
    }
    // Relative to the file, so that it does not matter where the proxy is started.
    let folder = path.parent().unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = file.policy.paths.iter().map(|path| folder.join(path)).collect();
    if paths.is_empty() {
        return Err(wrong(
            "policy.paths",
            "without policy nothing would be decided; name a file or a folder",
        ));
    }
    let proxy = ProxyConfig {
        endpoint,
        peers,
        options: Options {
            enforcement: match file.policy.enforcement {
                file::Enforcement::Default => Enforcement::Default,
                file::Enforcement::Always => Enforcement::Always,
                file::Enforcement::Never => Enforcement::Never,
            },
            audit: file.policy.mode == file::Mode::Audit,
            ..Options::default()
        },
        listeners,
        policy: PolicyFiles { paths, watch: file.policy.watch }.into(),
        limits: limits::resolve(&file.limits)?,
        workers: file.workers,
        access_log: AccessLogConfig {
            mode: match file.access_log.mode {
                file::AccessLogMode::Off => AccessLogMode::Off,
                file::AccessLogMode::All => AccessLogMode::All,
                file::AccessLogMode::Denied => AccessLogMode::Denied,
            },
            sink: sink(file.access_log.to.as_deref()),
            query: file.access_log.query,
        },
        admin: admin(&file.admin.listen).map_err(|error| wrong("admin.listen", error))?,
        observer: Default::default(),
        services: kernel::directory(&services),
        redirection: None,
    };
    Ok(RunConfig { proxy, redirect, services })
}

/// Adds the listeners that programs inside of the kernel feed.
fn add_listeners(
    section: &redirect::Redirect,
    listeners: &mut Vec<ListenerConfig>,
) -> Result<Option<kernel::Config>, Wrong> {
    Ok(section.resolve()?.map(|(config, fed)| {
        listeners.extend(fed);
        config
    }))
}

pub(super) fn labels(key: &str, map: &BTreeMap<String, String>) -> Result<Labels, Wrong> {
    map.iter()
        .map(|(name, value)| format!("{name}={value}").parse())
        .collect::<Result<Labels, _>>()
        .map_err(|error| wrong(key, error))
}

fn named_port(port: &file::NamedPort) -> portreeve_policy::NamedPort {
    let protocol = match port.protocol {
        file::Protocol::Tcp => Protocol::Tcp,
        file::Protocol::Udp => Protocol::Udp,
        file::Protocol::Sctp => Protocol::Sctp,
    };
    portreeve_policy::NamedPort { name: port.name.clone(), port: port.port, protocol }
}

fn resolve_listener(
    listener: &file::Listener,
    list: &str,
    index: usize,
    direction: TrafficDirection,
) -> Result<ListenerConfig, Wrong> {
    let key = |name: &str| format!("{list}[{index}].{name}");
    let transparent = match listener.transparent {
        file::Transparent::No => None,
        file::Transparent::Auto => Some(Transparent::Auto),
        file::Transparent::Redirect => Some(Transparent::Redirect),
        file::Transparent::Tproxy => Some(Transparent::Tproxy),
    };
    let upstream = match (&listener.upstream, transparent) {
        (Some(upstream), None) => UpstreamConfig::Fixed(
            upstream_address(upstream).map_err(|e| wrong(key("upstream"), e))?,
        ),
        (None, Some(how)) => UpstreamConfig::OriginalDestination(how),
        (Some(_), Some(_)) => {
            return Err(wrong(
                key("upstream"),
                "a transparent listener takes the upstream from the connection; remove one of the two",
            ));
        }
        (None, None) => {
            return Err(wrong(
                key("upstream"),
                "is missing; name the workload's address, or set `transparent: true`",
            ));
        }
    };
    Ok(ListenerConfig {
        name: listener.name.clone().unwrap_or_else(|| format!("{list}-{index}")),
        direction,
        listen: listener.listen,
        upstream,
        policy_port: listener.policy_port,
        advertised: advertised::resolve(
            listener.advertised.iter().map(|(broker, told)| (broker.as_str(), told.as_str())),
        )
        .map_err(|error| wrong(key("advertised"), error))?,
    })
}

/// An address, or a name that is looked up once.
fn upstream_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let looked_up = text.to_socket_addrs().map_err(|error| {
        format!("`{text}` is not an address with a port, such as 127.0.0.1:8080 ({error})")
    })?;
    let mut looked_up: Vec<_> = looked_up.collect();
    // The workload is near, and most listen on IPv4.
    looked_up.sort_by_key(SocketAddr::is_ipv6);
    looked_up.first().copied().ok_or_else(|| format!("`{text}` has no address"))
}

/// A prefix, or an address, which is a prefix of its full length.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => text
            .parse()
            .map_err(|_| format!("`{text}` is not an address or a prefix such as 10.0.0.0/8")),
    }
}

fn sink(to: Option<&Path>) -> Sink {
    match to.and_then(Path::to_str) {
        None if to.is_none() => Sink::Stdout,
        Some("stdout" | "-") => Sink::Stdout,
        Some("stderr") => Sink::Stderr,
        _ => Sink::File(to.unwrap_or(Path::new("")).to_owned()),
    }
}

fn admin(listen: &str) -> Result<Option<SocketAddr>, String> {
    match listen {
        "off" => Ok(None),
        listen => match listen.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(format!("`{listen}` is neither an address with a port nor `off`")),
        },
    }
}

/// From flags alone, or flags on top of a file.
pub(crate) fn from_flags(arguments: &RunArguments) -> Result<RunConfig, Failure> {
    let wrong_flag = |Wrong { key, message }: Wrong| {
        let flag = key.strip_prefix("redirect.").unwrap_or(&key);
        usage(&format!("--{flag}: {message}"))
    };
    let mut run = match &arguments.config {
        Some(path) => {
            let mut file = super::read(path)?;
            file.redirect.apply(&arguments.redirect).map_err(wrong_flag)?;
            from_file(&file, path)?
        }
        None => flags_only(arguments).map_err(wrong_flag)?,
    };
    let config = &mut run.proxy;
    config.options.audit |= arguments.audit;
    if let Some(listen) = &arguments.admin {
        config.admin = admin(listen).map_err(|error| usage(&format!("--admin: {error}")))?;
    }
    if let Some(name) = &arguments.access_log {
        config.access_log.mode = AccessLogMode::from_name(name)
            .ok_or_else(|| usage(&format!("--access-log: `{name}` is none of all, denied, off")))?;
    }
    if let Some(path) = &arguments.access_log_to {
        config.access_log.sink = sink(Some(path));
    }
    config.workers = arguments.workers.or(config.workers);
    Ok(run)
}

pub(crate) fn usage(message: &str) -> Failure {
    Failure { code: 2, message: format!("error: {message}\n\nFor more information, try '--help'.") }
}

fn flags_only(arguments: &RunArguments) -> Result<RunConfig, Wrong> {
    let workload = arguments.workload_labels.as_deref().unwrap_or_default();
    let labels: Labels = workload.parse().map_err(|error| wrong("workload-labels", error))?;
    if labels.is_empty() {
        return Err(wrong("workload-labels", "name at least one label, such as app=shop"));
    }
    let mut section = redirect::Redirect::default();
    section.apply(&arguments.redirect)?;
    let mut listeners = Vec::new();
    let redirect = add_listeners(&section, &mut listeners)?;
    if redirect.is_none() {
        listeners.push(flag_listener(arguments)?);
    }
    let peers: Result<_, _> = arguments.peer.iter().map(|text| flag_peer(text)).collect();
    let proxy = ProxyConfig {
        endpoint: Endpoint::new("workload", arguments.workload_namespace.as_str(), labels),
        peers: peers?,
        services: Vec::new(),
        options: Options::default(),
        listeners,
        policy: PolicyFiles { paths: arguments.policy.clone(), watch: true }.into(),
        limits: Limits::default(),
        workers: None,
        access_log: AccessLogConfig::default(),
        admin: admin(file::ADMIN).map_err(|error| wrong("admin", error))?,
        observer: Default::default(),
        redirection: None,
    };
    Ok(RunConfig { proxy, redirect, services: Vec::new() })
}

/// The one listener that flags name.
fn flag_listener(arguments: &RunArguments) -> Result<ListenerConfig, Wrong> {
    let upstream = match (&arguments.upstream, arguments.transparent.as_deref()) {
        (Some(upstream), _) => {
            UpstreamConfig::Fixed(upstream_address(upstream).map_err(|e| wrong("upstream", e))?)
        }
        (None, None | Some("auto")) => UpstreamConfig::OriginalDestination(Transparent::Auto),
        (None, Some("redirect")) => UpstreamConfig::OriginalDestination(Transparent::Redirect),
        (None, Some("tproxy")) => UpstreamConfig::OriginalDestination(Transparent::Tproxy),
        (None, Some(other)) => {
            let message = format!("`{other}` is none of auto, redirect, tproxy");
            return Err(wrong("transparent", message));
        }
    };
    let Some(listen) = arguments.listen else {
        return Err(wrong("listen", "is missing"));
    };
    Ok(ListenerConfig {
        name: "inbound".to_owned(),
        direction: TrafficDirection::Ingress,
        listen,
        upstream,
        policy_port: arguments.policy_port,
        advertised: advertised::resolve(
            arguments.advertised.iter().map(|text| advertised::flag(text)),
        )
        .map_err(|error| wrong("advertised", error))?,
    })
}

/// All peers that flags name.
pub(crate) fn flag_peers(texts: &[String]) -> Result<Vec<Peer>, Failure> {
    let peers: Result<_, _> = texts.iter().map(|text| flag_peer(text)).collect();
    peers.map_err(|Wrong { key, message }| usage(&format!("--{key}: {message}")))
}

/// `10.0.0.0/8=app=client,env=prod`.
pub(super) fn flag_peer(text: &str) -> Result<Peer, Wrong> {
    let Some((addresses, labels)) = text.split_once('=') else {
        let message = format!("`{text}` is not a prefix and labels, such as 10.0.0.0/8=app=client");
        return Err(wrong("peer", message));
    };
    let prefix = prefix(addresses).map_err(|error| wrong("peer", error))?;
    let labels = labels.parse().map_err(|error| wrong("peer", error))?;
    Ok(Peer::new([prefix], labels))
}
