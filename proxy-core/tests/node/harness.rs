//! A node of loopback addresses, servers for it, and policies.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portreeve_core::observer::{Asked, Flow, Observing};
use portreeve_core::{
    EndpointConfig, EndpointLimits, Endpoints, ListenerConfig, NodeConfig, NodeProxy,
    UpstreamConfig,
};
use portreeve_policy::{
    Endpoint, EndpointPolicy, Options, Peer, Repository, Source, TrafficDirection,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) const ALICE: &str = "127.21.0.1";
pub(crate) const BOB: &str = "127.21.0.2";
pub(crate) const SHOP: &str = "127.21.0.9";
pub(crate) const STRANGER: &str = "127.21.0.77";

pub(crate) type Heard = Arc<Mutex<Vec<String>>>;

/// A proxy with an egress listener to one server, and who is told of what it decides.
pub(crate) struct Node {
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) proxy: NodeProxy,
    pub(crate) heard: Heard,
}

impl Node {
    pub(crate) async fn start(server: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let upstream = serve(server).await;
        let listener = ListenerConfig {
            direction: TrafficDirection::Egress,
            upstream: UpstreamConfig::Fixed(upstream),
            policy_port: Some(80),
            ..ListenerConfig::ingress("outbound", local("127.0.0.1"), upstream)
        };
        let heard = Heard::default();
        let ear = heard.clone();
        let mut config = NodeConfig::new(vec![listener]);
        config.observer = Observing::by(move |flow: &Flow<'_>| {
            let asked = match flow.asked {
                Asked::Http { path, .. } => String::from_utf8_lossy(path).into_owned(),
                Asked::Kafka { api, .. } => api.to_owned(),
                Asked::Limit => "limit".to_owned(),
                _ => "connection".to_owned(),
            };
            let (by, direction) = (flow.endpoint, flow.direction.as_str());
            let line = format!("{by} {direction} {:?} {asked} {}", flow.verdict, flow.reason);
            ear.lock().expect("a lock").push(line);
        });
        change(&mut config);
        let endpoints = Arc::<Endpoints>::default();
        let proxy = NodeProxy::start(config, endpoints.clone()).expect("it starts");
        Self { endpoints, proxy, heard }
    }

    pub(crate) fn add(&self, name: &str, address: &str, policy: EndpointPolicy) -> u64 {
        self.add_with(name, address, policy, EndpointLimits::default())
    }

    pub(crate) fn add_with(
        &self,
        name: &str,
        address: &str,
        policy: EndpointPolicy,
        limits: EndpointLimits,
    ) -> u64 {
        let addresses = vec![ip(address)];
        let config = EndpointConfig { name: name.into(), addresses, limits };
        let upserted = self.endpoints.upsert(config, policy);
        assert_eq!(upserted.refused, [], "each address is one endpoint's");
        upserted.revision
    }

    pub(crate) async fn try_connect(&self, from: &str) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(local(from)).expect("loopback has every address");
        socket.connect(self.proxy.addresses()[0]).await
    }

    pub(crate) async fn connect(&self, from: &str) -> TcpStream {
        self.try_connect(from).await.expect("it listens")
    }

    /// Waits until a new connection has been refused, which may be before it is known to be there.
    pub(crate) async fn refuses(&self, from: &str) {
        if let Ok(mut refused) = self.try_connect(from).await {
            ends(&mut refused).await;
        }
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().expect("a lock"))
    }

    pub(crate) async fn metrics(&self) -> String {
        self.ask_admin("GET /metrics").await
    }

    pub(crate) async fn ask_admin(&self, what: &str) -> String {
        let admin = self.proxy.admin_address().expect("it is configured");
        let mut stream = TcpStream::connect(admin).await.expect("it listens");
        let ask = format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("text");
        text
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.proxy.remote().stop();
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn local(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 0)
}

