//! Endpoints that come and go, and their addresses.

use portreeve_core::{EndpointConfig, EndpointLimits};

use super::harness::*;

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
    // Until bob is gone, its address is its own, whoever else is said to have it.
    let carol = || EndpointConfig {
        name: "carol".into(),
        addresses: vec![ip(BOB)],
        limits: EndpointLimits::default(),
    };
    let upserted = node.endpoints.upsert(carol(), asks("carol", "/.*"));
    assert_eq!((&*upserted.refused[0].owner, upserted.refused[0].address), ("bob", ip(BOB)));
    assert_eq!(ask(&mut bob, "/1").await, 200);
    assert!(node.endpoints.remove("bob"));
    ends(&mut bob).await;
    node.refuses(BOB).await;
    assert_eq!(node.add("carol", BOB, asks("carol", "/2")), 2);
    let mut carol = node.connect(BOB).await;
    assert_eq!((ask(&mut carol, "/1").await, ask(&mut carol, "/2").await), (403, 200));
    assert!(node.endpoints.get("bob").is_none(), "the late news find nothing");
    let names: Vec<_> = node.endpoints.list().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["carol"]);
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
