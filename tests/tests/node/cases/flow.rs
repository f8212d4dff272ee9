//! Connections and datagrams from one end to another, and what became of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portreeve_tests::node::net::Net;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::kafka;
use super::read::{Fate, Http, Query};

/// What passes has arrived after this; what has not, does not come any more.
const SOON: Duration = Duration::from_millis(2000);
/// What was refused without a word to its sender is waited for this long.
const SILENCE: Duration = Duration::from_millis(150);

/// Where somebody is.
#[derive(Debug)]
pub(super) struct End {
    pub(super) place: String,
    pub(super) address: IpAddr,
}

/// What is sent.
#[derive(Debug)]
pub(super) enum Said {
    /// A connection, and a word each way.
    Tcp,
    /// A connection, and nothing on it.
    OnlyOpened,
    Http(Http),
    Kafka(super::read::Kafka),
    Udp,
    /// An ICMP message of this type.
    Icmp(u8),
    Sctp,
}

impl Said {
    pub(super) fn of(query: &Query) -> Self {
        let request = query.l7.clone().unwrap_or_default();
        match (query.protocol.as_str(), request.http, request.kafka) {
            ("TCP", Some(http), _) => Self::Http(http),
            ("TCP", _, Some(kafka)) => Self::Kafka(kafka),
            ("TCP", ..) if query.is_only_opened() => Self::OnlyOpened,
            ("TCP", ..) => Self::Tcp,
            ("UDP", ..) => Self::Udp,
            ("SCTP", ..) => Self::Sctp,
            ("ICMP", ..) => Self::Icmp(query.icmp_type.expect("a type")),
            (other, ..) => panic!("how is {other} sent?"),
        }
    }
}

/// Something that somebody sends to somebody.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) port: u16,
    pub(super) said: Said,
}

impl Flow {
    /// Sends it: what became of it, or what should never become of anything.
    pub(super) fn run(&self, net: &Net) -> Result<Fate, String> {
        let port = self.port.max(1);
        match &self.said {
            Said::Udp => self.datagram(net, port),
            Said::Icmp(kind) => self.packet(net, Protocol::ICMPV4, &icmp(*kind)),
            Said::Sctp => self.packet(net, Protocol::from(132), &sctp(port)),
            said => self.connection(net, port, said),
        }
    }

    fn connection(&self, net: &Net, port: u16, said: &Said) -> Result<Fate, String> {
        let to = SocketAddr::new(self.to.address, port);
        let listener = net.on(&self.to.place, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&to.into())?;
            socket.listen(8)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(TcpListener::from(socket))
        });
        let listener = listener.map_err(|error| format!("listening at {to}: {error}"))?;
        let began = Instant::now();
        let client = net.on(&self.from.place, || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(self.from.address, 0).into())?;
            socket.connect_timeout(&to.into(), SOON)?;
            Ok::<_, std::io::Error>(TcpStream::from(socket))
        });
        let client = match client {
            Ok(client) => client,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let arrived = listener.accept().is_ok();
                let slow = began.elapsed() > Duration::from_millis(900);
                return match (arrived, slow) {
                    (false, false) => Ok(Fate::Refused),
                    _ => Err(format!("refused, arrived {arrived}, after {:?}", began.elapsed())),
                };
            }
            Err(error) => return Err(format!("connecting: {error}")),
        };
        client.set_read_timeout(Some(SOON)).map_err(|error| error.to_string())?;
        match said {
            Said::OnlyOpened => Ok(Fate::Arrived),
            Said::Http(request) => http(client, &listener, request, self.from.address),
            Said::Kafka(request) => kafka::ask(client, &listener, request),
            _ => word_each_way(client, &listener, self.from.address),
        }
    }

    fn datagram(&self, net: &Net, port: u16) -> Result<Fate, String> {
        let socket = |end: &End, port: u16| {
            let socket = net.on(&end.place, || UdpSocket::bind((end.address, port)));
            let socket = socket.map_err(|error| format!("{end:?} {port}: {error}"))?;
            socket.set_read_timeout(Some(SOON)).map_err(|error| error.to_string())?;
            Ok::<_, String>(socket)
        };
        let (client, server) = (socket(&self.from, 0)?, socket(&self.to, port)?);
        let said = |error: std::io::Error| error.to_string();
        client.connect((self.to.address, port)).map_err(said)?;
        let mut buffer = [0; 16];
        client.send(b"ask").map_err(said)?;
        // Who is refused is told, before or instead of an answer.
        client.set_read_timeout(Some(Duration::from_millis(5))).map_err(said)?;
        match client.recv(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                server.set_nonblocking(true).map_err(said)?;
                let nothing = server.recv(&mut buffer).is_err();
                return if nothing { Ok(Fate::Refused) } else { Err("refused, and there".into()) };
            }
            Ok(_) => return Err("an answer before the question".into()),
        }
        let (_, from) = server.recv_from(&mut buffer).map_err(|error| format!("there: {error}"))?;
        if from.ip() != self.from.address {
            return Err(format!("it came from {from}"));
        }
        server.send_to(b"answer", from).map_err(said)?;
        client.set_read_timeout(Some(SOON)).map_err(said)?;
        client.recv(&mut buffer).map_err(|error| format!("the answer: {error}"))?;
        Ok(Fate::Arrived)
    }

    /// A packet of a protocol that these sockets do not speak.
    fn packet(&self, net: &Net, protocol: Protocol, packet: &[u8]) -> Result<Fate, String> {
        let socket = |end: &End| {
            net.on(&end.place, || {
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
                socket.bind(&SocketAddr::new(end.address, 0).into())?;
                socket.set_read_timeout(Some(SILENCE))?;
                Ok::<_, std::io::Error>(socket)
            })
        };
        let said = |error: std::io::Error| error.to_string();
        let (from, mut to) = (socket(&self.from).map_err(said)?, socket(&self.to).map_err(said)?);
        from.send_to(packet, &SocketAddr::new(self.to.address, 0).into()).map_err(said)?;
        let mut buffer = [0; 128];
        match to.read(&mut buffer) {
            Ok(length) if buffer[..length].ends_with(packet) => Ok(Fate::Arrived),
            Ok(length) => Err(format!("something else came: {:x?}", &buffer[..length])),
            Err(_) => Ok(Fate::Refused),
        }
    }
}

