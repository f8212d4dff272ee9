//! What is left of a time before: of the last process, and of interfaces that endpoints have left. It goes
//! as soon as it is known that nobody wants it; one endpoint that can't be attached keeps nothing up.
//!
//! While a workload or a namespace can't be read that no version is known of, nothing goes: what looks
//! left over may be its own.

use std::collections::BTreeMap;
use std::time::Instant;

use super::backoff::Backoff;
use super::{News, Node};
use crate::datapath::EndpointId;
use crate::objects::ObjectKey;

/// What there may be to take away.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// Something of endpoints may be left.
    pub(super) of_endpoints: bool,
    /// Some address entries may be left.
    of_addresses: bool,
    /// Some services may be left.
    pub(super) of_services: bool,
    pub(super) endpoints: Backoff,
    pub(super) addresses: Backoff,
    pub(super) services: Backoff,
    /// There was nothing left at least once.
    pub(super) is_synced: bool,
    /// Workloads that could not be read when the node started, by the numbers that they had before.
    pub(super) unreadable: BTreeMap<EndpointId, Unreadable>,
}

/// What it was is not known; it may do nothing until it is.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) key: ObjectKey,
    is_closed: bool,
    pub(super) backoff: Backoff,
}

impl Unreadable {
    pub(super) fn new(key: ObjectKey) -> Self {
        Self { key, is_closed: false, backoff: Backoff::default() }
    }
}

impl Default for Leftovers {
    fn default() -> Self {
        Self {
            of_endpoints: true,
            of_addresses: true,
            of_services: true,
            endpoints: Backoff::default(),
            addresses: Backoff::default(),
            services: Backoff::default(),
            is_synced: false,
            unreadable: BTreeMap::new(),
        }
    }
}

impl Node {
    /// Everybody whom the objects speak of is known, or was at some time.
    fn is_complete(&self) -> bool {
        self.has_begun && (self.leftovers.is_synced || self.unknown().is_none())
    }

    /// A workload or a namespace that can't be read, and of which no version is in force.
    pub(super) fn unknown(&self) -> Option<&ObjectKey> {
        let mut broken = self.objects.iter().filter(|(_, known)| known.is_broken);
        let unknown = broken.find(|(key, known)| {
            !known.is_in_force && matches!(key.kind.as_str(), "Workload" | "Namespace")
        });
        unknown.map(|(key, _)| key)
    }

    /// Namespaces whose services lack a slice that could not be read when the node started.
    pub(super) fn held_services(&self) -> impl Iterator<Item = &str> {
        let slices = self.unknown_services.iter().filter(|key| key.kind == "EndpointSlice");
        slices.filter_map(|key| key.namespace.as_deref())
    }

    fn may_keep_endpoints(&self) -> bool {
        self.leftovers.of_endpoints && self.is_complete()
    }

    fn may_keep_addresses(&self) -> bool {
        self.leftovers.of_addresses && self.ipcache.is_settled() && self.is_complete()
    }

    fn may_keep_services(&self) -> bool {
        let is_complete = self.has_begun && self.unknown_services.is_empty();
        self.leftovers.of_services && is_complete
    }

    /// When leftovers are tried again.
    pub(super) fn next_of_leftovers(&self) -> Option<Instant> {
        let Leftovers { endpoints, addresses, services, unreadable, .. } = &self.leftovers;
        let services = services.again().filter(|_| self.may_keep_services());
        let endpoints = endpoints.again().filter(|_| self.may_keep_endpoints());
        let addresses = addresses.again().filter(|_| self.may_keep_addresses());
        let unreadable = unreadable.values().filter_map(|own| own.backoff.again());
        endpoints.into_iter().chain(addresses).chain(services).chain(unreadable).min()
    }

    /// Closes those of whom nothing is known any more.
    pub(super) fn close_unreadable(&mut self, now: Instant) {
        for (id, own) in &mut self.leftovers.unreadable {
            if own.is_closed || !own.backoff.is_due(now) {
                continue;
            }
            let endpoint = own.key.to_string();
            match self.datapath.endpoint_closed(*id) {
                Ok(()) => {
                    own.is_closed = true;
                    own.backoff.worked();
                    tracing::error!("{endpoint} can't be read: it is closed until it is mended");
                }
                Err(error) => {
                    let error = error.to_string();
                    if own.backoff.failed(error.clone(), now) {
                        tracing::error!("{endpoint} can't be read, and not be closed: {error}");
                        let id = *id;
                        self.news.tell(|| News::EndpointFailed { endpoint, id, error });
                    }
                }
            }
        }
    }

    /// Takes away what nobody wants.
    pub(super) fn take_away(&mut self, now: Instant) {
        if self.may_keep_endpoints() && self.leftovers.endpoints.is_due(now) {
            let all: Vec<EndpointId> =
                self.endpoints.all.values().map(|state| state.spec.id).collect();
            // What holds an interface for another goes when that has it.
            let all = all.into_iter().chain(self.endpoints.leaving.keys().copied()).collect();
            let done = self.datapath.keep_endpoints(&all);
            self.leftovers.of_endpoints = done.is_err();
            self.taken_away(done, now, |leftovers| &mut leftovers.endpoints);
        }
        if self.may_keep_addresses() && self.leftovers.addresses.is_due(now) {
            let done = self.datapath.keep_addresses();
            self.leftovers.of_addresses = done.is_err();
            self.taken_away(done, now, |leftovers| &mut leftovers.addresses);
        }
        if self.may_keep_services() && self.leftovers.services.is_due(now) {
            let failing = self.services.all.values().filter(|state| !state.is_realised);
            let failing: Vec<_> = failing.map(|state| state.spec.clone()).collect();
            let done = self.datapath.keep_services(&failing);
            self.leftovers.of_services = done.is_err();
            self.taken_away(done, now, |leftovers| &mut leftovers.services);
        }
        let Leftovers { of_endpoints, of_addresses, is_synced, .. } = &mut self.leftovers;
        if !*of_endpoints && !*of_addresses && !*is_synced {
            *is_synced = true;
            self.news.tell(|| News::Synced);
        }
    }

    fn taken_away(
        &mut self,
        done: Result<(), crate::datapath::DatapathError>,
        now: Instant,
        which: fn(&mut Leftovers) -> &mut Backoff,
    ) {
        let backoff = which(&mut self.leftovers);
        let Err(error) = done else {
            backoff.worked();
            return;
        };
        let error = error.to_string();
        if backoff.failed(error.clone(), now) {
            tracing::error!("what is left of the time before can't be removed: {error}");
            let what = "removing what is left".to_owned();
            self.news.tell(|| News::Failed { what, error });
        }
    }

    /// Gives up numbers that nobody has had for long, when nothing is in force any more that is older than
    /// the engine's view.
    pub(super) fn collect(&mut self, now: Instant) {
        let is_in_force = self.leftovers.is_synced
            && self.ipcache.is_settled()
            && self.endpoints.leaving.values().all(|leaving| leaving.is_closed)
            && self.endpoints.pending_are_closed();
        if !is_in_force {
            return;
        }
        let linger = self.options.identity_linger;
        for (labels, identity) in self.identities.collect(linger) {
            let (identity, labels) = (identity.get(), labels.short());
            self.news.tell(|| News::IdentityCollected { identity, labels });
        }
        let gone = self.ids.collect(now, linger);
        if !gone.is_empty() {
            self.datapath.numbers_given_up(&gone);
        }
    }
}
