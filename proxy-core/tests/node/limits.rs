//! What an endpoint may use of the proxy.

use std::time::Duration;

use portreeve_core::{EndpointLimits, NodeConfig};
use tokio::io::AsyncWriteExt;

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
