//! The way of a new connection: accepted, its destination and its peer found, judged at L4, and
//! handed to the relay with the gate that policy asks for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use super::original_destination::destination;
use super::{Bound, Settings};
use crate::inspect::{self, Connection};
use crate::runtime::{Stage, Worker};

/// How long accepting pauses when the process has run out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the proxy drains.
pub(crate) async fn accept(bound: Bound, worker: Arc<Worker>) {
    let Bound { socket, settings } = bound;
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %settings.address, %error, "can't listen");
            return;
        }
    };
    let mut stage = worker.stage.clone();
    let mut sequence = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage != Stage::Running) => break,
            accepted = listener.accept() => accepted,
        };
        sequence += 1;
        match accepted {
            Ok((client, address)) => open(client, address, sequence, &settings, &worker),
            Err(error) => pause(&error, &settings).await,
        }
    }
    // What the kernel has accepted on our behalf would be reset with the socket.
    while let Some(Ok((client, address))) = ready(&listener).await {
        sequence += 1;
        open(client, address, sequence, &settings, &worker);
    }
}

/// A connection that is there without waiting.
async fn ready(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    tokio::select! {
        biased;
        accepted = listener.accept() => Some(accepted),
        () = std::future::ready(()) => None,
    }
}

async fn pause(error: &io::Error, settings: &Settings) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(address = %settings.address, %error, "can't accept, trying again");
    tokio::time::sleep(PAUSE).await;
}

pub(super) fn open(
    client: TcpStream,
    address: SocketAddr,
    sequence: u64,
    settings: &Arc<Settings>,
    worker: &Arc<Worker>,
) {
    let Some(registration) = worker.registry.register() else {
        worker.telemetry.limit_hit("connections");
        reset(client);
        return;
    };
    if client.set_nodelay(true).is_err() {
        // Already reset by the client.
        return;
    }
    let upstream = match destination(settings, &client, address) {
        Ok(upstream) => upstream,
        Err(error) => {
            if let Some(held_back) = worker.undirected.pass(Instant::now()) {
                tracing::warn!(client = %address, held_back, "connection refused: {error}");
            }
            worker.telemetry.limit_hit("no_destination");
            reset(client);
            return;
        }
    };
    let connection = Connection::new(worker.clone(), settings, address, upstream, sequence);
    inspect::start(client, settings, connection, registration);
}

/// Ends a connection with a reset: the client sees an error at once, and no state stays behind.
pub(crate) fn reset(client: TcpStream) {
    let _ = client.set_zero_linger();
    drop(client);
}
