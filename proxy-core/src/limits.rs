//! Every bound on what the network may make the proxy hold or wait for, with the reason for its
//! default.

use std::time::Duration;

use portreeve_protocols::{http1, http2, kafka};

/// Bounds of one proxy. `None` for a time-out means for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once, over all workers; beyond it new ones are reset. Default
    /// 65,536: at a KiB each that is 64 MiB, and about what one address's ports allow.
    pub connections: usize,
    /// Time for a message head, from its first byte. Default 10 s: a head is one packet or two,
    /// so this only meets slow-loris clients and dead links.
    pub header_timeout: Option<Duration>,
    /// Time from one byte of a request body to the next. Default 60 s: slow uplinks pause,
    /// they don't sleep.
    pub body_timeout: Option<Duration>,
    /// Time between requests. Default 1 h: longer than what clients and servers keep idle
    /// connections themselves, because ending one races with a request on its way.
    pub idle_timeout: Option<Duration>,
    /// Time to open the upstream connection. Default 5 s: the upstream is near.
    pub connect_timeout: Duration,
    /// Time without a byte in a tunnel or an uninspected connection. Default none: what runs
    /// inside may be silent for days.
    pub tunnel_timeout: Option<Duration>,
    /// Time that a peer of an HTTP/2 stream may take nothing of what waits for it. Default 5 min: a slow
    /// consumer pauses longer than a broken one should be waited for; what waits is bounded anyway.
    pub http2_stall_timeout: Option<Duration>,
    /// Time that connections get to end when the proxy stops. Default 25 s: less than the 30 s
    /// after which an orchestrator kills.
    pub drain_timeout: Duration,
    /// Bounds on HTTP/1.1 messages.
    pub http1: http1::Limits,
    /// Bounds on HTTP/2 connections. What it has in common with [`Limits::http1`] is to be the same.
    pub http2: http2::Limits,
    /// Bounds on Kafka messages.
    pub kafka: kafka::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            header_timeout: Some(Duration::from_secs(10)),
            body_timeout: Some(Duration::from_secs(60)),
            idle_timeout: Some(Duration::from_secs(3600)),
            connect_timeout: Duration::from_secs(5),
            tunnel_timeout: None,
            http2_stall_timeout: Some(Duration::from_secs(300)),
            drain_timeout: Duration::from_secs(25),
            http1: http1::Limits::default(),
            http2: http2::Limits::default(),
            kafka: kafka::Limits::default(),
        }
    }
}
