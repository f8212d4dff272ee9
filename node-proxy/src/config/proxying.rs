//! What the shared proxy is told: by the same keys as a sidecar, as far as they make sense for many
//! workloads.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use serde::{Deserialize, Deserializer, de};

/// `access_log`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AccessLog {
    #[serde(deserialize_with = "mode")]
    mode: AccessLogMode,
    /// `stdout`, `stderr`, or a file; none: `stdout`.
    to: Option<PathBuf>,
    query: bool,
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessLogMode, D::Error> {
    let text = String::deserialize(deserializer)?;
    AccessLogMode::from_name(&text)
        .ok_or_else(|| de::Error::custom(format!("`{text}` is not one of `all`, `denied`, `off`")))
}

impl AccessLog {
    /// A relative path begins at `folder`.
    pub(super) fn resolve(self, folder: &Path) -> AccessLogConfig {
        let sink = match self.to.as_deref().map(|to| (to, to.to_str())) {
            None | Some((_, Some("stdout" | "-"))) => Sink::Stdout,
            Some((_, Some("stderr"))) => Sink::Stderr,
            Some((to, _)) => Sink::File(folder.join(to)),
        };
        AccessLogConfig { mode: self.mode, sink, query: self.query }
    }
}

/// `limits`, of the whole proxy and of any one connection; what one workload may use is its object's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProxyLimits {
    connections: Option<NonZeroUsize>,
    header_timeout: Option<Timeout>,
    body_timeout: Option<Timeout>,
    idle_timeout: Option<Timeout>,
    #[serde(deserialize_with = "time")]
    connect_timeout: Option<Duration>,
    tunnel_timeout: Option<Timeout>,
    http2_stall_timeout: Option<Timeout>,
}

/// `10s`, `500ms`, `1h`, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timeout(Option<Duration>);

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "off" => Ok(Self(None)),
            text => Ok(Self(Some(duration(text, ", `1h` or `off`")?))),
        }
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Some(duration(&String::deserialize(deserializer)?, " or `1h`")?))
}

fn duration<E: de::Error>(text: &str, others: &str) -> Result<Duration, E> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| E::custom(format!("`{text}` is not a time: write `10s`, `500ms`{others}")))?;
    match duration.is_zero() {
        true => Err(E::custom("a time of zero would end everything")),
        false => Ok(duration),
    }
}

impl ProxyLimits {
    /// What is not said is as it is by default.
    pub(crate) fn resolve(&self, drain_timeout: Duration) -> portreeve_core::Limits {
        let mut limits = portreeve_core::Limits { drain_timeout, ..Default::default() };
        limits.connections = self.connections.map_or(limits.connections, Into::into);
        limits.connect_timeout = self.connect_timeout.unwrap_or(limits.connect_timeout);
        for (limit, configured) in [
            (&mut limits.header_timeout, self.header_timeout),
            (&mut limits.body_timeout, self.body_timeout),
            (&mut limits.idle_timeout, self.idle_timeout),
            (&mut limits.tunnel_timeout, self.tunnel_timeout),
            (&mut limits.http2_stall_timeout, self.http2_stall_timeout),
        ] {
            *limit = configured.map_or(*limit, |Timeout(configured)| configured);
        }
        limits
    }
}
