//! Services: who asks for one gets a backend, and hears of nobody but the service.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_ebpf::node::{Reason, endpoint_flags};
use portreeve_ebpf::{BackendConfig, ServiceConfig, Transport};
use portreeve_ebpf_common::{Direction, Verdict};
use portreeve_policy::Labels;

use super::Test;
use super::net::{Node, PATIENCE, TCP, UDP, Workload, answers};

pub(crate) const TESTS: &[Test] = &[
    ("a_service_leads_to_its_backends_and_policy_judges_those", backends),
    ("datagrams_to_a_service_come_back_from_it", datagrams),
    ("a_service_without_backends_says_so_at_once", nobody),
    ("a_workload_that_answers_for_a_service_reaches_itself", hairpin),
    ("a_client_with_affinity_comes_back_to_its_backend", affinity),
    ("a_backend_that_drains_keeps_its_connections_and_gets_no_other", draining),
    ("two_services_with_one_backend_are_not_mixed_up", shared),
    ("from_outside_a_service_of_the_node_answers_with_the_clients_address_kept", outside),
    ("from_outside_a_service_disturbs_no_connection_straight_to_its_backend", straight),
    ("from_outside_a_backend_of_another_node_answers_by_this_one", relayed),
    ("an_address_inside_means_nothing_outside", inside_only),
    ("who_is_denied_takes_no_room_for_services", denied),
    ("a_port_whose_connection_was_refused_can_ask_again", again),
    ("datagrams_that_were_sent_before_the_service_was_there_reach_it_then", before),
    ("an_error_about_a_service_cites_what_was_sent_to_it", errors),
];

pub(crate) const SERVICE: [&str; 2] = ["10.96.0.1", "fd96::1"];
pub(crate) const OTHER: [&str; 2] = ["10.96.0.2", "fd96::2"];

pub(crate) fn addresses(of: [&str; 2]) -> [IpAddr; 2] {
    of.map(|address| address.parse().expect("an address"))
}

pub(crate) fn service(frontends: [IpAddr; 2], port: u16, backends: &[SocketAddr]) -> ServiceConfig {
    let backend =
        |address: &SocketAddr| BackendConfig { address: *address, weight: 1, draining: false };
    ServiceConfig {
        name: format!("{}-{port}", frontends[0]),
        namespace: "default".to_owned(),
        labels: Labels::default(),
        frontends: frontends.map(|address| (address, port)).to_vec(),
        protocol: Transport::Tcp,
        backends: backends.iter().map(backend).collect(),
        external: false,
        affinity: None,
    }
}

/// All of these, and nothing else.
pub(crate) fn put(node: &Node, services: &[&ServiceConfig]) {
    let all: Vec<_> = services.iter().map(|service| Arc::new((*service).clone())).collect();
    node.kernel().set_services(&all).expect("services");
}

/// Workloads at a port, as backends.
pub(crate) fn at(port: u16, workloads: &[&Workload]) -> Vec<SocketAddr> {
    workloads.iter().flat_map(|one| one.both()).map(|address| (address, port).into()).collect()
}

/// Three workloads: the first may call the others.
pub(crate) fn three(node: &Node, port: u16, flags: u32) -> [Workload; 3] {
    let all = [1, 2, 3].map(|number| node.workload(number, flags));
    let (protocols, egress) = ([TCP, UDP], [102, 103]);
    let to = |identity| protocols.map(|it| (Direction::Egress, identity, it, port, Verdict::Allow));
    node.rules(&all[0], 1, &egress.map(to).concat());
    for server in &all[1..] {
        let from = protocols.map(|it| (Direction::Ingress, 101, it, port, Verdict::Allow));
        node.rules(server, 1, &from);
    }
    all
}

