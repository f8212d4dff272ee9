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

/// Puts one in whose addresses nobody else has.
fn upsert(endpoints: &Endpoints, name: &str, addresses: &[&str]) -> u64 {
    let upserted = endpoints.upsert(endpoint(name, addresses), policy());
    assert_eq!(upserted.refused, []);
    upserted.revision
}

/// Who has this address as a client.
fn owner(endpoints: &Endpoints, address: &str) -> Option<Arc<Known>> {
    endpoints.parties(ip(address), ip("192.0.2.1")).client
}

#[test]
fn an_endpoint_is_found_by_each_of_its_addresses_on_either_end() {
    let endpoints = Endpoints::default();
    upsert(&endpoints, "a", &["10.0.0.1", "fd00::1", "::ffff:10.0.0.2"]);
    for address in ["10.0.0.1", "fd00::1", "10.0.0.2"] {
        assert_eq!(&*owner(&endpoints, address).expect("it is there").name, "a");
    }
    let parties = endpoints.parties(ip("192.0.2.1"), ip("fd00::1"));
    assert!(parties.client.is_none() && parties.server.is_some());
}

#[test]
fn one_that_keeps_its_addresses_is_the_same_and_its_policy_the_next() {
    let endpoints = Endpoints::default();
    assert_eq!(upsert(&endpoints, "a", &["10.0.0.1"]), 1);
    let before = owner(&endpoints, "10.0.0.1").expect("it is there");
    assert_eq!(upsert(&endpoints, "a", &["10.0.0.1", "fd00::1"]), 2);
    assert_eq!(endpoints.set_policy("a", policy()), Ok(3));
    let after = owner(&endpoints, "fd00::1").expect("it is there");
    assert_eq!(before.number, after.number);
    assert_eq!((before.snapshots.revision(), after.snapshots.revision()), (3, 3));
}

#[test]
fn one_that_loses_an_address_begins_anew() {
    let endpoints = Endpoints::default();
    upsert(&endpoints, "a", &["10.0.0.1", "10.0.0.2"]);
    let before = owner(&endpoints, "10.0.0.1").expect("it is there");
    assert_eq!(upsert(&endpoints, "a", &["10.0.0.1"]), 1);
    assert!(before.snapshots.is_retired());
    assert!(owner(&endpoints, "10.0.0.2").is_none());
    let after = owner(&endpoints, "10.0.0.1").expect("it is there");
    assert!(!after.snapshots.is_retired() && after.number != before.number);
}

#[test]
fn an_address_that_another_has_stays_that_ones_and_who_wants_it_is_told() {
    let endpoints = Endpoints::default();
    upsert(&endpoints, "a", &["10.0.0.1", "fd00::1"]);
    let before = owner(&endpoints, "10.0.0.1").expect("it is there");
    let upserted = endpoints.upsert(endpoint("b", &["10.0.0.2", "::ffff:10.0.0.1"]), policy());
    let taken = AddressTaken { address: ip("10.0.0.1"), owner: "a".into(), name: "b".into() };
    assert_eq!(upserted, Upserted { revision: 1, refused: vec![taken] });
    let text = "`10.0.0.1` is the address of endpoint `a`, and can't be `b`'s, too";
    assert_eq!(upserted.refused[0].to_string(), text);
    // Nothing has happened to the first one, and the second has what is its own.
    assert!(!before.snapshots.is_retired());
    for (address, name) in [("10.0.0.1", "a"), ("fd00::1", "a"), ("10.0.0.2", "b")] {
        assert_eq!(&*owner(&endpoints, address).expect("it is there").name, name);
    }
    assert_eq!(endpoints.get("b").expect("it is there").addresses, [ip("10.0.0.2")]);
    // When the second one goes, the first has it still; when the first goes, the second may.
    assert!(endpoints.remove("b"));
    assert_eq!(&*owner(&endpoints, "10.0.0.1").expect("it is there").name, "a");
    assert!(endpoints.remove("a") && owner(&endpoints, "10.0.0.1").is_none());
    upsert(&endpoints, "b", &["10.0.0.1"]);
    assert_eq!(&*owner(&endpoints, "10.0.0.1").expect("it is there").name, "b");
}

