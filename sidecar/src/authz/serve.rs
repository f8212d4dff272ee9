//! Connections of the proxies that ask, served until they are to end.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portreeve_core::guard::Guard;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{auth_request, grpc};

/// Connections at once on one address. A proxy opens one or a few for each of its threads.
const CONNECTIONS: usize = 1024;

/// Checks at once on one connection of Envoy's.
const STREAMS: u32 = 1024;

/// Time for a head of nginx's, which comes in one piece.
const HEAD: Duration = Duration::from_secs(10);

/// Time that checks under way get when the server ends: they take no time by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// How long accepting pauses when the process has run out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Who asks, and what answers.
#[derive(Clone)]
pub(super) enum Service {
    /// gRPC.
    Envoy {
        guard: Guard,
        /// The port that policy sees; `None`: the one that Envoy names.
        port: Option<u16>,
    },
    /// HTTP.
    Nginx(Guard),
}

/// Everything that listens.
pub(super) struct Server {
    listening: JoinSet<()>,
    ending: watch::Sender<bool>,
}

impl Server {
    pub(super) fn start(services: Vec<(TcpListener, Service)>) -> Self {
        let ending = watch::Sender::new(false);
        let mut listening = JoinSet::new();
        for (listener, service) in services {
            listening.spawn(accept(listener, service, ending.subscribe()));
        }
        Self { listening, ending }
    }

    /// Accepts nothing more and waits until all connections have ended, or their time is up.
    pub(super) async fn drain(mut self) {
        self.ending.send_replace(true);
        let all = async { while self.listening.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("cutting what is left");
        }
    }
}

async fn accept(listener: TcpListener, service: Service, mut ending: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = ending.wait_for(|ending| *ending) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, service.clone(), ending.clone()));
            }
            Err(error) => {
                tracing::warn!("can't accept: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: TcpStream, service: Service, ending: watch::Receiver<bool>) {
    // An answer is one small write.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(stream);
    let served = match service {
        Service::Envoy { guard, port } => envoy(io, guard, port, ending).await,
        Service::Nginx(guard) => nginx(io, guard, ending).await,
    };
    if let Err(error) = served {
        tracing::debug!("a connection ended: {error}");
    }
}

async fn envoy(
    io: TokioIo<TcpStream>,
    guard: Guard,
    port: Option<u16>,
    mut ending: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = guard.clone();
        async move { Ok::<_, Infallible>(grpc::answer(guard, port, request).await) }
    });
    let mut connection = pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .serve_connection(io, service)
    );
    tokio::select! {
        served = connection.as_mut() => return served,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn nginx(
    io: TokioIo<TcpStream>,
    guard: Guard,
    mut ending: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, _) = request.into_parts();
        let answer: Response<Full<Bytes>> = auth_request::answer(&guard, &parts);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(io, service)
    );
    tokio::select! {
        served = connection.as_mut() => return served,
        _ = ending.wait_for(|ending| *ending) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
