//! The keys of the configuration file. An unknown key is an error; every key has a default but
//! those that nobody can guess.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use super::redirect::Redirect;
use super::services::Service;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(super) workload: Workload,
    #[serde(default)]
    pub(super) inbound: Vec<Listener>,
    #[serde(default)]
    pub(super) outbound: Vec<Listener>,
    #[serde(default)]
    pub(super) redirect: Redirect,
    #[serde(default)]
    pub(super) peers: Vec<Peer>,
    #[serde(default)]
    pub(super) services: Vec<Service>,
    pub(super) policy: Policy,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) access_log: AccessLog,
    #[serde(default)]
    pub(super) admin: Admin,
    #[serde(default)]
    pub(super) workers: Option<NonZeroUsize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    #[serde(default = "default_name")]
    pub(super) name: String,
    #[serde(default = "default_namespace")]
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) addresses: Vec<IpAddr>,
    #[serde(default)]
    pub(super) named_ports: Vec<NamedPort>,
}

fn default_name() -> String {
    "workload".to_owned()
}

fn default_namespace() -> String {
    "default".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedPort {
    pub(super) name: String,
    pub(super) port: u16,
    #[serde(default)]
    pub(super) protocol: Protocol,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) name: Option<String>,
    pub(super) listen: SocketAddr,
    pub(super) upstream: Option<String>,
    #[serde(default)]
    pub(super) transparent: Transparent,
    pub(super) policy_port: Option<u16>,
    #[serde(default)]
    pub(super) advertised: BTreeMap<String, String>,
}

/// `false`, `true`, `redirect`, `tproxy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Transparent {
    #[default]
    No,
    Auto,
    Redirect,
    Tproxy,
}

impl<'de> Deserialize<'de> for Transparent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Transparent;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, redirect or tproxy")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Transparent, E> {
                Ok(if value { Transparent::Auto } else { Transparent::No })
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Transparent, E> {
                match value {
                    "auto" => Ok(Transparent::Auto),
                    "redirect" => Ok(Transparent::Redirect),
                    "tproxy" => Ok(Transparent::Tproxy),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    #[serde(deserialize_with = "prefixes")]
    pub(super) addresses: Vec<IpNet>,
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) named_ports: Vec<NamedPort>,
}

/// Prefixes, or addresses, which are prefixes of their full length.
fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| super::resolve::prefix(text).map_err(de::Error::custom))
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) paths: Vec<PathBuf>,
    #[serde(default = "yes")]
    pub(super) watch: bool,
    #[serde(default)]
    pub(super) enforcement: Enforcement,
    #[serde(default)]
    pub(super) mode: Mode,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Enforcement {
    #[default]
    Default,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    #[default]
    Enforce,
    Audit,
}

/// `10s`, `500ms`, `1h`, or `off`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout(pub(super) Option<Duration>);

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let duration = humantime::parse_duration(&text).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a time: write `10s`, `500ms`, `1h` or `off`"
            ))
        })?;
        if duration.is_zero() {
            return Err(de::Error::custom(
                "a time of zero would end everything; write `off` for none",
            ));
        }
        Ok(Self(Some(duration)))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) connections: Option<NonZeroUsize>,
    pub(super) header_timeout: Option<Timeout>,
    pub(super) body_timeout: Option<Timeout>,
    pub(super) idle_timeout: Option<Timeout>,
    pub(super) connect_timeout: Option<Timeout>,
    pub(super) tunnel_timeout: Option<Timeout>,
    pub(super) drain_timeout: Option<Timeout>,
    pub(super) head_bytes: Option<u32>,
    pub(super) headers: Option<u16>,
    pub(super) target_bytes: Option<u32>,
    pub(super) pipelined: Option<u16>,
    pub(super) drained_bytes: Option<u64>,
    pub(super) http2_streams: Option<u32>,
    pub(super) http2_stream_window: Option<u32>,
    pub(super) http2_connection_window: Option<u32>,
    pub(super) http2_send_buffer: Option<u32>,
    pub(super) http2_control_frames: Option<u32>,
    pub(super) http2_cancelled_streams: Option<u32>,
    pub(super) http2_stall_timeout: Option<Timeout>,
    pub(super) kafka_frame_bytes: Option<u32>,
    pub(super) kafka_held_bytes: Option<u32>,
    pub(super) kafka_in_flight: Option<u16>,
    pub(super) kafka_topics: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AccessLog {
    pub(super) mode: AccessLogMode,
    pub(super) to: Option<PathBuf>,
    pub(super) query: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AccessLogMode {
    Off,
    #[default]
    All,
    Denied,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) listen: String,
}

/// Where the admin server listens unless told otherwise: this machine only.
pub(super) const ADMIN: &str = "127.0.0.1:15000";

impl Default for Admin {
    fn default() -> Self {
        Self { listen: ADMIN.to_owned() }
    }
}
