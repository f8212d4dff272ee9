//! Upstream connections of a node: from the client's own address, so that servers see who asks, and
//! marked, so that the node's routes and programs know them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::source_ports::{SourcePorts, has_same_ends};
use crate::node::UpstreamSource;

/// Ports that are tried for one socket: somebody on this host may listen there.
const PORTS: usize = 64;

/// Connections that are tried: another one may have the same two ends.
const CONNECTS: usize = 64;

/// Opens connections in the client's name.
#[derive(Debug)]
pub(crate) struct AsClient {
    source: UpstreamSource,
    ports: SourcePorts,
}

impl AsClient {
    /// `None`: connections are to be opened as the host opens its own.
    pub(crate) fn new(source: UpstreamSource) -> Option<Self> {
        (source != UpstreamSource::default())
            .then(|| Self { source, ports: SourcePorts::of_this_host() })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// As connecting does; `PermissionDenied` without `CAP_NET_ADMIN`; `AddrInUse` when no source port is
    /// left.
    pub(super) async fn connect(&self, to: SocketAddr, client: IpAddr) -> io::Result<TcpStream> {
        if !self.source.client_address || client.is_ipv4() != to.is_ipv4() {
            return self.socket(to)?.connect(to).await;
        }
        for _ in 0..CONNECTS {
            let socket = self.socket(to)?;
            match self.ports.bind(&socket, SocketAddr::new(client, 0), PORTS) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => break,
                bound => drop(bound?),
            }
            match socket.connect(to).await {
                Err(error) if has_same_ends(&error) => {}
                connected => return connected,
            }
        }
        Err(self.ports.exhausted(format_args!("a connection of {client} to {to}")))
    }

    fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if let Some(mark) = self.source.mark {
            let marked = socket.set_mark(mark);
            marked.map_err(|error| refused("mark upstream connections (SO_MARK)", &error))?;
        }
        if self.source.client_address {
            let transparent = match to {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
            };
            transparent
                .map_err(|error| refused("use the client's address (IP_TRANSPARENT)", &error))?;
        }
        Ok(TcpSocket::from_std_stream(socket.into()))
    }
}

fn refused(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the proxy may not {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn as_client(range: &str) -> AsClient {
        let source = UpstreamSource { client_address: true, mark: None };
        AsClient { source, ports: SourcePorts::new(range, "") }
    }

    #[tokio::test]
    #[ignore = "needs CAP_NET_ADMIN: it uses a client's address"]
    async fn the_server_sees_the_clients_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = listener.local_addr().expect("an address");
        let client = "127.0.0.42".parse().expect("an address");
        let stream = as_client("23000 23999").connect(to, client).await.expect("it may");
        let (_, from) = listener.accept().await.expect("a connection");
        assert_eq!(from.ip(), client);
        assert_eq!(stream.local_addr().expect("an address"), from);
    }

    #[test]
    fn who_may_not_use_a_clients_address_is_told_what_he_may_not() {
        let error = refused("use the client's address", &ErrorKind::PermissionDenied.into());
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let text = "the proxy may not use the client's address: permission denied";
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    #[ignore = "needs CAP_NET_ADMIN: it uses a client's address"]
    async fn a_port_serves_one_connection_to_each_server() {
        let one = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let [one_at, other_at] =
            [&one, &other].map(|listener| listener.local_addr().expect("an address"));
        let client: IpAddr = "127.0.0.43".parse().expect("an address");
        let ports = as_client("24001 24001");
        let first = ports.connect(one_at, client).await.expect("it may");
        let second = ports.connect(other_at, client).await.expect("the other end is another");
        let error = ports.connect(one_at, client).await.expect_err("both ends are taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop((first, second));
    }

    #[test]
    fn without_an_address_and_a_mark_nothing_is_special() {
        assert!(AsClient::new(UpstreamSource::default()).is_none());
    }
}
