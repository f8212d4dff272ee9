//! The upstream connection of a pair: opened when the first request is allowed, then one for as long as
//! the client's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use portreeve_protocols::http2::{Limits, Meter, Refusal};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::wire::{Tally, Wire};
use crate::redirection::Target;

/// Opens transport connections to upstreams.
pub(crate) trait Connect: Send + Unpin {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens one, within the target's limit.
    fn connect(&mut self, target: Target) -> Connecting<Self::Io>;
}

/// A connection that is being opened.
pub(crate) type Connecting<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Over TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToUpstream;

impl Connect for ToUpstream {
    type Io = TcpStream;

    fn connect(&mut self, target: Target) -> Connecting<TcpStream> {
        Box::pin(target.connect())
    }
}

type Opened<T> = (SendRequest<Bytes>, client::Connection<Wire<T>, Bytes>);

/// The upstream side of a pair.
pub(super) enum Upstream<T> {
    /// Nothing has been asked yet, or it could not be opened, or has ended.
    Absent,
    Opening(Pin<Box<dyn Future<Output = io::Result<Opened<T>>> + Send>>, Arc<Tally>),
    Open(Box<Open<T>>),
}

/// An open upstream connection.
pub(super) struct Open<T> {
    connection: client::Connection<Wire<T>, Bytes>,
    /// `None`: nothing more will be asked.
    requests: Option<SendRequest<Bytes>>,
    tally: Arc<Tally>,
}

/// What came of polling the upstream.
pub(super) enum Event {
    Nothing,
    Opened,
    /// It could not be opened.
    Failed(io::Error),
    /// It takes no more requests; those under way go on.
    Leaving,
    /// It has ended, for this reason if the server is to blame.
    Ended(Option<Refusal>),
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Upstream<T> {
    /// Begins to open a connection.
    pub(super) fn open(connecting: Connecting<T>, limits: &Limits) -> Self {
        let meter = Meter::of_server(limits);
        let builder = builder(limits);
        let tally = Arc::<Tally>::default();
        let shared = tally.clone();
        let opening = Box::pin(async move {
            let wire = Wire::new(connecting.await?, Vec::new(), meter, shared);
            builder.handshake(wire).await.map_err(io::Error::other)
        });
        Self::Opening(opening, tally)
    }

    /// The handle for requests, once it is open, and whether the server's SETTINGS have come.
    pub(super) fn requests(&mut self) -> Option<(&mut SendRequest<Bytes>, bool)> {
        match self {
            Self::Open(open) => {
                let settled = open.tally.settled();
                open.requests.as_mut().map(|requests| (requests, settled))
            }
            _ => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// So many frames with something in them are on their way to the server.
    pub(super) fn sent(&self, frames: u32) {
        if let Self::Open(open) = self {
            open.tally.sent(frames);
        }
    }

    /// Whether its socket takes nothing.
    pub(super) fn choked(&self) -> bool {
        matches!(self, Self::Open(open) if open.tally.choked())
    }

    /// Bytes written to the server.
    pub(super) fn written(&self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Opening(_, tally) => tally.written(),
            Self::Open(open) => open.tally.written(),
        }
    }

    /// Carries it on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Event {
        match self {
            Self::Absent => Event::Nothing,
            Self::Opening(opening, tally) => match opening.as_mut().poll(cx) {
                Poll::Pending => Event::Nothing,
                Poll::Ready(Ok((requests, connection))) => {
                    let (requests, tally) = (Some(requests), tally.clone());
                    *self = Self::Open(Box::new(Open { connection, requests, tally }));
                    Event::Opened
                }
                Poll::Ready(Err(error)) => {
                    *self = Self::Absent;
                    Event::Failed(error)
                }
            },
            Self::Open(open) => open.poll(cx),
        }
    }

    /// Nothing more will be asked: it ends once what is under way is over. `false`: it already has.
    pub(super) fn finish(&mut self) -> bool {
        match self {
            Self::Open(open) => {
                open.requests = None;
                true
            }
            _ => {
                *self = Self::Absent;
                false
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Open<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Event {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if let Some(refusal) = self.tally.fault() {
            return Event::Ended(Some(refusal));
        }
        match polled {
            Poll::Ready(Err(error)) if error.is_library() => {
                Event::Ended(Some(Refusal::ResponseProtocol))
            }
            Poll::Ready(_) => Event::Ended(None),
            Poll::Pending => {
                let takes_more = self.requests.as_mut().is_none_or(|requests| {
                    // Pending: a request waits for the server to allow another stream.
                    !matches!(requests.poll_ready(cx), Poll::Ready(Err(_)))
                });
                if takes_more { Event::Nothing } else { Event::Leaving }
            }
        }
    }
}

fn builder(limits: &Limits) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.head_bytes)
        .max_send_buffer_size(limits.send_buffer as usize)
        .data_frame_budget(SMALL_FRAMES);
    builder
}

/// Upstream connections of one pair that may be going away at once.
pub(super) const RETIRED: usize = 3;

/// What the `h2` crate allows small DATA frames that it holds, 256 less its length for each. They are
/// taken from it at every turn, but gRPC clients send thousands of messages at once, a frame each; its
/// default ends their connections.
pub(super) const SMALL_FRAMES: usize = 16 * 1024 * 1024;
