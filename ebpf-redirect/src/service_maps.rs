//! Services in the kernel: the writes that `services/` plans, done in their order.

use std::io;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use portreeve_ebpf_common::{Affinity, AffinityKey, Backend, Service, ServiceKey, Slot, SlotKey};

use crate::error::MapError;
use crate::instance::Folder;
use crate::maps::table;
use crate::services::{ServiceConfig, ServiceRoom, ServiceTables, ServiceWrite};
use crate::sys::wait_for_programs;
use crate::table::Table;

/// The maps `SERVICES`, `SLOTS` and `BACKENDS`.
#[derive(Debug)]
pub(crate) struct ServiceMaps {
    maps: Arc<Maps>,
    room: ServiceRoom,
    known: Mutex<Known>,
}

/// The entries of the maps.
pub(crate) type Contents = (Vec<(ServiceKey, Service)>, Vec<(SlotKey, Slot)>, Vec<(u32, Backend)>);

/// What is in the maps.
#[derive(Debug, Default)]
struct Known {
    /// None if it has to be read first.
    tables: Option<ServiceTables>,
    /// Takes away what no program is led to any more.
    removal: Option<JoinHandle<Result<(), MapError>>>,
}

#[derive(Debug)]
struct Maps {
    services: Table<ServiceKey, Service>,
    slots: Table<SlotKey, Slot>,
    backends: Table<u32, Backend>,
    affinity: Vec<Table<AffinityKey, Affinity>>,
}

impl ServiceMaps {
    /// `affinity`: the maps by which clients come back to their backends.
    pub(crate) fn open(
        folder: &Folder,
        room: ServiceRoom,
        affinity: &[&'static str],
    ) -> Result<Self, MapError> {
        let affinity = affinity.iter().map(|map| table(folder, map));
        Ok(Self {
            maps: Arc::new(Maps {
                services: table(folder, "SERVICES")?,
                slots: table(folder, "SLOTS")?,
                backends: table(folder, "BACKENDS")?,
                affinity: affinity.collect::<Result<_, _>>()?,
            }),
            room,
            known: Mutex::default(),
        })
    }

    /// Leads from what is there, whoever left it, to these services. They are in force when this
    /// returns; what was there before is taken away a few milliseconds later, when no program that is
    /// under way can look for it any more.
    pub(crate) fn set(&self, services: &[Arc<ServiceConfig>]) -> Result<(), MapError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.removal.take().is_some_and(|removal| !matches!(removal.join(), Ok(Ok(())))) {
            known.tables = None;
        }
        // Taken out, so that what fails half-way is read again before the next change.
        let mut tables = match known.tables.take() {
            Some(tables) => tables,
            None => self.read().map_err(MapError::system("can't read", "SERVICES"))?,
        };
        let plan = match tables.plan(services) {
            Ok(plan) => plan,
            Err(error) => {
                known.tables = Some(tables);
                return Err(error.into());
            }
        };
        self.maps.write(plan.changes())?;
        if !plan.removals().is_empty() {
            let (maps, removals) = (self.maps.clone(), plan.removals().to_vec());
            known.removal = Some(thread::spawn(move || {
                // One that runs now may be on its way to the slots of before.
                wait_for_programs();
                maps.write(&removals)
            }));
        }
        tables.adopt(plan);
        known.tables = Some(tables);
        Ok(())
    }

    /// What is there, whoever left it ([`ServiceTables::found`]).
    pub(crate) fn found(&self) -> Result<Vec<ServiceConfig>, MapError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = match known.tables.take() {
            Some(tables) => tables,
            None => self.read().map_err(MapError::system("can't read", "SERVICES"))?,
        };
        let found = tables.found();
        known.tables = Some(tables);
        Ok(found)
    }

    /// What is there, whatever this process believes.
    pub(crate) fn contents(&self) -> Result<Contents, MapError> {
        let Maps { services, slots, backends, .. } = &*self.maps;
        let services = services.entries().map_err(MapError::system("can't read", "SERVICES"))?;
        let slots = slots.entries().map_err(MapError::system("can't read", "SLOTS"))?;
        let backends = backends.entries().map_err(MapError::system("can't read", "BACKENDS"))?;
        Ok((services, slots, backends))
    }

    fn read(&self) -> io::Result<ServiceTables> {
        let affinity = self.maps.affinity.iter().map(Table::entries);
        let affinity: Vec<_> = affinity.collect::<io::Result<_>>()?;
        Ok(ServiceTables::restored(
            self.room,
            self.maps.services.entries()?,
            self.maps.slots.entries()?,
            self.maps.backends.entries()?,
            affinity.concat(),
        ))
    }
}

impl Drop for ServiceMaps {
    /// Leaves nothing undone.
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(removal) = known.removal.take() {
            // Whoever opens the maps next reads what is there.
            let _ = removal.join();
        }
    }
}

impl Maps {
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
