//! The proxy: takes connections, asks the policy engine, relays what it allows.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`], [`limits`] | what a proxy is told, and every bound with its reason |
//! | [`proxy`] | start, reload, drain, join |
//! | [`node`], [`endpoints`] | many workloads under one proxy: who they are, their policies and limits |
//! | [`snapshot`] | the policy in force, swapped whole |
//! | [`redirection`] | the seam to programs inside of the kernel that feed the proxy |
//! | `listener` | sockets: bound per worker, accepted, original destination |
//! | `inspect` | a connection judged, and its protocol's requests as policy queries |
//! | `relay` | the I/O loop of protocols with a gate: client, gate, upstream |
//! | `http2` | HTTP/2: two connections paired stream by stream |
//! | `edits` | changes to a head that rules ask for |
//! | `runtime` | worker threads, deadlines, draining |
//! | [`guard`] | one workload's policy for requests that somebody else has read |
//! | [`observer`] | decisions as a program hears of them |
//! | `tower` | a layer for services of hyper, axum and tonic (feature `tower`) |
//! | `policy_files`, `policy_loader`, `watch` | policy read from files, compiled, watched |
//! | `control` | the control thread |
//! | `keepalive` | peers that vanish are noticed |
//! | `open_files` | as many open files as the system allows |
//! | `launch` | what starting a proxy is made of |
//! | [`telemetry`] | access log and metrics |
//! | [`admin`] | the admin server |

pub mod admin;
pub mod config;
mod control;
mod edits;
pub mod endpoints;
pub mod guard;
mod http2;
mod inspect;
mod keepalive;
mod launch;
pub mod limits;
mod listener;
pub mod node;
pub mod observer;
mod open_files;
mod policy_files;
mod policy_loader;
pub mod proxy;
pub mod redirection;
mod relay;
mod runtime;
pub mod snapshot;
pub mod telemetry;
#[cfg(feature = "tower")]
pub mod tower;
mod view;
mod watch;

#[cfg(all(doctest, feature = "tower"))]
#[doc = include_str!("../../docs/embedding.md")]
mod embedding {}

pub use self::config::{
    Advertised, ListenerConfig, PolicyFiles, PolicySource, ProxyConfig, Transparent, UpstreamConfig,
};
pub use self::endpoints::{
    AddressTaken, EndpointConfig, EndpointLimits, EndpointStatus, Endpoints, Upserted,
};
#[cfg(feature = "fuzzing")]
pub use self::http2::fuzz;
pub use self::inspect::carried_out;
pub use self::limits::Limits;
pub use self::node::{NodeConfig, NodeProxy, NodeRemote, UpstreamSource};
pub use self::open_files::raise_file_limit;
pub use self::policy_files::{PolicyFilesError, read as read_policy_files};
pub use self::policy_loader::{LoadError, check_policy};
pub use self::proxy::{Proxy, Remote, StartError};
pub use self::redirection::Redirection;
pub use self::snapshot::{Snapshot, SnapshotStore};
