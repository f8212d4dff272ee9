//! Decisions as a program hears of them: an [`Observer`] is called for each with a borrowed [`Flow`].
//!
//! The proxy calls it when a request's answer has passed (so that status and duration are known), a
//! [`Guard`](crate::guard::Guard) when it has decided. It is called on the thread that carries the
//! traffic, one of several at a time, and everything behind it waits: hand on what is to take time. A
//! proxy without an observer spends nothing on one.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portreeve_policy::{Outcome, TrafficDirection};

/// Hears of every decision.
pub trait Observer: Send + Sync {
    /// A decision. Must not block, and should not allocate much.
    fn observe(&self, flow: &Flow<'_>);

    /// Whether anybody wants to hear of them now: while nobody does, nothing is put into words. Asked for
    /// every request.
    fn is_wanted(&self) -> bool {
        true
    }
}

impl<F: Fn(&Flow<'_>) + Send + Sync> Observer for F {
    fn observe(&self, flow: &Flow<'_>) {
        self(flow);
    }
}

/// One decision.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Flow<'a> {
    /// When it was told.
    pub time: SystemTime,
    /// As the workload sees it.
    pub direction: TrafficDirection,
    /// What was decided.
    pub verdict: Outcome,
    /// Who asks.
    pub source: Party<'a>,
    /// Who is asked.
    pub destination: Party<'a>,
    /// What was asked, in the words of its protocol.
    pub asked: Asked<'a>,
    /// The place in the policy that decided; empty: none.
    pub rule: &'a str,
    /// Its policy; empty: none.
    pub policy: &'a str,
    /// Why: a name of [`Reason`](portreeve_policy::Reason), or of what was wrong with a message.
    pub reason: &'a str,
    /// The endpoint whose policy decided, where a proxy has many; else empty.
    pub endpoint: &'a str,
    /// The policy's revision; 0 where a message was refused before policy was asked.
    pub revision: u64,
    /// Programs inside of the kernel decided it; else it was the proxy.
    pub by_kernel: bool,
}

/// One side of a flow.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Party<'a> {
    /// Where it is, if that is known.
    pub address: Option<SocketAddr>,
    /// The number of its identity; 0: unknown.
    pub identity: u32,
    /// Its labels, joined by commas.
    pub labels: &'a str,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Asked<'a> {
    /// A connection that was judged as a whole.
    Connection,
    /// An HTTP or gRPC request.
    #[non_exhaustive]
    Http {
        /// Its method.
        method: &'a [u8],
        /// `Host` or `:authority`.
        host: &'a [u8],
        /// Path and query, normalised. The query may hold secrets.
        path: &'a [u8],
        /// What came of it; `None`: it was told before that is known.
        answer: Option<Answer>,
    },
    /// A Kafka request.
    #[non_exhaustive]
    Kafka {
        /// The name of its API.
        api: &'a str,
        /// What the client calls itself.
        client_id: &'a [u8],
        /// Its consumer group; empty: none.
        group: &'a [u8],
        /// Its topics, as the log has room for.
        topics: Topics<'a>,
        /// The error code that was answered; `None`: there was no answer.
        error: Option<i16>,
        /// How long it took.
        duration: Duration,
    },
    /// A message that was not accepted, whatever policy says.
    #[non_exhaustive]
    Refused {
        /// `http1`, `kafka`, …
        protocol: &'a str,
    },
    /// A connection that was reset for want of room, of a destination, or of somebody whose it is, whatever
    /// policy says; which of these is the flow's reason. Nobody's identity has been looked up.
    Limit,
}

/// What came of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// 0: the connection ended before there was one.
    pub status: u16,
    /// The proxy wrote it.
    pub local: bool,
    /// The gRPC status, if it is a call and came so far.
    pub grpc_status: Option<u8>,
    /// How long it took.
    pub duration: Duration,
}

/// The topics of a Kafka request.
#[derive(Clone, Copy)]
pub struct Topics<'a>(pub(crate) crate::telemetry::LoggedTopics<'a>);

impl<'a> Topics<'a> {
    /// Those that the request was allowed to use.
    pub fn allowed(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.which(false)
    }

    /// Those that it was denied.
    pub fn denied(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.which(true)
    }
}

impl fmt::Debug for Topics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |topic| String::from_utf8_lossy(topic);
        f.debug_list().entries(self.allowed().chain(self.denied()).map(text)).finish()
    }
}

/// An observer, or none, inside of a configuration.
#[derive(Clone, Default)]
pub struct Observing(pub(crate) Option<Arc<dyn Observer>>);

impl Observing {
    /// To be told to this one.
    pub fn by(observer: impl Observer + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    /// Tells it, if there is anybody; else `flow` is not even made.
    pub(crate) fn tell<'a>(&self, flow: impl FnOnce() -> Flow<'a>) {
        if let Some(observer) = self.listening() {
            observer.observe(&flow());
        }
    }

    /// Whether anybody listens now.
    pub(crate) fn is_on(&self) -> bool {
        self.listening().is_some()
    }

    fn listening(&self) -> Option<&dyn Observer> {
        self.0.as_deref().filter(|observer| observer.is_wanted())
    }
}

impl fmt::Debug for Observing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observing" } else { "Unobserved" })
    }
}
