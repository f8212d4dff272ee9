//! Each endpoint has its own policy, and it can be replaced.

use std::time::Duration;

use portreeve_core::NodeConfig;
use portreeve_core::node::Trouble;

use super::harness::*;

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
            " egress Deny limit no_endpoint",
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
async fn time_outs_hold_while_policy_changes_many_times_a_second() {
    let briefly = Some(Duration::from_millis(300));
    let node = Node::start("127.0.0.1", |config| config.limits.idle_timeout = briefly).await;
    node.add("alice", ALICE, asks("alice", "/.*"));
    node.add("bob", BOB, asks("bob", "/.*"));
    let endpoints = node.endpoints.clone();
    let changes = tokio::spawn(async move {
        loop {
            endpoints.set_policy("bob", asks("bob", "/.*")).expect("it is there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut alice = node.connect(ALICE).await;
    assert_eq!(ask(&mut alice, "/").await, 200);
    ends(&mut alice).await;
    changes.abort();
}

#[tokio::test]
async fn a_nodes_proxy_does_not_drain_for_who_asks_its_admin_server() {
    let admin = |config: &mut NodeConfig| config.admin = Some(local("127.0.0.1"));
    let node = Node::start("127.0.0.1", admin).await;
    node.add("bob", BOB, asks("bob", "/.*"));
    let answer = node.ask_admin("POST /drain").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("send that SIGTERM"), "{answer}");
    assert_eq!(ask(&mut node.connect(BOB).await, "/").await, 200);
    assert_eq!(node.proxy.trouble(), None);
    node.proxy.remote().drain();
    for _ in 0..100 {
        if node.proxy.trouble().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.proxy.trouble(), Some(Trouble::Draining));
}
