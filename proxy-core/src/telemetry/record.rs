//! What is reported: plain values, borrowed where they are texts.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use portreeve_policy::{Protocol, TrafficDirection};
use portreeve_protocols::gate::Phase;
use portreeve_protocols::kafka::Role;
use portreeve_protocols::{http1, http2, kafka};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    Deny,
    /// Allowed, though a policy in audit mode would have denied it.
    Audit,
}

impl Verdict {
    pub(crate) const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Audit];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Party<'a> {
    /// `None`: it has none yet.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) identity: u32,
    pub(crate) labels: &'a str,
}

/// A connection that was denied, or would have been.
pub(crate) struct ConnectionRecord<'a> {
    pub(crate) time: SystemTime,
    pub(crate) direction: TrafficDirection,
    pub(crate) verdict: Verdict,
    pub(crate) source: Party<'a>,
    pub(crate) destination: Party<'a>,
    pub(crate) rule: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) reason: &'static str,
    pub(crate) revision: u64,
    /// `None`: the proxy decided it.
    pub(crate) by_kernel: Option<ByKernel>,
}

/// What is told of a connection that was decided inside of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByKernel {
    pub(crate) protocol: Protocol,
    /// What was asked for, if a backend stands for it.
    pub(crate) service: Option<SocketAddr>,
    /// It was turned to the proxy, and neither allowed nor denied yet.
    pub(crate) redirected: bool,
}

/// A connection that has ended.
pub(crate) struct ConnectionStats {
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    pub(crate) duration: Duration,
}

/// A request and its answer.
pub(crate) struct HttpRecord<'a> {
    pub(crate) time: SystemTime,
    pub(crate) direction: TrafficDirection,
    pub(crate) verdict: Verdict,
    pub(crate) source: Party<'a>,
    pub(crate) destination: Party<'a>,
    pub(crate) method: &'a [u8],
    pub(crate) host: &'a [u8],
    pub(crate) path: &'a [u8],
    pub(crate) version: HttpVersion,
    /// 0: the connection ended before there was one.
    pub(crate) status: u16,
    pub(crate) local: bool,
    pub(crate) grpc: Option<GrpcCall>,
    pub(crate) rule: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) reason: &'static str,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) time_to_first_byte: Option<Duration>,
    pub(crate) request_id: RequestId<'a>,
    pub(crate) revision: u64,
}

/// The version that a request was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

impl HttpVersion {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// What became of a gRPC call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrpcCall {
    /// `None`: the stream ended before there was one.
    pub(crate) status: Option<u8>,
    pub(crate) request_messages: u64,
    pub(crate) response_messages: u64,
}

/// What a request is called in the log.
pub(crate) enum RequestId<'a> {
    /// By the proxy: unique in its life.
    Numbered { worker: usize, connection: u64, request: u64 },
    /// By the client's `X-Request-Id`.
    Given(&'a [u8]),
}

/// A message that was not accepted.
pub(crate) struct RefusedRecord<'a> {
    pub(crate) time: SystemTime,
    pub(crate) direction: TrafficDirection,
    pub(crate) source: Party<'a>,
    pub(crate) destination: Party<'a>,
    pub(crate) refused: Refused,
}

/// Why a message was not accepted, in any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Http1(http1::Refusal),
    /// One request; its connection goes on.
    Http2Head(http1::Refusal),
    Http2(http2::Refusal),
    Kafka(kafka::Refusal),
}

