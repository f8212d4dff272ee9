//! What is in the kernel's maps of services.

use std::hash::Hash;
use std::sync::Arc;

use portreeve_ebpf_common::{
    Affinity, AffinityKey, Backend, Endpoint, Service, ServiceKey, Slot, SlotKey,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::config::ServiceConfig;
use crate::address::endpoint;

/// All entries, and the numbers that come next.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) services: FxHashMap<ServiceKey, Service>,
    pub(super) slots: FxHashMap<SlotKey, Slot>,
    pub(super) backends: FxHashMap<u32, Backend>,
    /// The number of a backend of a service, by the service's number: each service has its own, since
    /// one may drain what another does not.
    pub(super) owned: FxHashMap<(u32, Endpoint), u32>,
    /// The numbers that services have.
    pub(super) ids: FxHashSet<u32>,
    pub(super) next: Next,
}

/// The numbers that come next. None is 0, and none is given again before all others were: what programs
/// remember of a client is a backend's number, and must not come to mean another backend.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Next {
    service: u32,
    table: u32,
    backend: u32,
}

impl Contents {
    /// What was found in maps, whatever was left undone there.
    pub(super) fn found(
        services: impl IntoIterator<Item = (ServiceKey, Service)>,
        slots: impl IntoIterator<Item = (SlotKey, Slot)>,
        backends: impl IntoIterator<Item = (u32, Backend)>,
        affinities: impl IntoIterator<Item = (AffinityKey, Affinity)>,
    ) -> Self {
        let mut found = Self {
            services: services.into_iter().collect(),
            slots: slots.into_iter().collect(),
            backends: backends.into_iter().collect(),
            ..Self::default()
        };
        for (AffinityKey { service, .. }, Affinity { backend, .. }) in affinities {
            found.next.service = found.next.service.max(service);
            found.next.backend = found.next.backend.max(backend);
            found.own(service, backend);
        }
        let services: Vec<Service> = found.services.values().copied().collect();
        for Service { id, table, slots, .. } in services {
            found.ids.insert(id);
            found.next.service = found.next.service.max(id);
            found.next.table = found.next.table.max(table);
            let slots = (0..slots).map_while(|index| found.slots.get(&SlotKey { table, index }));
            let numbers: Vec<u32> = slots.flat_map(|slot| [slot.backend, slot.other]).collect();
            for number in numbers {
                found.own(id, number);
            }
        }
        let tables = found.slots.keys().map(|slot| slot.table);
        found.next.table = tables.fold(found.next.table, u32::max);
        found.next.backend = found.backends.keys().copied().fold(found.next.backend, u32::max);
        found
    }

    fn own(&mut self, service: u32, backend: u32) {
        if let Some(known) = self.backends.get(&backend) {
            self.owned.insert((service, known.endpoint), backend);
        }
    }

    /// Whether a table is there, and is this one.
    pub(super) fn has_table(&self, service: &Service, slots: &[Slot]) -> bool {
        let place = |index| SlotKey { table: service.table, index };
        service.slots as usize == slots.len()
            && (0..).zip(slots).all(|(index, slot)| self.slots.get(&place(index)) == Some(slot))
    }

    /// What is there of some services alone.
    pub(super) fn part(&self, services: &[Arc<ServiceConfig>]) -> Self {
        let mut part = Self { next: self.next, ..Self::default() };
        for config in services {
            for (key, service) in config.keys().filter_map(|key| self.services.get_key_value(&key))
            {
                part.services.insert(*key, *service);
                if part.ids.insert(service.id) {
                    self.copy_table(service, &mut part);
                    self.copy_backends(service.id, config, &mut part);
                }
            }
        }
        part
    }

    fn copy_table(&self, service: &Service, part: &mut Self) {
        let places = (0..service.slots).map(|index| SlotKey { table: service.table, index });
        part.slots.extend(places.filter_map(|place| Some((place, *self.slots.get(&place)?))));
    }

    fn copy_backends(&self, service: u32, config: &ServiceConfig, part: &mut Self) {
        for backend in &config.backends {
            let owner = (service, endpoint(backend.address));
            let Some(number) = self.owned.get(&owner) else { continue };
            part.owned.insert(owner, *number);
            part.backends.extend(self.backends.get(number).map(|backend| (*number, *backend)));
        }
    }

    /// One part goes, another comes.
    pub(super) fn replace(&mut self, part: &Self, next: Self) {
        without(&mut self.services, &part.services);
        without(&mut self.slots, &part.slots);
        without(&mut self.backends, &part.backends);
        without(&mut self.owned, &part.owned);
        for id in &part.ids {
            self.ids.remove(id);
        }
        self.services.extend(next.services);
        self.slots.extend(next.slots);
        self.backends.extend(next.backends);
        self.owned.extend(next.owned);
        self.ids.extend(next.ids);
        self.next = next.next;
    }
}

/// Takes the entries of `part` out of `all`.
fn without<K: Eq + Hash, V>(all: &mut FxHashMap<K, V>, part: &FxHashMap<K, V>) {
    for key in part.keys() {
        all.remove(key);
    }
}

impl Next {
    /// A number for a service.
    pub(super) fn service(&mut self, there: &Contents) -> u32 {
        fresh(&mut self.service, |number| there.ids.contains(&number))
    }

    /// A number for a table.
    pub(super) fn table(&mut self, there: &Contents) -> u32 {
        // The first slot of a table is the first to come and the last to go.
        let first = |table| SlotKey { table, index: 0 };
        fresh(&mut self.table, |number| there.slots.contains_key(&first(number)))
    }

    /// A number for a backend.
    pub(super) fn backend(&mut self, there: &Contents) -> u32 {
        fresh(&mut self.backend, |number| there.backends.contains_key(&number))
    }
}

/// The next number after `last` that is not taken.
fn fresh(last: &mut u32, is_taken: impl Fn(u32) -> bool) -> u32 {
    loop {
        *last = last.checked_add(1).unwrap_or(1);
        if !is_taken(*last) {
            return *last;
        }
    }
}
