//! Connections that the proxy has to read: it gets them as they are, and goes on in the client's name.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use portreeve_ebpf::ListenerSlot;
use portreeve_ebpf::node::{Reason, mark};
use portreeve_ebpf_common::{Direction, Verdict};
use rustix::net::{AddressFamily, SocketType, bind, connect, ipproto, listen, socket};

use super::Test;
use super::net::{Node, PATIENCE, TCP, Workload, answers, echo};
use super::packets::{self, tcp};

pub(crate) const TESTS: &[Test] = &[
    ("what_a_workload_opens_reaches_the_proxy", outbound),
    ("what_is_opened_to_a_workload_reaches_the_proxy", inbound),
    ("the_proxy_goes_on_in_the_clients_name", upstream),
    ("an_error_about_what_the_proxy_has_sent_reaches_it", errors),
    ("a_port_used_again_while_the_proxys_end_waits_reaches_it", again),
    ("without_the_ways_that_lead_to_the_proxy_nothing_passes_until_they_are_made_anew", lost_ways),
    ("while_the_proxy_is_away_nothing_passes", away),
    ("it_is_known_whether_a_proxy_listens", seen),
];

const SLOTS: [[ListenerSlot; 2]; 2] = [
    [ListenerSlot::OutboundV4, ListenerSlot::OutboundV6],
    [ListenerSlot::InboundV4, ListenerSlot::InboundV6],
];

/// Listening sockets for one direction, of both families.
fn listeners(node: &Node, direction: Direction) -> [TcpListener; 2] {
    let any = ["0.0.0.0:0", "[::]:0"].map(|any| any.parse::<SocketAddr>().expect("an address"));
    let slots = SLOTS[direction as usize];
    [0, 1].map(|family| {
        let socket = transparent(any[family]);
        listen(&socket, 128).expect("it listens");
        node.kernel().set_listener(slots[family], socket.as_fd()).expect("it takes it");
        TcpListener::from(socket)
    })
}

fn seen(node: &mut Node) {
    let slot = SLOTS[1][0];
    let has = |node: &Node| node.kernel().has_listener(slot).expect("it is read");
    assert!(!has(node));
    let listeners = listeners(node, Direction::Ingress);
    assert!(has(node));
    drop(listeners);
    assert!(!has(node));
}

/// A socket that may have others' addresses.
fn transparent(local: SocketAddr) -> OwnedFd {
    let (family, level, option) = match local {
        SocketAddr::V4(_) => (AddressFamily::INET, libc::SOL_IP, libc::IP_TRANSPARENT),
        SocketAddr::V6(_) => (AddressFamily::INET6, libc::SOL_IPV6, 75),
    };
    let socket = socket(family, SocketType::STREAM, None).expect("a socket");
    let options = [
        (level, option),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::SOL_IPV6, libc::IPV6_V6ONLY),
    ];
    for (level, option) in options {
        set(&socket, level, option, 1);
    }
    bind(&socket, &local).expect("any address");
    socket
}

pub(crate) fn set(socket: &impl AsRawFd, level: i32, option: i32, value: u32) {
    // SAFETY: the value is there.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4)
    };
    assert!(set == 0 || option == libc::IPV6_V6ONLY || option == libc::SO_REUSEADDR, "root may");
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr, SocketAddr) {
    listener.set_nonblocking(true).expect("set");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok((stream, peer)) = listener.accept() {
            stream.set_nonblocking(false).expect("set");
            let local = stream.local_addr().expect("an address");
            return (stream, peer, local);
        }
        assert!(Instant::now() < end, "nobody comes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The proxy answers by itself, once it has seen who calls whom.
fn check(listeners: &[TcpListener; 2], from: &Workload, to: &Workload) {
    for (listener, address) in listeners.iter().zip(to.both()) {
        let mut stream = from.connect((address, 80)).expect("the proxy takes it");
        let (proxy, peer, local) = accept(listener);
        assert_eq!(local, SocketAddr::from((address, 80)));
        assert_eq!(peer, stream.local_addr().expect("an address"));
        let mut copy = proxy.try_clone().expect("a handle");
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut proxy.try_clone().expect("a handle"), &mut copy);
        });
        assert!(answers(&mut stream));
        assert_eq!(much(&mut stream), MUCH, "{address}");
    }
}

const MUCH: usize = 4 << 20;