fn backends(node: &mut Node) {
    let [a, b, c] = three(node, 8080, endpoint_flags::TOLD_AT_ONCE);
    let service = service(addresses(SERVICE), 80, &at(8080, &[&b, &c]));
    put(node, &[&service]);
    for server in [&b, &c] {
        named(server, 8080);
    }
    for address in addresses(SERVICE) {
        let mut found = BTreeSet::new();
        for _ in 0..20 {
            let mut stream = a.connect((address, 80)).expect("it may");
            assert_eq!(stream.peer_addr().expect("an address"), (address, 80).into());
            found.insert(name(&mut stream));
        }
        assert_eq!(found, BTreeSet::from([2, 3]), "{address}");
    }
    // Whoever is really called is judged.
    node.rules(&a, 2, &[(Direction::Egress, 102, TCP, 8080, Verdict::Allow)]);
    for address in addresses(SERVICE) {
        let results: Vec<_> = (0..20).map(|_| a.connect((address, 80))).collect();
        let refused = |one: &Result<TcpStream, std::io::Error>| {
            one.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        assert!(results.iter().any(Result::is_ok) && results.iter().any(refused), "{results:?}");
    }
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::Translated, Direction::Egress) > 0);
    assert!(counters.get(Reason::Translated, Direction::Ingress) > 0);
    // What is known of a workload goes with it.
    assert!(!node.kernel().translations().expect("read").is_empty());
    node.kernel().remove_endpoint(1).expect("removed");
    assert_eq!(node.kernel().translations().expect("read"), []);
}

/// Says its number to who comes.
fn named(workload: &Workload, port: u16) {
    use std::io::Write;
    let number = workload.number;
    let listener = workload.run(move || std::net::TcpListener::bind(("::", port)).expect("a port"));
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.write_all(&number.to_be_bytes());
            kept.push(stream);
        }
    });
}

fn name(stream: &mut TcpStream) -> u32 {
    use std::io::Read;
    let mut number = [0; 4];
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.read_exact(&mut number).expect("a number");
    u32::from_be_bytes(number)
}

fn datagrams(node: &mut Node) {
    let [a, b, _] = three(node, 53, 0);
    let service = ServiceConfig {
        protocol: Transport::Udp,
        ..service(addresses(SERVICE), 53, &at(53, &[&b]))
    };
    put(node, &[&service]);
    let (client, server) = (a.datagrams(4000), b.datagrams(53));
    for address in addresses(SERVICE) {
        // Once in one piece, once in parts.
        for length in [5, 5000] {
            client.send_to(&vec![7; length], (address, 53)).expect("sent");
            let (_, from) = server.recv_from(&mut [0; 6000]).expect("it comes");
            assert_eq!(from.port(), 4000);
            server.send_to(&vec![8; length], from).expect("sent");
            let (read, from) = client.recv_from(&mut [0; 6000]).expect("it comes back");
            assert_eq!((read, from.ip().to_canonical()), (length, address));
        }
    }
}

fn nobody(node: &mut Node) {
    let [a, ..] = three(node, 80, endpoint_flags::TOLD_AT_ONCE);
    put(node, &[&service(addresses(SERVICE), 80, &[])]);
    for address in addresses(SERVICE) {
        let begun = Instant::now();
        let error = a.connect((address, 80)).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(begun.elapsed() < PATIENCE);
    }
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::NoBackend, Direction::Egress), 2);
}

fn hairpin(node: &mut Node) {
    let [a, ..] = three(node, 80, 0);
    a.serve(8080);
    put(node, &[&service(addresses(SERVICE), 80, &at(8080, &[&a]))]);
    for address in addresses(SERVICE) {
        let mut stream = a.connect((address, 80)).expect("it reaches itself");
        assert!(answers(&mut stream), "{address}");
        assert_eq!(stream.peer_addr().expect("an address"), (address, 80).into());
    }
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::TurnedBack, Direction::Egress) > 4);
    assert_eq!(counters.dropped(), 0);
}

