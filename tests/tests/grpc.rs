//! gRPC through the sidecar: clients as they are, in Go, Java, Python (gRPC's C core) and Rust, before a
//! server that counts. They all see the same, whatever the language: `grpc/expected/calls.txt`.
//!
//! Each also runs without the sidecar, before a server that refuses in its stead: when that fails, it is
//! the client that has changed, not the proxy.

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use portreeve_tests::grpc::{Denials, Server};
use portreeve_tests::grpc_tonic;
use portreeve_tests::sidecar::{Setup, Sidecar};
use portreeve_tests::{Need, eventually, needed, peers, trial};

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let go = [Need::Fetched("grpc", "go")];
    let java = [Need::Program("java"), Need::Fetched("grpc", "java")];
    let python = [Need::Program("python3"), Need::Fetched("grpc", "python")];
    let peers: [(Peer, &[Need]); 4] =
        [(Peer::Go, &go), (Peer::Java, &java), (Peer::Python, &python), (Peer::Tonic, &[])];
    let mut tests = Vec::new();
    for (peer, needs) in peers {
        for (way, suffix) in [(Way::Proxied, ""), (Way::Direct, "_without_the_proxy")] {
            let name = format!("{peer:?}").to_lowercase();
            let calls = format!("{name}{suffix}");
            tests.push(trial(&calls, needs, move || every_call(peer, way)));
            let lasts = format!("{name}_and_a_server_that_goes{suffix}");
            tests.push(trial(&lasts, needs, move || server_goes(peer, way)));
        }
    }
    libtest_mimic::run(&arguments, tests).exit();
}

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Go,
    Java,
    Python,
    Tonic,
}

impl Peer {
    /// The client as a process, to be told what to do and where; `None`: it lives here.
    fn command(self) -> Option<Command> {
        let folder = |part: &str| peers::fetched("grpc").join(part);
        match self {
            Self::Go => Some(Command::new(folder("go/client"))),
            Self::Java => {
                let mut java = Command::new(needed("java"));
                let folder = folder("java");
                java.arg("-Xmx512m").arg("-cp");
                java.arg(format!("{0}:{0}/*", folder.display())).arg("JavaClient");
                Some(java)
            }
            Self::Python => {
                let mut python = Command::new(needed("python3"));
                python.env("PYTHONPATH", folder("python"));
                python.arg(peers::sources("grpc").join("client.py"));
                Some(python)
            }
            Self::Tonic => None,
        }
    }
}

/// What is between a client and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The sidecar.
    Proxied,
    /// Nothing.
    Direct,
}

/// A server, and the sidecar before it.
struct World {
    server: Server,
    sidecar: Option<Sidecar>,
}

impl World {
    fn start(way: Way) -> Self {
        let proxied = way == Way::Proxied;
        let server = Server::start(if proxied { Denials::Before } else { Denials::Here });
        let sidecar = proxied.then(|| Setup::new(server.address).policy(POLICY).start());
        Self { server, sidecar }
    }

    fn address(&self) -> SocketAddr {
        self.sidecar.as_ref().map_or(self.server.address, |sidecar| sidecar.address)
    }

    /// How many connections clients have made.
    fn connections(&self) -> f64 {
        let opened = "portreeve_connections_opened_total{direction=\"ingress\"}";
        match &self.sidecar {
            Some(sidecar) => sidecar.metric(opened).unwrap_or_default(),
            None => f64::from(u32::try_from(self.server.seen().connections).unwrap_or(u32::MAX)),
        }
    }
}

/// What the clients may do.
const POLICY: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: orders}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        grpc:
        - {service: shop.v1.Orders, method: Get}
        - {service: shop.v1.Orders, method: Put}
        - {service: shop.v1.Orders, method: Watch}
        - {service: shop.v1.Orders, method: Chat}
        - {service: shop.v1.Orders, method: Slow}
        - {service: shop.v1.Orders, method: Fail}
        - {service: shop.v1.Orders, method: Headers, metadata: [{name: x-token, exact: '42'}]}
";

/// `h2`'s server ends a connection for a WINDOW_UPDATE on a stream that was opened after its last GOAWAY,
/// and gRPC's C core sends such: now and then, and without the sidecar, which keeps them apart. That
/// pair may try again.
fn server_goes(peer: Peer, way: Way) {
    let again = if (peer, way) == (Peer::Python, Way::Direct) { 3 } else { 0 };
    for _ in 0..again {
        if std::panic::catch_unwind(|| server_goes_and_comes_back(peer, way)).is_ok() {
            return;
        }
    }
    server_goes_and_comes_back(peer, way);
}

