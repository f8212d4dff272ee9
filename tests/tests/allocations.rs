//! On the way of a request nothing is allocated once buffers are warm. The proxy runs in this
//! process, so that its allocations can be counted; client and upstream allocate nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{Limits, ListenerConfig, PolicyFiles, Proxy, ProxyConfig, UpstreamConfig};
use portreeve_policy::{Endpoint, Options, Peer, TrafficDirection};
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
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, text).expect("the policy");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let upstream = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer) {
            stream.write_all(response).expect("sent");
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
        policy: PolicyFiles { paths: vec![policy], watch: false },
        limits: Limits::default(),
        workers: NonZeroUsize::new(1),
        access_log: AccessLogConfig { mode, sink: Sink::File("/dev/null".into()), query: false },
        admin: None,
    })
    .expect("the proxy starts");
    let mut client = TcpStream::connect(proxy.addresses()[0]).expect("it listens");
    let mut buffer = [0; 4096];
    let mut ask = |times: usize| {
        for _ in 0..times {
            client.write_all(request).expect("sent");
            let n = client.read(&mut buffer).expect("answered");
            assert!(n > 0);
        }
    };
    ask(500);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    ask(REQUESTS);
    let counted = ALLOCATIONS.load(Ordering::Relaxed) - before;
    proxy.remote().stop();
    proxy.join();
    counted
}

/// One test: nothing else may allocate meanwhile.
#[test]
fn requests_in_steady_state_allocate_nothing() {
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
}
