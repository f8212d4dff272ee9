//! Sockets of the workload and of the proxy that are joined, and those that are not.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use portreeve_ebpf::{ListenerSlot, Redirect, Settings, detach, status};

use crate::Test;
use crate::host::{Entered, Host, Process, name};
use crate::traffic::{attached, inspecting, v4};

pub(crate) const TESTS: &[Test] = &[
    ("messages_of_a_turned_connection_go_straight", messages_go_straight),
    ("sockets_that_could_not_bear_it_are_not_joined", not_joined),
    ("a_joined_socket_can_not_have_what_only_tcp_does", options),
    ("a_connection_that_nobody_turned_is_not_joined", not_turned),
    ("without_room_connections_are_as_without_joining", without_room),
    ("joined_connections_live_on_when_the_instance_is_detached", detached_meanwhile),
    ("joined_connections_live_on_when_it_is_set_up_without_joining", switched_off_meanwhile),
    ("a_client_of_a_proxy_that_is_killed_is_told", killed_proxy),
];

fn settings(host: &Host) -> Settings {
    Settings { join_sockets: true, other_sockets: true, ..host.settings("one") }
}

/// A redirection to a proxy that says again what it is told.
struct Joined {
    redirect: Redirect,
    proxy: SocketAddrV4,
    _in_its_cgroup: Entered,
}

impl Joined {
    fn new(host: &Host, settings: &Settings) -> Self {
        let entered = host.enter("proxy");
        let redirect = attached(settings, &inspecting());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        set_fast_open(&listener);
        let proxy = v4(listener.local_addr().expect("bound"));
        redirect.set_proxy(Some(proxy), None).expect("a proxy");
        redirect.register(ListenerSlot::OutboundV4, listener.as_fd()).expect("registered");
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                thread::spawn(move || repeat(client));
            }
        });
        Self { redirect, proxy, _in_its_cgroup: entered }
    }

    /// How many messages go straight over while a workload talks.
    fn joined(&self, workload: &mut Process, talk: &str) -> u64 {
        let count = || self.redirect.counters().expect("counters").messages_joined;
        let before = count();
        assert_eq!(workload.ask(talk), "ok", "{talk}");
        count() - before
    }
}

fn repeat(mut client: TcpStream) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        if client.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn set_fast_open(listener: &TcpListener) {
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").expect("this namespace's own");
    let queue = 16_i32;
    // SAFETY: the option is a number of 4 bytes.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            4,
        )
    };
    assert_eq!(result, 0);
}

fn messages_go_straight(host: &Host) {
    let joined = Joined::new(host, &settings(host));
    let mut workload = host.workload("one");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 100 64"), 200);
    assert!(joined.joined(&mut workload, "talk 20 300000") > 40, "large ones in pieces");
    assert_eq!(joined.joined(&mut workload, "talk 50 1000"), 100, "and they are joined still");
    // These may be more than the reader has left unread; whichever way they go, they come back.
    joined.joined(&mut workload, "talk 5 8000000");
    assert_eq!(joined.redirect.counters().expect("counters").egress_redirected, 1);
    let seen = status(&host.bpffs(), &name("one")).expect("a status");
    let map = seen.maps.iter().find(|map| map.map == "JOINED").expect("it is shown");
    assert_eq!(map.entries, Some(2));
}

fn not_joined(host: &Host) {
    let joined = Joined::new(host, &settings(host));
    let mut workload = host.workload("one");
    // The first one gets a cookie, with which the next one's data goes with its first packet.
    assert_eq!(workload.ask(&format!("open fastopen {ASKED}")), "ok");
    for kind in ["blocking", "zerocopy", "fastopen", "multipath"] {
        assert_eq!(workload.ask(&format!("open {kind} {ASKED}")), "ok", "{kind}");
        assert_eq!(joined.joined(&mut workload, "talk 100 2000"), 0, "{kind}");
    }
    let fast = fs::read_to_string("/proc/net/netstat").expect("statistics");
    assert!(counted(&fast, "TCPFastOpenPassive") > 0, "data did come with a first packet");
}

