//! The configuration: a file, or flags alone.

mod places;
mod proxying;
mod read;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use portreeve_core::telemetry::AccessLogConfig;
use portreeve_ebpf::InstanceName;
use portreeve_policy::{Enforcement, Options};
use serde::{Deserialize, Deserializer, de};

use self::proxying::AccessLog;
pub(crate) use self::proxying::ProxyLimits;
use self::read::parse;
use crate::cli::{DatapathKind, RunArguments};
use crate::command::Failure;
use crate::datapath::NodeAddress;

/// The commented example.
pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

/// Where the socket is unless told otherwise.
pub(crate) const SOCKET: &str = "/run/portreeve/node.sock";
/// Where numbers are kept unless told otherwise.
pub(crate) const STATE: &str = "/var/lib/portreeve/node";

/// Where a bpf file system is mounted unless told otherwise.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// What everything is pinned under there unless told otherwise.
pub(crate) const INSTANCE: &str = "node";

/// What `portreeve-node run` is told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) objects: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) node: String,
    pub(crate) datapath: DatapathKind,
    pub(crate) kernel: Kernel,
    /// Where the proxy's metrics and health are.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) access_log: AccessLogConfig,
    /// Of the shared proxy.
    pub(crate) limits: ProxyLimits,
    /// Its worker threads; none: as many as cores.
    pub(crate) workers: Option<NonZeroUsize>,
    pub(crate) policy: Options,
    pub(crate) identity_linger: Duration,
    pub(crate) drain_timeout: Duration,
}

/// The keys of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    objects: PathBuf,
    #[serde(default = "default_state")]
    state: PathBuf,
    #[serde(default = "default_socket")]
    socket: PathBuf,
    node: Option<String>,
    #[serde(default)]
    datapath: DatapathKind,
    #[serde(default)]
    kernel: Kernel,
    #[serde(default = "default_admin")]
    admin: Admin,
    #[serde(default)]
    access_log: AccessLog,
    #[serde(default)]
    limits: ProxyLimits,
    workers: Option<NonZeroUsize>,
    #[serde(default)]
    policy: Policy,
    #[serde(default = "default_linger", deserialize_with = "time")]
    identity_linger: Duration,
    #[serde(default = "default_drain", deserialize_with = "time")]
    drain_timeout: Duration,
}

/// What the programs inside of the kernel are told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kernel {
    /// Where a bpf file system is mounted.
    pub(crate) bpffs: PathBuf,
    /// What everything is pinned under.
    #[serde(deserialize_with = "read::parsed")]
    pub(crate) instance: InstanceName,
    /// What becomes of who is refused.
    pub(crate) refusals: Refusals,
    /// Whose processes are connected to backends at once; none: nobody's.
    pub(crate) cgroup: Option<PathBuf>,
    /// Devices that lead outside; none: those of the default routes.
    pub(crate) devices: Option<BTreeSet<String>>,
    /// This node's addresses, where node ports are answered; none: those that it calls from.
    #[serde(deserialize_with = "read::all_parsed")]
    pub(crate) addresses: Option<Vec<NodeAddress>>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            bpffs: BPFFS.into(),
            instance: InstanceName::of_node(),
            refusals: Refusals::Told,
            cgroup: None,
            devices: None,
            addresses: None,
        }
    }
}

/// What becomes of who is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Refusals {
    /// Answered at once: by a reset, or by ICMP.
    Told,
    /// Dropped without a word.
    Silent,
}

/// An address, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admin(Option<SocketAddr>);

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            address => address
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| format!("`{text}` is no address: write `127.0.0.1:15000`, or `off`")),
        }
    }
}

impl<'de> Deserialize<'de> for Admin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read::parsed(deserializer)
    }
}

