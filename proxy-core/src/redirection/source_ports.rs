//! Ports that the proxy's own connections come from: to the workload that it serves, and in the name of
//! clients.
//!
//! They are chosen here and not by the kernel: it gives no port twice to who binds before connecting,
//! not even one of a connection that has just ended, and a busy proxy would be out of them in a minute.

use std::fmt::Display;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpSocket;

/// What Linux takes unless told otherwise.
const USUAL: (u16, u16) = (32_768, 60_999);

/// The ports for outgoing connections.
#[derive(Debug)]
pub(super) struct SourcePorts {
    ports: Box<[u16]>,
    next: AtomicUsize,
}

impl SourcePorts {
    /// Those of this host.
    pub(super) fn of_this_host() -> Self {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default()
        };
        let mut ports = Self::new(&read("ip_local_port_range"), &read("ip_local_reserved_ports"));
        ports.shuffle();
        ports
    }

    /// In an order that nobody can foresee: who holds the next port before the proxy does would be taken for
    /// it while it connects.
    fn shuffle(&mut self) {
        let random = RandomState::new();
        for place in (1..self.ports.len()).rev() {
            let other = random.hash_one(place) % (place as u64 + 1);
            self.ports.swap(place, usize::try_from(other).unwrap_or_default());
        }
    }

    /// `range` as `32768 60999`, `reserved` as `8080,9000-9100`.
    pub(super) fn new(range: &str, reserved: &str) -> Self {
        let mut ends = range.split_whitespace().map_while(|end| end.parse().ok());
        let (first, last) = match (ends.next(), ends.next()) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => USUAL,
        };
        let reserved: Vec<(u16, u16)> = reserved.trim().split(',').filter_map(span).collect();
        let free = |port: &u16| !reserved.iter().any(|(from, to)| (*from..=*to).contains(port));
        Self { ports: (first..=last).filter(free).collect(), next: AtomicUsize::new(0) }
    }

    /// Gives a socket an end of its own: `from` with one of the first `most` ports that are free.
    ///
    /// # Errors
    /// As binding does: `AddrNotAvailable` where the address is not one to be had; `AddrInUse` when none of
    /// the ports is free.
    pub(super) fn bind(
        &self,
        socket: &TcpSocket,
        mut from: SocketAddr,
        most: usize,
    ) -> io::Result<SocketAddr> {
        // A port may have several connections, and those that are over do not count.
        socket.set_reuseaddr(true)?;
        for port in std::iter::from_fn(|| self.next()).take(most) {
            from.set_port(port);
            match socket.bind(from) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                bound => return bound.map(|()| from),
            }
        }
        Err(ErrorKind::AddrInUse.into())
    }

    /// What is said when there is none left for a connection.
    pub(super) fn exhausted(&self, connection: impl Display) -> io::Error {
        let text = format!(
            "no source port is left for {connection}; `net.ipv4.ip_local_port_range` gives {}",
            self.ports.len()
        );
        io::Error::new(ErrorKind::AddrInUse, text)
    }

    /// The next one. No other connection gets it before all have had their turn.
    pub(super) fn next(&self) -> Option<u16> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.ports.get(turn.checked_rem(self.ports.len())?).copied()
    }
}

/// Whether connecting has failed because somebody's connection has the same two ends already. Of binding,
/// `AddrNotAvailable` says something else: that the address is not this host's.
pub(super) fn has_same_ends(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
}

fn span(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Some((from.parse().ok()?, to.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_its_turn_and_reserved_ones_never() {
        let ports = SourcePorts::new("100\t107\n", "101,103-105\n");
        let taken: Vec<_> = (0..6).filter_map(|_| ports.next()).collect();
        assert_eq!(taken, [100, 102, 106, 107, 100, 102]);
    }

    #[test]
    fn a_range_that_cannot_be_read_is_the_usual_one() {
        let ports = SourcePorts::new("", "");
        assert_eq!((ports.next(), ports.ports.len()), (Some(USUAL.0), 28_232));
    }

    #[test]
    fn without_a_port_there_is_none() {
        assert_eq!(SourcePorts::new("100 100", "100").next(), None);
    }

    #[tokio::test]
    async fn an_address_that_is_not_to_be_had_is_no_port_that_is_taken() {
        let ports = SourcePorts::new("25001 25999", "");
        let socket = TcpSocket::new_v4().expect("a socket");
        let elsewhere = "192.0.2.1:0".parse().expect("an address");
        let error = ports.bind(&socket, elsewhere, 100).expect_err("it is another host's");
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert_eq!(ports.next(), Some(25_002), "one was tried");
    }
}
