use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_ebpf_common::{
    Affinity, AffinityKey, Backend, Endpoint, Service, ServiceKey, Slot, SlotKey,
};
use portreeve_policy::fuzz::random::Dice;

use super::*;
use crate::address::endpoint;

/// The kernel's maps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Maps {
    services: HashMap<ServiceKey, Service>,
    slots: HashMap<SlotKey, Slot>,
    backends: HashMap<u32, Backend>,
    /// With the endpoint that the client was really sent to.
    affinities: HashMap<(u32, u32), Endpoint>,
}

const ROOM: ServiceRoom = ServiceRoom { frontends: 1000, slots: 10_000, backends: 10_000 };

impl Maps {
    fn write(&mut self, write: ServiceWrite) {
        match write {
            ServiceWrite::PutBackend(number, backend) => {
                self.backends.insert(number, backend);
            }
            ServiceWrite::PutSlot(key, slot) => {
                self.slots.insert(key, slot);
            }
            ServiceWrite::PutService(key, service) => {
                self.services.insert(key, service);
            }
            ServiceWrite::RemoveService(key) => assert!(self.services.remove(&key).is_some()),
            ServiceWrite::RemoveSlot(key) => assert!(self.slots.remove(&key).is_some()),
            ServiceWrite::RemoveBackend(number) => assert!(self.backends.remove(&number).is_some()),
        }
    }

    /// No program finds half a service, nor is sent to somebody who drains.
    fn check(&self) {
        for (key, service) in &self.services {
            for index in 0..service.slots {
                let slot = self.slots.get(&SlotKey { table: service.table, index });
                let slot = slot.unwrap_or_else(|| panic!("{key:?}: no slot {index}"));
                for number in [slot.backend, slot.other] {
                    let backend = self.backends.get(&number);
                    let backend = backend.unwrap_or_else(|| panic!("{key:?}: no backend {number}"));
                    assert_eq!(backend.draining, 0, "{key:?}: {backend:?}");
                }
            }
        }
        for ((service, number), endpoint) in &self.affinities {
            if let Some(backend) = self.backends.get(number) {
                assert_eq!(backend.endpoint, *endpoint, "a client of {service} goes elsewhere");
            }
        }
    }

    fn restored(&self) -> ServiceTables {
        let affinities = self.affinities.keys().map(|(service, backend)| {
            let key = AffinityKey { client: 9, service: *service, pad: 0 };
            (key, Affinity { since: 1, backend: *backend, pad: 0 })
        });
        let services = self.services.iter().map(|(key, service)| (*key, *service));
        let slots = self.slots.iter().map(|(key, slot)| (*key, *slot));
        let backends = self.backends.iter().map(|(number, backend)| (*number, *backend));
        ServiceTables::restored(ROOM, services, slots, backends, affinities)
    }

    /// Shares of new clients, of 2³² for every slot.
    fn shares(&self, service: &Service) -> BTreeMap<Endpoint, u128> {
        let mut shares = BTreeMap::new();
        for index in 0..service.slots {
            let slot = self.slots[&SlotKey { table: service.table, index }];
            let threshold = u128::from(slot.threshold);
            let mut add = |number, share| {
                *shares.entry(self.backends[number].endpoint).or_default() += share;
            };
            add(&slot.backend, threshold);
            add(&slot.other, (1 << 32) - threshold);
        }
        shares
    }

    /// All of these services are there, whole, and nothing else.
    fn hold(&self, configs: &[ServiceConfig]) {
        let keys: usize = configs.iter().map(|config| config.frontends.len()).sum();
        assert_eq!(self.services.len(), keys);
        let mut slots = HashMap::new();
        for config in configs {
            for key in config.keys() {
                let service = &self.services[&key];
                slots.insert(service.table, service.slots);
                assert_eq!(service.affinity, config.affinity_seconds());
                let own = config.backends.iter().filter(|backend| {
                    let same = endpoint(backend.address).address.is_v4();
                    same == key.frontend.address.is_v4() && !backend.draining && backend.weight > 0
                });
                let own: Vec<_> = own.collect();
                let shares = self.shares(service);
                assert_eq!(shares.len(), own.len(), "{config:?}");
                let total: u128 = own.iter().map(|backend| u128::from(backend.weight)).sum();
                for backend in &own {
                    let found = shares[&endpoint(backend.address)] * total;
                    let exact = u128::from(backend.weight) * own.len() as u128 * (1 << 32);
                    assert!(found.abs_diff(exact) < own.len() as u128 * total);
                }
            }
        }
        let in_force: u32 = slots.values().sum();
        assert_eq!(self.slots.len(), in_force as usize, "slots that nobody leads to");
    }

