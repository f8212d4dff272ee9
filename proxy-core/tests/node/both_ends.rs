//! Both ends of a connection are endpoints: both policies judge it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portreeve_core::{NodeConfig, UpstreamConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::harness::*;

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
