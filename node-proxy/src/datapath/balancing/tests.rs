//! What services mean to whom, and what becomes of them in a round.

use super::*;

fn backend(address: &str, state: BackendState, is_local: bool) -> Backend {
    Backend { address: address.parse().unwrap(), state, is_local }
}

fn spec(backends: Vec<Backend>) -> ServiceSpec {
    let at = |address: &str| address.parse::<SocketAddr>().unwrap();
    let frontends = vec![
        Frontend::Cluster(at("10.96.0.1:80")),
        Frontend::External(at("192.0.2.1:80")),
        Frontend::Node(30_080),
    ];
    ServiceSpec {
        name: ServiceName { namespace: "default".to_owned(), name: "web".to_owned() },
        ports: vec![PortSpec {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            frontends,
            backends,
        }],
        external_local: false,
        internal_local: false,
        affinity: None,
    }
}

fn on_a_node() -> Balancing {
    let mut balancing = Balancing::default();
    balancing.answer_at(vec!["198.51.100.1".parse().unwrap()]);
    balancing
}

/// Who gets new connections, by who asks: for the cluster's address, for others inside, from outside.
fn chosen(spec: &ServiceSpec) -> Vec<Vec<String>> {
    let mut balancing = on_a_node();
    balancing.put(spec).unwrap();
    let active = |config: &Arc<ServiceConfig>| {
        let active = config.backends.iter().filter(|backend| !backend.draining);
        active.map(|backend| backend.address.ip().to_string()).collect()
    };
    balancing.all().iter().map(active).collect()
}

#[test]
fn a_node_port_is_answered_at_the_nodes_addresses_from_inside_and_outside() {
    let mut balancing = on_a_node();
    balancing.put(&spec(vec![backend("10.0.0.1:80", BackendState::Ready, true)])).unwrap();
    let frontends: Vec<_> =
        balancing.all().iter().map(|it| (it.external, it.frontends.len())).collect();
    assert_eq!(frontends, [(false, 1), (false, 2), (true, 2)]);
    assert!(balancing.all()[2].frontends.contains(&("198.51.100.1".parse().unwrap(), 30_080)));
}

#[test]
fn local_policies_are_each_about_their_own_clients() {
    let ready = BackendState::Ready;
    let mut spec =
        spec(vec![backend("10.0.0.1:80", ready, true), backend("10.0.1.1:80", ready, false)]);
    let (both, local) = (vec!["10.0.0.1", "10.0.1.1"], vec!["10.0.0.1"]);
    assert_eq!(chosen(&spec), [both.clone(), both.clone(), both.clone()]);
    spec.external_local = true;
    assert_eq!(chosen(&spec), [both.clone(), both.clone(), local.clone()]);
    (spec.external_local, spec.internal_local) = (false, true);
    assert_eq!(chosen(&spec), [local, both.clone(), both]);
}

#[test]
fn who_is_about_to_leave_answers_when_nobody_else_does() {
    let leaving = backend("10.0.0.2:80", BackendState::Terminating, true);
    let spec_of = |first| spec(vec![backend("10.0.0.1:80", first, true), leaving]);
    assert_eq!(chosen(&spec_of(BackendState::Ready))[0], ["10.0.0.1"]);
    assert_eq!(chosen(&spec_of(BackendState::NotReady))[0], ["10.0.0.2"]);
    // One that should be ready and does not answer comes after him, before nobody.
    assert_eq!(chosen(&spec_of(BackendState::Unhealthy))[0], ["10.0.0.2"]);
    let unhealthy = backend("10.0.0.1:80", BackendState::Unhealthy, true);
    let last = spec(vec![unhealthy, backend("10.0.0.2:80", BackendState::NotReady, true)]);
    assert_eq!(chosen(&last)[0], ["10.0.0.1"]);
    let nobody = spec(vec![backend("10.0.0.1:80", BackendState::NotReady, true)]);
    assert!(chosen(&nobody)[0].is_empty());
}

#[test]
fn locality_comes_before_readiness() {
    let away = backend("10.0.1.1:80", BackendState::Ready, false);
    let mut spec = spec(vec![backend("10.0.0.1:80", BackendState::Terminating, true), away]);
    spec.external_local = true;
    assert_eq!(chosen(&spec)[2], ["10.0.0.1"], "the last resort of this node");
    assert_eq!(chosen(&spec)[0], ["10.0.1.1"]);
}

