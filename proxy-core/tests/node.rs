//! Many endpoints under one proxy, on loopback: every endpoint has an address of its own there.
#![expect(clippy::expect_used, reason = "what a test relies on may panic")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

const ALICE: &str = "127.21.0.1";
const BOB: &str = "127.21.0.2";
const SHOP: &str = "127.21.0.9";
const STRANGER: &str = "127.21.0.77";

type Heard = Arc<Mutex<Vec<String>>>;

/// A proxy with an egress listener to one server, and who is told of what it decides.
struct Node {
    endpoints: Arc<Endpoints>,
    proxy: NodeProxy,
    heard: Heard,
}

impl Node {
    async fn start(server: &str, change: impl FnOnce(&mut NodeConfig)) -> Self {
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

    fn add(&self, name: &str, address: &str, policy: EndpointPolicy) -> u64 {
        self.add_with(name, address, policy, EndpointLimits::default())
    }

    fn add_with(
        &self,
        name: &str,
        address: &str,
        policy: EndpointPolicy,
        limits: EndpointLimits,
    ) -> u64 {
        let addresses = vec![ip(address)];
        self.endpoints.upsert(EndpointConfig { name: name.into(), addresses, limits }, policy)
    }

    async fn try_connect(&self, from: &str) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(local(from)).expect("loopback has every address");
        socket.connect(self.proxy.addresses()[0]).await
    }

    async fn connect(&self, from: &str) -> TcpStream {
        self.try_connect(from).await.expect("it listens")
    }

    /// Waits until a new connection has been refused, which may be before it is known to be there.
    async fn refuses(&self, from: &str) {
        if let Ok(mut refused) = self.try_connect(from).await {
            ends(&mut refused).await;
        }
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().expect("a lock"))
    }

    async fn metrics(&self) -> String {
        let admin = self.proxy.admin_address().expect("it is configured");
        let mut stream = TcpStream::connect(admin).await.expect("it listens");
        let ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(ask).await.expect("sent");
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

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn local(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 0)
}

/// Answers every request, be it HTTP or Kafka; to one for `/much` with more than anybody takes.
async fn serve(at: &str) -> SocketAddr {
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
fn policy(name: &str, spec: &str) -> EndpointPolicy {
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
fn asks(name: &str, paths: &str) -> EndpointPolicy {
    let ports =
        format!("ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{path: '{paths}'}}]}}");
    policy(name, &format!("egress: [{{toPorts: [{{{ports}}}]}}]"))
}

/// May be asked by anybody for these paths.
fn answers(name: &str, paths: &str) -> EndpointPolicy {
    let ports =
        format!("ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{path: '{paths}'}}]}}");
    policy(name, &format!("ingress: [{{toPorts: [{{{ports}}}]}}]"))
}

/// A status; 0: the connection has ended.
async fn ask(client: &mut TcpStream, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    if client.write_all(request.as_bytes()).await.is_err() {
        return 0;
    }
    let mut answer = [0; 1024];
    let length = client.read(&mut answer).await.unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..length]);
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
}

