//! Services at the system call: processes of a cgroup.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use portreeve_ebpf::ServiceConfig;
use portreeve_ebpf::Transport;
use portreeve_ebpf::node::{Reason, mark};
use portreeve_ebpf_common::Direction;
use rustix::net::{AddressFamily, SocketType, connect, socket};

use super::Test;
use super::net::{Node, answers, cgroups};
use super::proxied::set;
use super::services::{OTHER, SERVICE, addresses, at, put, service, three};

pub(crate) const TESTS: &[Test] = &[
    ("processes_of_a_cgroup_are_connected_to_backends_at_once", dialled),
    ("who_is_the_proxy_is_connected_to_whom_it_says", proxy),
];

fn proxy(node: &mut Node) {
    let cgroup = Cgroup::of_this_process();
    let [a, b, _] = three(node, 8080, 0);
    put(node, &[&service(addresses(SERVICE), 80, &at(8080, &[&b]))]);
    node.kernel().set_cgroup(Some(cgroup.0.as_path())).expect("attached");
    b.serve(8080);
    let turned = || {
        let counters = node.kernel().counters().expect("counters");
        counters.get(Reason::Translated, Direction::Egress)
    };
    let mut open = Vec::new();
    for address in addresses(SERVICE) {
        let call = |own: u32| {
            let to = SocketAddr::from((address, 80));
            let mut stream = a.run(move || {
                let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket(family, SocketType::STREAM, None).expect("a socket");
                set(&socket, libc::SOL_SOCKET, libc::SO_MARK, own);
                connect(&socket, &to).expect("connected");
                TcpStream::from(socket)
            });
            assert!(answers(&mut stream), "{to}");
            stream
        };
        let before = turned();
        // Open to the end: the last packets of one are not to be counted with those of the next.
        open.push(call(0));
        assert_eq!(turned(), before, "anybody is connected to the backend");
        // Its packets have the service's address, which policy has judged, and are turned on their way.
        open.push(call(mark::FROM_PROXY));
        assert!(turned() > before, "{address}");
    }
}

fn dialled(node: &mut Node) {
    let cgroup = Cgroup::of_this_process();
    let [a, b, _] = three(node, 8080, 0);
    let tcp = service(addresses(SERVICE), 80, &at(8080, &[&b]));
    let udp = ServiceConfig { protocol: Transport::Udp, ..tcp.clone() };
    put(node, &[&tcp, &udp, &service(addresses(OTHER), 80, &[])]);
    node.kernel().set_cgroup(Some(cgroup.0.as_path())).expect("attached");
    b.serve(8080);
    let (client, server) = (a.datagrams(4000), b.datagrams(8080));
    for (address, nobody) in addresses(SERVICE).into_iter().zip(addresses(OTHER)) {
        let mut stream = a.connect((address, 80)).expect("it may");
        assert_eq!(stream.peer_addr().expect("an address"), (address, 80).into());
        assert!(answers(&mut stream), "{address}");
        let error = a.connect((nobody, 80)).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        client.send_to(b"question", (address, 80)).expect("sent");
        let (_, from) = server.recv_from(&mut [0; 8]).expect("it comes");
        server.send_to(b"answer", from).expect("sent");
        let (_, from) = client.recv_from(&mut [0; 8]).expect("it comes back");
        assert_eq!((from.ip().to_canonical(), from.port()), (address, 80));
    }
    let counters = node.kernel().counters().expect("counters");
    assert_eq!(counters.get(Reason::Translated, Direction::Egress), 0, "no packet was turned");
    node.kernel().set_cgroup(None).expect("detached");
    assert!(answers(&mut a.connect((addresses(SERVICE)[0], 80)).expect("on its way")));
    let counters = node.kernel().counters().expect("counters");
    assert!(counters.get(Reason::Translated, Direction::Egress) > 0);
}

/// A cgroup with this process in it, until it is dropped.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn of_this_process() -> Self {
        let root = cgroups().expect("cgroup v2 is mounted");
        let cgroup = Self(root.join(format!("portreeve-node-test-{}", std::process::id())));
        std::fs::create_dir(&cgroup.0).expect("a cgroup");
        std::fs::write(cgroup.0.join("cgroup.procs"), "0").expect("it moves");
        cgroup
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let root = self.0.with_file_name("cgroup.procs");
        let _ = std::fs::write(root, "0");
        let _ = std::fs::remove_dir(&self.0);
    }
}
