//! A whole proxy: started from a configuration, reloaded, drained, joined.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use portreeve_policy::{Service, Source};
use tokio::sync::{mpsc, oneshot};

use crate::config::ProxyConfig;
use crate::control::{Command, OnePolicy, Policies};
use crate::launch::{Crew, Listening, Running, Whose};
use crate::listener::Bound;
use crate::policy_files::PolicyFilesError;
use crate::policy_loader::{LoadError, PolicyLoader};
use crate::redirection::{Bypass, Redirection, Refusal, Reporter};
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
    running: Running,
    snapshots: Arc<SnapshotStore>,
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
        let listening = Listening::bind(
            &config.listeners,
            config.workers,
            config.admin,
            config.redirection.as_ref(),
        )?;
        if let Some(redirection) = &config.redirection {
            turn_here(redirection.as_ref(), &config, &listening.listeners, &snapshots)?;
        }
        let redirection = config.redirection.clone();
        let crew = Crew {
            limits: config.limits.clone(),
            telemetry: telemetry.clone(),
            joins_sockets: redirection.as_ref().is_some_and(|by| by.joins_sockets()),
            bypass: redirection.map(|redirection| Arc::new(Bypass::new(redirection))),
            as_client: None,
            whose: Whose::One(snapshots.clone()),
        };
        let one =
            OnePolicy { config: Arc::new(config), loader, snapshots: snapshots.clone(), telemetry };
        let running = crew.start(listening, Policies::One(one), watched)?;
        Ok(Self { running, snapshots })
    }

    /// Where each listener listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.running.addresses
    }

    /// Where the admin server listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.running.admin
    }

    /// A way to steer the proxy from another thread.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.running.remote()
    }

    /// Who takes down what the kernel has decided.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter::new(self.running.telemetry.worker(), self.snapshots.clone())
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
        self.running.drained().await;
    }

    /// Waits until the proxy has drained. Returns at once only if it already has.
    pub fn join(self) {
        self.running.join();
    }
}

/// Steers a running proxy; cheap to clone.
#[derive(Clone, Debug)]
pub struct Remote {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) telemetry: Arc<Telemetry>,
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
