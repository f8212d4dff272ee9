//! The way of a new connection: accepted, its destination and its peer found, judged at L4, and
//! handed to the relay with the gate that policy asks for.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_policy::TrafficDirection;
use tokio::net::{TcpListener, TcpStream};

use super::original_destination::destination;
use super::{Bound, Settings};
use crate::endpoints::Role;
use crate::inspect::{self, Connection};
use crate::runtime::{Judges, Registration, Stage, Tenants, Worker};
use crate::telemetry::{Limit, LimitRecord, WorkerTelemetry};

/// How long accepting pauses when the process has run out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections accepted before those of a node's other endpoints get their turn.
const AT_ONCE: u64 = 8;

/// Accepts until the proxy drains.
pub(crate) async fn accept(bound: Bound, tenants: Arc<Tenants>) {
    let Bound { socket, settings } = bound;
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %settings.address, %error, "can't listen");
            return;
        }
    };
    let mut stage = tenants.worker().stage.clone();
    let many = matches!(*tenants, Tenants::Many(_));
    let mut sequence = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage != Stage::Running) => break,
            accepted = listener.accept() => accepted,
        };
        sequence += 1;
        match accepted {
            Ok((client, address)) => open(client, address, sequence, &settings, &tenants),
            Err(error) => pause(&error, &settings).await,
        }
        if many && sequence % AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
    // What the kernel has accepted on our behalf would be reset with the socket.
    while let Some(Ok((client, address))) = ready(&listener).await {
        sequence += 1;
        open(client, address, sequence, &settings, &tenants);
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
    tenants: &Tenants,
) {
    let worker = tenants.worker();
    let direction = settings.direction;
    let hit = |limit, upstream| LimitRecord { direction, client: address, upstream, limit };
    if worker.crowd.is_full() {
        worker.telemetry.limit_hit(&hit(Limit::Connections, None));
        reset(client);
        return;
    }
    if client.set_nodelay(true).is_err() {
        // Already reset by the client.
        return;
    }
    let upstream = match destination(settings, &client, address) {
        Ok(upstream) => upstream,
        Err(error) => {
            undirected(worker, &hit(Limit::NoDestination, None), &error);
            reset(client);
            return;
        }
    };
    let judges = match tenants.judges(settings.direction, address.ip(), upstream.ip()) {
        Ok(judges) => judges,
        Err(error) => {
            undirected(worker, &hit(Limit::NoEndpoint, Some(upstream)), &error);
            reset(client);
            return;
        }
    };
    let share = judges.near.0.share();
    let began = share.map(|share| (share, Instant::now()));
    match register(judges, settings, (address, upstream), sequence) {
        Ok((connection, registration)) => {
            inspect::start(client, settings, connection, registration)
        }
        Err((full, direction)) => {
            full.limit_hit(&LimitRecord { direction, ..hit(Limit::Connections, Some(upstream)) });
            reset(client);
        }
    }
    if let Some((share, began)) = began {
        share.charge(began.elapsed());
    }
}

/// Takes a connection into the books of all who judge it.
///
/// # Errors
/// Who has no room for it, and which way it goes for him.
fn register(
    judges: Judges,
    settings: &Settings,
    (client, upstream): (SocketAddr, SocketAddr),
    sequence: u64,
) -> Result<(Connection, Registration), (Arc<WorkerTelemetry>, TrafficDirection)> {
    let (near, direction) = &judges.near;
    let role = match direction {
        TrafficDirection::Egress => Role::Client,
        TrafficDirection::Ingress => Role::Server(client.ip().to_canonical()),
    };
    let full = || (near.telemetry.clone(), *direction);
    let registration = near.registry.register(role).ok_or_else(full)?;
    let connection = Connection::new(judges, settings, client, upstream, sequence, &registration);
    // The far one is the server.
    let connection = connection.map_err(|full| (full, TrafficDirection::Ingress))?;
    Ok((connection, registration))
}

fn undirected(worker: &Worker, hit: &LimitRecord, error: &dyn Error) {
    let client = hit.client;
    if let Some(held_back) = worker.undirected.pass(Instant::now()) {
        tracing::warn!(%client, held_back, "connection refused: {error}");
    }
    worker.telemetry.limit_hit(hit);
}

/// Ends a connection with a reset: the client sees an error at once, and no state stays behind.
pub(crate) fn reset(client: TcpStream) {
    let _ = client.set_zero_linger();
    drop(client);
}