    /// Every client that is sent somewhere is remembered.
    fn remember(&mut self, dice: &mut Dice) {
        for service in self.services.values() {
            if service.slots == 0 || !dice.once_in(2) {
                continue;
            }
            let index = u32::try_from(dice.below(service.slots as usize)).unwrap();
            let slot = self.slots[&SlotKey { table: service.table, index }];
            let number = slot.pick(dice.word());
            self.affinities.insert((service.id, number), self.backends[&number].endpoint);
        }
    }
}

/// Does a plan write by write.
fn carry_out(maps: &mut Maps, tables: &mut ServiceTables, configs: &[ServiceConfig]) {
    let plan = tables.plan(&shared(configs)).unwrap();
    let stay: Vec<ServiceKey> = configs.iter().flat_map(ServiceConfig::keys).collect();
    let stay: Vec<ServiceKey> =
        stay.into_iter().filter(|key| maps.services.contains_key(key)).collect();
    for write in plan.writes() {
        maps.write(write);
        maps.check();
        assert!(stay.iter().all(|key| maps.services.contains_key(key)), "{write:?}");
    }
    tables.adopt(plan);
    maps.hold(configs);
    assert_eq!(
        tables.plan(&shared(configs)).unwrap().writes().count(),
        0,
        "there is nothing left to do"
    );
}

fn shared(configs: &[ServiceConfig]) -> Vec<Arc<ServiceConfig>> {
    configs.iter().cloned().map(Arc::new).collect()
}

fn service(name: &str, frontends: &[&str], backends: &[(&str, u32)]) -> ServiceConfig {
    let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let backend = |(address, weight): &(&str, u32)| BackendConfig {
        address: socket(address),
        weight: *weight,
        draining: false,
    };
    let frontend = |text: &&str| (socket(text).ip(), socket(text).port());
    ServiceConfig {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        labels: "app=x".parse().unwrap(),
        frontends: frontends.iter().map(frontend).collect(),
        protocol: Transport::Tcp,
        backends: backends.iter().map(backend).collect(),
        external: false,
        affinity: None,
    }
}

/// Services of which some share backends, and some have addresses that others had before.
fn any(dice: &mut Dice) -> Vec<ServiceConfig> {
    let mut free: Vec<(IpAddr, u16)> = Vec::new();
    for host in 1..7 {
        free.push((IpAddr::from([10, 96, 0, host]), 80));
        free.push((format!("fd00::{host}").parse().unwrap(), 80));
    }
    let mut services = Vec::new();
    while free.len() > 2 && !dice.once_in(6) {
        let mut config = service("s", &[], &[]);
        for _ in 0..=dice.below(3.min(free.len() - 1)) {
            config.frontends.push(free.swap_remove(dice.below(free.len())));
        }
        for host in 1..9u8 {
            let address = match host % 2 {
                0 => SocketAddr::from(([10, 0, 0, host], 8080)),
                _ => format!("[fd01::{host}]:8080").parse().unwrap(),
            };
            let weight = [0, 1, 1, 2, 100, MAX_WEIGHT][dice.below(6)];
            if !dice.once_in(3) {
                config.backends.push(BackendConfig { address, weight, draining: dice.once_in(4) });
            }
        }
        if dice.once_in(2) {
            config.affinity = Some(Duration::from_millis(dice.below(5000) as u64));
        }
        if dice.once_in(2) {
            config.backends.reverse();
        }
        services.push(config);
    }
    services
}

#[test]
fn no_write_leaves_half_a_service() {
    let mut dice = Dice::new(31);
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    for _ in 0..400 {
        carry_out(&mut maps, &mut tables, &any(&mut dice));
        maps.remember(&mut dice);
    }
}

