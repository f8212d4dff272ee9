//! What the proxy does with an attached redirection: it takes connections, asks where they wanted to
//! go, opens its own; and services.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_ebpf::{
    BackendConfig, Capacity, ListenerSlot, MapError, PolicyTable, Redirect, ServiceConfig, prepare,
};
use portreeve_ebpf::{Settings, services::Transport};
use portreeve_ebpf_common::{Address, PolicyKey, PolicyValue, Verdict, protocol};
use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, socket};

use crate::Test;
use crate::host::{Host, server};
use crate::policy::allowing;

pub(crate) const TESTS: &[Test] = &[
    ("a_turned_connection_tells_where_it_wanted_to_go", turned),
    ("the_proxys_own_connection_is_not_turned_again", exempt),
    ("a_service_leads_to_its_backends_and_stays_theirs", services),
    ("services_without_room_leave_those_before", services_without_room),
];

/// Everything over TCP goes to the proxy, both ways.
pub(crate) fn inspecting() -> PolicyTable {
    let inspect = PolicyValue::verdict(Verdict::Inspect, 1);
    PolicyTable::from_iter([
        (PolicyKey::HEADER, PolicyValue::header(1, true, true)),
        (PolicyKey::address(Address::UNSPECIFIED, 0), PolicyValue::identity(7, 1, 1)),
        (PolicyKey::port(1, protocol::TCP, 0, 0), inspect),
    ])
}

pub(crate) fn attached(settings: &Settings, policy: &PolicyTable) -> Redirect {
    let mut prepared = prepare(settings).expect("prepared");
    prepared.set_policy(policy).expect("a policy");
    prepared.attach().expect("attached")
}

fn turned(host: &Host) {
    let redirect = attached(&host.settings("one"), &inspecting());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = v4(listener.local_addr().expect("bound"));
    let asked: SocketAddr = "192.0.2.1:8080".parse().expect("an address");
    let mut workload = host.workload("one");
    redirect.set_proxy(Some(address), None).expect("a proxy");
    assert_eq!(workload.connect(asked), "1", "it may listen, but nobody has said so");
    redirect.register(ListenerSlot::OutboundV4, listener.as_fd()).expect("registered");
    workload.tell(&format!("hold {asked}"));
    let (socket, client) = listener.accept().expect("a connection");
    let local = socket.local_addr().expect("connected");
    let flow = redirect.original_destination(client, local).expect("it was turned");
    assert_eq!((flow.asked, flow.destination), (asked, asked));
    assert_eq!(workload.line(), format!("{asked}"), "what getpeername shows");
    assert_eq!(workload.ask("close"), "ok");
    drop(socket);
    let is_gone = || {
        redirect
            .original_destination(client, local)
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let end = Instant::now() + Duration::from_secs(10);
    while !is_gone() {
        assert!(Instant::now() < end, "the connection is over, and it is still known");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(redirect.counters().expect("counters").egress_redirected, 1);
    redirect.set_proxy(None, None).expect("no proxy");
    assert_eq!(workload.connect(asked), "1");
}

fn exempt(host: &Host) {
    let redirect = attached(&host.settings("one"), &inspecting());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it does not block");
    redirect.register(ListenerSlot::InboundV4, listener.as_fd()).expect("registered");
    let mut workload = host.workload("one");
    assert_eq!(workload.ask("listen 127.0.0.1:7010"), "ok");
    let to: SocketAddr = "127.0.0.1:7010".parse().expect("an address");

    let client = TcpStream::connect(to).expect("the proxy takes it");
    let (accepted, from) = listener.accept().expect("the connection is the proxy's");
    assert_eq!(accepted.local_addr().expect("connected"), to, "where it wanted to go");
    assert_eq!(from, client.local_addr().expect("connected"), "who it is from");

    let own = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&own, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let from = SocketAddr::try_from(getsockname(&own).expect("bound")).expect("an address");
    let exemption = redirect.exempt(from, to).expect("there is room");
    connect(&own, &to).expect("the application takes it");
    drop(exemption);
    let nobody = listener.accept().expect_err("it went to the application");
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    TcpStream::connect(to).expect("the proxy takes the next one");
    assert!(listener.accept().is_ok());
}

fn service(backends: &[SocketAddr]) -> Arc<ServiceConfig> {
    let backend =
        |address: &SocketAddr| BackendConfig { address: *address, weight: 1, draining: false };
    Arc::new(ServiceConfig {
        name: "shop".to_owned(),
        namespace: "default".to_owned(),
        labels: Default::default(),
        frontends: vec![FRONTEND],
        protocol: Transport::Tcp,
        backends: backends.iter().map(backend).collect(),
        external: false,
        affinity: None,
    })
}

const FRONTEND: (std::net::IpAddr, u16) = (std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 80);

fn services(host: &Host) {
    let settings = host.settings("one");
    let (one, other) = (server(), server());
    let redirect = attached(&settings, &allowing(1, &[one.port(), other.port(), 80]));
    let frontend = SocketAddr::from(FRONTEND);
    let mut workload = host.workload("one");
    assert_eq!(workload.connect(frontend), "101", "ENETUNREACH: no service yet");
    redirect.set_services(&[service(&[one])]).expect("services");
    assert_eq!(workload.connect(frontend), "ok");
    // Somebody else goes on with it.
    drop(redirect);
    let redirect = attached(&settings, &allowing(1, &[other.port(), 80]));
    assert_eq!(
        workload.connect(frontend),
        "1",
        "the service is still there, its backend is denied"
    );
    redirect.set_services(&[service(&[one, other])]).expect("services");
    let outcomes: Vec<_> = (0..50).map(|_| workload.connect(frontend)).collect();
    assert!(outcomes.iter().any(|outcome| outcome == "ok"), "{outcomes:?}");
    assert!(outcomes.iter().any(|outcome| outcome == "1"), "{outcomes:?}");
    redirect.set_services(&[service(&[])]).expect("services");
    assert_eq!(workload.connect(frontend), "111", "ECONNREFUSED: it has no backends");
    redirect.set_services(&[]).expect("services");
    assert_eq!(workload.connect(frontend), "101");
}

fn services_without_room(host: &Host) {
    let mut settings = host.settings("one");
    settings.capacity = Capacity { backends: 2, ..Capacity::default() };
    let backend = server();
    let redirect = attached(&settings, &allowing(1, &[backend.port()]));
    redirect.set_services(&[service(&[backend])]).expect("services");
    let error = redirect.set_services(&[service(&[server(), server()])]).expect_err("no room");
    assert!(matches!(error, MapError::Services(_)), "{error}");
    assert_eq!(host.workload("one").connect(SocketAddr::from(FRONTEND)), "ok");
}

pub(crate) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}