fn every_call(peer: Peer, way: Way) {
    let world = World::start(way);
    match peer.command() {
        Some(mut command) => {
            let command = command.args(["calls", &world.address().to_string()]);
            peers::assert_printed("grpc", "calls", &mut peers::limited(command, 100));
        }
        None => {
            let printed = grpc_tonic::Client::new(world.address()).calls();
            peers::assert_expected("grpc", "calls", &printed, "");
        }
    }
    let count = |calls: &std::collections::BTreeMap<String, usize>, method: &str| {
        calls.get(&format!("/shop.v1.{method}")).copied().unwrap_or_default()
    };
    let cancelled: &[&str] = match peer {
        // Where requests may still follow, what it drops ends like any other call.
        Peer::Tonic => &["Orders/Slow", "Orders/Watch"],
        _ => &["Orders/Slow", "Orders/Watch", "Orders/Chat"],
    };
    let seen = eventually("the server to notice cancelled calls", || {
        let seen = world.server.seen();
        cancelled.iter().all(|method| count(&seen.cancelled, method) == 1).then_some(seen)
    });
    for denied in ["Admin/Reset", "Admin/Load", "Admin/Chat", "Orders/Delete"] {
        assert_eq!(count(&seen.calls, denied), 0, "{denied} came through: {:?}", seen.calls);
    }
    assert_eq!(count(&seen.calls, "Orders/Headers"), 1, "{:?}", seen.calls);
    assert!(seen.cancelled.values().sum::<usize>() <= 3, "{:?}", seen.cancelled);
    // Half a second is what every client waits; some round it up.
    let slow = seen.timeouts.iter().find(|(path, _)| path.ends_with("/Slow"));
    let timeout = slow.and_then(|(_, timeout)| duration(timeout)).expect("a timeout");
    assert!(timeout > Duration::ZERO && timeout < Duration::from_millis(550), "{timeout:?}");
    let connections = world.connections();
    assert!((connections - 1.0).abs() < 0.1, "{connections} connections for one channel");
}

/// What a `grpc-timeout` says.
fn duration(timeout: &str) -> Option<Duration> {
    let (digits, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok()?;
    match unit {
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

fn server_goes_and_comes_back(peer: Peer, way: Way) {
    let mut world = World::start(way);
    let mut client = Told::start(peer, world.address());
    assert_eq!(client.told("call"), "0");
    assert_eq!(client.told("open"), "open");
    assert_eq!(world.server.seen().connections, 1, "calls share a connection");
    world.server.go_away();
    eventually("another connection", || {
        let came = client.told("call");
        // A call that was on its way when the server left was seen by no server, and may be made again;
        // some clients do so themselves. tonic may lose one by itself.
        assert!(["0", "14"].contains(&&*came) || peer == Peer::Tonic, "a call ended with {came}");
        (came == "0" && world.server.seen().connections >= 2).then_some(())
    });
    assert_eq!(client.told("turn"), "turn", "what had begun goes on");
    assert_eq!(client.told("end"), "0");
    eventually("the first connection to end", || (world.server.seen().open <= 1).then_some(()));
    assert_eq!(client.told("open"), "open");
    world.server.stop();
    let broken = client.told("wait");
    let expected: &[&str] = match peer {
        // For tonic every stream that ends without trailers is UNKNOWN.
        Peer::Tonic => &["2", "14"],
        _ => &["13", "14"],
    };
    assert!(expected.contains(&&*broken), "a stream whose server is gone ended with {broken}");
    match way {
        Way::Proxied => assert_eq!(client.told("call"), "14"),
        // A client that is just about to notice may call it UNKNOWN.
        Way::Direct => eventually("UNAVAILABLE", || (client.told("call") == "14").then_some(())),
    }
    world.server.revive();
    // Clients wait a while before they connect again.
    eventually("a call that succeeds", || (client.told("call") == "0").then_some(()));
}

/// A client that does what it is told.
enum Told {
    Process { child: Child, input: Option<ChildStdin>, lines: Lines<BufReader<ChildStdout>> },
    Here(Box<grpc_tonic::Client>),
}

impl Told {
    fn start(peer: Peer, address: SocketAddr) -> Self {
        let Some(mut command) = peer.command() else {
            return Self::Here(Box::new(grpc_tonic::Client::new(address)));
        };
        let mut command = peers::limited(command.args(["told", &address.to_string()]), 60);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the client runs");
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self::Process { child, input, lines }
    }

    /// What came of it, in a word: a status, or what was answered.
    fn told(&mut self, what: &str) -> String {
        match self {
            Self::Here(client) => client.told(what),
            Self::Process { input, lines, .. } => {
                writeln!(input.as_mut().expect("its input"), "{what}").expect("it listens");
                lines.next().expect("a line").expect("text")
            }
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Self::Process { child, input, .. } = self {
            // The end of its input is the client's end.
            drop(input.take());
            let _ = child.wait();
        }
    }
}
