//! `portreeve authz`: other proxies ask, the policy answers.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | starts it, obeys signals |
//! | `arguments.rs` | flags |
//! | `serve.rs` | connections, and their end |
//! | `grpc.rs` | Envoy's `Authorization/Check`: calls |
//! | `check.rs` | the same: what is asked and answered |
//! | `proto.rs` | the same: messages |
//! | `auth_request.rs` | nginx's `auth_request` |

mod arguments;
mod auth_request;
mod check;
mod grpc;
mod proto;
mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use portreeve_core::guard::Guard;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::arguments::{AuthzCommand, ServeArguments};
use self::serve::Service;
use crate::{Failure, config, logging};

/// Runs one of the commands.
pub(crate) fn run(command: &AuthzCommand) -> Result<(), Failure> {
    match command {
        AuthzCommand::Serve(arguments) => serve(arguments),
    }
}

fn serve(arguments: &ServeArguments) -> Result<(), Failure> {
    logging::start(&arguments.log)?;
    let guard = Guard::new(config::guard_from_flags(arguments)?).map_err(Failure::policy)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup()).map_err(Failure::new)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::new)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::new)?;
        let mut services = Vec::new();
        if let Some(address) = arguments.listen {
            let service = Service::Envoy { guard: guard.clone(), port: arguments.port };
            services.push((bind("ext_authz", address).await?, service));
        }
        if let Some(address) = arguments.http_listen {
            services.push((bind("auth_request", address).await?, Service::Nginx(guard.clone())));
        }
        let server = serve::Server::start(services);
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    // Checks go on meanwhile.
                    let guard = guard.clone();
                    tokio::task::spawn_blocking(move || reload(&guard));
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tracing::info!("accepting nothing more, waiting for checks under way");
        tokio::select! {
            () = server.drain() => tracing::info!("ended in order"),
            _ = terminate.recv() => tracing::warn!("asked twice: ending at once"),
            _ = interrupt.recv() => tracing::warn!("asked twice: ending at once"),
        }
        Ok(())
    })
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let failed = |error| Failure::new(format!("{what} can't listen on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!("{what} listens on {}", listener.local_addr().map_err(failed)?);
    Ok(listener)
}

fn reload(guard: &Guard) {
    match guard.reload() {
        Ok(revision) => tracing::info!(revision, "policy reloaded"),
        Err(error) => {
            let revision = guard.revision();
            tracing::error!("policy not reloaded, revision {revision} stays in force:\n{error}");
        }
    }
}
