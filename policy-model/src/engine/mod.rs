//! The engine that stays: policies, workloads, peers, services and names come and go, and only the
//! workloads that a change concerns are computed again.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Engine`]: what may change, and what is asked |
//! | `registry.rs` | identities, held by those who have them |
//! | `recompute.rs` | whom a change concerns |

mod recompute;
mod registry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::recompute::Managed;
use self::registry::{Known, Registry, Touched};
use crate::compiled::EndpointPolicy;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::directory::{Names, Service};
use crate::document::Features;
use crate::endpoint::{Endpoint, Peer};
use crate::identity::{Identity, IdentityAllocator, InMemoryIdentities};
use crate::repository::Repository;
use crate::resolve::{NamedPorts, Options, ResolveError, Selections, Sets};
use crate::rule::PolicyName;
use crate::source::Source;

/// Policy for many workloads, kept up to date. Every change is complete when the call returns, unless
/// several are made in a batch ([`Engine::begin_batch`]); what was asked for before stays as it was.
///
/// ```
/// use portreeve_policy::{Action, Endpoint, Engine, Options, Peer, Protocol, Source, TrafficDirection};
///
/// let mut engine = Engine::new(Options::default());
/// engine.upsert_endpoint(Endpoint::new("shop-1", "default", "app=shop".parse()?));
/// engine.upsert_peer("client-1", Peer::new(["10.0.0.7/32".parse()?], "app=client".parse()?));
/// let change = engine.apply([Source::new("shop.yaml", "
/// apiVersion: cilium.io/v2
/// kind: CiliumNetworkPolicy
/// metadata: {name: shop, namespace: default}
/// spec:
///   endpointSelector: {matchLabels: {app: shop}}
///   ingress:
///   - fromEndpoints: [{matchLabels: {app: client}}]
///     toPorts: [{ports: [{port: '80', protocol: TCP}]}]
/// ")])?;
/// assert_eq!(change.endpoints, ["shop-1"]);
///
/// let shop = engine.policy("shop-1").ok_or("no such workload")?;
/// let who = shop.identify("10.0.0.7".parse()?);
/// let verdict = shop.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
/// assert!(matches!(verdict.action, Action::Allow));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    options: Options,
    features: Features,
    repository: Repository,
    registry: Registry,
    endpoints: BTreeMap<String, Managed>,
    services: Vec<Service>,
    unknown_services: bool,
    names: Names,
    ports: NamedPorts,
    selections: Selections,
    sets: Sets,
    revision: u64,
    observers: Vec<Observer>,
    /// What was changed since a batch began; none: there is no batch.
    batch: Option<Batch>,
}

/// Changes that are settled together.
#[derive(Default)]
struct Batch {
    touched: Touched,
    is_begun: bool,
}

type Observer = Box<dyn FnMut(&Change) + Send>;

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// What a change has done.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Rises with every change.
    pub revision: u64,
    /// The workloads whose policy was computed again, by name. Of all others only the addresses of
    /// peers may have changed.
    pub endpoints: Vec<String>,
    /// Workloads that keep the policy they had, because the new one makes no sense. One that had none
    /// is closed.
    pub errors: Vec<(String, ResolveError)>,
    /// What is legal in the documents that were read, and surely not meant.
    pub warnings: Vec<Diagnostic>,
}