#[test]
fn whoever_is_killed_half_way_goes_on_from_what_is_there() {
    let mut dice = Dice::new(32);
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    for _ in 0..400 {
        let plan = tables.plan(&shared(&any(&mut dice))).unwrap();
        let writes: Vec<_> = plan.writes().collect();
        for write in &writes[..dice.below(writes.len() + 1)] {
            maps.write(*write);
            maps.check();
        }
        tables = maps.restored();
        carry_out(&mut maps, &mut tables, &any(&mut dice));
        maps.remember(&mut dice);
    }
}

#[test]
fn what_is_found_is_planned_as_it_is() {
    let mut dice = Dice::new(35);
    for _ in 0..100 {
        let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
        let mut configs = any(&mut dice);
        for backend in configs.iter_mut().flat_map(|config| &mut config.backends) {
            backend.weight = 1;
        }
        carry_out(&mut maps, &mut tables, &configs);
        let restored = maps.restored();
        let found = restored.found();
        let frontends =
            |all: &[ServiceConfig]| all.iter().map(|config| config.frontends.len()).sum::<usize>();
        assert_eq!(frontends(&found), frontends(&configs));
        let plan = restored.plan(&shared(&found)).unwrap();
        // Who drains, and is remembered by nobody, is found nowhere.
        let kept = |write: &ServiceWrite| !matches!(write, ServiceWrite::RemoveBackend(_));
        assert_eq!(plan.writes().filter(kept).count(), 0);
    }
}

#[test]
fn a_restart_changes_nothing() {
    let mut dice = Dice::new(33);
    for _ in 0..100 {
        let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
        let mut configs = any(&mut dice);
        for config in &mut configs {
            config.backends.retain(|backend| backend.weight > 0 && !backend.draining);
        }
        carry_out(&mut maps, &mut tables, &configs);
        let left = maps.restored().plan(&shared(&configs)).unwrap();
        assert_eq!(left.writes().count(), 0);
    }
}

#[test]
fn a_backend_drains_until_it_is_configured_no_longer() {
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    let mut configs = [service("s", &["10.96.0.1:80"], &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])];
    carry_out(&mut maps, &mut tables, &configs);
    let numbers: Vec<u32> = maps.backends.keys().copied().collect();
    configs[0].backends[0].draining = true;
    carry_out(&mut maps, &mut tables, &configs);
    assert!(numbers.iter().all(|number| maps.backends.contains_key(number)));
    assert_eq!(maps.backends.values().filter(|backend| backend.draining != 0).count(), 1);
    configs[0].backends.remove(0);
    let plan = tables.plan(&shared(&configs)).unwrap();
    let [.., ServiceWrite::RemoveBackend(_)] = plan.writes().collect::<Vec<_>>()[..] else {
        panic!("{plan:?}")
    };
    carry_out(&mut maps, &mut tables, &configs);
    assert_eq!(maps.backends.len(), 1);
}

#[test]
fn a_client_comes_back_across_a_restart_to_one_who_gets_nobody_new() {
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    let mut configs = [service("s", &["10.96.0.1:80"], &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])];
    carry_out(&mut maps, &mut tables, &configs);
    let first = endpoint(configs[0].backends[0].address);
    let of = |maps: &Maps| {
        let mut all = maps.backends.iter().filter(|(_, backend)| backend.endpoint == first);
        *all.next().unwrap().0
    };
    let number = of(&maps);
    let id = maps.services.values().next().unwrap().id;
    maps.affinities.insert((id, number), first);
    configs[0].backends[0].weight = 0;
    carry_out(&mut maps, &mut tables, &configs);
    assert_eq!(of(&maps), number);
    let mut tables = maps.restored();
    carry_out(&mut maps, &mut tables, &configs);
    assert_eq!(of(&maps), number);
    assert_eq!(maps.services.values().next().unwrap().id, id);
}

