//! Upstream connections, and the way of those that the kernel would turn to this proxy again.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::source_ports::{SourcePorts, has_same_ends};
use super::{AsClient, Redirection};
use crate::keepalive::keep_alive;

/// Ports that are tried for one connection. Of free ones there is nearly always one among the first
/// few; where there is not, the search must not hold up the worker.
const PORTS: usize = 512;

/// Connections that are tried: another one may have the same two ends.
const CONNECTS: usize = 8;

/// Where an upstream connection goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// How long opening it may take.
    pub(crate) limit: Duration,
    pub(crate) way: Way,
}

/// How it gets there.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// As any connection of this host.
    Straight,
    /// Past the programs that feed this proxy.
    Past(Arc<Bypass>),
    /// In the name of the client of this address.
    AsClient(Arc<AsClient>, IpAddr),
}

impl Target {
    /// Opens a connection within the limit.
    pub(crate) async fn connect(self) -> io::Result<TcpStream> {
        let stream = tokio::time::timeout(self.limit, self.open())
            .await
            .map_err(|_| io::Error::from(ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        Ok(stream)
    }

    /// Opens a connection, however long it takes.
    pub(crate) async fn open(&self) -> io::Result<TcpStream> {
        match &self.way {
            Way::Straight => TcpStream::connect(self.address).await,
            // Boxed, so that all others do not pay for its size.
            Way::Past(bypass) => Box::pin(bypass.connect(self.address)).await,
            Way::AsClient(as_client, client) => {
                Box::pin(as_client.connect(self.address, *client)).await
            }
        }
    }
}

/// Opens connections to the workload that are not turned to the proxy again.
#[derive(Debug)]
pub(crate) struct Bypass {
    redirection: Arc<dyn Redirection>,
    ports: SourcePorts,
}

impl Bypass {
    pub(crate) fn new(redirection: Arc<dyn Redirection>) -> Self {
        Self { redirection, ports: SourcePorts::of_this_host() }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// As connecting does; `AddrInUse` when no source port is left.
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..CONNECTS {
            let Some((socket, from)) = self.bind(to)? else {
                return TcpStream::connect(to).await;
            };
            let exemption = self.redirection.exempt(from, to).map_err(|error| {
                io::Error::other(format!("the kernel programs can't let it pass: {error}"))
            })?;
            let connected = socket.connect(to).await;
            drop(exemption);
            match connected {
                // Somebody's connection has the same two ends already.
                Err(error) if has_same_ends(&error) => {}
                connected => return connected,
            }
        }
        Err(self.exhausted(to))
    }

    /// A socket with an end of its own. The address is the workload's: it is this host's, and what the
    /// kernel would choose to reach itself. `None`: it is another host's, and nobody turns connections to
    /// that one.
    fn bind(&self, to: SocketAddr) -> io::Result<Option<(TcpSocket, SocketAddr)>> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        match self.ports.bind(&socket, to, PORTS) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Ok(None),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(self.exhausted(to)),
            bound => bound.map(|from| Some((socket, from))),
        }
    }

    fn exhausted(&self, to: SocketAddr) -> io::Error {
        self.ports.exhausted(format_args!("a connection to {to}"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::redirection::fake::Notes;

    fn bypass(range: &str) -> (Arc<Notes>, Bypass) {
        let notes = Arc::<Notes>::default();
        (notes.clone(), Bypass { redirection: notes, ports: SourcePorts::new(range, "") })
    }

    /// An address whose port is in no test's range.
    async fn workload(address: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    #[tokio::test]
    async fn the_kernel_is_told_of_both_ends_until_the_connection_is_open() {
        for local in ["127.0.0.1:0", "127.0.0.7:0"] {
            is_told_of_both_ends(local).await;
        }
    }

    #[tokio::test]
    #[ignore = "needs IPv6 on the loopback interface"]
    async fn the_kernel_is_told_of_both_ends_over_ipv6_too() {
        is_told_of_both_ends("[::1]:0").await;
    }

    async fn is_told_of_both_ends(local: &str) {
        let (listener, to) = workload(local).await;
        let (notes, bypass) = bypass("21000 21999");
        let stream = bypass.connect(to).await.expect("it listens");
        let (_, from) = listener.accept().await.expect("a connection");
        assert_eq!(notes.asked(), [(from, to)]);
        assert_eq!(stream.local_addr().unwrap(), from);
        assert_eq!(from.ip(), to.ip());
        assert_eq!(notes.open(), 0);
    }

    #[tokio::test]
    async fn a_port_serves_many_connections_but_not_two_with_the_same_ends() {
        let (_one, one) = workload("127.0.0.8:0").await;
        let (_other, other) = workload("127.0.0.8:0").await;
        let (notes, bypass) = bypass("22001 22001");
        let first = bypass.connect(one).await.expect("the port is free");
        let second = bypass.connect(other).await.expect("the other end is another");
        let error = bypass.connect(one).await.expect_err("both ends are taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = format!(
            "no source port is left for a connection to {one}; `net.ipv4.ip_local_port_range` gives 1"
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(notes.open(), 0);
        drop((first, second));
    }

    #[tokio::test]
    async fn a_port_that_somebody_listens_on_is_passed_over() {
        let (_taken, taken) = workload("127.0.0.9:22002").await;
        let (listener, to) = workload("127.0.0.9:0").await;
        let (_, bypass) = bypass("22002 22003");
        bypass.connect(to).await.expect("the other port is free");
        let (_, from) = listener.accept().await.expect("a connection");
        assert_eq!((from.ip(), from.port()), (taken.ip(), 22_003));
    }

    #[tokio::test]
    async fn another_hosts_address_needs_no_way_past() {
        let (notes, bypass) = bypass("22004 22010");
        assert!(bypass.bind("192.0.2.1:80".parse().unwrap()).unwrap().is_none());
        assert!(notes.asked().is_empty());
    }
}
