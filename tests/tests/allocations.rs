//! On the way of a request nothing is allocated once buffers are warm. The proxy runs in this
//! process, so that its allocations can be counted; client and upstream allocate nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use portreeve_core::guard::{self, Guard, GuardConfig};
use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{Limits, ListenerConfig, PolicyFiles, Proxy, ProxyConfig, UpstreamConfig};
use portreeve_policy::{Endpoint, Options, Peer, Source, TrafficDirection};
use portreeve_tests::sidecar::POLICY;
use portreeve_tests::upstream::OK;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REQUESTS: usize = 2000;

/// Allocations of one request in HTTP/2.
const HTTP2: u64 = 3;

/// The same for Kafka.
const KAFKA: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: kafka, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {kafka: [{role: produce, topic: topic1}, {role: consume, topic: topic1}]}
";

/// Produce in version 3: acks of one broker, and a record of two bytes for partition 0 of `topic1`.
const PRODUCE: &[u8] = b"\0\0\0\x2d\0\0\0\x03\0\0\0\x01\0\x01c\xff\xff\0\x01\0\0\0\x09\0\0\0\x01\
    \0\x06topic1\0\0\0\x01\0\0\0\0\0\0\0\x02ab";

/// Its response.
const PRODUCED: &[u8] = b"\0\0\0\x2e\0\0\0\x01\0\0\0\x01\0\x06topic1\0\0\0\x01\0\0\0\0\0\0\
    \0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";

/// Allocations while `REQUESTS` requests pass on a warm connection.
fn allocations(text: &str, request: &[u8], response: &'static [u8], mode: AccessLogMode) -> u64 {
    let serve = move |mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer) {
            stream.write_all(response).expect("sent");
        }
    };
    let mut buffer = [0; 4096];
    let ask = |client: &mut TcpStream| {
        client.write_all(request).expect("sent");
        let n = client.read(&mut buffer).expect("answered");
        assert!(n > 0);
    };
    counted(text, mode, serve, ask)
}

/// Allocations while `ask` is done `REQUESTS` times, in front of a server that does `serve`.
fn counted(
    text: &str,
    mode: AccessLogMode,
    serve: impl Fn(TcpStream) + Send + 'static,
    mut ask: impl FnMut(&mut TcpStream),
) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, text).expect("the policy");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let upstream = listener.local_addr().expect("an address");
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nodelay(true).expect("an option");
            serve(stream);
        }
    });
    let proxy = Proxy::start(ProxyConfig {
        endpoint: Endpoint::new("shop", "default", "app=shop".parse().expect("labels")),
        peers: vec![Peer::new(
            ["127.0.0.1/32".parse().expect("a prefix")],
            "app=client".parse().expect("labels"),
        )],
        options: Options::default(),
        listeners: vec![ListenerConfig {
            name: "test".to_owned(),
            direction: TrafficDirection::Ingress,
            listen: "127.0.0.1:0".parse().expect("an address"),
            upstream: UpstreamConfig::Fixed(upstream),
            policy_port: Some(80),
            advertised: None,
        }],
        policy: PolicyFiles { paths: vec![policy], watch: false }.into(),
        limits: Limits::default(),
        workers: NonZeroUsize::new(1),
        access_log: AccessLogConfig { mode, sink: Sink::File("/dev/null".into()), query: false },
        admin: None,
        observer: Default::default(),
        services: Vec::new(),
        redirection: None,
    })
    .expect("the proxy starts");
    let mut client = TcpStream::connect(proxy.addresses()[0]).expect("it listens");
    client.set_nodelay(true).expect("an option");
    let mut times = |times: usize| (0..times).for_each(|_| ask(&mut client));
    times(500);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    times(REQUESTS);
    let counted = ALLOCATIONS.load(Ordering::Relaxed) - before;
    proxy.remote().stop();
    proxy.join();
    counted
}

/// Allocations and nanoseconds of judging by a guard, a check each; the request itself is made before.
fn guarded(path: &str) -> (u64, u128) {
    let labels = |text: &str| text.parse().expect("labels");
    let endpoint = Endpoint::new("shop", "default", labels("app=shop"));
    let policy = vec![Source::new("shop.yaml", POLICY)];
    let guard = Guard::new(GuardConfig::new(endpoint, 80, policy)).expect("a good policy");
    let client = labels("app=client");
    let request = http::Request::get(path).header("host", "shop").header("x-token", "42");
    let (mut parts, ()) = request.body(()).expect("a request").into_parts();
    let mut ask = |times: usize| {
        for _ in 0..times {
            std::hint::black_box(guard.check(guard::Peer::Labels(&client), &mut parts, None));
        }
    };
    ask(500);
    let (before, began) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
    ask(REQUESTS);
    let took = began.elapsed().as_nanos() / REQUESTS as u128;
    (ALLOCATIONS.load(Ordering::Relaxed) - before, took)
}

