//! The control thread: whatever is not on the way of a request. It reloads policy, serves the
//! admin endpoints and counts the time that draining takes.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portreeve_policy::{EndpointPolicy, Service, Source};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin;
use crate::config::ProxyConfig;
use crate::endpoints::Endpoints;
use crate::policy_loader::{Admit, LoadError, PolicyLoader};
use crate::redirection::KernelCounting;
use crate::runtime::Stage;
use crate::snapshot::SnapshotStore;
use crate::telemetry::Telemetry;
use crate::watch::PolicyWatch;

/// What the control thread is told to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Read policy again; the answer is the new revision or the error in full.
    Reload(Option<oneshot::Sender<Result<u64, String>>>),
    /// The same, with other services for it to refer to.
    ReloadWith(Vec<Service>),
    /// Put documents in the place of those in force.
    Update(Vec<Source>, oneshot::Sender<Result<u64, LoadError>>),
    Drain,
    Stop,
    /// The workers have ended.
    Leave,
}

/// The control thread's state, also what the admin server shows.
pub(crate) struct Control {
    pub(crate) policies: Policies,
    pub(crate) drain_timeout: Duration,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
}

/// Whose policies are in force.
pub(crate) enum Policies {
    /// One workload's, which this thread loads.
    One(OnePolicy),
    /// Those of a node's endpoints, which the program sets.
    Many(Arc<Endpoints>, KernelCounting),
}

/// The policy of one workload.
pub(crate) struct OnePolicy {
    pub(crate) config: Arc<ProxyConfig>,
    pub(crate) loader: Arc<PolicyLoader>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Starts the control thread.
///
/// # Errors
/// When the thread or its event loop can't be set up.
pub(crate) fn spawn(
    control: Control,
    commands: mpsc::UnboundedReceiver<Command>,
    watched: Option<PolicyWatch>,
    admin: Option<std::net::TcpListener>,
) -> io::Result<JoinHandle<()>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || runtime.block_on(run(Arc::new(control), commands, watched, admin)))
}

async fn run(
    control: Arc<Control>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut watched: Option<PolicyWatch>,
    admin: Option<std::net::TcpListener>,
) {
    if let Some(listener) = admin {
        tokio::spawn(admin::serve(listener, control.clone()));
    }
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Drain) => control.drain(),
                Some(Command::Stop) => {
                    control.stage.send_replace(Stage::Stopping);
                }
                Some(Command::Leave) | None => return,
                Some(command) => control.policies.obey(command),
            },
            () = changed(&mut watched) => {
                tracing::info!("policy files have changed");
                control.policies.obey(Command::Reload(None));
            }
        }
    }
}

async fn changed(watched: &mut Option<PolicyWatch>) {
    match watched {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

impl Policies {
    fn obey(&self, command: Command) {
        match self {
            Self::One(one) => one.obey(command),
            // Dropping the answer's sender would say that the proxy ends.
            Self::Many(..) => {
                if let Command::Reload(Some(answer)) = command {
                    let text = "policies are set by the program that runs this proxy: have that read them \
                                again (`portreeve-node` does on SIGHUP)";
                    let _ = answer.send(Err(text.to_owned()));
                }
            }
        }
    }
}

impl OnePolicy {
    fn obey(&self, command: Command) {
        match command {
            Command::Reload(answer) => {
                let result = self.reload().map_err(|error| error.to_string());
                if let Some(answer) = answer {
                    let _ = answer.send(result);
                }
            }
            Command::ReloadWith(services) => {
                self.loader.set_services(services);
                let _ = self.reload();
            }
            Command::Update(documents, answer) => {
                let policy = self.loader.replace(documents, self.admission());
                let _ = answer.send(self.put_in_force(policy));
            }
            Command::Drain | Command::Stop | Command::Leave => {}
        }
    }

    /// Reads policy again and puts it in force. On any error the old one stays.
    fn reload(&self) -> Result<u64, LoadError> {
        self.put_in_force(self.loader.load(self.admission()))
    }

    /// Has the kernel carry out what is about to come into force here; [`Redirection`] says why in this
    /// order.
    ///
    /// [`Redirection`]: crate::redirection::Redirection
    fn admission(&self) -> impl Admit {
        |policy: &EndpointPolicy| match &self.config.redirection {
            Some(redirection) => redirection.policy(self.snapshots.revision() + 1, policy),
            None => Ok(()),
        }
    }

    fn put_in_force(&self, policy: Result<EndpointPolicy, LoadError>) -> Result<u64, LoadError> {
        match policy {
            Ok(policy) => {
                let revision = self.snapshots.replace(policy);
                self.telemetry.policy_reloaded(true);
                tracing::info!(revision, "policy reloaded");
                Ok(revision)
            }
            Err(error) => {
                self.telemetry.policy_reloaded(false);
                let revision = self.snapshots.revision();
                tracing::error!(
                    "policy not reloaded, revision {revision} stays in force:\n{error}"
                );
                Err(error)
            }
        }
    }
}

impl Control {
    fn drain(&self) {
        let draining = self.stage.send_if_modified(|stage| {
            let begins = *stage == Stage::Running;
            if begins {
                *stage = Stage::Draining;
            }
            begins
        });
        if !draining {
            return;
        }
        tracing::info!("draining: no new connections, waiting for those under way");
        let (stage, limit) = (self.stage.clone(), self.drain_timeout);
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            tracing::warn!("drain time-out: cutting what is left");
            stage.send_replace(Stage::Stopping);
        });
    }
}
