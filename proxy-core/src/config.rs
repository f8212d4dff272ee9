//! What a proxy is told before it starts. Plain values: files and flags are the binaries' affair.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use portreeve_policy::{Endpoint, Options, Peer, Service, Source, TrafficDirection};
pub use portreeve_protocols::kafka::Advertised;

use crate::limits::Limits;
use crate::observer::Observing;
use crate::policy_files::{self, PolicyFilesError};
use crate::redirection::Redirection;
use crate::telemetry::{AccessLogConfig, AccessLogMode};

/// Everything one proxy needs to know.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The workload under policy.
    pub endpoint: Endpoint,
    /// Who has which addresses; whom no entry names is `world`.
    pub peers: Vec<Peer>,
    /// What `toServices` refers to.
    pub services: Vec<Service>,
    /// How policy is evaluated (enforcement mode, audit).
    pub options: Options,
    /// Where traffic comes in.
    pub listeners: Vec<ListenerConfig>,
    /// Where policy comes from.
    pub policy: PolicySource,
    /// Bounds and time-outs.
    pub limits: Limits,
    /// Worker threads; `None`: as many as the process has cores.
    pub workers: Option<NonZeroUsize>,
    /// Which requests are logged, and where to.
    pub access_log: AccessLogConfig,
    /// Where the admin server listens; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Who is told of every decision.
    pub observer: Observing,
    /// Programs inside of the kernel that feed listeners with [`Transparent::Ebpf`].
    pub redirection: Option<Arc<dyn Redirection>>,
}

impl ProxyConfig {
    /// A proxy in front of a workload, with everything else as it is by default, but that a program's
    /// own proxy writes no access log and has no admin server unless it is told to.
    pub fn new(
        endpoint: Endpoint,
        policy: impl Into<PolicySource>,
        listeners: Vec<ListenerConfig>,
    ) -> Self {
        Self {
            endpoint,
            peers: Vec::new(),
            services: Vec::new(),
            options: Options::default(),
            listeners,
            policy: policy.into(),
            limits: Limits::default(),
            workers: None,
            access_log: AccessLogConfig { mode: AccessLogMode::Off, ..Default::default() },
            admin: None,
            observer: Observing::default(),
            redirection: None,
        }
    }
}

/// Where policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// Files and folders.
    Files(PolicyFiles),
    /// Documents that the program hands over, and may replace while it runs.
    Documents(Vec<Source>),
}

impl PolicySource {
    /// The files, if policy comes from files.
    #[must_use]
    pub fn files(&self) -> Option<&PolicyFiles> {
        match self {
            Self::Files(files) => Some(files),
            Self::Documents(_) => None,
        }
    }

    /// The documents as they are now.
    pub(crate) fn read(&self) -> Result<Vec<Source>, PolicyFilesError> {
        match self {
            Self::Files(files) => policy_files::read(&files.paths),
            Self::Documents(documents) => Ok(documents.clone()),
        }
    }
}

impl From<PolicyFiles> for PolicySource {
    fn from(files: PolicyFiles) -> Self {
        Self::Files(files)
    }
}

impl From<Vec<Source>> for PolicySource {
    fn from(documents: Vec<Source>) -> Self {
        Self::Documents(documents)
    }
}

/// Files and folders that policy is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFiles {
    /// Files, and folders whose `*.yaml`, `*.yml` and `*.json` are read.
    pub paths: Vec<PathBuf>,
    /// Read them again when they change.
    pub watch: bool,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// For logs and metrics.
    pub name: String,
    /// `Ingress`: in front of the workload, the peer is the client. `Egress`: behind it, the peer
    /// is the upstream.
    pub direction: TrafficDirection,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where connections go.
    pub upstream: UpstreamConfig,
    /// The port that policy sees; `None`: the upstream's.
    pub policy_port: Option<u16>,
    /// What Kafka clients are told in place of the addresses that brokers give of themselves;
    /// `None`: these.
    pub advertised: Option<Advertised>,
}

impl ListenerConfig {
    /// In front of a workload that listens at `upstream`; policy sees the upstream's port.
    pub fn ingress(name: impl Into<String>, listen: SocketAddr, upstream: SocketAddr) -> Self {
        Self {
            name: name.into(),
            direction: TrafficDirection::Ingress,
            listen,
            upstream: UpstreamConfig::Fixed(upstream),
            policy_port: None,
            advertised: None,
        }
    }
}

/// Where a listener's connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamConfig {
    /// Always here.
    Fixed(SocketAddr),
    /// Where the client wanted to go before it was redirected.
    OriginalDestination(Transparent),
}

/// How a redirected connection tells its original destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transparent {
    /// `SO_ORIGINAL_DST` if the kernel knows it, else the local address.
    Auto,
    /// `SO_ORIGINAL_DST`: nftables or iptables `REDIRECT`.
    Redirect,
    /// The local address: `TPROXY`. Needs `CAP_NET_ADMIN`.
    Tproxy,
    /// [`ProxyConfig::redirection`] turns connections here: outbound it knows where they wanted to go,
    /// inbound the local address says so. For each direction and address family one listener.
    Ebpf,
}