/// One test: nothing else may allocate meanwhile.
#[test]
fn requests_in_steady_state_allocate_nothing_and_http2_little() {
    let http = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: shop\r\nX-Token: 42\r\n\r\n");
    let http = [http("/public/a"), http("/private")];
    for (policy, request, response) in [
        (POLICY, http[0].as_bytes(), OK),
        (POLICY, http[1].as_bytes(), OK),
        (KAFKA, PRODUCE, PRODUCED),
    ] {
        let what = String::from_utf8_lossy(&request[..12]);
        let without_log = allocations(policy, request, response, AccessLogMode::Off);
        assert!(without_log <= 2, "{without_log} allocations for {REQUESTS} requests: {what}");
        // Lines are handed over a few times a second, each time in one allocation.
        let with_log = allocations(policy, request, response, AccessLogMode::All);
        assert!(with_log <= 64, "{with_log} allocations for {REQUESTS} logged requests: {what}");
    }
    let each = http2_allocations(AccessLogMode::Off) / REQUESTS as u64;
    let logged = http2_allocations(AccessLogMode::All) / REQUESTS as u64;
    println!("HTTP/2: {each} a request, {logged} a logged one");
    assert!(each <= HTTP2 && logged <= HTTP2, "{each} and {logged} allocations for each request");
    for path in ["/public/a", "/private"] {
        let (allocations, nanoseconds) = guarded(path);
        println!("a guard judges {path} in {nanoseconds} ns");
        assert!(allocations <= 2, "{allocations} allocations for {REQUESTS} checks: {path}");
    }
}

/// Reads a frame into `buffer`: its type, flags and stream.
fn read_frame(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<(u8, u8, [u8; 4])> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    stream.read_exact(&mut buffer[..length]).ok()?;
    Some((head[3], head[4], [head[5], head[6], head[7], head[8]]))
}

/// A server of HTTP/2 that answers every head with `:status: 200` and two bytes.
fn serve_http2(mut stream: TcpStream) {
    let mut buffer = [0; 32 * 1024];
    stream.read_exact(&mut buffer[..24]).expect("the preface");
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("SETTINGS");
    while let Some((kind, flags, id)) = read_frame(&mut stream, &mut buffer) {
        let [a, b, c, d] = id;
        let answer = [0, 0, 1, 1, 4, a, b, c, d, 0x88, 0, 0, 2, 0, 1, a, b, c, d, b'o', b'k'];
        match (kind, flags & 1) {
            (1, _) => stream.write_all(&answer).expect("an answer"),
            (4, 0) => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).expect("acknowledged"),
            (6, 0) => {
                stream.write_all(&[0, 0, 8, 6, 1, 0, 0, 0, 0]).expect("a pong");
                stream.write_all(&buffer[..8]).expect("a pong");
            }
            _ => {}
        }
    }
}

/// The `h2` crate allocates for every stream; it is to stay at that.
fn http2_allocations(mode: AccessLogMode) -> u64 {
    // `:method GET`, `:scheme http`, `:path /public/a`, `:authority shop`.
    const HEAD: &[u8] = b"\x82\x86\x04\x09/public/a\x01\x04shop";
    let mut id = 1_u32;
    let mut buffer = [0; 32 * 1024];
    counted(POLICY, mode, serve_http2, move |client| {
        if id == 1 {
            client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
            client
                .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0])
                .expect("sent");
        }
        let mut request = [0; 9 + HEAD.len()];
        request[2] = u8::try_from(HEAD.len()).expect("short");
        (request[3], request[4]) = (1, 5);
        request[5..9].copy_from_slice(&id.to_be_bytes());
        request[9..].copy_from_slice(HEAD);
        client.write_all(&request).expect("sent");
        loop {
            let (kind, flags, stream) = read_frame(client, &mut buffer).expect("answered");
            if kind == 0 && flags & 1 == 1 && stream == id.to_be_bytes() {
                break;
            }
        }
        id += 2;
    })
}
