//! Listening sockets: bound once a worker with `SO_REUSEPORT`, so that the kernel spreads
//! connections over the threads and nothing is shared between them.

mod accept;
mod original_destination;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use portreeve_policy::TrafficDirection;
use portreeve_protocols::kafka::Advertised;
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use self::accept::{accept, reset};
use crate::config::{ListenerConfig, Transparent, UpstreamConfig};
use crate::keepalive::keep_alive;
use crate::redirection::Redirection;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener's settings, shared by its sockets on all workers.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where it really listens: a port 0 has been resolved.
    pub(crate) address: SocketAddr,
    pub(crate) direction: TrafficDirection,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) policy_port: Option<u16>,
    /// What clients are told of brokers' addresses.
    pub(crate) advertised: Option<Arc<Advertised>>,
    /// What turns connections here.
    pub(crate) redirection: Option<Arc<dyn Redirection>>,
}

/// One listening socket of one worker.
pub(crate) struct Bound {
    pub(crate) socket: TcpListener,
    pub(crate) settings: Arc<Settings>,
}

/// Binds a listener once for each of `workers`.
///
/// # Errors
/// Those of the socket calls; `PermissionDenied` for TPROXY without `CAP_NET_ADMIN`; `InvalidInput` for
/// connections that a redirection is to turn here, without a redirection.
pub(crate) fn bind(
    config: &ListenerConfig,
    workers: usize,
    redirection: Option<&Arc<dyn Redirection>>,
) -> io::Result<Vec<Bound>> {
    let redirection = match (config.upstream, redirection) {
        (UpstreamConfig::OriginalDestination(Transparent::Ebpf), None) => {
            let missing = "nothing turns connections here: `redirection` is not set";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, missing));
        }
        (UpstreamConfig::OriginalDestination(Transparent::Ebpf), some) => some.cloned(),
        _ => None,
    };
    // A socket without SO_REUSEPORT first: with it, two proxies of one user would share a port
    // without a word.
    let probe = socket(config, config.listen, false)?;
    let address = probe.local_addr()?;
    drop(probe);
    let settings = Arc::new(Settings {
        address,
        direction: config.direction,
        upstream: config.upstream,
        policy_port: config.policy_port,
        advertised: config.advertised.clone().map(Arc::new),
        redirection,
    });
    (0..workers)
        .map(|_| {
            let socket = socket(config, address, true)?;
            socket.set_nonblocking(true)?;
            Ok(Bound { socket, settings: settings.clone() })
        })
        .collect()
}

fn socket(config: &ListenerConfig, address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    match config.upstream {
        UpstreamConfig::OriginalDestination(Transparent::Tproxy) => {
            set_transparent(&socket, address)?;
        }
        UpstreamConfig::OriginalDestination(Transparent::Auto) => {
            // Without the privilege redirects still work; only TPROXY needs it.
            if let Err(error) = set_transparent(&socket, address) {
                tracing::debug!(%error, "TPROXY is not possible here, REDIRECT is");
            }
        }
        // The kernel hands connections to this very socket, whatever their address.
        UpstreamConfig::OriginalDestination(Transparent::Redirect | Transparent::Ebpf)
        | UpstreamConfig::Fixed(_) => {}
    }
    socket.bind(&address.into())?;
    if shared {
        keep_alive(&socket)?;
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

fn set_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}
