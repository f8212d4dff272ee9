//! Where a redirected client wanted to go.

use std::io;
use std::net::SocketAddr;

use portreeve_policy::TrafficDirection;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::Settings;
use crate::config::{Transparent, UpstreamConfig};

/// Why a connection has no destination.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestinationError {
    /// The kernel does not know it.
    #[error(
        "the connection was not redirected by nftables or iptables (SO_ORIGINAL_DST: {0}); \
         check the REDIRECT rule, or use `transparent: tproxy`"
    )]
    Unknown(#[source] io::Error),
    /// The kernel programs do not know it.
    #[error(
        "the connection was not turned here by the kernel programs ({0}); nobody but they may connect to \
         an outbound listener"
    )]
    NotTurned(#[source] io::Error),
    /// Somebody connected to the listener itself.
    #[error("the client connected to the transparent listener {0} itself; forwarding would loop")]
    Loop(SocketAddr),
}

/// Where the connection goes.
///
/// # Errors
/// [`DestinationError`] for a connection that was not redirected.
pub(super) fn destination(
    settings: &Settings,
    client: &TcpStream,
    peer: SocketAddr,
) -> Result<SocketAddr, DestinationError> {
    let mode = match settings.upstream {
        UpstreamConfig::Fixed(address) => return Ok(address),
        UpstreamConfig::OriginalDestination(mode) => mode,
    };
    let local = client.local_addr().map_err(DestinationError::Unknown)?;
    let destination = match mode {
        Transparent::Tproxy => local,
        Transparent::Redirect => redirected(client, local).map_err(DestinationError::Unknown)?,
        Transparent::Auto => redirected(client, local).unwrap_or(local),
        Transparent::Ebpf => turned(settings, peer, local)?,
    };
    if is_listener(settings.address, destination, local) {
        return Err(DestinationError::Loop(settings.address));
    }
    Ok(destination)
}

/// As the kernel programs know it. To the workload's listeners they hand connections as they are.
fn turned(
    settings: &Settings,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<SocketAddr, DestinationError> {
    match (&settings.redirection, settings.direction) {
        (Some(redirection), TrafficDirection::Egress) => {
            redirection.original_destination(peer, local).map_err(DestinationError::NotTurned)
        }
        _ => Ok(local),
    }
}

/// `SO_ORIGINAL_DST`, which `nf_conntrack` answers for both address families.
fn redirected(client: &TcpStream, local: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(client);
    let address = match local {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => socket.original_dst_v6()?,
        _ => socket.original_dst_v4()?,
    };
    address.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Whether `destination` is the listener itself: the same port, on the listener's address or, for
/// a wildcard listener, on the address where the connection arrived.
/// A dual-stack socket shows IPv4 addresses in their IPv6 form; they are the same address.
fn is_listener(listener: SocketAddr, destination: SocketAddr, local: SocketAddr) -> bool {
    let [own, there, here] =
        [listener, destination, local].map(|address| address.ip().to_canonical());
    destination.port() == listener.port()
        && (there == own || (own.is_unspecified() && there == here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_listener_recognises_itself_on_any_local_address() {
        let [any, own, other]: [SocketAddr; 3] =
            ["0.0.0.0:15006", "10.0.0.1:15006", "10.0.0.9:15006"]
                .map(|address| address.parse().expect("an address"));
        assert!(is_listener(any, own, own));
        assert!(!is_listener(any, other, own), "another host's port of the same number");
        assert!(is_listener(own, own, own));
        let [dual, mapped]: [SocketAddr; 2] = ["[::]:15006", "[::ffff:10.0.0.1]:15006"]
            .map(|address| address.parse().expect("an address"));
        assert!(is_listener(dual, own, mapped), "seen through a dual-stack socket");
    }
}
