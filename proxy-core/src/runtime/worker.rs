//! A worker thread: an event loop, the listeners it accepts from, and a sweeper.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_protocols::{http1, http2, kafka};
use tokio::sync::watch;

use super::{Registry, Signals, Throttle};
use crate::http2::KnownServers;
use crate::limits::Limits;
use crate::listener::{self, Bound};
use crate::redirection::Bypass;
use crate::snapshot::SnapshotStore;
use crate::telemetry::WorkerTelemetry;

/// How often deadlines are looked at and the access log is passed on.
const SWEEP: Duration = Duration::from_millis(200);

/// Where the proxy stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Accepts and relays.
    Running,
    /// Accepts nothing more; connections end between messages.
    Draining,
    /// Whatever is still open is cut.
    Stopping,
}

/// What the connections of one worker share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) registry: Arc<Registry>,
    pub(crate) telemetry: Arc<WorkerTelemetry>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) http1: Arc<http1::Limits>,
    pub(crate) http2: Arc<http2::Limits>,
    pub(crate) kafka: Arc<kafka::Limits>,
    pub(crate) stage: watch::Receiver<Stage>,
    /// Which upstreams speak HTTP/2, as far as clients asked for it.
    pub(crate) known_servers: Arc<KnownServers>,
    /// The way to the workload past the programs that feed this proxy.
    pub(crate) bypass: Option<Arc<Bypass>>,
    /// What the workload sends may come past TCP.
    pub(crate) joins_sockets: bool,
    /// Of messages about upstreams that can't be reached.
    pub(crate) unreachable: Throttle,
    /// Of messages about connections without a destination.
    pub(crate) undirected: Throttle,
}

/// Runs a worker on this thread until it has drained.
///
/// # Errors
/// When the event loop can't be set up.
pub(crate) fn run(worker: Arc<Worker>, listeners: Vec<Bound>) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        for bound in listeners {
            tokio::spawn(listener::accept(bound, worker.clone()));
        }
        sweep(&worker).await;
    });
    Ok(())
}

/// Looks after the worker's connections until the last one has ended and the proxy is draining.
async fn sweep(worker: &Worker) {
    let registry = &worker.registry;
    let mut revision = worker.snapshots.watch();
    let mut stage = worker.stage.clone();
    loop {
        let idle = registry.active() == 0;
        let current = *stage.borrow();
        if current != Stage::Running && idle {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(SWEEP), if !idle => registry.sweep(Instant::now()),
            () = registry.changed.notified() => {}
            Ok(()) = revision.changed() => registry.signal_all(Signals::REVIEW),
            changed = stage.changed() => match changed.map(|()| *stage.borrow()) {
                Ok(Stage::Running) => {}
                Ok(Stage::Draining) => registry.signal_all(Signals::DRAIN),
                Ok(Stage::Stopping) => registry.signal_all(Signals::ABORT),
                // Nobody is left who could end this worker in order.
                Err(_) => break,
            },
        }
        worker.telemetry.flush();
    }
    worker.telemetry.flush();
}
