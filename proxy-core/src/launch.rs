//! What starting a proxy is made of, whoever's policies it carries out: addresses bound, worker threads and
//! the control thread started, and all of them joined in the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use crate::config::ListenerConfig;
use crate::control::{self, Command, Control, Policies};
use crate::endpoints::Endpoints;
use crate::limits::Limits;
use crate::listener::{self, Bound};
use crate::proxy::{Remote, StartError};
use crate::redirection::{AsClient, Bypass, Redirection};
use crate::runtime::{self, Crowd, Many, Stage, Tenant, Tenants, Throttle, Worker};
use crate::snapshot::SnapshotStore;
use crate::telemetry::Telemetry;
use crate::watch::PolicyWatch;

/// The sockets of a proxy that is about to start.
pub(crate) struct Listening {
    /// Of each listener, one for each worker.
    pub(crate) listeners: Vec<Vec<Bound>>,
    workers: usize,
    admin: Option<std::net::TcpListener>,
}

impl Listening {
    /// Binds everything.
    ///
    /// # Errors
    /// [`StartError::Listen`] and [`StartError::Admin`].
    pub(crate) fn bind(
        listeners: &[ListenerConfig],
        workers: Option<NonZeroUsize>,
        admin: Option<SocketAddr>,
        redirection: Option<&Arc<dyn Redirection>>,
    ) -> Result<Self, StartError> {
        let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let workers = workers.unwrap_or_else(cores).get();
        let bind = |listener: &ListenerConfig| {
            listener::bind(listener, workers, redirection).map_err(|source| StartError::Listen {
                name: listener.name.clone(),
                address: listener.listen,
                source,
            })
        };
        let listeners = listeners.iter().map(bind).collect::<Result<_, _>>()?;
        let admin = admin.map(bind_admin).transpose()?;
        Ok(Self { listeners, workers, admin })
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|sockets| sockets[0].settings.address).collect()
    }
}

fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Admin { address, source })
}

/// Whose connections the workers serve.
pub(crate) enum Whose {
    One(Arc<SnapshotStore>),
    Many(Arc<Endpoints>),
}

/// The workers of a proxy that is about to start, and what they have in common.
pub(crate) struct Crew {
    pub(crate) limits: Limits,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) bypass: Option<Arc<Bypass>>,
    pub(crate) as_client: Option<Arc<AsClient>>,
    pub(crate) joins_sockets: bool,
    pub(crate) whose: Whose,
}