impl Engine {
    /// An engine without policies and peers, that gives identities out in memory.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::with_allocator(options, Features::default(), Box::<InMemoryIdentities>::default())
    }

    /// An engine whose identities come from somewhere else.
    #[must_use]
    pub fn with_allocator(
        options: Options,
        features: Features,
        allocator: Box<dyn IdentityAllocator>,
    ) -> Self {
        let registry = Registry::new(options.single_stack, allocator);
        Self {
            options,
            features,
            repository: Repository::default(),
            registry,
            endpoints: BTreeMap::new(),
            services: Vec::new(),
            unknown_services: false,
            names: Names::default(),
            ports: NamedPorts::default(),
            selections: Selections::default(),
            sets: Sets::default(),
            revision: 0,
            observers: Vec::new(),
            batch: None,
        }
    }

    /// Calls `observer` after every change from now on.
    pub fn subscribe(&mut self, observer: impl FnMut(&Change) + Send + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// Until [`Engine::end_batch`], changes are taken in and no policy is computed, so that many changes
    /// cost one computing. Meanwhile policies are what they were, and whoever is new may do nothing.
    ///
    /// ```
    /// # use portreeve_policy::{Endpoint, Engine, Options};
    /// let mut engine = Engine::new(Options::default());
    /// engine.begin_batch();
    /// engine.upsert_endpoint(Endpoint::new("shop-1", "default", "app=shop".parse()?));
    /// engine.upsert_endpoint(Endpoint::new("shop-2", "default", "app=shop".parse()?));
    /// let change = engine.end_batch();
    /// assert_eq!((change.revision, change.endpoints.len()), (1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_batch(&mut self) {
        self.batch.get_or_insert_default();
    }

    /// Computes what was changed since [`Engine::begin_batch`]. Errors and warnings of single changes were
    /// returned by those.
    pub fn end_batch(&mut self) -> Change {
        match self.batch.take() {
            Some(batch) if batch.is_begun => self.finish(batch.touched),
            _ => Change { revision: self.revision, ..Change::default() },
        }
    }

    /// Adds the objects of some documents, or puts them in the place of those of the same kind and
    /// name.
    ///
    /// # Errors
    /// All errors of all documents; nothing is changed then.
    pub fn apply(
        &mut self,
        sources: impl IntoIterator<Item = Source>,
    ) -> Result<Change, Diagnostics> {
        Ok(self.insert(Repository::parse_with(sources, self.features)?))
    }

    /// The same, of what was read already.
    pub fn insert(&mut self, new: Repository) -> Change {
        let warnings = new.warnings().to_vec();
        let mut touched = Touched::default();
        for policy in new.policies {
            self.hold_prefixes(&policy, &mut touched);
            self.touch_subjects(&policy, &mut touched);
            if let Some(old) = self.repository.insert(policy) {
                self.touch_subjects(&old, &mut touched);
                self.drop_prefixes(&old, &mut touched);
            }
        }
        for group in new.groups {
            touched.groups = true;
            for prefix in &group.prefixes {
                self.registry.hold(*prefix, Vec::new(), &mut self.selections, &mut touched);
            }
            for prefix in self.repository.insert_group(group).into_iter().flat_map(|g| g.prefixes) {
                self.registry.let_go(prefix, &mut self.selections, &mut touched);
            }
        }
        let mut change = self.settle(touched);
        change.warnings = warnings;
        self.tell(change)
    }

    /// Removes a policy, if it is there.
    pub fn remove(&mut self, name: &PolicyName) -> Change {
        let mut touched = Touched::default();
        if let Some(old) = self.repository.remove(name) {
            self.touch_subjects(&old, &mut touched);
            self.drop_prefixes(&old, &mut touched);
        }
        self.finish(touched)
    }

    /// Removes a `CiliumCIDRGroup`, if it is there.
    pub fn remove_group(&mut self, name: &str) -> Change {
        let mut touched = Touched::default();
        for prefix in self.repository.remove_group(name).into_iter().flat_map(|g| g.prefixes) {
            touched.groups = true;
            self.registry.let_go(prefix, &mut self.selections, &mut touched);
        }
        self.finish(touched)
    }

    /// A workload under policy is there, or has changed. It is a peer of all others, too.
    pub fn upsert_endpoint(&mut self, endpoint: Endpoint) -> Change {
        let mut touched = Touched::default();
        let old = self.take_out(&endpoint.name, &mut touched);
        let labels = endpoint.labels.clone().placed(&endpoint.namespace);
        let places = endpoint.addresses.iter().map(|address| (*address).into());
        let arrived = self.registry.arrive(&labels, places, &mut self.selections, &mut touched);
        self.ports.add(&endpoint.named_ports);
        touched.ports |= !endpoint.named_ports.is_empty();
        touched.endpoints.insert(endpoint.name.clone());
        let mut managed = Managed::new(endpoint, labels, arrived.unwrap_or(Identity::UNKNOWN));
        // Should its policy make no sense now, the same workload keeps the one it had.
        if let Some(old) = old.filter(|old| old.is_like(&managed)) {
            managed.decisions = old.decisions;
        }
        let name = managed.endpoint.name.clone();
        self.endpoints.insert(name.clone(), managed);
        let mut change = self.settle(touched);
        if arrived.is_none() {
            change.errors.push((name, ResolveError::OutOfIdentities));
        }
        self.tell(change)
    }

    /// A workload is gone.
    pub fn remove_endpoint(&mut self, name: &str) -> Change {
        let mut touched = Touched::default();
        self.take_out(name, &mut touched);
        self.finish(touched)
    }

    /// A peer is there, or has changed, under a name of the caller's choice. Without a
    /// namespace label, it is in the namespace `default`.
    pub fn upsert_peer(&mut self, name: &str, peer: Peer) -> Change {
        let mut touched = Touched::default();
        self.depart(name, &mut touched);
        let labels = peer.labels.clone().placed("default");
        let places = peer.prefixes.iter().copied();
        let arrived = self.registry.arrive(&labels, places, &mut self.selections, &mut touched);
        self.ports.add(&peer.named_ports);
        touched.ports |= !peer.named_ports.is_empty();
        // Without a number he has no rights, but he has his addresses.
        let identity = arrived.unwrap_or(Identity::UNKNOWN);
        self.registry.remember(name, Known { peer, labels, identity });
        let mut change = self.settle(touched);
        if arrived.is_none() {
            change.errors.push((name.to_owned(), ResolveError::OutOfIdentities));
        }
        self.tell(change)
    }

    /// A peer is gone.
    pub fn remove_peer(&mut self, name: &str) -> Change {
        let mut touched = Touched::default();
        self.depart(name, &mut touched);
        self.finish(touched)
    }

    /// A service is there, or has changed.
    pub fn upsert_service(&mut self, service: Service) -> Change {
        let mut touched = Touched::default();
        for backend in &service.backends {
            self.hold_address(*backend, &mut touched);
        }
        self.take_service(&service.namespace.clone(), &service.name.clone(), &mut touched);
        self.services.push(service);
        touched.services = true;
        self.finish(touched)
    }

    /// A service is gone.
    pub fn remove_service(&mut self, namespace: &str, name: &str) -> Change {
        let mut touched = Touched::default();
        self.take_service(namespace, name, &mut touched);
        self.finish(touched)
    }

    /// Whether there are services of which nothing is known, not even what they are called. While there
    /// are, whoever is denied some services is denied everybody: any address may be theirs.
    pub fn set_unknown_services(&mut self, are_there: bool) -> Change {
        let services = std::mem::replace(&mut self.unknown_services, are_there) != are_there;
        self.finish(Touched { services, ..Touched::default() })
    }

    /// A DNS answer was seen: `name` stands for `addresses`.
    pub fn learn(&mut self, name: &str, addresses: &[IpAddr]) -> Change {
        let mut touched = Touched::default();
        for &address in addresses {
            let known = !self.names.of(address).is_empty();
            if self.names.learn(name, [address]) {
                self.rename(address, known, &mut touched);
            }
        }
        self.finish(touched)
    }

    /// A DNS answer's time is over.
    pub fn forget(&mut self, name: &str, addresses: &[IpAddr]) -> Change {
        let mut touched = Touched::default();
        for &address in addresses {
            if self.names.forget(name, [address]) {
                self.rename(address, true, &mut touched);
            }
        }
        self.finish(touched)
    }

    /// What a workload may do now. Keep it and ask it as often as you like; ask here again after a
    /// change.
    #[must_use]
    pub fn policy(&self, endpoint: &str) -> Option<EndpointPolicy> {
        let managed = self.endpoints.get(endpoint)?;
        Some(EndpointPolicy {
            workload: managed.identity,
            identities: self.registry.identities(),
            decisions: Arc::clone(&managed.decisions),
        })
    }

    /// Why a workload still has the policy it had, or none.
    #[must_use]
    pub fn error(&self, endpoint: &str) -> Option<&ResolveError> {
        self.endpoints.get(endpoint)?.error.as_ref()
    }

    /// The workloads, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(|managed| &managed.endpoint)
    }

    /// Every prefix and who is there, as [`EndpointPolicy::addresses`] of all workloads.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IpNet, Identity)> {
        self.registry.identities().prefixes().collect()
    }

    /// Rises whenever [`Engine::addresses`] may have changed.
    #[must_use]
    pub fn addresses_revision(&self) -> u64 {
        self.registry.placements
    }

    /// How many changes there were.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The policies.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}
