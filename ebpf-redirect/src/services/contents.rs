//! What is in the kernel's maps of services.

use portreeve_ebpf_common::{
    Affinity, AffinityKey, Backend, Endpoint, Service, ServiceKey, Slot, SlotKey,
};
use rustc_hash::{FxHashMap, FxHashSet};

/// All entries, and the numbers that come next.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub(super) services: FxHashMap<ServiceKey, Service>,
    pub(super) slots: FxHashMap<SlotKey, Slot>,
    pub(super) backends: FxHashMap<u32, Backend>,
    /// The number of a backend of a service, by the service's number: each service has its own, since
    /// one may drain what another does not.
    pub(super) owned: FxHashMap<(u32, Endpoint), u32>,
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

    /// Numbers of services.
    pub(super) fn ids(&self) -> FxHashSet<u32> {
        self.services.values().map(|service| service.id).collect()
    }
}

impl Next {
    /// A number for a service.
    pub(super) fn service(&mut self, taken: &FxHashSet<u32>) -> u32 {
        fresh(&mut self.service, |number| taken.contains(&number))
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
