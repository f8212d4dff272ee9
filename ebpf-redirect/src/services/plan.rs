//! The writes from one state of the maps to the next, in an order in which each of them leaves every
//! service whole: what is pointed at comes before what points there, and goes after it.

use std::ops::Range;
use std::sync::Arc;

use portreeve_ebpf_common::{Backend, Service, ServiceKey, Slot, SlotKey};

use super::config::{ServiceConfig, ServiceError};
use super::contents::Contents;
use super::tables::ServiceRoom;

/// One write to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceWrite {
    /// To the map of backends.
    PutBackend(u32, Backend),
    /// To the map of slots.
    PutSlot(SlotKey, Slot),
    /// To the map of services.
    PutService(ServiceKey, Service),
    /// From the map of services.
    RemoveService(ServiceKey),
    /// From the map of slots.
    RemoveSlot(SlotKey),
    /// From the map of backends.
    RemoveBackend(u32),
}

/// The writes that lead to a configuration.
#[derive(Debug)]
pub struct ServicePlan {
    changes: Vec<ServiceWrite>,
    removals: Vec<ServiceWrite>,
    change: Change,
}

/// The services that are not what they were.
#[derive(Debug)]
pub(super) struct Change {
    /// Where they stood in the configuration before.
    pub(super) span: Range<usize>,
    /// What stands there instead.
    pub(super) services: Vec<Arc<ServiceConfig>>,
    /// All services, where those that are as they were are to be kept in another place of memory.
    pub(super) whole: Option<Vec<Arc<ServiceConfig>>>,
    /// What the maps hold of those before.
    pub(super) old: Contents,
    /// What they are to hold.
    pub(super) next: Contents,
}

impl ServicePlan {
    /// What comes and what changes, who drains, and what nobody is to come to any more; to be done
    /// first, in this order.
    #[must_use]
    pub fn changes(&self) -> &[ServiceWrite] {
        &self.changes
    }

    /// What nothing leads to any more; to be done then, in this order. A program that was already under
    /// way may still look for it: who can wait for such programs to end does it in between.
    #[must_use]
    pub fn removals(&self) -> &[ServiceWrite] {
        &self.removals
    }

    /// Both.
    pub fn writes(&self) -> impl Iterator<Item = ServiceWrite> {
        self.changes.iter().chain(&self.removals).copied()
    }

    pub(super) fn into_change(self) -> Change {
        self.change
    }

    /// The writes of a change to what is `there` in all.
    pub(super) fn of(
        change: Change,
        there: &Contents,
        room: ServiceRoom,
    ) -> Result<Self, ServiceError> {
        let (old, next) = (&change.old, &change.next);
        let (changes, removals) = (changes(old, next), removals(old, next));
        let is_new = |write: &ServiceWrite| match write {
            ServiceWrite::PutBackend(number, _) => !old.backends.contains_key(number),
            ServiceWrite::PutSlot(key, _) => !old.slots.contains_key(key),
            ServiceWrite::PutService(key, _) => !old.services.contains_key(key),
            _ => false,
        };
        let mut needed = [there.services.len(), there.slots.len(), there.backends.len()];
        for write in changes.iter().filter(|write| is_new(write)) {
            match write {
                ServiceWrite::PutService(..) => needed[0] += 1,
                ServiceWrite::PutSlot(..) => needed[1] += 1,
                _ => needed[2] += 1,
            }
        }
        let room = [room.frontends, room.slots, room.backends];
        for ((what, needed), room) in
            ["frontends", "slots", "backends"].into_iter().zip(needed).zip(room)
        {
            if needed > room {
                return Err(ServiceError::NoRoom { what, needed, room });
            }
        }
        Ok(Self { changes, removals, change })
    }
}

fn changes(old: &Contents, next: &Contents) -> Vec<ServiceWrite> {
    let changed = next.backends.iter().filter(|(number, new)| {
        old.backends.get(number) != Some(new) && !is_drained(old, **number, new)
    });
    let mut writes: Vec<_> =
        changed.map(|(number, new)| ServiceWrite::PutBackend(*number, *new)).collect();
    let mut slots: Vec<_> =
        next.slots.iter().filter(|(key, slot)| old.slots.get(key) != Some(slot)).collect();
    slots.sort_unstable_by_key(|(key, _)| (key.table, key.index));
    writes.extend(slots.into_iter().map(|(key, slot)| ServiceWrite::PutSlot(*key, *slot)));
    let services = next.services.iter().filter(|(key, new)| old.services.get(key) != Some(new));
    writes.extend(services.map(|(key, new)| ServiceWrite::PutService(*key, *new)));
    let services = old.services.keys().filter(|key| !next.services.contains_key(key));
    writes.extend(services.copied().map(ServiceWrite::RemoveService));
    let drained = next.backends.iter().filter(|(number, new)| is_drained(old, **number, new));
    writes.extend(drained.map(|(number, new)| ServiceWrite::PutBackend(*number, *new)));
    writes
}

fn removals(old: &Contents, next: &Contents) -> Vec<ServiceWrite> {
    let mut slots: Vec<SlotKey> =
        old.slots.keys().filter(|key| !next.slots.contains_key(key)).copied().collect();
    slots.sort_unstable_by_key(|key| (key.table, std::cmp::Reverse(key.index)));
    let mut writes: Vec<_> = slots.into_iter().map(ServiceWrite::RemoveSlot).collect();
    let backends = old.backends.keys().filter(|number| !next.backends.contains_key(number));
    writes.extend(backends.copied().map(ServiceWrite::RemoveBackend));
    writes
}

/// Whether a backend that is in use begins to drain. It does when no service leads to it any more.
fn is_drained(old: &Contents, number: u32, new: &Backend) -> bool {
    new.draining != 0 && old.backends.get(&number).is_some_and(|old| old.draining == 0)
}
