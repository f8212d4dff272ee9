//! What a quiet workload's requests take while another workload of the node does what it can: a thousand
//! connections that ask without a pause, through one worker.
//!
//! ```text
//! cargo run --release -p portreeve-core --example noisy_neighbour [seconds]
//! ```
//!
//! Three times: the quiet one alone; beside the noisy one, each with its share of the worker's time; and
//! beside it without, which is what a share without an end comes to.
#![expect(clippy::expect_used, reason = "an example may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portreeve_core::{
    EndpointConfig, EndpointLimits, Endpoints, ListenerConfig, NodeConfig, NodeProxy,
    UpstreamConfig,
};
use portreeve_policy::{
    Directory, Endpoint, EndpointPolicy, Options, Repository, Source, TrafficDirection,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NOISY: &str = "127.31.0.1";
const QUIET: &str = "127.31.0.2";

/// Connections of the noisy one, and requests that each sends at once.
const CONNECTIONS: usize = 1000;
const PIPELINED: usize = 8;

const REQUEST: &[u8] = b"GET /public/a HTTP/1.1\r\nHost: shop\r\nX-Token: 17\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let time = Duration::from_secs(seconds);
    let shared = EndpointLimits::default().cpu_share;
    println!("{:28} {:>9} {:>9} {:>9} {:>12}", "", "p50 µs", "p99 µs", "max µs", "noisy req/s");
    for (what, noisy, share) in [
        ("alone", 0, shared),
        ("with shares", CONNECTIONS, shared),
        ("without shares", CONNECTIONS, u32::MAX),
    ] {
        let (mut took, noise) = run(noisy, share, time);
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_micros();
        println!("{what:28} {:>9} {:>9} {:>9} {:>12}", at(50), at(99), at(100), noise / seconds);
    }
}

/// How long the quiet one's requests took, and how many the noisy one had answered.
fn run(noisy: usize, cpu_share: u32, time: Duration) -> (Vec<Duration>, u64) {
    let (loud_server, quiet_server) = (serve_many(), serve_one());
    let listener = |name: &str, upstream| ListenerConfig {
        direction: TrafficDirection::Egress,
        upstream: UpstreamConfig::Fixed(upstream),
        policy_port: Some(80),
        ..ListenerConfig::ingress(name, local("127.0.0.1"), upstream)
    };
    let config = NodeConfig {
        workers: Some(NonZeroUsize::MIN),
        ..NodeConfig::new(vec![listener("noisy", loud_server), listener("quiet", quiet_server)])
    };
    let endpoints = Arc::<Endpoints>::default();
    for (name, address) in [("noisy", NOISY), ("quiet", QUIET)] {
        let limits = EndpointLimits { cpu_share, ..EndpointLimits::default() };
        let addresses = vec![address.parse().expect("an address")];
        let config = EndpointConfig { name: name.into(), addresses, limits };
        let upserted = endpoints.upsert(config, policy(name));
        assert!(upserted.refused.is_empty(), "each has an address of its own");
    }
    let proxy = NodeProxy::start(config, endpoints).expect("it starts");
    let (over, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let noise = thread::spawn({
        let (to, over, count) = (proxy.addresses()[0], over.clone(), count.clone());
        move || make_noise(to, noisy, &over, &count)
    });
    thread::sleep(Duration::from_secs(1));
    let before = count.load(Ordering::Relaxed);
    let took = ask_quietly(proxy.addresses()[1], time);
    let asked = count.load(Ordering::Relaxed) - before;
    over.store(true, Ordering::Relaxed);
    proxy.remote().stop();
    noise.join().expect("it ends");
    proxy.join();
    (took, asked)
}

/// One request every five milliseconds, on a thread that nothing else runs on.
fn ask_quietly(to: SocketAddr, time: Duration) -> Vec<Duration> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&local(QUIET).into()).expect("loopback has every address");
    socket.connect(&to.into()).expect("it listens");
    socket.set_tcp_nodelay(true).expect("a socket");
    let mut stream = TcpStream::from(socket);
    let (begin, mut took) = (Instant::now(), Vec::new());
    let mut answer = [0; 1024];
    while begin.elapsed() < time {
        let asked = Instant::now();
        stream.write_all(REQUEST).expect("sent");
        stream.read_exact(&mut answer[..ANSWER.len()]).expect("an answer");
        took.push(asked.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    took
}

fn make_noise(to: SocketAddr, connections: usize, over: &Arc<AtomicBool>, count: &Arc<AtomicU64>) {
    block_on(async move {
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (over, count) = (over.clone(), count.clone());
            tasks.push(tokio::spawn(async move {
                let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
                socket.bind(local(NOISY)).expect("loopback has every address");
                let Ok(mut stream) = socket.connect(to).await else { return };
                let requests = REQUEST.repeat(PIPELINED);
                let mut answers = vec![0; ANSWER.len() * PIPELINED];
                while !over.load(Ordering::Relaxed) {
                    if stream.write_all(&requests).await.is_err()
                        || stream.read_exact(&mut answers).await.is_err()
                    {
                        return;
                    }
                    count.fetch_add(PIPELINED as u64, Ordering::Relaxed);
                }
            }));
        }
        for task in tasks {
            let _ = task.await;
        }
    });
}

/// A server for the noisy one.
fn serve_many() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        block_on(async move {
            listener.set_nonblocking(true).expect("a socket");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut buffer, mut left) = (vec![0; 16 * 1024], 0);
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        left += length;
                        let answers = ANSWER.repeat(left / REQUEST.len());
                        left %= REQUEST.len();
                        if stream.write_all(&answers).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    address
}

/// A server for the quiet one, which nobody else keeps busy.
fn serve_one() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let mut buffer = [0; 1024];
        while let Ok(1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(ANSWER);
        }
    });
    address
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work);
}

fn local(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().expect("an address"), 0)
}

/// The policy that the project measures by.
fn policy(name: &str) -> EndpointPolicy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {name}, namespace: default}}\n\
         spec:\n  endpointSelector: {{matchLabels: {{app: {name}}}}}\n  egress:\n  - toPorts:\n    \
         - {{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{method: GET, \
         path: '/public/.*', headers: ['X-Token: 17']}}]}}}}\n"
    );
    let repository = Repository::parse([Source::new("p.yaml", text)]).expect("a policy");
    let endpoint = Endpoint::new(name, "default", format!("app={name}").parse().expect("labels"));
    let (nobody, options) = (Directory::default(), Options::default());
    EndpointPolicy::resolve(&repository, &endpoint, &nobody, &options).expect("a policy")
}