/// How much of much comes back: packets are as large as the kernel likes to have them inside.
fn much(stream: &mut TcpStream) -> usize {
    let mut writer = stream.try_clone().expect("a handle");
    let sent = std::thread::spawn(move || writer.write_all(&vec![7; MUCH]));
    let (mut read, mut bytes) = (0, vec![0; 64 * 1024]);
    while read < MUCH {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(some) => read += some,
        }
    }
    sent.join().expect("it ends").expect("all was sent");
    read
}

fn outbound(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Inspect)]);
    check(&listeners(node, Direction::Egress), &a, &b);
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::ToProxy, Direction::Egress) > 4);
    assert_eq!(counters.dropped(), 0);
}

fn inbound(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Allow)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Inspect)]);
    check(&listeners(node, Direction::Ingress), &a, &b);
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::ToProxy, Direction::Ingress) > 4);
    assert_eq!(counters.dropped(), 0);
}

fn upstream(node: &mut Node) {
    let Readers { client: a, servers } = Readers::both_ways(node);
    for (server, listeners) in &servers {
        for (family, address) in server.both().into_iter().enumerate() {
            for same_port in [false, true] {
                let client = a.connect((address, 80)).expect("the proxy takes it");
                let (_proxy, peer, local) = accept(&listeners[family]);
                let port = if same_port { peer.port() } else { 0 };
                let mut upstream = in_the_name_of(peer.ip(), port, local);
                assert!(answers(&mut upstream), "{address} {same_port}");
                client.set_nodelay(true).expect("set");
            }
        }
    }
    assert_eq!(node.kernel().counters().expect("counters").dropped(), 0);
}

fn errors(node: &mut Node) {
    const TIMES: u64 = 50;
    let Readers { client, servers } = Readers::both_ways(node);
    let to_proxy = || {
        let counters = node.kernel().counters().expect("counters");
        [Direction::Ingress, Direction::Egress].map(|way| counters.get(Reason::ToProxy, way))
    };
    let tell = |whom: IpAddr, message: Vec<u8>| {
        let socket = raw(whom);
        for _ in 0..TIMES {
            socket.send(&message).expect("sent");
        }
    };
    for ((server, listeners), judged) in servers.iter().zip([&servers[0].0, &client]) {
        for (family, address) in server.both().into_iter().enumerate() {
            let _client = client.connect((address, 80)).expect("the proxy takes it");
            let (_proxy, peer, local) = accept(&listeners[family]);
            let mut upstream = in_the_name_of(peer.ip(), peer.port(), local);
            assert!(answers(&mut upstream), "{address}");
            // The workload has both connections of the proxy, and with the same ends.
            let is_clients = judged.number == client.number;
            let (own, other) = if is_clients { (peer, local) } else { (local, peer) };
            let before = to_proxy();
            tell(own.ip(), too_long(own, other));
            judged.run(move || tell(other.ip(), too_long(other, own)));
            for (before, after) in before.into_iter().zip(to_proxy()) {
                assert!(after >= before + TIMES, "{address}: {before}, {after}");
            }
        }
    }
}

/// A socket for messages to somebody about his packets.
fn raw(to: IpAddr) -> UdpSocket {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = socket(family, SocketType::RAW, Some(protocol)).expect("root may");
    let socket = UdpSocket::from(socket);
    socket.connect((to, 0)).expect("connected");
    socket
}

/// A router's message to who has sent a packet, that there is no way for one so long.
fn too_long(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const MTU: [u8; 2] = 1300u16.to_be_bytes();
    const DATA: u8 = 16;
    let segment = tcp(from.port(), to.port(), DATA);
    let sent = packets::ip(from.ip(), to.ip(), TCP, [0; 2], &segment);
    let kind = if from.is_ipv4() { [3, 4] } else { [2, 0] };
    [&kind[..], &[0; 4], &MTU, &sent[14..]].concat()
}

/// A client, and two servers with who listens for the proxy: what is sent to one is read where it comes to, what
/// is sent to the other, which is outside, at its source.
struct Readers {
    client: Workload,
    servers: [(Workload, [TcpListener; 2]); 2],
}

impl Readers {
    fn both_ways(node: &Node) -> Self {
        let [a, b] = [1, 2].map(|number| node.workload(number, 0));
        // One whose interface nobody judges, as a host elsewhere.
        let outside = Workload::new(3);
        for server in [&b, &outside] {
            server.serve(80);
            let identity = server.identity();
            for address in server.both() {
                node.kernel().set_identity(address.into(), Some(identity)).expect("room");
            }
        }
        node.rules(
            &a,
            1,
            &[
                (Direction::Egress, 102, TCP, 80, Verdict::Allow),
                (Direction::Egress, 103, TCP, 80, Verdict::Inspect),
            ],
        );
        node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Inspect)]);
        let inbound = listeners(node, Direction::Ingress);
        let outbound = listeners(node, Direction::Egress);
        Self { client: a, servers: [(b, inbound), (outside, outbound)] }
    }
}