fn affinity(node: &mut Node) {
    let [a, b, c] = three(node, 8080, 0);
    let service = ServiceConfig {
        affinity: Some(Duration::from_secs(60)),
        ..service(addresses(SERVICE), 80, &at(8080, &[&b, &c]))
    };
    put(node, &[&service]);
    for server in [&b, &c] {
        named(server, 8080);
    }
    for address in addresses(SERVICE) {
        let reached = || name(&mut a.connect((address, 80)).expect("it may"));
        let all: BTreeSet<u32> = (0..12).map(|_| reached()).collect();
        assert_eq!(all.len(), 1, "{address}");
    }
}

fn draining(node: &mut Node) {
    let [a, b, c] = three(node, 8080, 0);
    let mut service = service(addresses(SERVICE), 80, &at(8080, &[&b]));
    put(node, &[&service]);
    b.serve(8080);
    named(&c, 8080);
    let mut open = addresses(SERVICE).map(|address| a.connect((address, 80)).expect("it may"));
    open.iter_mut().for_each(|stream| assert!(answers(stream)));
    service.backends.iter_mut().for_each(|backend| backend.draining = true);
    let others = at(8080, &[&c]).into_iter();
    service.backends.extend(others.map(|address| BackendConfig {
        address,
        weight: 1,
        draining: false,
    }));
    put(node, &[&service]);
    open.iter_mut().for_each(|stream| assert!(answers(stream), "it goes on"));
    for address in addresses(SERVICE) {
        assert_eq!(name(&mut a.connect((address, 80)).expect("it may")), 3);
    }
    service.backends.retain(|backend| !backend.draining);
    put(node, &[&service]);
    open.iter_mut().for_each(|stream| assert!(answers(stream), "even when it is gone"));
}

fn shared(node: &mut Node) {
    let [a, b, _] = three(node, 8080, 0);
    b.serve(8080);
    let both = [SERVICE, OTHER].map(|of| service(addresses(of), 80, &at(8080, &[&b])));
    put(node, &[&both[0], &both[1]]);
    for family in [0, 1] {
        let places = [addresses(SERVICE)[family], addresses(OTHER)[family], b.both()[family]];
        let ports = [80, 80, 8080];
        // From one port, which the client may use for each of them.
        let mut streams: Vec<TcpStream> =
            places.into_iter().zip(ports).map(|to| from_port(&a, 5555, to.into())).collect();
        for (stream, to) in streams.iter_mut().zip(places.into_iter().zip(ports)) {
            assert_eq!(stream.peer_addr().expect("an address"), SocketAddr::from(to));
            assert!(answers(stream), "{to:?}");
        }
    }
}

fn from_port(workload: &Workload, port: u16, to: SocketAddr) -> TcpStream {
    try_from_port(workload, port, to).expect("connected")
}

fn try_from_port(
    workload: &Workload,
    port: u16,
    to: SocketAddr,
) -> Result<TcpStream, std::io::Error> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    workload.run(move || {
        let (family, any): (_, IpAddr) = match to {
            SocketAddr::V4(_) => (AddressFamily::INET, [0; 4].into()),
            SocketAddr::V6(_) => (AddressFamily::INET6, [0_u16; 8].into()),
        };
        let socket = socket(family, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("set");
        bind(&socket, &SocketAddr::from((any, port))).expect("the port");
        let patience = Some(Duration::from_secs(1));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, patience).expect("set");
        connect(&socket, &to)?;
        Ok(TcpStream::from(socket))
    })
}

/// A host outside, whose packets come by a device that answers for services.
fn client(node: &Node, number: u32) -> Workload {
    let client = Workload::new(number);
    node.kernel().set_outside(&BTreeSet::from([client.interface])).expect("attached");
    client
}

/// This node's addresses, as a host outside knows them.
fn of_node(client: &Workload) -> [IpAddr; 2] {
    let number = client.number;
    [format!("10.0.{number}.1"), format!("fd00:{number}::1")]
        .map(|address| address.parse().expect("an address"))
}

