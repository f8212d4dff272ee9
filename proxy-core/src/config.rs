//! What a proxy is told before it starts. Plain values: files and flags are the binaries' affair.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use portreeve_policy::{Endpoint, Options, Peer, TrafficDirection};
pub use portreeve_protocols::kafka::Advertised;

use crate::limits::Limits;
use crate::telemetry::AccessLogConfig;

/// Everything one proxy needs to know.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The workload under policy.
    pub endpoint: Endpoint,
    /// Who has which addresses; whom no entry names is `world`.
    pub peers: Vec<Peer>,
    /// How policy is evaluated (enforcement mode, audit).
    pub options: Options,
    /// Where traffic comes in.
    pub listeners: Vec<ListenerConfig>,
    /// Where policy comes from.
    pub policy: PolicyFiles,
    /// Bounds and time-outs.
    pub limits: Limits,
    /// Worker threads; `None`: as many as the process has cores.
    pub workers: Option<NonZeroUsize>,
    /// Which requests are logged, and where to.
    pub access_log: AccessLogConfig,
    /// Where the admin server listens; `None`: nowhere.
    pub admin: Option<SocketAddr>,
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
}
