//! `portreeve run`.

use std::time::Duration;

use portreeve_core::{Proxy, Remote, StartError, raise_file_limit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::RunArguments;
use crate::config::RunConfig;
use crate::redirect::{self, Redirect};
use crate::{Failure, config, logging};

/// How often it is looked whether the workload's cgroup is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until a signal ends it.
pub(crate) fn run(arguments: Box<RunArguments>) -> Result<(), Failure> {
    logging::start(&arguments.log)?;
    let RunConfig { proxy: mut config, redirect, services } = config::from_flags(&arguments)?;
    raise_file_limit();
    let mut redirect = match redirect {
        Some(wanted) => Some(Redirect::prepare(wanted, services, &mut config)?),
        None => None,
    };
    let names: Vec<String> =
        config.listeners.iter().map(|listener| listener.name.clone()).collect();
    // Before anything is bound: a signal that comes early must find somebody.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    let _entered = runtime.enter();
    let mut signals = Signals::new().map_err(Failure::new)?;
    let mut proxy = Proxy::start(config).map_err(|error| start_failure(&error))?;
    if let Some(redirect) = &mut redirect {
        redirect.report_to(proxy.reporter())?;
    }
    for (name, address) in names.iter().zip(proxy.addresses()) {
        tracing::info!("{name} listens on {address}");
    }
    if let Some(address) = proxy.admin_address() {
        tracing::info!("admin server listens on {address}");
    }
    let remote = proxy.remote();
    let mut lost = None;
    runtime.block_on(async {
        let mut ended = std::pin::pin!(proxy.drained());
        let mut asked = false;
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = &mut ended => return,
                _ = look.tick(), if lost.is_none() => {
                    lost = redirect.as_ref().and_then(Redirect::lost);
                    if lost.is_some() {
                        remote.stop();
                    }
                }
                received = signals.next() => {
                    match (received, &redirect) {
                        (Received::Hangup, _) => reload(&arguments, redirect.as_ref(), &remote),
                        (Received::End, Some(redirect)) if !asked => redirect.announce_end(),
                        _ => {}
                    }
                    asked = obey(received, asked, &remote);
                }
            }
        }
    });
    if let Some(redirect) = redirect {
        redirect.finish();
    }
    proxy.join();
    if let Some(why) = lost {
        return Err(Failure::new(why));
    }
    tracing::info!("ended in order");
    Ok(())
}

/// Reads policy again, and of the configuration file the services.
fn reload(arguments: &RunArguments, redirect: Option<&Redirect>, remote: &Remote) {
    let Some(path) = &arguments.config else { return remote.reload() };
    match config::services(path) {
        Ok(services) => {
            remote.reload_with(redirect::directory(&services));
            if let Some(redirect) = redirect {
                redirect.set_services(&services);
            }
        }
        Err(failure) => {
            tracing::error!("services are as they were:\n{}", failure.message);
            remote.reload();
        }
    }
}

fn start_failure(error: &StartError) -> Failure {
    let hint = hint(error).map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    match error.is_policy() {
        true => Failure::policy(format!("{error}{hint}")),
        false => Failure::new(format!("{error}{hint}")),
    }
}

/// What to do about it.
fn hint(error: &StartError) -> Option<&'static str> {
    use std::io::ErrorKind::{AddrInUse, PermissionDenied};
    match error {
        error if error.is_missing_policy() => {
            Some("without policy nothing would be allowed, so the proxy does not start")
        }
        StartError::Admin { source, .. } if source.kind() == AddrInUse => {
            Some("choose another address with `--admin` or `admin.listen`, or `off`")
        }
        StartError::Listen { source, .. } if source.kind() == AddrInUse => {
            Some("somebody listens there already; `ss -ltnp` names the process")
        }
        StartError::Listen { source, .. } | StartError::Admin { source, .. }
            if source.kind() == PermissionDenied =>
        {
            Some("ports below 1024 need CAP_NET_BIND_SERVICE, TPROXY needs CAP_NET_ADMIN")
        }
        _ => None,
    }
}

/// The signals that `--help` lists.
struct Signals {
    hangup: Signal,
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy)]
enum Received {
    Hangup,
    User,
    End,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.hangup.recv() => Received::Hangup,
            _ = self.user.recv() => Received::User,
            _ = self.terminate.recv() => Received::End,
            _ = self.interrupt.recv() => Received::End,
        }
    }
}

/// Does what else a signal asks for; `asked`: to end, before. Whether it was asked by now.
fn obey(received: Received, asked: bool, remote: &Remote) -> bool {
    match received {
        Received::Hangup | Received::User => {
            remote.reopen_logs();
            asked
        }
        Received::End if asked => {
            tracing::warn!("asked twice: ending at once");
            remote.stop();
            true
        }
        Received::End => {
            remote.drain();
            true
        }
    }
}