#[test]
fn a_number_that_a_client_may_remember_is_nobody_elses() {
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    let one = [service("one", &["10.96.0.1:80"], &[("10.0.0.1:80", 1)])];
    carry_out(&mut maps, &mut tables, &one);
    let (number, backend) = maps.backends.iter().next().map(|(n, b)| (*n, *b)).unwrap();
    let id = maps.services.values().next().unwrap().id;
    maps.affinities.insert((id, number), backend.endpoint);
    carry_out(&mut maps, &mut tables, &[]);
    let mut tables = maps.restored();
    let two = [service("two", &["10.96.0.2:80"], &[("10.0.0.2:80", 1)])];
    carry_out(&mut maps, &mut tables, &two);
    assert!(!maps.backends.contains_key(&number));
    assert_ne!(maps.services.values().next().unwrap().id, id);
}

#[test]
fn what_cannot_be_meant_is_an_error_and_nothing_is_written() {
    let tables = ServiceTables::new(ServiceRoom { frontends: 2, slots: 3, backends: 4 });
    let refused =
        |services: &[ServiceConfig]| tables.plan(&shared(services)).unwrap_err().to_string();
    let one = service("one", &["10.96.0.1:80"], &[("10.0.0.1:80", 1)]);
    let same = service("two", &["[::ffff:10.96.0.1]:80"], &[]);
    assert_eq!(
        refused(&[one.clone(), same.clone()]),
        "services `default/one` and `default/two`: both have the frontend \
         `[::ffff:10.96.0.1]:80` (TCP)"
    );
    let udp = ServiceConfig { protocol: Transport::Udp, ..same };
    assert!(tables.plan(&shared(&[one, udp])).is_ok(), "another protocol is another service");
    for address in ["10.96.0.1:0", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "[ff02::1]:80"] {
        let expected = format!("service `default/s`: `{address}` is nowhere to connect to");
        assert_eq!(refused(&[service("s", &[address], &[])]), expected);
        assert_eq!(refused(&[service("s", &["10.96.0.1:80"], &[(address, 1)])]), expected);
    }
    let frontend = &["10.96.0.1:80"][..];
    assert_eq!(
        refused(&[service("s", frontend, &[("10.0.0.1:80", 1_000_001)])]),
        "service `default/s`: the weight 1000001 of `10.0.0.1:80` is more than 1000000, the \
         greatest there is"
    );
    let twice = [("10.0.0.1:80", 1), ("[::ffff:10.0.0.1]:80", 1)];
    assert!(refused(&[service("s", frontend, &twice)]).contains("is there twice"));
    let ports: Vec<String> = (1..=4).map(|port| format!("10.0.0.1:{port}")).collect();
    let four: Vec<(&str, u32)> = ports.iter().map(|port| (port.as_str(), 1)).collect();
    assert_eq!(
        refused(&[service("s", frontend, &four)]),
        "4 slots, and room for 3: what is new comes before what is old goes"
    );
    let ports: Vec<String> = (1..=4097).map(|port| format!("10.0.0.1:{port}")).collect();
    let many: Vec<(&str, u32)> = ports.iter().map(|port| (port.as_str(), 1)).collect();
    assert!(refused(&[service("s", frontend, &many)]).contains("4097 backends"));
}

#[test]
fn what_comes_beside_services_that_stay_is_held_against_them() {
    let room = ServiceRoom { frontends: 3, slots: 3, backends: 3 };
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(room));
    let one = service("one", &["10.96.0.1:80"], &[("10.0.0.1:80", 1)]);
    let two = service("two", &["10.96.0.2:80"], &[("10.0.0.2:80", 1)]);
    carry_out(&mut maps, &mut tables, &[one.clone(), two.clone()]);
    let taken = service("three", &["10.96.0.1:80"], &[]);
    assert_eq!(
        tables.plan(&shared(&[one.clone(), two.clone(), taken])).unwrap_err().to_string(),
        "services `default/one` and `default/three`: both have the frontend \
         `10.96.0.1:80` (TCP)"
    );
    let ports = [("10.0.0.3:80", 1), ("10.0.0.3:81", 1)];
    let many = service("three", &["10.96.0.3:80"], &ports);
    assert_eq!(
        tables.plan(&shared(&[one.clone(), two.clone(), many])).unwrap_err().to_string(),
        "4 slots, and room for 3: what is new comes before what is old goes"
    );
    // An address that moves to another service goes with its number.
    let (mut first, mut second) = (one, two);
    std::mem::swap(&mut first.name, &mut second.name);
    let before = maps.services.clone();
    carry_out(&mut maps, &mut tables, &[first, second]);
    assert_eq!(maps.services, before);
}