/// As the sidecar's.
fn default_admin() -> Admin {
    Admin(Some((Ipv4Addr::LOCALHOST, 15000).into()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Policy {
    enforcement: FileEnforcement,
    audit: bool,
    allow_localhost: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileEnforcement {
    #[default]
    Default,
    Always,
    Never,
}

fn default_state() -> PathBuf {
    STATE.into()
}

fn default_socket() -> PathBuf {
    SOCKET.into()
}

/// As long as Cilium keeps identities that nobody uses (`identity-gc-interval`).
fn default_linger() -> Duration {
    Duration::from_secs(15 * 60)
}

fn default_drain() -> Duration {
    Duration::from_secs(30)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        de::Error::custom(format!("`{text}` is not a time: write `10s`, `500ms` or `1h`"))
    })
}

/// From a file, or from flags.
pub(crate) fn from_arguments(arguments: &RunArguments) -> Result<Config, Failure> {
    match &arguments.config {
        Some(path) => from_file(path),
        None => Ok(Config {
            objects: arguments.objects.clone().unwrap_or_default(),
            state: arguments.state.clone().unwrap_or_else(default_state),
            socket: arguments.socket.clone().unwrap_or_else(default_socket),
            node: arguments.node.clone().unwrap_or_else(host_name),
            datapath: arguments.datapath.unwrap_or_default(),
            kernel: Kernel::default(),
            admin: arguments.admin.unwrap_or_else(default_admin).0,
            access_log: AccessLogConfig::default(),
            limits: ProxyLimits::default(),
            workers: None,
            policy: Options::default(),
            identity_linger: default_linger(),
            drain_timeout: default_drain(),
        }),
    }
}

/// From a file, by what it says and by what is there of what it names.
pub(crate) fn from_file(path: &Path) -> Result<Config, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::config(format!(
            "error: can't read the configuration `{}`: {error}",
            path.display()
        ))
    })?;
    let file = parse(&path.display().to_string(), &text).map_err(Failure::config)?;
    // Relative to the file, so that it does not matter where the daemon is started.
    let folder = path.parent().unwrap_or(Path::new(""));
    let config = Config {
        objects: folder.join(file.objects),
        state: folder.join(file.state),
        socket: folder.join(file.socket),
        node: file.node.unwrap_or_else(host_name),
        datapath: file.datapath,
        kernel: Kernel {
            bpffs: folder.join(file.kernel.bpffs),
            cgroup: file.kernel.cgroup.map(|cgroup| folder.join(cgroup)),
            ..file.kernel
        },
        admin: file.admin.0,
        access_log: file.access_log.resolve(folder),
        limits: file.limits,
        workers: file.workers,
        policy: Options {
            enforcement: match file.policy.enforcement {
                FileEnforcement::Default => Enforcement::Default,
                FileEnforcement::Always => Enforcement::Always,
                FileEnforcement::Never => Enforcement::Never,
            },
            audit: file.policy.audit,
            allow_localhost: file.policy.allow_localhost,
            ..Options::default()
        },
        identity_linger: file.identity_linger,
        drain_timeout: file.drain_timeout,
    };
    places::check(path, &config)?;
    Ok(config)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use portreeve_core::telemetry::{AccessLogMode, Sink};

    use super::*;

    #[test]
    fn the_example_is_what_is_read_and_shows_the_defaults() {
        let file = parse("example.yaml", EXAMPLE).unwrap();
        assert_eq!((file.state, file.socket), (default_state(), default_socket()));
        assert_eq!(file.datapath, DatapathKind::default());
        assert_eq!((file.kernel, file.admin), (Kernel::default(), default_admin()));
        assert_eq!(file.identity_linger, default_linger());
        assert_eq!(file.drain_timeout, default_drain());
        assert_eq!(file.access_log.resolve(Path::new("/etc")), AccessLogConfig::default());
        let limits = ProxyLimits::default().resolve(default_drain());
        assert_eq!(file.limits.resolve(default_drain()), limits);
        assert_eq!(Kernel::default().instance.as_str(), INSTANCE);
        let least = parse("least.yaml", "objects: objects/\n").unwrap();
        assert_eq!(least.identity_linger, default_linger());
    }

    #[test]
    fn the_shared_proxy_is_told_by_the_keys_of_a_sidecar() {
        let text = "objects: o/\naccess_log: {mode: denied, to: log/access, query: true}\n\
                    limits: {connections: 7, idle_timeout: off, connect_timeout: 2s}\nworkers: 3\n";
        let file = parse("node.yaml", text).unwrap();
        assert_eq!(
            file.access_log.resolve(Path::new("/etc")),
            AccessLogConfig {
                mode: AccessLogMode::Denied,
                sink: Sink::File("/etc/log/access".into()),
                query: true
            }
        );
        let limits = file.limits.resolve(Duration::from_secs(9));
        assert_eq!((limits.connections, limits.idle_timeout), (7, None));
        assert_eq!(limits.connect_timeout, Duration::from_secs(2));
        assert_eq!(limits.drain_timeout, Duration::from_secs(9));
        assert_eq!(limits.header_timeout, portreeve_core::Limits::default().header_timeout);
        assert_eq!(file.workers, NonZeroUsize::new(3));
        for (wrong, said) in [
            ("access_log: {mode: some}", "`some` is not one of `all`, `denied`, `off`"),
            ("limits: {idle_timeout: 10}", "`10` is not a time"),
            ("limits: {connect_timeout: 0s}", "a time of zero"),
            ("limits: {connections: 0}", ""),
            ("workers: 0", ""),
        ] {
            let error = parse("node.yaml", &format!("objects: o/\n{wrong}\n")).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn what_no_daemon_would_run_with_is_an_error_with_its_place() {
        for (wrong, line, said) in [
            ("kernel: {instance: a/b}", 2, "`a/b` can't name an instance"),
            (
                "kernel:\n  addresses:\n  - 192.0.2.7\n  - 224.0.0.1",
                5,
                "`224.0.0.1` is no address of a node",
            ),
            ("kernel: {addresses: [here]}", 2, "`here` is no address"),
        ] {
            let error = parse("node.yaml", &format!("objects: o/\n{wrong}\n")).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
        let fine = "objects: o/\nkernel: {instance: blue, addresses: [192.0.2.7]}\n";
        let kernel = parse("node.yaml", fine).unwrap().kernel;
        assert_eq!(kernel.instance.as_str(), "blue");
        assert_eq!(kernel.addresses, Some(vec!["192.0.2.7".parse().unwrap()]));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let error = parse("node.yaml", "objects: o/\nsockets: x\n").unwrap_err().to_string();
        assert!(error.starts_with("error: node.yaml:2:"), "{error}");
        assert!(error.contains("sockets") && error.contains("config example"), "{error}");
    }
}
