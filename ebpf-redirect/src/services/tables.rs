//! From what is in the maps to what is to be there.

use std::ops::Range;
use std::sync::Arc;

use portreeve_ebpf_common::{
    Affinity, AffinityKey, Backend, Endpoint, Service, ServiceKey, Slot, SlotKey,
};

use super::config::{ServiceConfig, ServiceError, check};
use super::contents::Contents;
use super::plan::{Change, ServicePlan};
use super::{BackendConfig, alias, maglev};
use crate::address::endpoint;

/// What the kernel's maps hold of services. A service keeps its number as long as it keeps one of its
/// addresses, and its backends keep theirs as long as they are configured: clients come back to them,
/// whoever comes and goes beside them, and after a restart, too.
#[derive(Debug)]
pub struct ServiceTables {
    room: ServiceRoom,
    there: Contents,
    /// The services that `there` holds; none if nobody knows of what is there.
    configured: Option<Vec<Arc<ServiceConfig>>>,
}

/// How much the kernel's maps can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRoom {
    /// Frontends.
    pub frontends: usize,
    /// Slots: one for each backend of a service in use. While a service changes it has those of before,
    /// too.
    pub slots: usize,
    /// Backends of all services; one that two services share counts twice.
    pub backends: usize,
}

impl ServiceTables {
    /// For maps that are empty.
    #[must_use]
    pub fn new(room: ServiceRoom) -> Self {
        Self { room, there: Contents::default(), configured: Some(Vec::new()) }
    }

    /// For maps in which somebody left these entries, who may have been interrupted. What no
    /// configuration names any more goes with the next plan.
    pub fn restored(
        room: ServiceRoom,
        services: impl IntoIterator<Item = (ServiceKey, Service)>,
        slots: impl IntoIterator<Item = (SlotKey, Slot)>,
        backends: impl IntoIterator<Item = (u32, Backend)>,
        affinities: impl IntoIterator<Item = (AffinityKey, Affinity)>,
    ) -> Self {
        let there = Contents::found(services, slots, backends, affinities);
        Self { room, there, configured: None }
    }

    /// What is there, for whoever does not know what it is to be: without names and weights. Planned as it
    /// is, nothing changes where all weights were the same.
    #[must_use]
    pub fn found(&self) -> Vec<ServiceConfig> {
        self.there.configs()
    }

    /// The writes that lead from what is there to these services. What it costs to find and to do them
    /// depends on the services that changed; those that are the same `Arc` as before are not even looked
    /// at. When all are done, the plan is to be
    /// [adopted](Self::adopt); when one fails, the tables are to be [restored](Self::restored) from the
    /// maps.
    ///
    /// # Errors
    /// When services can't be so, or there is no room for them. Nothing is to be written then.
    pub fn plan(&self, services: &[Arc<ServiceConfig>]) -> Result<ServicePlan, ServiceError> {
        let before = self.configured.as_deref().unwrap_or_default();
        let all = services;
        let Differing { span, services, others_moved } = differing(before, all);
        let old = match &self.configured {
            Some(all) => self.there.part(&all[span.clone()]),
            None => self.there.clone(),
        };
        check(services.iter().map(Arc::as_ref))?;
        let others = before[..span.start].iter().chain(&before[span.end..]);
        self.check_beside(services, &old, others)?;
        let mut next = Contents { next: self.there.next, ..Contents::default() };
        for service in services {
            for is_v4 in [true, false] {
                self.place(service, is_v4, &mut next);
            }
        }
        let whole = others_moved.then(|| all.to_vec());
        let change = Change { span, services: services.to_vec(), whole, old, next };
        ServicePlan::of(change, &self.there, self.room)
    }

    /// All writes of a plan were done.
    pub fn adopt(&mut self, plan: ServicePlan) {
        let Change { span, services, whole, old, next } = plan.into_change();
        self.there.replace(&old, next);
        let configured = self.configured.get_or_insert_default();
        match whole {
            Some(whole) => *configured = whole,
            None => drop(configured.splice(span, services)),
        }
    }

