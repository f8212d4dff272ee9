//! TCP keepalive on both sides of every connection. Without it a peer that has vanished (its machine, its
//! network namespace or a NAT on the way is gone, and said nothing) is there for ever, with all that is
//! kept for it: a tunnel and a call without an answer have no time-out.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A connection that is silent for a minute is asked for; five unanswered questions, a quarter of a minute
/// apart, end it: 135 s. Sooner than NATs and load balancers forget a silent connection (the first do after
/// four minutes), so that the probes keep it there, too; later than a link that flaps or a machine that is
/// moved is back; and a packet each way a minute costs nobody anything. Linux's own 2 h 11 min would be no help.
/// What has been sent and not acknowledged is asked for by TCP itself (`net.ipv4.tcp_retries2`).
const PROBES: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(5);

/// Has the kernel ask whether the peer is still there. What a listening socket accepts is as that is.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_keepalive(&PROBES)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::ListenerConfig;
    use crate::listener;
    use crate::redirection::{Target, Way};

    fn probed(stream: &TcpStream) -> (bool, Duration, Duration, u32) {
        let socket = SockRef::from(stream);
        let on = socket.keepalive().expect("a socket");
        let time = socket.tcp_keepalive_time().expect("a socket");
        let interval = socket.tcp_keepalive_interval().expect("a socket");
        (on, time, interval, socket.tcp_keepalive_retries().expect("a socket"))
    }

    #[tokio::test]
    async fn both_sides_of_a_connection_are_asked_whether_they_are_still_there() {
        let expected = (true, Duration::from_secs(60), Duration::from_secs(15), 5);
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ListenerConfig::ingress("http", anywhere, anywhere);
        let bound = listener::bind(&config, 1, None).expect("a port").pop().expect("one worker's");
        let proxy = TcpListener::from_std(bound.socket).expect("it does not block");
        let _client = TcpStream::connect(bound.settings.address).await.expect("it listens");
        let (accepted, _) = proxy.accept().await.expect("a connection");
        assert_eq!(probed(&accepted), expected);

        let server = TcpListener::bind(anywhere).await.expect("a port");
        let address = server.local_addr().expect("an address");
        let target = Target { address, limit: Duration::from_secs(5), way: Way::Straight };
        let upstream = target.connect().await.expect("it listens");
        assert_eq!(probed(&upstream), expected);
    }
}