#[test]
fn two_that_change_addresses_with_each_other_have_them_in_the_end() {
    let endpoints = Endpoints::default();
    upsert(&endpoints, "a", &["10.0.0.1"]);
    upsert(&endpoints, "b", &["10.0.0.2"]);
    assert_eq!(endpoints.upsert(endpoint("a", &["10.0.0.2"]), policy()).refused.len(), 1);
    assert!(owner(&endpoints, "10.0.0.1").is_none(), "it has said that this is not its own");
    upsert(&endpoints, "b", &["10.0.0.1"]);
    upsert(&endpoints, "a", &["10.0.0.2"]);
    for (address, name) in [("10.0.0.1", "b"), ("10.0.0.2", "a")] {
        assert_eq!(&*owner(&endpoints, address).expect("it is there").name, name);
    }
}

/// As a server of clients that are told apart.
fn servers<const N: usize>() -> [Account; N] {
    let mut found = Vec::new();
    for last in 0..=255 {
        let account = Account::from(Role::Server(IpAddr::from([192, 0, 2, last])));
        if !found.contains(&account) {
            found.push(account);
        }
    }
    found[..N].try_into().expect("as many")
}

#[test]
fn what_is_taken_of_a_limit_is_given_back() {
    let limits = EndpointLimits { connections: 2, buffered_bytes: 100, cpu_share: 0 };
    let quota = Quota::new(&limits);
    let [server] = servers();
    for account in [Account::OfClient, server] {
        let enter = || quota.enter(account);
        assert!(enter() && enter() && !enter() && !enter());
        quota.leave(account);
        assert!(enter());
        let hold = |before, now| quota.hold(account, before, now);
        assert!(hold(0, 60) && !hold(0, 60) && hold(60, 40) && hold(60, 0));
    }
    assert_eq!((quota.connections(), quota.buffered()), (4, 80));
    assert_eq!(quota.cpu_share(), 1, "everybody gets something");
}

#[test]
fn in_a_crowd_no_address_gets_more_than_a_quarter_of_a_servers_places() {
    let of = |connections| Quota::new(&EndpointLimits { connections, ..Default::default() });
    let quota = of(1000);
    let [greedy, other, third] = servers();
    let enter = |account| (0..2000).filter(|_| quota.enter(account)).count();
    assert_eq!((enter(greedy), enter(other), enter(third)), (500, 250, 250));
    // Strangers leave it its own connections.
    assert_eq!(enter(Account::OfClient), 1000);
    // Small limits are not divided.
    let quota = of(60);
    assert_eq!((0..100).filter(|_| quota.enter(greedy)).count(), 60);
}

#[test]
fn in_a_crowd_who_holds_most_is_told_to_end_and_not_who_comes_next() {
    const MIB: usize = 1024 * 1024;
    let of = |bytes| Quota::new(&EndpointLimits { buffered_bytes: bytes, ..Default::default() });
    let [greedy, other] = servers();
    let quota = of(64 * MIB);
    assert!(quota.hold(greedy, 0, 31 * MIB), "there is room");
    assert!(quota.hold(other, 0, 2 * MIB));
    assert!(!quota.hold(greedy, 31 * MIB, 32 * MIB), "it has most of it");
    assert!(quota.hold(other, 0, MIB));
    // One with many connections, none of which has much.
    let quota = of(64 * MIB);
    assert_eq!((0..64).filter(|_| quota.hold(greedy, 0, MIB)).count(), 32);
    assert!(quota.hold(other, 0, 0));
    // Its own connections are counted by themselves.
    let quota = of(64 * MIB);
    assert!(quota.hold(Account::OfClient, 0, 8 * MIB) && quota.hold(greedy, 0, 32 * MIB));
    assert!(!quota.hold(Account::OfClient, 8 * MIB, 40 * MIB), "it has most of it");
    assert!(quota.hold(Account::OfClient, 0, 8 * MIB), "another one");
}
