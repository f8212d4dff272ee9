//! A proxy that is fed from inside of the kernel, by a stand-in for it: original destinations, policy
//! that the kernel refuses, decisions that it tells of.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "what a test relies on may panic")]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use portreeve_core::redirection::{
    Exemption, KernelCounters, KernelDecision, KernelDecisions, KernelReason, KernelVerdict,
    Redirection, Refusal,
};
use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{
    ListenerConfig, LoadError, Proxy, ProxyConfig, StartError, Transparent, UpstreamConfig,
};
use portreeve_policy::{Endpoint, EndpointPolicy, Peer, Protocol, Source, TrafficDirection};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  egress:
  - toEndpoints: [{matchLabels: {app: server}}]
    toPorts:
    - ports: [{port: '1', endPort: 65535, protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
  egressDeny:
  - toCIDR: [192.0.2.0/24]
";

/// Stands for the kernel.
#[derive(Debug, Default)]
struct Kernel {
    /// From a client to where it wanted to go.
    flows: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// What happened, in order.
    heard: Mutex<Vec<String>>,
    refuses: Mutex<Option<&'static str>>,
    counters: Mutex<KernelCounters>,
}

impl Redirection for Kernel {
    fn original_destination(&self, client: SocketAddr, _: SocketAddr) -> io::Result<SocketAddr> {
        let flows = self.flows.lock().unwrap();
        flows.get(&client).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exempt(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Exemption> {
        self.heard.lock().unwrap().push(format!("exempt {from} {to}"));
        Ok(Box::new(()))
    }

    fn listening(
        &self,
        direction: TrafficDirection,
        address: SocketAddr,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let socket = std::net::TcpListener::from(socket.try_clone_to_owned()?);
        assert_eq!(socket.local_addr()?, address);
        std::net::TcpStream::connect(address).expect("it listens before it is told of");
        self.heard.lock().unwrap().push(format!("listening {}", direction.as_str()));
        Ok(())
    }

    fn policy(&self, revision: u64, policy: &EndpointPolicy) -> Result<(), Refusal> {
        let rules = policy.rules().len();
        self.heard.lock().unwrap().push(format!("policy {revision} with {rules} rules"));
        self.refuses.lock().unwrap().map_or(Ok(()), |why| Err(why.into()))
    }

    fn counters(&self) -> io::Result<KernelCounters> {
        Ok(*self.counters.lock().unwrap())
    }
}

fn config(kernel: &Arc<Kernel>, log: &Path) -> ProxyConfig {
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
    let here = "127.0.0.1:0".parse().unwrap();
    let listener = ListenerConfig {
        direction: TrafficDirection::Egress,
        upstream: UpstreamConfig::OriginalDestination(Transparent::Ebpf),
        ..ListenerConfig::ingress("outbound", here, here)
    };
    let mut config = ProxyConfig::new(endpoint, vec![Source::new("p", POLICY)], vec![listener]);
    let prefix = "127.0.0.0/8".parse().unwrap();
    config.peers = vec![Peer::new([prefix], "app=server".parse().unwrap())];
    config.admin = Some(here);
    // So that connections are taken in their order.
    config.workers = std::num::NonZeroUsize::new(1);
    config.access_log = AccessLogConfig {
        mode: AccessLogMode::All,
        sink: Sink::File(log.to_owned()),
        ..AccessLogConfig::default()
    };
    config.redirection = Some(kernel.clone());
    config
}

struct Running {
    proxy: Proxy,
    kernel: Arc<Kernel>,
    folder: tempfile::TempDir,
}

fn start() -> Running {
    let (kernel, folder) = (Arc::<Kernel>::default(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(config(&kernel, &folder.path().join("log"))).expect("it starts");
    Running { proxy, kernel, folder }
}

impl Running {
    /// A connection that the kernel turned to the proxy on its way to `destination`.
    async fn turned(&self, destination: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = socket.local_addr().unwrap();
        self.kernel.flows.lock().unwrap().insert(client, destination);
        socket.connect(self.proxy.addresses()[0]).await
    }

    async fn admin(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.proxy.admin_address().unwrap()).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn heard(&self) -> Vec<String> {
        self.kernel.heard.lock().unwrap().clone()
    }

    /// The access log, once the proxy has ended.
    async fn log(self) -> Vec<Value> {
        self.proxy.remote().stop();
        self.proxy.ended().await;
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    });
    address
}

async fn ask(client: &mut TcpStream, path: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n");
    client.write_all(request.as_bytes()).await.ok()?;
    let mut answer = [0; 1024];
    let length = client.read(&mut answer).await.ok()?;
    String::from_utf8_lossy(&answer[..length]).get(9..12)?.parse().ok()
}

#[tokio::test]
async fn an_outbound_connection_goes_where_the_kernel_says_it_wanted_to() {
    let running = start();
    assert_eq!(running.heard(), ["policy 1 with 3 rules", "listening egress"]);
    let destination = server().await;
    let mut client = running.turned(destination).await.expect("it listens");
    assert_eq!(ask(&mut client, "/public/a").await, Some(200));
    assert_eq!(ask(&mut client, "/private").await, Some(403));
    let log = running.log().await;
    assert_eq!(log[0]["destination"]["address"], destination.to_string());
    assert_eq!(log.len(), 2, "{log:?}");
}

#[tokio::test]
async fn who_comes_by_itself_is_reset_and_counted() {
    let running = start();
    let listener = running.proxy.addresses()[0];
    let by_itself = TcpStream::connect(listener).await;
    // The kernel names the listener: it would go round for ever.
    let round = running.turned(listener).await;
    // The reset may come before the connection is known to be there.
    for mut client in [by_itself, round].into_iter().flatten() {
        assert_eq!(ask(&mut client, "/public/a").await, None);
    }
    let metrics = running.admin("GET", "/metrics").await;
    // The stand-in for the kernel has connected once itself.
    let counted = "portreeve_limits_hit_total{limit=\"no_destination\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn policy_that_the_kernel_refuses_changes_nothing() {
    let running = start();
    let (remote, destination) = (running.proxy.remote(), server().await);
    let mut client = running.turned(destination).await.expect("it listens");
    assert_eq!(ask(&mut client, "/private").await, Some(403));

    *running.kernel.refuses.lock().unwrap() = Some("the map is full");
    let open = || vec![Source::new("p", POLICY.replace("/public/.*", "/.*"))];
    let refused = remote.update(open()).await.expect_err("refused");
    assert!(matches!(refused, LoadError::Refused(_)));
    let text = "the kernel programs can't carry the policy out: the map is full";
    assert_eq!(refused.to_string(), text);
    assert_eq!(ask(&mut client, "/private").await, Some(403));
    // What was refused is not what is read again.
    let answer = running.admin("POST", "/reload").await;
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains(text), "{answer}");
    let status = running.admin("GET", "/policy").await;
    assert!(status.contains("\"revision\": 1") && status.contains(text), "{status}");
    let metrics = running.admin("GET", "/metrics").await;
    assert!(metrics.contains("portreeve_policy_reload_errors_total 2"), "{metrics}");

    *running.kernel.refuses.lock().unwrap() = None;
    assert_eq!(remote.update(open()).await.ok(), Some(2));
    assert_eq!(ask(&mut client, "/private").await, Some(200));
    let status = running.admin("GET", "/policy").await;
    assert!(status.contains("\"last_error\": null"), "{status}");
    let asked = running.heard();
    assert_eq!(asked[2..], vec!["policy 2 with 3 rules"; 3]);
}

#[tokio::test]
async fn without_the_kernel_the_proxy_does_not_start() {
    let (kernel, folder) = (Arc::<Kernel>::default(), tempfile::tempdir().unwrap());
    let log = folder.path().join("log");
    let alone = ProxyConfig { redirection: None, ..config(&kernel, &log) };
    assert!(matches!(Proxy::start(alone), Err(StartError::Listen { .. })));
    *kernel.refuses.lock().unwrap() = Some("the map is full");
    let refused = Proxy::start(config(&kernel, &log)).expect_err("refused");
    assert!(matches!(refused, StartError::Redirection(_)) && !refused.is_policy(), "{refused}");
    assert_eq!(*kernel.heard.lock().unwrap(), ["policy 1 with 3 rules"]);
}

fn denied(destination: &str) -> KernelDecision {
    KernelDecision {
        time: SystemTime::UNIX_EPOCH,
        direction: TrafficDirection::Egress,
        protocol: Protocol::Tcp,
        source: None,
        destination: destination.parse().unwrap(),
        service: None,
        verdict: KernelVerdict::Denied,
        reason: KernelReason::Policy,
        identity: 77,
        rule: None,
        revision: 1,
    }
}

#[tokio::test]
async fn what_the_kernel_decides_is_logged_with_labels_and_rule() {
    let running = start();
    let status = running.admin("GET", "/policy").await;
    let status: Value = serde_json::from_str(status.split_once("\r\n\r\n").unwrap().1).unwrap();
    let rules = status["rules"].as_array().unwrap();
    let deny = rules.iter().position(|rule| rule["rule"] == "spec.egressDeny[0]").unwrap();
    let deny = u32::try_from(deny).unwrap();

    let mut reporter = running.proxy.reporter();
    reporter.report(&KernelDecision { rule: Some(deny), ..denied("192.0.2.7:443") });
    reporter.report(&denied("[::ffff:127.0.0.1]:53"));
    let stranger = KernelDecision { revision: 9, rule: Some(deny), ..denied("192.0.2.7:443") };
    reporter.report(&stranger);
    reporter.report(&KernelDecision {
        verdict: KernelVerdict::Redirected,
        service: Some("10.96.0.1:80".parse().unwrap()),
        ..denied("127.0.0.1:8080")
    });
    reporter.report(&KernelDecision {
        direction: TrafficDirection::Ingress,
        protocol: Protocol::Udp,
        source: Some("127.0.0.1:999".parse().unwrap()),
        reason: KernelReason::ProxyAway,
        ..denied("10.0.0.1:53")
    });
    reporter.flush();

    *running.kernel.counters.lock().unwrap() = {
        let mut counters = KernelCounters::default();
        counters.egress = KernelDecisions { allowed: 5, denied: 3, redirected: 1 };
        counters.events_lost = 4;
        counters
    };
    let metrics = running.admin("GET", "/metrics").await;
    for line in [
        "portreeve_kernel_decisions_total{direction=\"egress\",verdict=\"allow\"} 5",
        "portreeve_kernel_decisions_total{direction=\"egress\",verdict=\"deny\"} 3",
        "portreeve_kernel_decisions_total{direction=\"ingress\",verdict=\"redirect\"} 0",
        "portreeve_kernel_denials_total{direction=\"egress\",reason=\"policy\"} 3",
        "portreeve_kernel_denials_total{direction=\"ingress\",reason=\"proxy_away\"} 1",
        "portreeve_kernel_events_lost_total 4",
        "portreeve_policy_rule_hits_total{policy=\"default/shop\",rule=\"spec.egressDeny[0]\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }

    let log = running.log().await;
    let field = |line: usize, field: &str| log[line].pointer(field).unwrap().clone();
    assert_eq!(field(0, "/type"), "connection");
    assert_eq!(field(0, "/verdict"), "deny");
    assert_eq!(field(0, "/decided_by"), "kernel");
    assert_eq!(field(0, "/protocol"), "TCP");
    assert_eq!(field(0, "/source/address"), Value::Null);
    assert!(field(0, "/source/labels").as_str().unwrap().contains("app=shop"));
    assert_eq!(field(0, "/destination/address"), "192.0.2.7:443");
    assert_eq!(field(0, "/destination/identity"), 77);
    assert!(field(0, "/destination/labels").as_str().unwrap().contains("reserved:world"));
    assert_eq!(field(0, "/rule"), "spec.egressDeny[0]");
    assert_eq!(field(0, "/policy"), "default/shop");
    assert_eq!(field(0, "/reason"), "rule_denies");
    assert_eq!(field(1, "/destination/address"), "127.0.0.1:53");
    assert!(field(1, "/destination/labels").as_str().unwrap().contains("app=server"));
    // Of a policy that is not in force only the number is known.
    assert_eq!(field(2, "/destination/identity"), 77);
    assert_eq!(field(2, "/destination/labels"), "");
    assert_eq!((field(2, "/rule"), field(2, "/reason")), ("".into(), "policy".into()));
    assert_eq!(field(3, "/verdict"), "redirect");
    assert_eq!(field(3, "/service"), "10.96.0.1:80");
    assert_eq!(field(4, "/direction"), "ingress");
    assert_eq!((field(4, "/protocol"), field(4, "/reason")), ("UDP".into(), "proxy_away".into()));
    assert!(field(4, "/source/labels").as_str().unwrap().contains("app=server"));
    assert_eq!(log.len(), 5);
}