impl Refused {
    /// Every reason there is.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let http1 = http1::Refusal::ALL.iter().copied().map(Self::Http1);
        let heads = http1::Refusal::ALL.iter().copied().map(Self::Http2Head);
        let http2 = http2::Refusal::ALL.iter().copied().map(Self::Http2);
        let kafka = kafka::Refusal::ALL.iter().copied().map(Self::Kafka);
        http1.chain(heads).chain(http2).chain(kafka)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1(refusal) | Self::Http2Head(refusal) => refusal.name(),
            Self::Http2(refusal) => refusal.name(),
            Self::Kafka(refusal) => refusal.name(),
        }
    }

    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Http1(_) => "http1",
            Self::Http2Head(_) | Self::Http2(_) => "http2",
            Self::Kafka(_) => "kafka",
        }
    }

    /// Whose fault it is.
    pub(crate) fn side(self) -> &'static str {
        let by_server = match self {
            Self::Http1(refusal) | Self::Http2Head(refusal) => refusal.by_server(),
            Self::Http2(refusal) => refusal.by_server(),
            Self::Kafka(refusal) => refusal.by_server(),
        };
        if by_server { "upstream" } else { "client" }
    }
}

/// Topics of a request, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct LoggedTopics<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where the first one begins.
    pub(crate) from: usize,
    /// Where each ends, and whether it was denied.
    pub(crate) ends: &'a [(usize, bool)],
}

impl<'a> LoggedTopics<'a> {
    /// Those that were denied, or those that were not.
    pub(crate) fn which(self, denied: bool) -> impl Iterator<Item = &'a [u8]> {
        let mut from = self.from;
        self.ends.iter().filter_map(move |(end, is)| {
            let topic = &self.bytes[from..*end];
            from = *end;
            (*is == denied).then_some(topic)
        })
    }
}

/// A Kafka request and its answer.
pub(crate) struct KafkaRecord<'a> {
    pub(crate) time: SystemTime,
    pub(crate) direction: TrafficDirection,
    pub(crate) verdict: Verdict,
    pub(crate) source: Party<'a>,
    pub(crate) destination: Party<'a>,
    pub(crate) api: &'static str,
    pub(crate) version: i16,
    pub(crate) role: Role,
    pub(crate) client_id: &'a [u8],
    pub(crate) correlation_id: i32,
    /// Empty: none.
    pub(crate) group: &'a [u8],
    pub(crate) topics: LoggedTopics<'a>,
    /// Topics beyond those.
    pub(crate) more_topics: u64,
    /// It was answered with what the client may see.
    pub(crate) filtered: bool,
    /// `None`: there was no answer.
    pub(crate) error: Option<i16>,
    pub(crate) local: bool,
    pub(crate) rule: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) reason: &'static str,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) revision: u64,
}

/// A request's method; those that few use count as one, so that clients can't make up series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

impl Method {
    pub(crate) const ALL: [Self; 8] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Options,
        Self::Other,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

impl From<&[u8]> for Method {
    fn from(name: &[u8]) -> Self {
        let known = Self::ALL.into_iter().find(|method| method.as_str().as_bytes() == name);
        known.unwrap_or(Self::Other)
    }
}

/// How opening an upstream connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectOutcome {
    Opened,
    Refused,
    TimedOut,
    Failed,
}

impl ConnectOutcome {
    pub(crate) const NAMES: [&'static str; 4] = ["opened", "refused", "timed_out", "failed"];
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutPhase {
    Idle,
    Head,
    Body,
    Tunnel,
}

impl TimeoutPhase {
    pub(crate) fn of(phase: Phase) -> Self {
        match phase {
            Phase::Idle => Self::Idle,
            Phase::Head => Self::Head,
            Phase::Body => Self::Body,
            Phase::Response | Phase::Tunnel => Self::Tunnel,
        }
    }

    pub(crate) const NAMES: [&'static str; 4] = ["idle", "head", "body", "tunnel"];
}

/// What a connection may run into before policy is asked, or besides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    NoDestination,
    /// Of nobody who is known on this node.
    NoEndpoint,
    /// More held for slow receivers than its endpoint may have.
    Buffers,
}

impl Limit {
    pub(crate) const NAMES: [&'static str; 4] =
        ["connections", "no_destination", "no_endpoint", "buffers"];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// A connection that was reset because of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitRecord {
    pub(crate) direction: TrafficDirection,
    pub(crate) client: SocketAddr,
    /// `None`: it is not known where it was to go.
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) limit: Limit,
}