fn outside(node: &mut Node) {
    let b = node.workload(2, 0);
    let client = client(node, 7);
    let from = [TCP, UDP].map(|it| (Direction::Ingress, 0, it, 8080, Verdict::Allow));
    node.rules(&b, 1, &from);
    let frontends = of_node(&client);
    let external = ServiceConfig { external: true, ..service(frontends, 30_080, &at(8080, &[&b])) };
    let datagrams = ServiceConfig { protocol: Transport::Udp, ..external.clone() };
    put(node, &[&external, &datagrams]);
    let listener = b.run(|| std::net::TcpListener::bind(("::", 8080)).expect("a port"));
    for (address, own) in frontends.into_iter().zip(client.both()) {
        let mut stream = client.connect((address, 30_080)).expect("the service answers");
        let (served, peer) = listener.accept().expect("it comes");
        assert_eq!(peer.ip().to_canonical(), own, "the client's own");
        std::thread::spawn(move || std::io::copy(&mut &served, &mut &served));
        assert!(answers(&mut stream), "{address}");
    }
    let (from, to): (UdpSocket, UdpSocket) = (client.datagrams(4000), b.datagrams(8080));
    for (address, own) in frontends.into_iter().zip(client.both()) {
        for length in [5, 5000] {
            from.send_to(&vec![7; length], (address, 30_080)).expect("sent");
            let (_, peer) = to.recv_from(&mut [0; 6000]).expect("it comes");
            assert_eq!(peer.ip().to_canonical(), own);
            to.send_to(&vec![8; length], peer).expect("sent");
            let (read, peer) = from.recv_from(&mut [0; 6000]).expect("it comes back");
            assert_eq!((read, peer.ip().to_canonical()), (length, address));
        }
    }
    node.rules(&b, 2, &[]);
    client.connect((frontends[0], 30_080)).expect_err("policy judges the client");
}

fn straight(node: &mut Node) {
    let (client, b) = (client(node, 7), node.workload(2, 0));
    let rules = [(Direction::Ingress, 0, TCP, 8080, Verdict::Allow)];
    node.rules(&b, 1, &rules);
    b.serve(8080);
    let frontends = of_node(&client);
    let external = ServiceConfig { external: true, ..service(frontends, 30_080, &at(8080, &[&b])) };
    put(node, &[&external]);
    for (address, frontend) in b.both().into_iter().zip(frontends) {
        let mut direct = from_port(&client, 5555, (address, 8080).into());
        try_from_port(&client, 5555, (frontend, 30_080).into()).expect_err("no way back is free");
        assert!(answers(&mut direct), "{address}");
        assert!(answers(&mut from_port(&client, 5556, (frontend, 30_080).into())));
    }
}

fn relayed(node: &mut Node) {
    // Both are outside: one asks, the other answers, by devices of their own.
    let (client, server) = (Workload::new(7), Workload::new(8));
    let both = BTreeSet::from([client.interface, server.interface]);
    node.kernel().set_outside(&both).expect("attached");
    let (frontends, mine) = (of_node(&client), of_node(&server));
    let external =
        ServiceConfig { external: true, ..service(frontends, 30_080, &at(8080, &[&server])) };
    put(node, &[&external]);
    let listener = server.run(|| std::net::TcpListener::bind(("::", 8080)).expect("a port"));
    client.connect((frontends[0], 30_080)).expect_err("nobody knows in whose name");
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = mine else { panic!("one of each") };
    node.kernel().set_node_addresses(Some(v4), Some(v6)).expect("set");
    for (address, mine) in frontends.into_iter().zip(mine) {
        for _ in 0..3 {
            let mut stream = client.connect((address, 30_080)).expect("the service answers");
            let (served, peer) = listener.accept().expect("it comes");
            assert_eq!(peer.ip().to_canonical(), mine, "in the node's name");
            assert!(peer.port() >= 61_000, "{peer}");
            std::thread::spawn(move || std::io::copy(&mut &served, &mut &served));
            assert!(answers(&mut stream), "{address}");
        }
    }
    node.kernel().set_outside(&BTreeSet::new()).expect("detached");
    client.connect((frontends[0], 30_080)).expect_err("nobody answers any more");
}

