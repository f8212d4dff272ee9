//! `portreeve run`.

use portreeve_core::{Proxy, Remote, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::RunArguments;
use crate::{Failure, config, logging};

/// Runs until a signal ends it.
pub(crate) fn run(arguments: Box<RunArguments>) -> Result<(), Failure> {
    logging::start(&arguments.log)?;
    let config = config::from_flags(&arguments)?;
    raise_file_limit();
    let names: Vec<String> =
        config.listeners.iter().map(|listener| listener.name.clone()).collect();
    // Before anything is bound: a signal that comes early must find somebody.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(Failure::new)?;
    let _entered = runtime.enter();
    let mut signals = Signals::new().map_err(Failure::new)?;
    let proxy = Proxy::start(config).map_err(|error| start_failure(&error))?;
    for (name, address) in names.iter().zip(proxy.addresses()) {
        tracing::info!("{name} listens on {address}");
    }
    if let Some(address) = proxy.admin_address() {
        tracing::info!("admin server listens on {address}");
    }
    let remote = proxy.remote();
    runtime.block_on(async {
        let mut ended = std::pin::pin!(proxy.ended());
        let mut asked = false;
        loop {
            tokio::select! {
                () = &mut ended => return,
                received = signals.next() => asked = obey(received, asked, &remote),
            }
        }
    });
    tracing::info!("ended in order");
    Ok(())
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

/// Every connection needs two descriptors, and more while it splices.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("can't raise the limit of open files: {error}");
        }
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

/// Does what a signal asks for; `asked`: to end, before. Whether it was asked by now.
fn obey(received: Received, asked: bool, remote: &Remote) -> bool {
    match received {
        Received::Hangup => {
            remote.reopen_logs();
            remote.reload();
            asked
        }
        Received::User => {
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
