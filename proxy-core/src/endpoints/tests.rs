//! Who is found, who is displaced, and what limits hold.

use portreeve_policy::{Directory, Endpoint, Options, Repository};

use super::*;

fn policy() -> EndpointPolicy {
    let repository = Repository::parse([]).expect("no policies");
    let endpoint = Endpoint::new("w", "default", "app=w".parse().expect("labels"));
    let (nobody, options) = (Directory::default(), Options::default());
    EndpointPolicy::resolve(&repository, &endpoint, &nobody, &options).expect("a policy")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn endpoint(name: &str, addresses: &[&str]) -> EndpointConfig {
    let addresses = addresses.iter().map(|address| ip(address)).collect();
    EndpointConfig { name: name.to_owned(), addresses, limits: EndpointLimits::default() }
}

/// Who has this address as a client.
fn owner(endpoints: &Endpoints, address: &str) -> Option<Arc<Known>> {
    endpoints.parties(ip(address), ip("192.0.2.1")).client
}

#[test]
fn an_endpoint_is_found_by_each_of_its_addresses_on_either_end() {
    let endpoints = Endpoints::default();
    endpoints.upsert(endpoint("a", &["10.0.0.1", "fd00::1", "::ffff:10.0.0.2"]), policy());
    for address in ["10.0.0.1", "fd00::1", "10.0.0.2"] {
        assert_eq!(&*owner(&endpoints, address).expect("it is there").name, "a");
    }
    let parties = endpoints.parties(ip("192.0.2.1"), ip("fd00::1"));
    assert!(parties.client.is_none() && parties.server.is_some());
}

#[test]
fn one_that_keeps_its_addresses_is_the_same_and_its_policy_the_next() {
    let endpoints = Endpoints::default();
    assert_eq!(endpoints.upsert(endpoint("a", &["10.0.0.1"]), policy()), 1);
    let before = owner(&endpoints, "10.0.0.1").expect("it is there");
    assert_eq!(endpoints.upsert(endpoint("a", &["10.0.0.1", "fd00::1"]), policy()), 2);
    assert_eq!(endpoints.set_policy("a", policy()), Ok(3));
    let after = owner(&endpoints, "fd00::1").expect("it is there");
    assert_eq!(before.number, after.number);
    assert_eq!((before.snapshots.revision(), after.snapshots.revision()), (3, 3));
}

#[test]
fn one_that_loses_an_address_begins_anew() {
    let endpoints = Endpoints::default();
    endpoints.upsert(endpoint("a", &["10.0.0.1", "10.0.0.2"]), policy());
    let before = owner(&endpoints, "10.0.0.1").expect("it is there");
    assert_eq!(endpoints.upsert(endpoint("a", &["10.0.0.1"]), policy()), 1);
    assert!(before.snapshots.is_retired());
    assert!(owner(&endpoints, "10.0.0.2").is_none());
    let after = owner(&endpoints, "10.0.0.1").expect("it is there");
    assert!(!after.snapshots.is_retired() && after.number != before.number);
}

#[test]
fn an_address_given_to_another_leaves_who_had_it_unknown() {
    let endpoints = Endpoints::default();
    endpoints.upsert(endpoint("a", &["10.0.0.1", "fd00::1"]), policy());
    let before = owner(&endpoints, "fd00::1").expect("it is there");
    endpoints.upsert(endpoint("b", &["10.0.0.1"]), policy());
    assert!(before.snapshots.is_retired());
    assert_eq!(&*owner(&endpoints, "10.0.0.1").expect("it is there").name, "b");
    assert!(owner(&endpoints, "fd00::1").is_none());
    assert!(!endpoints.remove("a"), "the late news find nothing");
    assert!(owner(&endpoints, "10.0.0.1").is_some());
    assert_eq!(endpoints.set_policy("a", policy()), Err(UnknownEndpoint("a".to_owned())));
}

#[test]
fn what_is_taken_of_a_limit_is_given_back() {
    let limits = EndpointLimits { connections: 2, buffered_bytes: 100, cpu_share: 0 };
    let quota = Quota::new(&limits);
    assert!(quota.enter() && quota.enter() && !quota.enter() && !quota.enter());
    quota.leave();
    assert_eq!(quota.connections(), 1);
    assert!(quota.enter());
    assert!(quota.hold(0, 60) && !quota.hold(0, 60) && quota.hold(60, 40) && quota.hold(60, 0));
    assert_eq!(quota.buffered(), 40);
    assert_eq!(quota.cpu_share(), 1, "everybody gets something");
}
