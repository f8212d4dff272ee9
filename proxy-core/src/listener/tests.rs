//! Connections that the kernel hands to an inbound listener: their local address is not the listener's,
//! and the proxy's own connection to it has to be let past.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portreeve_policy::{
    Endpoint, EndpointPolicy, Options, Peer, Repository, Source, TrafficDirection,
};
use portreeve_protocols::http2::PREFACE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::accept::open;
use super::{Settings, UpstreamConfig};
use crate::Limits;
use crate::config::Transparent;
use crate::observer::Observing;
use crate::redirection::Bypass;
use crate::redirection::fake::Notes;
use crate::runtime::{Crowd, Stage, Tenant, Tenants, Throttle, Worker};
use crate::snapshot::SnapshotStore;
use crate::telemetry::{AccessLogConfig, AccessLogMode, Telemetry};

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '1', endPort: 65535, protocol: TCP}]
      rules: {http: [{method: GET}]}
";

/// A worker of one workload with everything that it has, and a bypass that takes notes.
fn worker(notes: &Arc<Notes>, policy: &str) -> (Tenants, watch::Sender<Stage>) {
    let repository = Repository::parse([Source::new("p", policy)]).expect("a policy");
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse().expect("labels"));
    let prefix = "127.0.0.0/8".parse().expect("a prefix");
    let peers = vec![Peer::new([prefix], "app=client".parse().expect("labels"))];
    let policy =
        EndpointPolicy::resolve(&repository, &endpoint, &peers.into(), &Options::default());
    let log = AccessLogConfig { mode: AccessLogMode::Off, ..AccessLogConfig::default() };
    let telemetry = Telemetry::new(&log, Observing::default()).expect("a telemetry");
    let limits = Limits::default();
    let (stage, watched) = watch::channel(Stage::Running);
    let worker = Worker {
        index: 0,
        crowd: Arc::new(Crowd::new(16)),
        telemetry: telemetry.worker(),
        http1: Arc::new(limits.http1.clone()),
        http2: Arc::new(limits.http2.clone()),
        kafka: Arc::new(limits.kafka.clone()),
        limits: Arc::new(limits),
        stage: watched,
        known_servers: Arc::default(),
        joins_sockets: false,
        as_client: None,
        pace: Arc::default(),
        bypass: Some(Arc::new(Bypass::new(notes.clone()))),
        unreachable: Throttle::default(),
        undirected: Throttle::default(),
    };
    let snapshots = Arc::new(SnapshotStore::new(policy.expect("a policy")));
    (Tenants::One(Arc::new(Tenant::alone(Arc::new(worker), snapshots))), stage)
}

fn settings(notes: &Arc<Notes>, address: SocketAddr) -> Arc<Settings> {
    Arc::new(Settings {
        address,
        direction: TrafficDirection::Ingress,
        upstream: UpstreamConfig::OriginalDestination(Transparent::Ebpf),
        policy_port: None,
        advertised: None,
        redirection: Some(notes.clone()),
    })
}

/// A client says `said` to a workload, and the kernel hands its connection to the proxy. What the proxy
/// says to the workload, on connections of its own one after the other.
async fn heard_by_the_workload(policy: &str, said: &[u8], connections: usize) -> Vec<Vec<u8>> {
    let notes = Arc::<Notes>::default();
    let (worker, _running) = worker(&notes, policy);
    // The application's socket stands for the proxy's, too: without programs in the kernel, what is
    // meant for the application arrives there.
    let application = TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let workload = application.local_addr().expect("an address");
    let mut client = TcpStream::connect(workload).await.expect("it listens");
    client.write_all(said).await.expect("sent");
    let (turned, address) = application.accept().await.expect("a connection");
    let here = "127.0.0.1:15006".parse().expect("an address");
    open(turned, address, 1, &settings(&notes, here), &worker);

    let mut heard = Vec::new();
    for index in 0..connections {
        let (mut stream, from) =
            tokio::time::timeout(Duration::from_secs(10), application.accept())
                .await
                .expect("the proxy connects")
                .expect("a connection");
        assert_eq!(notes.asked().get(index), Some(&(from, workload)));
        assert_eq!(from.ip(), workload.ip());
        let mut bytes = vec![0; 4096];
        let length = stream.read(&mut bytes).await.expect("something");
        bytes.truncate(length);
        heard.push(bytes);
        if index + 1 == connections {
            assert_eq!(notes.open(), 0);
        }
    }
    heard
}

#[tokio::test]
async fn every_connection_to_the_workload_is_let_past_the_kernel() {
    let get: &[u8] = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
    let heard = heard_by_the_workload(POLICY, get, 1).await;
    assert!(heard[0].starts_with(b"GET / HTTP/1.1"));

    // Indexed header fields for GET, http and /, and `:authority: shop`.
    let head = [0, 0, 9, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 4, b's', b'h', b'o', b'p'];
    let http2 = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &head].concat();
    let heard = heard_by_the_workload(POLICY, &http2, 1).await;
    assert!(heard[0].starts_with(PREFACE));

    // Asks whether the server speaks HTTP/2, and goes on in HTTP/1.1 since it says nothing.
    let upgrade = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                    Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let heard = heard_by_the_workload(POLICY, upgrade, 2).await;
    assert!(heard[0].starts_with(PREFACE));
    assert!(heard[1].starts_with(b"GET / HTTP/1.1"));

    let unread = POLICY.replace("      rules: {http: [{method: GET}]}", "");
    let heard = heard_by_the_workload(&unread, b"\x01\x02", 1).await;
    assert_eq!(heard[0], b"\x01\x02");
}

#[tokio::test]
async fn who_connects_to_the_listener_itself_is_reset() {
    let notes = Arc::<Notes>::default();
    let (worker, _running) = worker(&notes, POLICY);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(here).await.expect("it listens");
    let (accepted, address) = listener.accept().await.expect("a connection");
    open(accepted, address, 1, &settings(&notes, here), &worker);
    let read = client.read(&mut [0; 16]).await;
    assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    assert!(notes.asked().is_empty());
}