/// A server for one connection, and a client that has to have its answer: what both have got.
pub(super) fn serve<S: Send, C>(
    listener: &TcpListener,
    server: impl FnOnce(TcpStream, SocketAddr) -> Option<S> + Send,
    client: impl FnOnce() -> C,
) -> (Option<S>, C) {
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (stream, from) = accepted(listener, &answered)?;
            server(stream, from)
        });
        let client = client();
        answered.store(true, Ordering::Release);
        (served.join().unwrap_or_default(), client)
    })
}

/// The next connection that comes, unless none is to be waited for any more.
fn accepted(listener: &TcpListener, enough: &AtomicBool) -> Option<(TcpStream, SocketAddr)> {
    let until = Instant::now() + SOON;
    loop {
        let last = enough.load(Ordering::Acquire) || Instant::now() > until;
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false).ok()?;
                stream.set_read_timeout(Some(SOON)).ok()?;
                return Some((stream, from));
            }
            Err(_) if last => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn word_each_way(client: TcpStream, listener: &TcpListener, from: IpAddr) -> Result<Fate, String> {
    let (server, seen) =
        accepted(listener, &AtomicBool::new(false)).ok_or("connected, and nobody came")?;
    if seen.ip() != from {
        return Err(format!("it came from {seen}"));
    }
    for (mut one, mut other) in [(&client, &server), (&server, &client)] {
        let mut buffer = [0; 4];
        one.write_all(b"word").map_err(|error| format!("sending: {error}"))?;
        other.read_exact(&mut buffer).map_err(|error| format!("receiving: {error}"))?;
    }
    // No connection of an earlier question is left to be taken for one of a later.
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
    Ok(Fate::Arrived)
}

fn http(
    mut client: TcpStream,
    listener: &TcpListener,
    request: &Http,
    from: IpAddr,
) -> Result<Fate, String> {
    let Http { method, host, headers, .. } = request;
    let path = request.target();
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    let server = |mut server: TcpStream, from: SocketAddr| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            server.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
        Some(from.ip())
    };
    let (arrived, answer) = serve(listener, server, || {
        let mut answer = Vec::new();
        client.write_all(text.as_bytes())?;
        client.read_to_end(&mut answer)?;
        drop(client);
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    });
    let answer = answer.map_err(|error| format!("the answer: {error}"))?;
    match (answer.get(9..12), arrived) {
        (Some("200"), Some(seen)) if seen == from => Ok(Fate::Arrived),
        (Some("403"), None) => Ok(Fate::RequestRefused),
        _ => Err(format!("arrived {arrived:?}, answered {answer:?}")),
    }
}

/// A message with a right checksum.
fn icmp(kind: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0x50, 0x52, 0, 1];
    message.extend(b"portreeve-case..");
    let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_default();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The beginning of an association, as far as its ports.
fn sctp(port: u16) -> Vec<u8> {
    let mut packet = 40_000_u16.to_be_bytes().to_vec();
    packet.extend(port.to_be_bytes());
    packet.extend([0; 8]);
    // INIT, 20 bytes.
    packet.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    packet
}