    /// Whether the addresses of services are still to be had, beside those that stay as they are.
    fn check_beside<'a>(
        &self,
        services: &[Arc<ServiceConfig>],
        old: &Contents,
        mut others: impl Iterator<Item = &'a Arc<ServiceConfig>>,
    ) -> Result<(), ServiceError> {
        let taken = |key: &ServiceKey| {
            self.there.services.contains_key(key) && !old.services.contains_key(key)
        };
        match services.iter().find(|service| service.keys().any(|key| taken(&key))) {
            None => Ok(()),
            // Whose it is takes a look at all of them.
            Some(service) => others.try_for_each(|other| check([other.as_ref(), service])),
        }
    }

    /// Lays out what a service is in one address family: a socket of one can't reach the other.
    fn place(&self, config: &ServiceConfig, is_v4: bool, next: &mut Contents) {
        let keys = || config.keys().filter(|key| key.frontend.address.is_v4() == is_v4);
        if keys().next().is_none() {
            return;
        }
        let before: Vec<Service> =
            keys().filter_map(|key| self.there.services.get(&key).copied()).collect();
        let kept = before.iter().map(|service| service.id).find(|id| !next.ids.contains(id));
        let id = kept.unwrap_or_else(|| next.next.service(&self.there));
        next.ids.insert(id);
        let backends = self.backends(config, is_v4, id, next);
        let slots =
            if config.external { maglev::table(&backends) } else { alias::table(&backends) };
        let same = before.iter().find(|service| self.there.has_table(service, &slots));
        let table = match same {
            Some(service) => service.table,
            None if slots.is_empty() => 0,
            None => next.next.table(&self.there),
        };
        let affinity = config.affinity_seconds();
        let indices = 0..u32::try_from(slots.len()).unwrap_or_default();
        let service = Service { id, table, slots: indices.end, affinity };
        let places = indices.map(|index| SlotKey { table, index });
        next.slots.extend(places.zip(slots));
        next.services.extend(keys().map(|key| (key, service)));
    }

    /// Gives numbers to the backends of a service. Returns those that new clients are sent to, with
    /// their weights and places, in an order that does not depend on the configuration's.
    fn backends(
        &self,
        config: &ServiceConfig,
        is_v4: bool,
        id: u32,
        next: &mut Contents,
    ) -> Vec<(u32, u32, Endpoint)> {
        let all = config.backends.iter().map(|backend| (endpoint(backend.address), backend));
        let mut own: Vec<_> =
            all.filter(|(endpoint, _)| endpoint.address.is_v4() == is_v4).collect();
        own.sort_unstable_by_key(|(endpoint, _)| *endpoint);
        let mut chosen = Vec::with_capacity(own.len());
        for (endpoint, BackendConfig { weight, draining, .. }) in own {
            let known = self.there.owned.get(&(id, endpoint)).copied();
            let number = known.unwrap_or_else(|| next.next.backend(&self.there));
            next.owned.insert((id, endpoint), number);
            next.backends.insert(number, Backend { endpoint, draining: u32::from(*draining) });
            if !draining && *weight > 0 {
                chosen.push((number, *weight, endpoint));
            }
        }
        chosen
    }
}

/// What two configurations differ in. Both begin and end with the same services.
struct Differing<'a> {
    /// Where it stood.
    span: Range<usize>,
    /// What stands there now.
    services: &'a [Arc<ServiceConfig>],
    /// Of those that are as they were, some are another `Arc`: to be kept, so that the next time one look
    /// at the pointer is enough.
    others_moved: bool,
}

fn differing<'a>(before: &[Arc<ServiceConfig>], now: &'a [Arc<ServiceConfig>]) -> Differing<'a> {
    let mut others_moved = false;
    let mut same = |before: &Arc<ServiceConfig>, now: &Arc<ServiceConfig>| {
        let moved = !Arc::ptr_eq(before, now);
        let same = !moved || before == now;
        others_moved |= same && moved;
        same
    };
    let start = before.iter().zip(now).take_while(|(before, now)| same(before, now)).count();
    let (rest, now) = (&before[start..], &now[start..]);
    let ends = rest.iter().rev().zip(now.iter().rev());
    let end = ends.take_while(|(before, now)| same(before, now)).count();
    let span = start..before.len() - end;
    Differing { span, services: &now[..now.len() - end], others_moved }
}