#[test]
fn an_address_has_one_service_until_that_is_gone() {
    let mut balancing = Balancing::default();
    let first = spec(vec![]);
    let mut second = first.clone();
    second.name.name = "other".to_owned();
    balancing.put(&first).unwrap();
    balancing.put(&first).unwrap();
    let error = balancing.put(&second).unwrap_err().to_string();
    assert_eq!(error, "`10.96.0.1:80` (TCP) is an address of service default/web already");
    balancing.remove(&first.name);
    balancing.put(&second).unwrap();
}

fn called(name: &str, cluster: &str) -> ServiceSpec {
    let mut spec = spec(vec![backend("10.0.0.1:80", BackendState::Ready, true)]);
    spec.name.name = name.to_owned();
    spec.ports[0].frontends = vec![Frontend::Cluster(cluster.parse().unwrap())];
    spec
}

/// What clients connect to, and what services that is.
fn frontends(balancing: &Balancing) -> Vec<String> {
    let all = balancing.all();
    let each = all.iter().flat_map(|one| one.frontends.iter().map(move |at| (one, at)));
    each.map(|(one, at)| format!("{} {}", one.name, at.0)).collect()
}

#[test]
fn two_that_change_addresses_with_each_other_do_so_in_one_round() {
    let (one, two) = ("10.96.0.1:80", "10.96.0.2:80");
    let mut balancing = Balancing::default();
    for spec in [called("a", one), called("b", two), called("c", "10.96.0.3:80")] {
        balancing.put(&spec).unwrap();
    }
    balancing.end_round();
    let names = ["a", "b", "c"].map(|name| called(name, one).name);
    balancing.take_out(&names);
    balancing.put(&called("a", two)).unwrap();
    balancing.put(&called("b", one)).unwrap();
    // One that asks for what another has is what it was.
    balancing.put(&called("c", one)).unwrap_err();
    let after = ["a:http 10.96.0.2", "b:http 10.96.0.1", "c:http 10.96.0.3"];
    assert_eq!(frontends(&balancing), after);
    // Another one finds no room: they are not held up by it.
    let full = called("d", "10.96.0.4:80");
    balancing.put(&full).unwrap();
    let before = balancing.end_round();
    let mut sets = 0;
    let failures = balancing.one_by_one(before, |all| {
        sets += 1;
        match all.iter().any(|one| one.name.starts_with('d')) {
            true => Err(DatapathError("no room".to_owned())),
            false => Ok(()),
        }
    });
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&full.name]);
    assert_eq!((frontends(&balancing), sets), (after.map(str::to_owned).to_vec(), 3));
}

#[test]
fn what_finds_no_room_takes_nothing_down_that_was_there_before() {
    let left: Vec<ServiceConfig> = {
        let mut before = Balancing::default();
        for (name, at) in [("x", "10.96.0.1:80"), ("y", "10.96.0.2:80"), ("z", "10.96.0.3:80")] {
            before.put(&called(name, at)).unwrap();
        }
        before.all().iter().map(|one| ServiceConfig::clone(one)).collect()
    };
    let mut balancing = Balancing::default();
    balancing.begin_with(left);
    let (good, bad) = (called("a", "10.96.0.1:80"), called("b", "10.96.0.2:80"));
    balancing.put(&good).unwrap();
    balancing.put(&bad).unwrap();
    let mut seen = Vec::new();
    let before = balancing.end_round();
    let failures = balancing.one_by_one(before, |all| {
        seen.push(all.iter().map(|one| one.frontends.len()).sum::<usize>());
        match all.iter().any(|one| one.name.starts_with('b')) {
            true => Err(DatapathError("no room".to_owned())),
            false => Ok(()),
        }
    });
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&bad.name]);
    assert_eq!(seen, [3, 3], "nothing is missing at any time");
    let after = ["a:http 10.96.0.1", "y:http 10.96.0.2", "z:http 10.96.0.3"];
    assert_eq!(frontends(&balancing), after);
    // When all have been told, those that fail keep what they had.
    assert!(balancing.keep(std::slice::from_ref(&bad)));
    assert_eq!(frontends(&balancing), ["a:http 10.96.0.1", "y:http 10.96.0.2"]);
    assert!(balancing.keep(std::slice::from_ref(&bad)), "until the kernel has it");
    balancing.kept();
    assert!(!balancing.keep(std::slice::from_ref(&bad)));
    assert!(balancing.keep(&[]));
    assert_eq!(frontends(&balancing), ["a:http 10.96.0.1"]);
}