/// A counter of `/proc/net/netstat`: a line of names, then a line of numbers.
fn counted(netstat: &str, name: &str) -> u64 {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next().expect("names"), lines.next().expect("numbers"));
    let found = names.split(' ').zip(numbers.split(' ')).find(|(found, _)| *found == name);
    found.and_then(|(_, number)| number.parse().ok()).expect("a counter")
}

fn options(host: &Host) {
    let joined = Joined::new(host, &settings(host));
    let mut workload = host.workload("one");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    for option in ["zerocopy", "tls"] {
        assert_eq!(workload.ask(&format!("option {option}")), "1", "EPERM for {option}");
    }
    assert_eq!(joined.joined(&mut workload, "talk 10 100"), 20);
    assert_eq!(workload.ask(&format!("open blocking {ASKED}")), "ok");
    assert_eq!(workload.ask("option zerocopy"), "ok", "it is not joined");
}

fn not_turned(host: &Host) {
    let joined = Joined::new(host, &settings(host));
    let mut stranger = host.workload("two");
    assert_eq!(stranger.ask(&format!("open plain {}", joined.proxy)), "ok");
    assert_eq!(joined.joined(&mut stranger, "talk 100 64"), 0);
    // One of the workload that goes straight to somebody who says it again, too.
    let three = Settings { loopback_is_own: true, join_sockets: true, ..host.settings("three") };
    let redirect = attached(&three, &inspecting());
    let mut workload = host.workload("three");
    assert_eq!(workload.ask(&format!("open plain {}", joined.proxy)), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 100 64"), 0);
    assert_eq!(redirect.counters().expect("counters").messages_joined, 0);
}

fn without_room(host: &Host) {
    let mut settings = settings(host);
    settings.capacity.joined = 2;
    let joined = Joined::new(host, &settings);
    let mut workload = host.workload("one");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 10 64"), 20);
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 10 64"), 0);
    assert_eq!(workload.ask("close"), "ok");
    // Their places are free again, if not at once.
    let is_joined = |workload: &mut Process| {
        assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
        let messages = joined.joined(workload, "talk 10 64");
        assert_eq!(workload.ask("close"), "ok");
        messages == 20
    };
    assert!((0..50).any(|_| is_joined(&mut workload)));
}

fn detached_meanwhile(host: &Host) {
    let joined = Joined::new(host, &settings(host));
    let mut workload = host.workload("one");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 10 64"), 20);
    detach(&host.bpffs(), &name("one")).expect("detached");
    drop(joined);
    for talk in ["talk 1000 64", "talk 5 3000000"] {
        assert_eq!(workload.ask(talk), "ok");
    }
}

fn switched_off_meanwhile(host: &Host) {
    let joined = Joined::new(host, &settings(host));
    let mut workload = host.workload("one");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 10 64"), 20);
    drop(joined);
    let joined = Joined::new(host, &host.settings("one"));
    assert_eq!(joined.joined(&mut workload, "talk 10 64"), 20, "it was joined, and is");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(joined.joined(&mut workload, "talk 10 64"), 0, "this one is not");
}

fn killed_proxy(host: &Host) {
    let mut workload = host.workload("one");
    let proxy = host.joining_proxy("one");
    assert_eq!(workload.ask(&format!("open plain {ASKED}")), "ok");
    assert_eq!(workload.ask("talk 10 64"), "ok");
    // Some of it the proxy has not read, and never will.
    assert_eq!(workload.ask("send 300000"), "ok");
    proxy.kill();
    let end = workload.ask("end");
    assert!(["ok", "104", "32"].contains(&end.as_str()), "{end}");
    // The first one is answered with a reset, as over TCP.
    let sent: Vec<_> = (0..50).map(|_| workload.ask("send 100")).collect();
    assert_eq!(sent.last().map(String::as_str), Some("32"), "EPIPE after {sent:?}");
}

const ASKED: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 8080);