/// Answers every request, be it HTTP or Kafka; to one for `/much` with more than anybody takes.
pub(crate) async fn serve(at: &str) -> SocketAddr {
    let listener = TcpListener::bind(local(at)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if !buffer[..length].starts_with(b"GET ") {
                        // ListOffsets about the topic `both`: no error, no offset.
                        let topic = [&[0, 0, 0, 1, 0, 4][..], b"both"].concat();
                        let answer = [&[0, 0, 0, 7][..], &topic, &[0, 0, 0, 1], &[0; 22]].concat();
                        let length = i32::try_from(answer.len()).expect("short").to_be_bytes();
                        let _ = stream.write_all(&[&length[..], &answer].concat()).await;
                        continue;
                    }
                    if buffer[..length].starts_with(b"GET /much") {
                        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
                        let _ = stream.write_all(head).await;
                        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
                        return;
                    }
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    address
}

/// The policy of the endpoint `name` among all of these tests' endpoints.
pub(crate) fn policy(name: &str, spec: &str) -> EndpointPolicy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {name}-policy, namespace: default}}\n\
         spec: {{endpointSelector: {{matchLabels: {{app: {name}}}}}, {spec}}}\n"
    );
    let repository = Repository::parse([Source::new("p.yaml", text)]).expect("a policy");
    let labels = |name: &str| format!("app={name}").parse().expect("labels");
    let peers = [("alice", ALICE), ("bob", BOB), ("shop", SHOP)].map(|(name, address)| {
        Peer::new([format!("{address}/32").parse().expect("a prefix")], labels(name))
    });
    let endpoint = Endpoint::new(name, "default", labels(name));
    let peers = peers.to_vec().into();
    EndpointPolicy::resolve(&repository, &endpoint, &peers, &Options::default()).expect("a policy")
}

/// May ask anybody for these paths.
pub(crate) fn asks(name: &str, paths: &str) -> EndpointPolicy {
    let ports =
        format!("ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{path: '{paths}'}}]}}");
    policy(name, &format!("egress: [{{toPorts: [{{{ports}}}]}}]"))
}

/// May be asked by anybody for these paths.
pub(crate) fn answers(name: &str, paths: &str) -> EndpointPolicy {
    let ports =
        format!("ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{path: '{paths}'}}]}}");
    policy(name, &format!("ingress: [{{toPorts: [{{{ports}}}]}}]"))
}

/// A status; 0: the connection has ended.
pub(crate) async fn ask(client: &mut TcpStream, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    if client.write_all(request.as_bytes()).await.is_err() {
        return 0;
    }
    let mut answer = [0; 1024];
    let length = client.read(&mut answer).await.unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..length]);
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Looks until it has seen enough; what that was.
pub(crate) async fn until<T: Debug>(
    mut look: impl AsyncFnMut() -> T,
    mut is_enough: impl FnMut(&T) -> bool,
) -> T {
    let mut seen = look().await;
    for _ in 0..500 {
        if is_enough(&seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen = look().await;
    }
    panic!("{seen:?}");
}

pub(crate) async fn ends(client: &mut TcpStream) {
    let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0; 16])).await;
    let read = read.expect("it ends");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

/// May consume these topics, or be asked for them.
pub(crate) fn topics(name: &str, direction: &str, topics: [&str; 2]) -> EndpointPolicy {
    let rules = topics.map(|topic| format!("{{role: consume, topic: {topic}}}")).join(", ");
    let ports = format!("ports: [{{port: '80', protocol: TCP}}], rules: {{kafka: [{rules}]}}");
    policy(name, &format!("{direction}: [{{toPorts: [{{{ports}}}]}}]"))
}

/// A Kafka request for the offsets of the partitions 0 of topics (ListOffsets, version 1).
pub(crate) fn list_offsets(topics: &[&str]) -> Vec<u8> {
    let count = |count: usize| u32::try_from(count).expect("few").to_be_bytes();
    let head = [0, 2, 0, 1, 0, 0, 0, 7, 0, 0, 255, 255, 255, 255];
    let mut body = [&head[..], &count(topics.len())].concat();
    for topic in topics {
        body.extend_from_slice(&u16::try_from(topic.len()).expect("short").to_be_bytes());
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&[&count(1)[..], &[0; 4], &[255; 8]].concat());
    }
    [&count(body.len())[..], &body].concat()
}

/// Asks for the offset of a topic, and returns the error code.
pub(crate) async fn offsets(client: &mut TcpStream, topic: &str) -> i16 {
    client.write_all(&list_offsets(&[topic])).await.expect("sent");
    let mut length = [0; 4];
    client.read_exact(&mut length).await.expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    client.read_exact(&mut answer).await.expect("an answer");
    // Correlation id, one topic with its name, one partition with its number.
    let error = 4 + 4 + 2 + topic.len() + 4 + 4;
    i16::from_be_bytes([answer[error], answer[error + 1]])
}
