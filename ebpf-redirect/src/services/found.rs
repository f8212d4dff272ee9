//! Services as they can be told from the maps alone, by whoever does not know yet what they are to be.

use std::collections::BTreeMap;
use std::time::Duration;

use portreeve_ebpf_common::{Service, ServiceKey, SlotKey, protocol};
use portreeve_policy::Labels;
use rustc_hash::FxHashSet;

use super::config::{BackendConfig, ServiceConfig, Transport};
use super::contents::Contents;
use crate::maps::socket_address;

impl Contents {
    /// What is there: without names, and with one weight for all who get new clients. The others are taken
    /// for such as drain.
    pub(super) fn configs(&self) -> Vec<ServiceConfig> {
        let mut all: BTreeMap<u32, ServiceConfig> = BTreeMap::new();
        for (key, service) in &self.services {
            let Some(transport) = transport(key) else { continue };
            let frontend = socket_address(key.frontend);
            let found = all.entry(service.id).or_insert_with(|| ServiceConfig {
                name: format!("number {}", service.id),
                namespace: String::new(),
                labels: Labels::default(),
                frontends: Vec::new(),
                protocol: transport,
                backends: Vec::new(),
                external: key.protocol & ServiceKey::EXTERNAL != 0,
                affinity: (service.affinity > 0)
                    .then(|| Duration::from_secs(u64::from(service.affinity))),
            });
            found.frontends.push((frontend.ip(), frontend.port()));
        }
        let services: BTreeMap<u32, Service> =
            self.services.values().map(|service| (service.id, *service)).collect();
        let chosen: BTreeMap<u32, FxHashSet<u32>> =
            services.iter().map(|(id, service)| (*id, self.chosen(service))).collect();
        for ((id, endpoint), number) in &self.owned {
            let Some(found) = all.get_mut(id) else { continue };
            let draining = !chosen.get(id).is_some_and(|chosen| chosen.contains(number));
            let address = socket_address(*endpoint);
            found.backends.push(BackendConfig { address, weight: 1, draining });
        }
        all.into_values().collect()
    }

    /// The backends to which a service's new clients are sent.
    fn chosen(&self, service: &Service) -> FxHashSet<u32> {
        let places = (0..service.slots).map(|index| SlotKey { table: service.table, index });
        let slots = places.filter_map(|place| self.slots.get(&place));
        slots.flat_map(|slot| [slot.backend, slot.other]).collect()
    }
}

fn transport(key: &ServiceKey) -> Option<Transport> {
    match u8::try_from(key.protocol & !ServiceKey::EXTERNAL) {
        Ok(protocol::TCP) => Some(Transport::Tcp),
        Ok(protocol::UDP) => Some(Transport::Udp),
        _ => None,
    }
}