async fn ends(client: &mut TcpStream) {
    let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut [0; 16])).await;
    let read = read.expect("it ends");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn each_endpoint_is_judged_by_its_own_policy_and_a_stranger_is_refused() {
    let admin = |config: &mut NodeConfig| config.admin = Some(local("127.0.0.1"));
    let node = Node::start("127.0.0.1", admin).await;
    node.add("alice", ALICE, asks("alice", "/a.*"));
    node.add("bob", BOB, asks("bob", "/b.*"));
    let (mut alice, mut bob) = (node.connect(ALICE).await, node.connect(BOB).await);
    assert_eq!((ask(&mut alice, "/a").await, ask(&mut alice, "/b").await), (200, 403));
    assert_eq!((ask(&mut bob, "/a").await, ask(&mut bob, "/b").await), (403, 200));
    node.refuses(STRANGER).await;
    assert_eq!(
        node.heard(),
        [
            "alice egress Allow /a rule_allows",
            "alice egress Deny /b no_rule_allows",
            "bob egress Deny /a no_rule_allows",
            "bob egress Allow /b rule_allows",
        ]
    );

    let metrics = node.metrics().await;
    for series in [
        "portreeve_limits_hit_total{limit=\"no_endpoint\"} 1",
        "portreeve_http_decisions_total{endpoint=\"alice\",direction=\"egress\",verdict=\"deny\"} 1",
        "portreeve_http_decisions_total{endpoint=\"bob\",direction=\"egress\",verdict=\"allow\"} 1",
        "portreeve_connections_active{endpoint=\"alice\",direction=\"egress\"} 1",
        "portreeve_policy_revision{endpoint=\"bob\"} 1",
        "portreeve_policy_rule_hits_total{endpoint=\"bob\",policy=",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
    assert!(node.endpoints.remove("alice"));
    ends(&mut alice).await;
    let metrics = node.metrics().await;
    assert!(!metrics.contains("alice") && metrics.contains("bob"), "{metrics}");
}

#[tokio::test]
async fn a_policy_is_replaced_for_one_endpoint_alone() {
    let node = Node::start("127.0.0.1", |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/a.*"));
    node.add("bob", BOB, asks("bob", "/a.*"));
    let (mut alice, mut bob) = (node.connect(ALICE).await, node.connect(BOB).await);
    assert_eq!((ask(&mut alice, "/a").await, ask(&mut bob, "/a").await), (200, 200));
    let replaced = node.endpoints.set_policy("alice", asks("alice", "/new"));
    assert_eq!(replaced, Ok(2));
    assert_eq!((ask(&mut alice, "/a").await, ask(&mut alice, "/new").await), (403, 200));
    assert_eq!((ask(&mut bob, "/a").await, ask(&mut bob, "/new").await), (200, 403));
    // Nobody may be asked anything any more: idle connections are cut.
    let none = policy("alice", "egress: [{}]");
    assert_eq!(node.endpoints.set_policy("alice", none), Ok(3));
    ends(&mut alice).await;
    assert_eq!(ask(&mut bob, "/a").await, 200);
    assert!(node.endpoints.set_policy("nobody", asks("nobody", "/")).is_err());
}

#[tokio::test]
async fn connections_end_with_their_endpoint_and_a_new_one_at_its_address_begins_anew() {
    let node = Node::start("127.0.0.1", |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    node.add("bob", BOB, asks("bob", "/.*"));
    let (mut alice, mut bob) = (node.connect(ALICE).await, node.connect(BOB).await);
    assert_eq!((ask(&mut alice, "/1").await, ask(&mut bob, "/1").await), (200, 200));
    assert!(node.endpoints.remove("alice") && !node.endpoints.remove("alice"));
    ends(&mut alice).await;
    node.refuses(ALICE).await;
    // Before it is known that bob is gone, its address is another's.
    assert_eq!(node.add("carol", BOB, asks("carol", "/2")), 1);
    ends(&mut bob).await;
    let mut carol = node.connect(BOB).await;
    assert_eq!((ask(&mut carol, "/1").await, ask(&mut carol, "/2").await), (403, 200));
    assert!(node.endpoints.get("bob").is_none(), "the late news find nothing");
    let names: Vec<_> = node.endpoints.list().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["carol"]);
}

#[tokio::test]
async fn between_two_endpoints_both_policies_judge_each_request() {
    let node = Node::start(SHOP, |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/a.*"));
    node.add("shop", SHOP, answers("shop", "/.*z"));
    let mut alice = node.connect(ALICE).await;
    for (path, status) in [("/az", 200), ("/bz", 403), ("/ab", 403), ("/az", 200)] {
        assert_eq!(ask(&mut alice, path).await, status, "{path}");
    }
    assert_eq!(
        node.heard(),
        [
            "alice egress Allow /az rule_allows",
            "shop ingress Allow /az rule_allows",
            "alice egress Deny /bz no_rule_allows",
            "alice egress Allow /ab rule_allows",
            "shop ingress Deny /ab no_rule_allows",
            "alice egress Allow /az rule_allows",
            "shop ingress Allow /az rule_allows",
        ]
    );
    // The connection is the server's, too: it hears of its policy, and ends with it.
    assert_eq!(node.endpoints.set_policy("shop", answers("shop", "/ab")), Ok(2));
    assert_eq!((ask(&mut alice, "/ab").await, ask(&mut alice, "/az").await), (200, 403));
    let connections = |name| node.endpoints.get(name).expect("it is there").connections;
    assert_eq!((connections("alice"), connections("shop")), (1, 1));
    assert!(node.endpoints.remove("shop"));
    ends(&mut alice).await;
}

#[tokio::test]
async fn one_that_reads_and_one_that_does_not_are_read_for_the_one() {
    let node = Node::start(SHOP, |_| {}).await;
    node.add("alice", ALICE, policy("alice", "egress: [{toPorts: [{ports: [{port: '80'}]}]}]"));
    node.add("shop", SHOP, answers("shop", "/a"));
    let mut alice = node.connect(ALICE).await;
    assert_eq!((ask(&mut alice, "/a").await, ask(&mut alice, "/b").await), (200, 403));
    node.endpoints.set_policy("alice", policy("alice", "egress: [{}]")).expect("it is there");
    ends(&mut alice).await;
    // Whoever denies the connection, it is denied, and told by whom.
    node.refuses(ALICE).await;
    node.endpoints.set_policy("alice", asks("alice", "/.*")).expect("it is there");
    node.endpoints.set_policy("shop", policy("shop", "ingress: [{}]")).expect("it is there");
    node.refuses(ALICE).await;
    let heard = node.heard();
    assert_eq!(
        heard[heard.len() - 2..],
        [
            "alice egress Deny connection no_rule_allows",
            "shop ingress Deny connection no_rule_allows"
        ]
    );
}

#[tokio::test]
async fn what_both_would_read_differently_is_refused() {
    let node = Node::start(SHOP, |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    let kafka = "ports: [{port: '80', protocol: TCP}], rules: {kafka: [{role: produce, topic: t}]}";
    node.add("shop", SHOP, policy("shop", &format!("ingress: [{{toPorts: [{{{kafka}}}]}}]")));
    node.refuses(ALICE).await;
    assert_eq!(node.heard(), ["shop ingress Deny connection protocols_differ"]);
}

/// May consume these topics, or be asked for them.
fn topics(name: &str, direction: &str, topics: [&str; 2]) -> EndpointPolicy {
    let rules = topics.map(|topic| format!("{{role: consume, topic: {topic}}}")).join(", ");
    let ports = format!("ports: [{{port: '80', protocol: TCP}}], rules: {{kafka: [{rules}]}}");
    policy(name, &format!("{direction}: [{{toPorts: [{{{ports}}}]}}]"))
}

/// Asks for the offsets of a topic's partition 0 (ListOffsets, version 1), and returns the error code.
async fn offsets(client: &mut TcpStream, topic: &str) -> i16 {
    let name =
        [&i16::try_from(topic.len()).expect("short").to_be_bytes(), topic.as_bytes()].concat();
    let one = 1_i32.to_be_bytes();
    let head = [0, 2, 0, 1, 0, 0, 0, 7, 0, 0, 255, 255, 255, 255];
    let body = [&head[..], &one, &name, &one, &[0; 4], &[255; 8]].concat();
    let length = i32::try_from(body.len()).expect("short").to_be_bytes();
    client.write_all(&[&length[..], &body].concat()).await.expect("sent");
    let mut length = [0; 4];
    client.read_exact(&mut length).await.expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    client.read_exact(&mut answer).await.expect("an answer");
    // Correlation id, one topic with its name, one partition with its number.
    let error = 4 + 4 + name.len() + 4 + 4;
    i16::from_be_bytes([answer[error], answer[error + 1]])
}

#[tokio::test]
async fn of_kafka_too_each_topic_is_judged_by_both() {
    let admin = |config: &mut NodeConfig| config.admin = Some(local("127.0.0.1"));
    let node = Node::start(SHOP, admin).await;
    node.add("alice", ALICE, topics("alice", "egress", ["both", "hers"]));
    node.add("shop", SHOP, topics("shop", "ingress", ["both", "its"]));
    let mut alice = node.connect(ALICE).await;
    const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    assert_eq!(offsets(&mut alice, "hers").await, TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(offsets(&mut alice, "its").await, TOPIC_AUTHORIZATION_FAILED);
    assert_eq!(offsets(&mut alice, "both").await, 0);
    assert_eq!(
        node.heard(),
        [
            "alice egress Allow ListOffsets rule_allows",
            "shop ingress Deny ListOffsets no_rule_allows",
            "alice egress Deny ListOffsets no_rule_allows",
            "alice egress Allow ListOffsets rule_allows",
            "shop ingress Allow ListOffsets rule_allows",
        ]
    );
    // Each counts what it was asked: not the shop, of what alice may not.
    let metrics = node.metrics().await;
    for (series, alice, shop) in [
        (
            "topic_decisions_total{endpoint=W,topic=\"both\",role=\"consume\",verdict=\"allow\"}",
            1,
            1,
        ),
        (
            "topic_decisions_total{endpoint=W,topic=\"hers\",role=\"consume\",verdict=\"deny\"}",
            0,
            1,
        ),
        ("topic_decisions_total{endpoint=W,topic=\"its\",role=\"consume\",verdict=\"deny\"}", 1, 0),
        ("responses_total{endpoint=W,api=\"ListOffsets\",error=\"NONE\"}", 1, 1),
    ] {
        for (whose, count) in
            [("\"alice\",direction=\"egress\"", alice), ("\"shop\",direction=\"ingress\"", shop)]
        {
            let series = format!("portreeve_kafka_{}", series.replace('W', whose));
            match count {
                0 => assert!(!metrics.contains(&series), "{series} is in\n{metrics}"),
                count => {
                    let line = format!("{series} {count}\n");
                    assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
                }
            }
        }
    }
}

/// Answers every gRPC call with OK.
async fn serve_grpc(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(local(address)).await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut calls = h2::server::handshake(stream).await.expect("a preface");
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = calls.accept().await {
                    let head = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0")
                        .body(())
                        .expect("a head");
                    respond.send_response(head, true).expect("sent");
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn calls_are_counted_for_both_endpoints_that_have_judged_them() {
    let upstream = serve_grpc(SHOP).await;
    let node = Node::start(SHOP, |config| {
        config.admin = Some(local("127.0.0.1"));
        config.listeners[0].upstream = UpstreamConfig::Fixed(upstream);
    })
    .await;
    node.add("alice", ALICE, asks("alice", "/shop.*"));
    node.add("shop", SHOP, answers("shop", "/shop.Orders/Get"));
    let alice = node.connect(ALICE).await;
    let (mut calls, connection) = h2::client::handshake(alice).await.expect("a preface");
    tokio::spawn(connection);
    for (method, status) in [("Get", "0"), ("Put", "7"), ("Get", "0")] {
        let call = http::Request::post(format!("http://shop/shop.Orders/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a head");
        let (answer, _) = calls.send_request(call, true).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["grpc-status"], status, "{method}");
    }
    let expected = |whose: &str, method: &str, verdict: &str, status: &str, count: u32| {
        format!(
            "portreeve_grpc_requests_total{{endpoint={whose},service=\"shop.Orders\",\
             method=\"{method}\",verdict=\"{verdict}\",status=\"{status}\"}} {count}\n"
        )
    };
    let (alice, shop) = ("\"alice\",direction=\"egress\"", "\"shop\",direction=\"ingress\"");
    let metrics = node.metrics().await;
    for series in [
        expected(alice, "Get", "allow", "OK", 2),
        expected(shop, "Get", "allow", "OK", 2),
        expected(alice, "Put", "allow", "PERMISSION_DENIED", 1),
        expected(shop, "Put", "deny", "PERMISSION_DENIED", 1),
    ] {
        assert!(metrics.contains(&series), "{series} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn an_endpoint_has_no_more_connections_than_its_limit_and_the_others_keep_theirs() {
    let admin = |config: &mut NodeConfig| config.admin = Some(local("127.0.0.1"));
    let node = Node::start("127.0.0.1", admin).await;
    let few = EndpointLimits { connections: 3, ..EndpointLimits::default() };
    node.add_with("alice", ALICE, asks("alice", "/.*"), few);
    node.add("bob", BOB, asks("bob", "/.*"));
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut alice = node.connect(ALICE).await;
        assert_eq!(ask(&mut alice, "/").await, 200);
        kept.push(alice);
    }
    node.refuses(ALICE).await;
    assert_eq!(ask(&mut node.connect(BOB).await, "/").await, 200);
    let metrics = node.metrics().await;
    let hit = "portreeve_limits_hit_total{endpoint=\"alice\",limit=\"connections\"} 1";
    assert!(metrics.contains(hit), "{metrics}");
    // There is room again when one has ended.
    kept.pop();
    for _ in 0..100 {
        if node.endpoints.get("alice").expect("it is there").connections < 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ask(&mut node.connect(ALICE).await, "/").await, 200);
}

#[tokio::test]
async fn a_connection_that_would_hold_more_than_its_endpoint_may_is_cut() {
    let admin = |config: &mut NodeConfig| config.admin = Some(local("127.0.0.1"));
    let node = Node::start("127.0.0.1", admin).await;
    // How much does not fit when the client's socket is full is a matter of luck.
    let little = EndpointLimits { buffered_bytes: 0, ..EndpointLimits::default() };
    node.add_with("alice", ALICE, asks("alice", "/.*"), little);
    node.add("bob", BOB, asks("bob", "/.*"));
    // Asks, and does not read.
    let greedy = b"GET /much HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut alice = node.connect(ALICE).await;
    alice.write_all(greedy).await.expect("sent");
    let mut bob = node.connect(BOB).await;
    bob.write_all(greedy).await.expect("sent");
    let hit = "portreeve_limits_hit_total{endpoint=\"alice\",limit=\"buffers\"} 1";
    let held = |name| node.endpoints.get(name).expect("it is there").buffered_bytes;
    let mut metrics = String::new();
    for _ in 0..500 {
        metrics = node.metrics().await;
        // What was held is given back a little after the limit was hit.
        if metrics.contains(hit) && held("alice") == 0 && held("bob") > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("alice holds {}, bob {}:\n{metrics}", held("alice"), held("bob"));
}

#[tokio::test]
async fn whose_policy_denies_is_told_when_it_has_changed_under_way() {
    let node = Node::start(SHOP, |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    // A connection that is no longer allowed may be cut before a request on it is judged: so there are many,
    // and many tries.
    let end = Instant::now() + Duration::from_secs(20);
    let many = "GET /b HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(500);
    while Instant::now() < end {
        node.add("shop", SHOP, answers("shop", "/.*"));
        let mut alice = node.connect(ALICE).await;
        assert_eq!(ask(&mut alice, "/a").await, 200);
        alice.write_all(many.as_bytes()).await.expect("sent");
        alice.read_exact(&mut [0; 128]).await.expect("the first answers");
        let none = policy("shop", "ingress: [{}]");
        node.endpoints.set_policy("shop", none).expect("it is there");
        while matches!(alice.read(&mut [0; 4096]).await, Ok(1..)) {}
        let heard = node.heard();
        let denied: Vec<_> = heard.iter().filter(|line| line.contains(" Deny ")).collect();
        assert!(denied.iter().all(|line| line.starts_with("shop ingress")), "{denied:?}");
        if !denied.is_empty() {
            return;
        }
    }
    panic!("it was always cut first");
}

#[tokio::test]
async fn an_address_that_somebody_has_left_is_not_taken_for_one_outside() {
    let node = Node::start(SHOP, |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    assert_eq!(ask(&mut node.connect(ALICE).await, "/").await, 200, "nobody was ever there");
    node.add("shop", SHOP, answers("shop", "/.*"));
    assert!(node.endpoints.remove("shop"));
    node.refuses(ALICE).await;
    // Who takes an address and goes by another name leaves the rest of the first one's.
    node.add("shop", SHOP, answers("shop", "/.*"));
    assert_eq!(ask(&mut node.connect(ALICE).await, "/").await, 200);
    node.add("shop", BOB, answers("shop", "/.*"));
    node.refuses(ALICE).await;
    node.endpoints.elsewhere(|address| address == ip(SHOP));
    assert_eq!(ask(&mut node.connect(ALICE).await, "/").await, 200);
}

#[tokio::test]
async fn who_comes_later_judges_connections_that_were_there_before() {
    let node = Node::start(SHOP, |_| {}).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    let mut alice = node.connect(ALICE).await;
    assert_eq!(ask(&mut alice, "/private").await, 200);
    // Somebody else's coming is no concern of hers.
    node.add("bob", BOB, asks("bob", "/.*"));
    assert_eq!(ask(&mut alice, "/private").await, 200);
    node.add("shop", SHOP, answers("shop", "/public"));
    ends(&mut alice).await;
    let mut alice = node.connect(ALICE).await;
    assert_eq!((ask(&mut alice, "/public").await, ask(&mut alice, "/private").await), (200, 403));
    // What is known of who was there stays known.
    node.add("shop", SHOP, answers("shop", "/private"));
    assert_eq!((ask(&mut alice, "/public").await, ask(&mut alice, "/private").await), (403, 200));
}