#[test]
fn one_change_among_many_is_the_same_as_all_at_once() {
    let mut dice = Dice::new(34);
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    let mut configs = any(&mut dice);
    for _ in 0..600 {
        match dice.below(3) {
            0 if !configs.is_empty() => {
                configs.remove(dice.below(configs.len()));
            }
            1 if !configs.is_empty() => {
                let at = dice.below(configs.len());
                configs[at].backends.pop();
                configs[at].affinity = Some(Duration::from_secs(dice.below(9) as u64));
            }
            _ => configs = any(&mut dice),
        }
        carry_out(&mut maps, &mut tables, &configs);
        // What it takes to be there is what somebody finds who reads the maps.
        let kept: Vec<_> = maps.restored().plan(&shared(&configs)).unwrap().writes().collect();
        let unused = |write: &ServiceWrite| {
            matches!(write, ServiceWrite::PutBackend(..) | ServiceWrite::RemoveBackend(_))
        };
        assert!(kept.iter().all(unused), "{kept:?}");
        maps.remember(&mut dice);
    }
}

#[test]
fn a_service_without_a_backend_to_choose_has_no_slots() {
    let (mut maps, mut tables) = (Maps::default(), ServiceTables::new(ROOM));
    let configs = [
        service("zero", &["10.96.0.1:80"], &[("10.0.0.1:80", 0)]),
        service("other-family", &["10.96.0.2:80"], &[("[fd00::1]:80", 1)]),
        service("none", &["10.96.0.3:80"], &[]),
    ];
    carry_out(&mut maps, &mut tables, &configs);
    assert_eq!(maps.services.len(), 3);
    assert!(maps.services.values().all(|service| service.slots == 0 && service.id > 0));
}

#[test]
fn a_service_is_one_that_policies_can_name() {
    let mut config = service("s", &["10.96.0.1:80"], &[("10.0.0.2:80", 1), ("10.0.0.1:81", 0)]);
    config.backends.push(BackendConfig {
        address: "10.0.0.1:82".parse().unwrap(),
        weight: 1,
        draining: true,
    });
    let service = portreeve_policy::Service::from(&config);
    assert_eq!((service.namespace.as_str(), service.name.as_str()), ("default", "s"));
    assert!(service.selector.is_empty());
    assert_eq!(service.backends, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
    assert_eq!(service.labels, config.labels);
}

#[test]
fn ten_thousand_services_are_planned_at_once() {
    let room = ServiceRoom { frontends: 10_000, slots: 60_000, backends: 60_000 };
    let mut tables = ServiceTables::new(room);
    let config = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut config = service("s", &[], &[]);
        config.frontends.push((IpAddr::from([10, 96, high, low]), 80));
        let backend = |host: u8| BackendConfig {
            address: SocketAddr::from(([10, host, high, low], 8080)),
            weight: u32::from(host),
            draining: false,
        };
        config.backends = (1..=5).map(backend).collect();
        config
    };
    let mut configs: Vec<ServiceConfig> = (0..10_000).map(config).collect();
    let begun = Instant::now();
    let plan = tables.plan(&shared(&configs)).unwrap();
    let all = begun.elapsed();
    assert_eq!(plan.writes().count(), 110_000);
    tables.adopt(plan);
    configs[5000].backends[2].draining = true;
    let begun = Instant::now();
    let plan = tables.plan(&shared(&configs)).unwrap();
    let one = begun.elapsed();
    // Four slots come, the service and the drained backend change, five slots go.
    assert_eq!(plan.writes().count(), 4 + 1 + 1 + 5);
    eprintln!("all in {all:?}, one more in {one:?}");
    // Far above what it takes, unoptimised and on a busy machine.
    assert!(all.max(one) < Duration::from_secs(5), "{all:?}, {one:?}");
}