fn inside_only(node: &mut Node) {
    let b = node.workload(2, 0);
    let client = client(node, 7);
    node.rules(&b, 1, &[(Direction::Ingress, 0, TCP, 8080, Verdict::Allow)]);
    b.serve(8080);
    put(node, &[&service(addresses(SERVICE), 80, &at(8080, &[&b]))]);
    for (inside, straight) in addresses(SERVICE).into_iter().zip(b.both()) {
        client.connect((inside, 80)).expect_err("an address of the cluster's own");
        assert!(answers(&mut client.connect((straight, 8080)).expect("policy says yes")));
    }
}

fn denied(node: &mut Node) {
    let [a, b, _] = three(node, 8080, endpoint_flags::TOLD_AT_ONCE);
    put(node, &[&service(addresses(SERVICE), 80, &at(8080, &[&b]))]);
    node.rules(&a, 2, &[]);
    for address in addresses(SERVICE) {
        a.connect((address, 80)).expect_err("it may not");
    }
    assert_eq!(node.kernel().translations().expect("read"), []);
}

fn again(node: &mut Node) {
    let [a, b, _] = three(node, 8080, 0);
    put(node, &[&service(addresses(SERVICE), 80, &at(8080, &[&b]))]);
    for address in addresses(SERVICE) {
        let error = try_from_port(&a, 5555, (address, 80).into()).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    b.serve(8080);
    for address in addresses(SERVICE) {
        for _ in 0..3 {
            let mut stream = from_port(&a, 5555, (address, 80).into());
            assert!(answers(&mut stream), "{address}");
            // Ends at once, so that the port is free.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("set");
        }
    }
}

fn before(node: &mut Node) {
    let [a, b, _] = three(node, 53, 0);
    let [v4, _] = addresses(SERVICE);
    node.kernel().set_identity(v4.into(), Some(102)).expect("room");
    let (client, server) = (a.datagrams(4000), b.datagrams(53));
    client.send_to(b"nobody", (v4, 53)).expect("sent");
    server.recv_from(&mut [0; 8]).expect_err("it is no service yet");
    let service = service(addresses(SERVICE), 53, &at(53, &[&b]));
    put(node, &[&ServiceConfig { protocol: Transport::Udp, ..service }]);
    client.send_to(b"somebody", (v4, 53)).expect("sent");
    server.recv_from(&mut [0; 8]).expect("it comes");
}

/// Nobody listens at the backends: who has asked for the service hears so, as if of the service.
fn errors(node: &mut Node) {
    let [a, b, _] = three(node, 53, 0);
    node.rules(
        &b,
        2,
        &[0, 101].map(|identity| (Direction::Ingress, identity, UDP, 53, Verdict::Allow)),
    );
    let (client, server) = (Workload::new(7), Workload::new(8));
    let both = BTreeSet::from([client.interface, server.interface]);
    node.kernel().set_outside(&both).expect("attached");
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = of_node(&server) else { panic!("one of each") };
    node.kernel().set_node_addresses(Some(v4), Some(v6)).expect("set");
    let udp = |config| ServiceConfig { protocol: Transport::Udp, ..config };
    let inside = udp(service(addresses(SERVICE), 53, &at(53, &[&b])));
    let outer = |port, backend| {
        let config = service(of_node(&client), port, &at(53, &[backend]));
        udp(ServiceConfig { external: true, ..config })
    };
    put(node, &[&inside, &outer(30_053, &b), &outer(30_054, &server)]);
    let [services, nodes] = [addresses(SERVICE), of_node(&client)];
    for family in [0, 1] {
        for (who, to) in [
            (&a, (services[family], 53)),
            (&client, (nodes[family], 30_053)),
            (&client, (nodes[family], 30_054)),
        ] {
            let socket = who.datagrams(0);
            socket.connect(to).expect("connected");
            socket.send(b"question").expect("sent");
            let error = socket.recv(&mut [0; 8]).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to:?}: {error}");
        }
    }
}
