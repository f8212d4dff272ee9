//! A whole proxy: started from a configuration, reloaded, drained, joined.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use portreeve_policy::{Service, Source};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::ProxyConfig;
use crate::control::{self, Command, Control};
use crate::http2::KnownServers;
use crate::listener::{self, Bound};
use crate::policy_files::PolicyFilesError;
use crate::policy_loader::{LoadError, PolicyLoader};
use crate::redirection::{Bypass, Redirection, Refusal, Reporter};
use crate::runtime::{self, Registry, Stage, Throttle, Worker};
use crate::snapshot::SnapshotStore;
use crate::telemetry::{Telemetry, TelemetryError};
use crate::watch::PolicyWatch;

/// Why a proxy did not start. Nothing is left running or bound.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Policy can't be loaded; without one nothing would be allowed.
    #[error(transparent)]
    Policy(#[from] LoadError),
    /// A listener's address can't be had.
    #[error("listener `{name}` can't listen on {address}: {source}")]
    Listen {
        /// The listener's name.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The admin server's address can't be had.
    #[error("the admin server can't listen on {address}: {source}")]
    Admin {
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel programs can't carry the first policy out, or can't be put to work.
    #[error("{0}")]
    Redirection(#[source] Refusal),
    /// They can't turn connections to a listener.
    #[error(
        "the kernel programs can't turn connections to listener `{name}` on {address}: {source}"
    )]
    Listening {
        /// The listener's name.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What they said.
        source: io::Error,
    },
    /// The access log can't be opened.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Threads can't be started.
    #[error("can't start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// Whether the policy, rather than the system, is to be mended.
    #[must_use]
    pub fn is_policy(&self) -> bool {
        matches!(self, Self::Policy(_))
    }

    /// Whether policy files are missing rather than wrong.
    #[must_use]
    pub fn is_missing_policy(&self) -> bool {
        matches!(
            self,
            Self::Policy(LoadError::Files(
                PolicyFilesError::Read { .. } | PolicyFilesError::Nothing(_)
            ))
        )
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    commands: mpsc::UnboundedSender<Command>,
    workers: Vec<JoinHandle<()>>,
    control: JoinHandle<()>,
    telemetry: Arc<Telemetry>,
    snapshots: Arc<SnapshotStore>,
    /// Held by every worker: it closes with the last one.
    working: mpsc::Receiver<Infallible>,
}

impl Proxy {
    /// Loads policy, binds all addresses and starts to serve. When it returns, connections are
    /// accepted.
    ///
    /// # Errors
    /// [`StartError`], with nothing left behind.
    pub fn start(config: ProxyConfig) -> Result<Self, StartError> {
        let watched = PolicyWatch::of(&config.policy);
        let loader = Arc::new(PolicyLoader::new(&config));
        let telemetry = Telemetry::new(&config.access_log, config.observer.clone())?;
        let snapshots = Arc::new(SnapshotStore::new(loader.load(|_| Ok(()))?));
        let workers = worker_count(config.workers);
        let listeners = bind_all(&config, workers)?;
        let addresses = listeners.iter().map(|sockets| sockets[0].settings.address).collect();
        let admin_listener = config.admin.map(bind_admin).transpose()?;
        let admin = match &admin_listener {
            Some(listener) => listener.local_addr().ok(),
            None => None,
        };
        if let Some(redirection) = &config.redirection {
            turn_here(redirection.as_ref(), &config, &listeners, &snapshots)?;
        }

        let (stage, _) = watch::channel(Stage::Running);
        let shared = Shared { config: &config, telemetry: &telemetry, snapshots: &snapshots };
        let (works, working) = mpsc::channel(1);
        let workers = shared.spawn_workers(listeners, workers, &stage, &works)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let control = Control {
            config: Arc::new(config),
            loader,
            snapshots: snapshots.clone(),
            telemetry: telemetry.clone(),
            stage,
            commands: commands.clone(),
        };
        let control = control::spawn(control, receiver, watched, admin_listener)
            .map_err(StartError::Thread)?;
        Ok(Self { addresses, admin, commands, workers, control, telemetry, snapshots, working })
    }

    /// Where each listener listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin server listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// A way to steer the proxy from another thread.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote { commands: self.commands.clone(), telemetry: self.telemetry.clone() }
    }

    /// Who takes down what the kernel has decided.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter::new(self.telemetry.worker(), self.snapshots.clone())
    }

    /// The same as [`Proxy::join`] for who must not block: waits until the proxy has drained. To stop
    /// waiting leaves it running, with [`Remote`] to steer it.
    pub async fn ended(mut self) {
        self.drained().await;
        // The workers are gone; what is left takes no time.
        self.join();
    }

    /// Waits until all connections have ended. The access log is still written, until [`Proxy::join`]:
    /// time for a [`Reporter`]'s last lines.
    pub async fn drained(&mut self) {
        while self.working.recv().await.is_some() {}
    }

    /// Waits until the proxy has drained. Returns at once only if it already has.
    pub fn join(self) {
        for worker in self.workers {
            let _ = worker.join();
        }
        let _ = self.commands.send(Command::Leave);
        let _ = self.control.join();
        self.telemetry.shutdown();
    }
}

