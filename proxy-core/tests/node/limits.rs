//! What an endpoint may use of the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use portreeve_core::{EndpointLimits, ListenerConfig, NodeConfig, UpstreamConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};

use super::harness::*;

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

/// A server that reads and says nothing.
async fn serve_silence() -> SocketAddr {
    let listener = TcpListener::bind(local("127.0.0.1")).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    address
}

/// A proxy before one server.
async fn before(server: SocketAddr) -> Node {
    Node::start("127.0.0.1", |config| {
        config.admin = Some(local("127.0.0.1"));
        config.listeners[0].upstream = UpstreamConfig::Fixed(server);
    })
    .await
}

/// What one endpoint holds and what was said of its limit.
async fn held(node: &Node, name: &str) -> (usize, bool) {
    let hit = format!("portreeve_limits_hit_total{{endpoint=\"{name}\",limit=\"buffers\"}} 1");
    let held = node.endpoints.get(name).expect("it is there").buffered_bytes;
    (held, node.metrics().await.contains(&hit))
}

#[tokio::test]
async fn denials_that_wait_for_their_turn_are_held_for_the_endpoint_that_gets_them() {
    let silent = serve_silence().await;
    let node = before(silent).await;
    let limits = EndpointLimits { buffered_bytes: 256 * 1024, ..EndpointLimits::default() };
    node.add_with("alice", ALICE, topics("alice", "egress", ["both", "hers"]), limits);
    let mut alice = node.connect(ALICE).await;
    // The broker does not answer, and whoever asks behind it waits.
    alice.write_all(&list_offsets(&["both"])).await.expect("sent");
    let denied = vec!["denied"; 1000];
    alice.write_all(&list_offsets(&denied)).await.expect("sent");
    let name_and_offset = "denied".len() + 22;
    let holds = async || held(&node, "alice").await;
    let seen = until(holds, |(held, _)| *held >= 1000 * name_and_offset).await;
    assert!(!seen.1, "{seen:?}");
    for _ in 0..20 {
        let _ = alice.write_all(&list_offsets(&denied)).await;
    }
    ends(&mut alice).await;
    until(holds, |seen| *seen == (0, true)).await;
}

#[tokio::test]
async fn what_the_log_will_say_of_pipelined_requests_is_held_for_who_sends_them() {
    let silent = serve_silence().await;
    let node = before(silent).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    let mut alice = node.connect(ALICE).await;
    let path = "a".repeat(7000);
    let long = format!("GET /{path} HTTP/1.1\r\nHost: shop\r\n\r\n").repeat(9);
    alice.write_all(long.as_bytes()).await.expect("sent");
    // Nothing of it is on its way any more, for ten looks. Counted in whole pages.
    let mut looks = 0;
    let holds = async || held(&node, "alice").await.0;
    until(holds, |held| {
        looks = if *held >= 8 * path.len() { looks + 1 } else { 0 };
        looks > 10
    })
    .await;
}

/// Accepts every stream and answers none.
async fn serve_silent_http2() -> SocketAddr {
    let listener = TcpListener::bind(local("127.0.0.1")).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut calls = h2::server::handshake(stream).await.expect("a preface");
            let mut kept = Vec::new();
            while let Some(Ok(call)) = calls.accept().await {
                kept.push(call);
            }
        }
    });
    address
}

#[tokio::test]
async fn what_the_log_will_say_of_streams_is_held_for_who_opens_them() {
    let silent = serve_silent_http2().await;
    let node = before(silent).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    let alice = node.connect(ALICE).await;
    let (mut calls, connection) = h2::client::handshake(alice).await.expect("a preface");
    tokio::spawn(connection);
    let mut waiting = Vec::new();
    for number in 0..20 {
        let path = format!("http://shop/{number}{}", "a".repeat(7000));
        let call = http::Request::get(path).body(()).expect("a head");
        waiting.push(calls.send_request(call, true).expect("sent").0);
    }
    let holds = async || held(&node, "alice").await.0;
    until(holds, |held| *held >= 19 * 7000).await;
    drop((waiting, calls));
    until(holds, |held| *held == 0).await;
}

#[tokio::test]
async fn who_uses_up_a_servers_places_leaves_it_its_own_connections() {
    let elsewhere = serve("127.21.0.50").await;
    let node = Node::start(SHOP, |config| {
        let listener = config.listeners[0].clone();
        config
            .listeners
            .push(ListenerConfig { upstream: UpstreamConfig::Fixed(elsewhere), ..listener });
    })
    .await;
    let few = EndpointLimits { connections: 3, ..EndpointLimits::default() };
    let anything = "[{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]";
    let both_ways = policy("shop", &format!("ingress: {anything}, egress: {anything}"));
    node.add("alice", ALICE, asks("alice", "/.*"));
    node.add_with("shop", SHOP, both_ways, few);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut alice = node.connect(ALICE).await;
        assert_eq!(ask(&mut alice, "/").await, 200);
        kept.push(alice);
    }
    node.refuses(ALICE).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(local(SHOP)).expect("loopback has every address");
    let mut shop = socket.connect(node.proxy.addresses()[1]).await.expect("it listens");
    assert_eq!(ask(&mut shop, "/").await, 200);
}
