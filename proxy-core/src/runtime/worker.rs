//! A worker thread: an event loop, the listeners it accepts from, and a sweeper.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_protocols::{http1, http2, kafka};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::{Crowd, Pace, Signals, Tenants, Throttle};
use crate::http2::KnownServers;
use crate::limits::Limits;
use crate::listener::{self, Bound};
use crate::redirection::{AsClient, Bypass};
use crate::telemetry::WorkerTelemetry;

/// How often deadlines are looked at and the access log is passed on.
const SWEEP: Duration = Duration::from_millis(200);
/// Policies that are replaced so soon after another are looked at together.
const TOGETHER: Duration = Duration::from_millis(5);

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
    pub(crate) crowd: Arc<Crowd>,
    /// What is not about one endpoint among others.
    pub(crate) telemetry: Arc<WorkerTelemetry>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) http1: Arc<http1::Limits>,
    pub(crate) http2: Arc<http2::Limits>,
    pub(crate) kafka: Arc<kafka::Limits>,
    pub(crate) stage: watch::Receiver<Stage>,
    /// Which upstreams speak HTTP/2, as far as clients asked for it.
    pub(crate) known_servers: Arc<KnownServers>,
    /// The way to the workload past the programs that feed this proxy.
    pub(crate) bypass: Option<Arc<Bypass>>,
    /// How upstream connections are opened on a node.
    pub(crate) as_client: Option<Arc<AsClient>>,
    /// Whose turn it is, where there are many endpoints.
    pub(crate) pace: Arc<Pace>,
    /// What the workload sends may come past TCP.
    pub(crate) joins_sockets: bool,
    /// Of messages about upstreams that can't be reached.
    pub(crate) unreachable: Throttle,
    /// Of messages about connections without a destination, or of nobody here.
    pub(crate) undirected: Throttle,
}

/// Runs a worker on this thread until it has drained. `changed` tells of policies that are replaced.
///
/// # Errors
/// When the event loop can't be set up.
pub(crate) fn run<T>(
    tenants: Arc<Tenants>,
    listeners: Vec<Bound>,
    changed: watch::Receiver<T>,
) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        for bound in listeners {
            tokio::spawn(listener::accept(bound, tenants.clone()));
        }
        if let Tenants::Many(many) = &*tenants {
            let pace = many.worker.pace.clone();
            tokio::spawn(async move { pace.run().await });
        }
        sweep(&tenants, changed).await;
    });
    Ok(())
}

/// Another policy is in force, now or since `not_before`: those of many tenants change one after another, and
/// wake nobody each by itself.
async fn changed<T>(
    policies: &mut watch::Receiver<T>,
    not_before: tokio::time::Instant,
) -> Result<(), watch::error::RecvError> {
    tokio::time::sleep_until(not_before).await;
    policies.changed().await
}

/// Looks after the worker's connections until the last one has ended and the proxy is draining.
async fn sweep<T>(tenants: &Tenants, mut policies: watch::Receiver<T>) {
    let worker = tenants.worker();
    let crowd = &worker.crowd;
    let mut stage = worker.stage.clone();
    // One for all turns: what else happens, however often, puts no deadline off.
    let mut due = tokio::time::interval(SWEEP);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut not_before = tokio::time::Instant::now();
    loop {
        let idle = crowd.active() == 0;
        let current = *stage.borrow();
        if current != Stage::Running && idle {
            break;
        }
        tokio::select! {
            _ = due.tick(), if !idle => tenants.sweep(Instant::now()),
            () = crowd.changed.notified() => {}
            Ok(()) = changed(&mut policies, not_before) => {
                tenants.review();
                not_before = tokio::time::Instant::now() + TOGETHER;
            }
            changed = stage.changed() => match changed.map(|()| *stage.borrow()) {
                Ok(Stage::Running) => {}
                Ok(Stage::Draining) => tenants.signal_all(Signals::DRAIN),
                Ok(Stage::Stopping) => tenants.signal_all(Signals::ABORT),
                // Nobody is left who could end this worker in order.
                Err(_) => break,
            },
        }
        worker.telemetry.flush();
    }
    worker.telemetry.flush();
}