/// Steers a running proxy; cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    commands: mpsc::UnboundedSender<Command>,
    telemetry: Arc<Telemetry>,
}

impl Remote {
    /// Reads policy again. The outcome is logged and shown by the admin server.
    pub fn reload(&self) {
        let _ = self.commands.send(Command::Reload(None));
    }

    /// Reads policy again, which refers to these services from now on.
    pub fn reload_with(&self, services: Vec<Service>) {
        let _ = self.commands.send(Command::ReloadWith(services));
    }

    /// Puts other documents in the place of those that the program handed over, for the next request
    /// of every connection. If they have errors, those in force stay.
    ///
    /// # Errors
    /// [`LoadError`]; [`LoadError::ReadFromFiles`] if policy comes from files, [`LoadError::Ended`] if
    /// the proxy has ended.
    pub async fn update(&self, documents: Vec<Source>) -> Result<u64, LoadError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Update(documents, answer));
        answered.await.unwrap_or(Err(LoadError::Ended))
    }

    /// Stops accepting, lets connections end between messages, and cuts what is left after the
    /// drain time-out. [`Proxy::join`] returns when that is done.
    pub fn drain(&self) {
        let _ = self.commands.send(Command::Drain);
    }

    /// Cuts all connections and ends.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Opens the access log file again, after it was rotated.
    pub fn reopen_logs(&self) {
        self.telemetry.reopen();
    }
}

fn worker_count(configured: Option<NonZeroUsize>) -> usize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    configured.unwrap_or_else(cores).get()
}

fn bind_all(config: &ProxyConfig, workers: usize) -> Result<Vec<Vec<Bound>>, StartError> {
    let bind = |listener: &crate::config::ListenerConfig| {
        listener::bind(listener, workers, config.redirection.as_ref()).map_err(|source| {
            StartError::Listen { name: listener.name.clone(), address: listener.listen, source }
        })
    };
    config.listeners.iter().map(bind).collect()
}

/// Has the kernel carry out the first policy, then turn connections to the listeners. The sockets listen
/// already: what comes before the workers run waits.
fn turn_here(
    redirection: &dyn Redirection,
    config: &ProxyConfig,
    listeners: &[Vec<Bound>],
    snapshots: &SnapshotStore,
) -> Result<(), StartError> {
    let first = snapshots.load();
    redirection.policy(first.revision, &first.policy).map_err(StartError::Redirection)?;
    for (listener, sockets) in config.listeners.iter().zip(listeners) {
        let Some(Bound { socket, settings }) = sockets.first() else { continue };
        if settings.redirection.is_none() {
            continue;
        }
        let (direction, address) = (settings.direction, settings.address);
        redirection.listening(direction, address, socket.as_fd()).map_err(|source| {
            StartError::Listening { name: listener.name.clone(), address, source }
        })?;
    }
    Ok(())
}

fn bind_admin(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| StartError::Admin { address, source })
}

struct Shared<'a> {
    config: &'a ProxyConfig,
    telemetry: &'a Arc<Telemetry>,
    snapshots: &'a Arc<SnapshotStore>,
}

impl Shared<'_> {
    fn spawn_workers(
        &self,
        listeners: Vec<Vec<Bound>>,
        count: usize,
        stage: &watch::Sender<Stage>,
        works: &mpsc::Sender<Infallible>,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let limits = Arc::new(self.config.limits.clone());
        let http1 = Arc::new(limits.http1.clone());
        let http2 = Arc::new(limits.http2.clone());
        let kafka = Arc::new(limits.kafka.clone());
        let known_servers = Arc::<KnownServers>::default();
        let bypass =
            self.config.redirection.clone().map(|redirection| Arc::new(Bypass::new(redirection)));
        let joins_sockets =
            self.config.redirection.as_ref().is_some_and(|redirection| redirection.joins_sockets());
        let mut sockets: Vec<Vec<Bound>> = (0..count).map(|_| Vec::new()).collect();
        for listener in listeners {
            for (worker, bound) in sockets.iter_mut().zip(listener) {
                worker.push(bound);
            }
        }
        let mut threads = Vec::with_capacity(count);
        for (index, sockets) in sockets.into_iter().enumerate() {
            let worker = Arc::new(Worker {
                index,
                registry: Arc::new(Registry::new(limits.connections.div_ceil(count))),
                telemetry: self.telemetry.worker(),
                snapshots: self.snapshots.clone(),
                limits: limits.clone(),
                http1: http1.clone(),
                http2: http2.clone(),
                kafka: kafka.clone(),
                known_servers: known_servers.clone(),
                stage: stage.subscribe(),
                bypass: bypass.clone(),
                joins_sockets,
                unreachable: Throttle::default(),
                undirected: Throttle::default(),
            });
            let works = works.clone();
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _works = works;
                    if let Err(error) = runtime::run(worker, sockets) {
                        tracing::error!(%error, "worker {index} can't run");
                    }
                })
                .map_err(StartError::Thread)?;
            threads.push(thread);
        }
        Ok(threads)
    }
}