fn again(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    node.rules(
        &a,
        1,
        &[
            (Direction::Egress, 102, TCP, 80, Verdict::Inspect),
            (Direction::Egress, 102, TCP, 81, Verdict::Allow),
        ],
    );
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 81, Verdict::Inspect)]);
    for (direction, port) in [(Direction::Egress, 80), (Direction::Ingress, 81)] {
        for (listener, address) in listeners(node, direction).iter().zip(b.both()) {
            for turn in 0..3 {
                let local = SocketAddr::from((a.both()[usize::from(address.is_ipv6())], 4_000));
                let client = a.run(move || from(local, (address, port).into()));
                let mut client = client.unwrap_or_else(|error| panic!("{address} {turn}: {error}"));
                let (proxy, ..) = accept(listener);
                drop(proxy);
                assert_eq!(client.read(&mut [0]).expect("an end"), 0);
                drop(client);
                wait_until_closed(local.port());
            }
        }
    }
    assert_eq!(node.kernel().counters().expect("counters").dropped(), 0);
}

/// A connection from a port.
fn from(local: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = transparent(local);
    set_patience(&socket);
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Until nobody of this host has a connection to a port but one that waits.
fn wait_until_closed(peer: u16) {
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        let is_peers =
            words.next().is_some_and(|peer_now| peer_now.ends_with(&format!(":{peer:04X}")));
        is_peers && words.next() != Some("06")
    };
    let end = Instant::now() + PATIENCE;
    while ["tcp", "tcp6"].iter().any(|file| {
        let sockets = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        sockets.expect("a list").lines().filter(is_open).count() > 0
    }) {
        assert!(Instant::now() < end, "it stays open");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn in_the_name_of(client: IpAddr, port: u16, to: SocketAddr) -> TcpStream {
    let socket = transparent(SocketAddr::from((client, port)));
    set(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark::FROM_PROXY);
    set_patience(&socket);
    connect(&socket, &to).expect("the workload takes it");
    TcpStream::from(socket)
}

/// `TCP_USER_TIMEOUT` does not limit the first SYN, but a time for sending does.
fn set_patience(socket: &OwnedFd) {
    let timeout = Some(Duration::from_secs(1));
    let kind = rustix::net::sockopt::Timeout::Send;
    rustix::net::sockopt::set_socket_timeout(socket, kind, timeout).expect("set");
}

fn lost_ways(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.serve(80);
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Inspect)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    let outbound = listeners(node, Direction::Egress);
    let mut open = b.both().map(|address| a.connect((address, 80)).expect("the proxy takes it"));
    let proxy = [0, 1].map(|family| accept(&outbound[family]).0);
    let passed = || {
        let counters = node.kernel().counters().expect("counters");
        counters.get(Reason::Forwarded, Direction::Ingress)
    };
    let before = passed();
    for family in ["-4", "-6"] {
        super::net::ip(&format!("{family} rule del fwmark 0x50520001"));
    }
    for (address, stream) in b.both().into_iter().zip(&mut open) {
        a.connect((address, 80)).expect_err("nothing leads to the proxy, and nowhere else");
        stream.write_all(b"unread").expect("the kernel keeps it");
    }
    assert_eq!(passed(), before, "nobody has read it");
    super::net::ip("link del portreeve0");
    node.kernel().restore_ways().expect("made");
    for (mut stream, address) in proxy.into_iter().zip(b.both()) {
        let mut said = [0; 6];
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        stream.read_exact(&mut said).expect("it is sent again");
        a.connect((address, 80)).expect("the proxy takes it");
    }
}

fn away(node: &mut Node) {
    let [a, b] = [1, 2].map(|number| node.workload(number, 0));
    b.run(|| echo(TcpListener::bind("[::]:80").expect("a port")));
    node.rules(&a, 1, &[(Direction::Egress, 102, TCP, 80, Verdict::Inspect)]);
    node.rules(&b, 1, &[(Direction::Ingress, 101, TCP, 80, Verdict::Allow)]);
    drop(listeners(node, Direction::Egress));
    for address in b.both() {
        a.connect((address, 80)).expect_err("nobody reads it");
    }
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::ProxyAway, Direction::Egress) >= 2);
    assert_eq!(counters.get(Reason::ToProxy, Direction::Egress), 0);
}
