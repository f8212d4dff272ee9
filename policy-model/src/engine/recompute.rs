//! Whom a change concerns, and computing their policy again.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::registry::{Known, Touched};
use super::{Change, Engine};
use crate::compiled::{Classes, Decisions, DirectionPolicy, PortPolicy};
use crate::endpoint::Endpoint;
use crate::identity::Identity;
use crate::label::Labels;
use crate::repository::named;
use crate::resolve::{Caches, ResolveError, Resolver, Surroundings, Uses, select, selects};
use crate::rule::Policy;

/// A workload under policy.
pub(super) struct Managed {
    pub(super) endpoint: Endpoint,
    /// With namespace and cluster.
    labels: Labels,
    pub(super) identity: Identity,
    pub(super) decisions: Arc<Decisions>,
    uses: Uses,
    pub(super) error: Option<ResolveError>,
}

impl Managed {
    /// A workload whose policy was not computed yet: nothing passes.
    pub(super) fn new(endpoint: Endpoint, labels: Labels, identity: Identity) -> Self {
        let closed = || DirectionPolicy {
            enforced: PortPolicy::Classes(Classes { enforced: true, ..Classes::default() }),
            audited: None,
        };
        let decisions = Decisions { origins: Vec::new(), ingress: closed(), egress: closed() };
        let (decisions, uses) = (Arc::new(decisions), Uses::default());
        Self { endpoint, labels, identity, decisions, uses, error: None }
    }

    /// Whether policy can't tell the two apart.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.labels == other.labels
    }

    fn is_concerned(&self, touched: &Touched) -> bool {
        let Uses { selections, services, groups, ports } = &self.uses;
        // What a policy that made no sense was computed from is not known: any change may mend it.
        self.error.is_some()
            || touched.endpoints.contains(&self.endpoint.name)
            || (touched.services && *services)
            || (touched.groups && *groups)
            || (touched.ports && *ports)
            || touched.selections.iter().any(|number| selections.contains(number))
    }
}

impl Engine {
    /// Settles a change and tells those who wait for it.
    pub(super) fn finish(&mut self, touched: Touched) -> Change {
        let change = self.settle(touched);
        self.tell(change)
    }

    pub(super) fn tell(&mut self, change: Change) -> Change {
        if self.batch.is_some() {
            return change;
        }
        for observer in &mut self.observers {
            observer(&change);
        }
        change
    }

    /// Computes the policy of every workload that is concerned.
    pub(super) fn settle(&mut self, touched: Touched) -> Change {
        if let Some(batch) = &mut self.batch {
            batch.is_begun = true;
            batch.touched.add(touched);
            return Change { revision: self.revision + 1, ..Change::default() };
        }
        self.revision += 1;
        let mut change = Change { revision: self.revision, ..Change::default() };
        let identities = self.registry.identities();
        let around = Surroundings {
            repository: &self.repository,
            options: &self.options,
            identities: &identities,
            index: &self.registry.index,
            services: &self.services,
            unknown_services: self.unknown_services,
            ports: &self.ports,
        };
        for (name, managed) in &mut self.endpoints {
            if !managed.is_concerned(&touched) {
                continue;
            }
            let caches = Caches { selections: &mut self.selections, sets: &mut self.sets };
            let selected =
                select(around.repository.policies.iter(), &managed.labels, around.options);
            let resolver = Resolver::new(&managed.endpoint, &managed.labels, around, caches);
            match resolver.resolve(&selected) {
                Ok((decisions, uses)) => {
                    managed.decisions = Arc::new(decisions);
                    managed.uses = uses;
                    managed.error = None;
                    change.endpoints.push(name.clone());
                }
                Err(error) => {
                    change.errors.push((name.clone(), error.clone()));
                    managed.error = Some(error);
                }
            }
        }
        self.tidy();
        change
    }

    /// Forgets what nobody uses any more, now and then: looking for it costs.
    fn tidy(&mut self) {
        const NOW_AND_THEN: u64 = 64;
        if self.revision.is_multiple_of(NOW_AND_THEN) {
            let endpoints = &self.endpoints;
            let used = |number| endpoints.values().any(|m| m.uses.selections.contains(&number));
            self.selections.keep(used);
            self.sets.tidy();
        }
    }

    /// The workloads that a policy selects are concerned by it.
    pub(super) fn touch_subjects(&self, policy: &Policy, touched: &mut Touched) {
        for (name, managed) in &self.endpoints {
            let about =
                |rule: &crate::rule::Rule| selects(&rule.subject, &managed.labels, &self.options);
            if policy.rules.iter().any(about) {
                touched.endpoints.insert(name.clone());
            }
        }
    }

    pub(super) fn hold_prefixes(&mut self, policy: &Policy, touched: &mut Touched) {
        for prefix in named(policy) {
            let names = self.names.of_prefix(prefix);
            self.registry.hold(prefix, names, &mut self.selections, touched);
        }
    }

    pub(super) fn drop_prefixes(&mut self, policy: &Policy, touched: &mut Touched) {
        for prefix in named(policy) {
            self.registry.let_go(prefix, &mut self.selections, touched);
        }
    }

    pub(super) fn hold_address(&mut self, address: IpAddr, touched: &mut Touched) {
        let prefix = IpNet::from(address);
        let names = self.names.of_prefix(prefix);
        self.registry.hold(prefix, names, &mut self.selections, touched);
    }

    /// An address stands for other names; it is held as long as it stands for any.
    pub(super) fn rename(&mut self, address: IpAddr, held: bool, touched: &mut Touched) {
        let prefix = IpNet::from(address);
        let names = self.names.of(address);
        match (held, names.is_empty()) {
            (true, true) => {
                self.registry.rename(prefix, names, &mut self.selections, touched);
                self.registry.let_go(prefix, &mut self.selections, touched);
            }
            (true, false) => self.registry.rename(prefix, names, &mut self.selections, touched),
            (false, _) => {
                // Somebody else may hold it already, without names.
                self.registry.rename(prefix, names.clone(), &mut self.selections, touched);
                self.registry.hold(prefix, names, &mut self.selections, touched);
            }
        }
    }

    /// Takes a workload out, with all that it holds.
    pub(super) fn take_out(&mut self, name: &str, touched: &mut Touched) -> Option<Managed> {
        let old = self.endpoints.remove(name)?;
        let places = old.endpoint.addresses.iter().map(|address| IpNet::from(*address));
        self.registry.leave(old.identity, &old.labels, places, &mut self.selections, touched);
        self.ports.remove(&old.endpoint.named_ports);
        touched.ports |= !old.endpoint.named_ports.is_empty();
        Some(old)
    }

    /// Takes a peer out.
    pub(super) fn depart(&mut self, name: &str, touched: &mut Touched) {
        let Some(Known { peer, labels, identity }) = self.registry.forget(name) else { return };
        let places = peer.prefixes.iter().copied();
        self.registry.leave(identity, &labels, places, &mut self.selections, touched);
        self.ports.remove(&peer.named_ports);
        touched.ports |= !peer.named_ports.is_empty();
    }

    pub(super) fn take_service(&mut self, namespace: &str, name: &str, touched: &mut Touched) {
        let meant = |s: &crate::directory::Service| s.namespace == namespace && s.name == name;
        if let Some(place) = self.services.iter().position(meant) {
            touched.services = true;
            for backend in self.services.remove(place).backends {
                self.registry.let_go(backend.into(), &mut self.selections, touched);
            }
        }
    }
}