impl Crew {
    /// Starts all threads.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub(crate) fn start(
        self,
        mut listening: Listening,
        policies: Policies,
        watched: Option<PolicyWatch>,
    ) -> Result<Running, StartError> {
        let addresses = listening.addresses();
        let admin_listener = listening.admin.take();
        let admin = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (stage, staged) = watch::channel(Stage::Running);
        let (works, working) = mpsc::channel(1);
        let workers = self.spawn_workers(listening, &stage, &works)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let control = Control {
            policies,
            drain_timeout: self.limits.drain_timeout,
            telemetry: self.telemetry.clone(),
            stage,
            commands: commands.clone(),
        };
        let control = control::spawn(control, receiver, watched, admin_listener)
            .map_err(StartError::Thread)?;
        let telemetry = self.telemetry;
        Ok(Running { addresses, admin, commands, workers, control, telemetry, working, staged })
    }

    fn spawn_workers(
        &self,
        listening: Listening,
        stage: &watch::Sender<Stage>,
        works: &mpsc::Sender<Infallible>,
    ) -> Result<Vec<WorkerThread>, StartError> {
        let count = listening.workers;
        let mut sockets: Vec<Vec<Bound>> = (0..count).map(|_| Vec::new()).collect();
        for listener in listening.listeners {
            for (worker, bound) in sockets.iter_mut().zip(listener) {
                worker.push(bound);
            }
        }
        let crew = self.workers(count, stage);
        let threads = sockets.into_iter().zip(crew).map(|(sockets, worker)| {
            let works = works.clone();
            let (index, crowd) = (worker.index, worker.crowd.clone());
            let run = self.with_tenants(worker, sockets);
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _works = works;
                    if let Err(error) = run() {
                        tracing::error!(%error, "worker {index} can't run");
                    }
                })
                .map(|thread| WorkerThread { thread, crowd })
                .map_err(StartError::Thread)
        });
        threads.collect()
    }

    /// The workers, with what they share in one copy.
    fn workers(&self, count: usize, stage: &watch::Sender<Stage>) -> Vec<Worker> {
        let limits = Arc::new(self.limits.clone());
        let http1 = Arc::new(limits.http1.clone());
        let http2 = Arc::new(limits.http2.clone());
        let kafka = Arc::new(limits.kafka.clone());
        let known_servers = Arc::default();
        let worker = |index| Worker {
            index,
            crowd: Arc::new(Crowd::new(limits.connections.div_ceil(count))),
            telemetry: self.telemetry.worker(),
            limits: limits.clone(),
            http1: http1.clone(),
            http2: http2.clone(),
            kafka: kafka.clone(),
            known_servers: Arc::clone(&known_servers),
            stage: stage.subscribe(),
            bypass: self.bypass.clone(),
            as_client: self.as_client.clone(),
            pace: Arc::default(),
            joins_sockets: self.joins_sockets,
            unreachable: Throttle::default(),
            undirected: Throttle::default(),
        };
        (0..count).map(worker).collect()
    }

    /// What a worker's thread runs.
    fn with_tenants(
        &self,
        worker: Worker,
        sockets: Vec<Bound>,
    ) -> Box<dyn FnOnce() -> std::io::Result<()> + Send> {
        let worker = Arc::new(worker);
        match &self.whose {
            Whose::One(snapshots) => {
                let changed = snapshots.watch();
                let tenant = Tenant::alone(worker, snapshots.clone());
                let tenants = Arc::new(Tenants::One(Arc::new(tenant)));
                Box::new(move || runtime::run(tenants, sockets, changed))
            }
            Whose::Many(endpoints) => {
                let changed = endpoints.watch();
                let tenants = Arc::new(Tenants::Many(Many {
                    endpoints: endpoints.clone(),
                    telemetry: self.telemetry.clone(),
                    worker,
                    met: Default::default(),
                }));
                Box::new(move || runtime::run(tenants, sockets, changed))
            }
        }
    }
}

/// Why a running proxy does not serve, or not with all it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// It was asked to drain, or to stop.
    #[error("it accepts nothing more: it was asked to end")]
    Draining,
    /// Threads that were to serve as long as it runs.
    #[error("{ended} of {of} worker threads have ended: what they were to accept is lost")]
    Workers {
        /// How many have ended.
        ended: usize,
        /// How many there were.
        of: usize,
    },
    /// The thread that obeys.
    #[error("its control thread has ended: it can't be steered any more")]
    Control,
}

/// A thread that serves, and how many connections it has.
#[derive(Debug)]
struct WorkerThread {
    thread: JoinHandle<()>,
    crowd: Arc<Crowd>,
}

/// A proxy's threads.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    commands: mpsc::UnboundedSender<Command>,
    workers: Vec<WorkerThread>,
    control: JoinHandle<()>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Held by every worker: it closes with the last one.
    working: mpsc::Receiver<Infallible>,
    staged: watch::Receiver<Stage>,
}

impl Running {
    pub(crate) fn remote(&self) -> Remote {
        Remote { commands: self.commands.clone(), telemetry: self.telemetry.clone() }
    }

    /// Why it does not serve, or not with all it has.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let ended = self.workers.iter().filter(|worker| worker.thread.is_finished()).count();
        if *self.staged.borrow() != Stage::Running {
            Some(Trouble::Draining)
        } else if ended > 0 {
            Some(Trouble::Workers { ended, of: self.workers.len() })
        } else {
            self.control.is_finished().then_some(Trouble::Control)
        }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.crowd.active()).sum()
    }

    pub(crate) async fn drained(&mut self) {
        while self.working.recv().await.is_some() {}
    }

    pub(crate) fn join(self) {
        for worker in self.workers {
            let _ = worker.thread.join();
        }
        let _ = self.commands.send(Command::Leave);
        let _ = self.control.join();
        self.telemetry.shutdown();
    }
}
