//! Services in the kernel: the writes that `services/` plans, done in their order.

use std::io;
use std::mem::discriminant;
use std::sync::{Mutex, PoisonError};

use portreeve_ebpf_common::{Affinity, AffinityKey, Backend, Service, ServiceKey, Slot, SlotKey};

use crate::error::MapError;
use crate::instance::Folder;
use crate::maps::table;
use crate::services::{ServiceConfig, ServiceRoom, ServiceTables, ServiceWrite};
use crate::settings::Capacity;
use crate::sys::wait_for_programs;
use crate::table::Table;

/// The maps `SERVICES`, `SLOTS` and `BACKENDS`.
#[derive(Debug)]
pub(crate) struct ServiceMaps {
    services: Table<ServiceKey, Service>,
    slots: Table<SlotKey, Slot>,
    backends: Table<u32, Backend>,
    affinity: Table<AffinityKey, Affinity>,
    room: ServiceRoom,
    /// What is in them; none if it has to be read first.
    tables: Mutex<Option<ServiceTables>>,
}

impl ServiceMaps {
    pub(crate) fn open(folder: &Folder, capacity: &Capacity) -> Result<Self, MapError> {
        Ok(Self {
            services: table(folder, "SERVICES")?,
            slots: table(folder, "SLOTS")?,
            backends: table(folder, "BACKENDS")?,
            affinity: table(folder, "AFFINITY")?,
            room: ServiceRoom {
                frontends: capacity.services as usize,
                slots: capacity.slots as usize,
                backends: capacity.backends as usize,
            },
            tables: Mutex::new(None),
        })
    }

    /// Leads from what is there, whoever left it, to these services.
    pub(crate) fn set(&self, services: &[ServiceConfig]) -> Result<(), MapError> {
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that what fails half-way is read again before the next change.
        let mut tables = match known.take() {
            Some(tables) => tables,
            None => self.read().map_err(MapError::system("can't read", "SERVICES"))?,
        };
        let plan = match tables.plan(services) {
            Ok(plan) => plan,
            Err(error) => {
                *known = Some(tables);
                return Err(error.into());
            }
        };
        self.write(plan.additions())?;
        if !plan.removals().is_empty() {
            // One that runs now may be on its way to the slots of before.
            wait_for_programs();
            self.write(plan.removals())?;
        }
        tables.adopt(plan);
        *known = Some(tables);
        Ok(())
    }

    fn read(&self) -> io::Result<ServiceTables> {
        Ok(ServiceTables::restored(
            self.room,
            self.services.entries()?,
            self.slots.entries()?,
            self.backends.entries()?,
            self.affinity.entries()?,
        ))
    }

    /// In their order; neighbours of a kind with one call.
    fn write(&self, writes: &[ServiceWrite]) -> Result<(), MapError> {
        writes
            .chunk_by(|one, other| discriminant(one) == discriminant(other))
            .try_for_each(|alike| self.write_alike(alike))
    }

    fn write_alike(&self, writes: &[ServiceWrite]) -> Result<(), MapError> {
        let all = writes.iter().copied();
        let (map, result) = match writes.first() {
            None => return Ok(()),
            Some(ServiceWrite::PutBackend(..)) => {
                ("BACKENDS", self.backends.put_all(all.filter_map(ServiceWrite::backend)))
            }
            Some(ServiceWrite::PutSlot(..)) => {
                ("SLOTS", self.slots.put_all(all.filter_map(ServiceWrite::slot)))
            }
            Some(ServiceWrite::PutService(..)) => {
                ("SERVICES", self.services.put_all(all.filter_map(ServiceWrite::service)))
            }
            Some(_) => ("SERVICES", all.into_iter().try_for_each(|write| self.remove(write))),
        };
        result.map_err(MapError::system("can't write", map))
    }

    fn remove(&self, write: ServiceWrite) -> io::Result<()> {
        match write {
            ServiceWrite::RemoveService(key) => self.services.remove(&key),
            ServiceWrite::RemoveSlot(key) => self.slots.remove(&key),
            ServiceWrite::RemoveBackend(number) => self.backends.remove(&number),
            _ => Ok(()),
        }
    }
}

impl ServiceWrite {
    fn backend(self) -> Option<(u32, Backend)> {
        match self {
            Self::PutBackend(number, backend) => Some((number, backend)),
            _ => None,
        }
    }

    fn slot(self) -> Option<(SlotKey, Slot)> {
        match self {
            Self::PutSlot(key, slot) => Some((key, slot)),
            _ => None,
        }
    }

    fn service(self) -> Option<(ServiceKey, Service)> {
        match self {
            Self::PutService(key, service) => Some((key, service)),
            _ => None,
        }
    }
}
