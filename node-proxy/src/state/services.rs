//! Services and slices as what the datapath balances, and what `toServices` refers to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use portreeve_policy::{Change, Engine, Protocol, Service};

use super::backoff::Backoff;
use super::health::{self, Health};
use crate::datapath::{Backend, BackendState, Frontend, PortSpec, ServiceName, ServiceSpec};
use crate::health::{LocalBackends, Wanted};
use crate::objects::{EndpointSlice, ObjectKey, ServiceObject, ServicePort, SliceEndpoint};

/// All services.
#[derive(Debug, Default)]
pub(super) struct Services {
    objects: BTreeMap<ServiceName, ServiceObject>,
    slices: BTreeMap<ServiceName, BTreeMap<ObjectKey, EndpointSlice>>,
    /// Which service a slice is about.
    about: HashMap<ObjectKey, ServiceName>,
    /// Those that have changed since they were last looked at.
    touched: BTreeSet<ServiceName>,
    pub(super) all: BTreeMap<ServiceName, ServiceState>,
    /// Those that are gone, and of which something may be left.
    pub(super) leaving: BTreeMap<ServiceName, Backoff>,
    pub(super) health: Health,
    /// Why backends can't be asked; none: they can.
    pub(super) unable: Option<String>,
    /// Of ports where others ask for the health of a service: those that can't be had, and why.
    pub(super) unanswered: BTreeMap<u16, String>,
    /// Those whose health others ask for, and where.
    ported: BTreeMap<ServiceName, u16>,
    /// What was wanted of everybody's health the last time, and whether it may be something else by now.
    health_wanted: Wanted,
    is_health_due: bool,
}

/// A service that the datapath is to know.
#[derive(Debug)]
pub(super) struct ServiceState {
    pub(super) spec: ServiceSpec,
    pub(super) is_realised: bool,
    pub(super) backoff: Backoff,
}

impl Services {
    pub(super) fn put(&mut self, service: ServiceObject) {
        let name = name(&service.namespace, &service.name);
        self.touched.insert(name.clone());
        self.objects.insert(name, service);
    }

    pub(super) fn remove(&mut self, namespace: &str, service: &str) {
        let name = name(namespace, service);
        self.objects.remove(&name);
        self.touched.insert(name);
    }

    pub(super) fn put_slice(&mut self, key: ObjectKey, slice: EndpointSlice) {
        // It may have been another service's.
        self.remove_slice(&key);
        let name = name(&slice.namespace, &slice.service);
        self.touched.insert(name.clone());
        self.about.insert(key.clone(), name.clone());
        self.slices.entry(name).or_default().insert(key, slice);
    }

    pub(super) fn remove_slice(&mut self, key: &ObjectKey) {
        let Some(name) = self.about.remove(key) else { return };
        if let Some(slices) = self.slices.get_mut(&name) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices.remove(&name);
            }
        }
        self.touched.insert(name);
    }

    /// Works out what has changed since it was asked last.
    pub(super) fn settle(&mut self, engine: &mut Engine, node: &str, note: &mut dyn FnMut(Change)) {
        for name in std::mem::take(&mut self.touched) {
            let Some(object) = self.objects.get(&name) else {
                note(engine.remove_service(&name.namespace, &name.name));
                self.leave(name);
                continue;
            };
            let none = BTreeMap::new();
            note(
                engine.upsert_service(for_policy(object, self.slices.get(&name).unwrap_or(&none))),
            );
            self.renew(name, node);
        }
        // Not before: who goes from one service to another is who he was.
        self.health.forget();
    }

    /// Works out what a service is, which there is, to the datapath. Policy is about who the backends are,
    /// however they are.
    pub(super) fn renew(&mut self, name: ServiceName, node: &str) {
        let Some(object) = self.objects.get(&name) else { return };
        let none = BTreeMap::new();
        let mut spec = spec(&name, object, self.slices.get(&name).unwrap_or(&none), node);
        if spec.ports.iter().all(|port| port.frontends.is_empty()) {
            return self.leave(name);
        }
        self.is_health_due = true;
        let check = object.health_check.as_ref();
        self.health.want(&name, check.map_or_else(BTreeSet::new, |own| health::probes(own, &spec)));
        if let Some(check) = check {
            self.health.mark(check, &mut spec);
        }
        // Load balancers ask where a node without backends answers nobody.
        match object.health_port.filter(|_| object.external_local) {
            Some(port) => self.ported.insert(name.clone(), port),
            None => self.ported.remove(&name),
        };
        match self.all.get_mut(&name) {
            Some(state) if state.spec == spec => {}
            Some(state) => {
                (state.spec, state.is_realised) = (spec, false);
                state.backoff.hurry();
            }
            None => {
                self.leaving.remove(&name);
                let backoff = Backoff::default();
                self.all.insert(name, ServiceState { spec, is_realised: false, backoff });
            }
        }
    }

    fn leave(&mut self, name: ServiceName) {
        self.is_health_due = true;
        self.health.want(&name, BTreeSet::new());
        self.ported.remove(&name);
        if self.all.remove(&name).is_some() {
            self.leaving.insert(name, Backoff::default());
        }
    }

    /// Who is to be asked, and what to be told to those who ask; none: the same as the last time.
    pub(super) fn take_health(&mut self) -> Option<Wanted> {
        if !std::mem::take(&mut self.is_health_due) {
            return None;
        }
        let mut ports = BTreeMap::new();
        for (name, port) in &self.ported {
            let count = self.all.get(name).map_or(0, |state| local(&state.spec));
            let told = || LocalBackends { service: name.clone(), count };
            ports.entry(*port).or_insert_with(told);
        }
        let wanted = Wanted { probes: self.health.probes(), ports, is_leaving: false };
        if wanted == self.health_wanted {
            return None;
        }
        self.health_wanted = wanted.clone();
        Some(wanted)
    }

    /// Why the health of a service can't be asked for.
    pub(super) fn health_error(&self, name: &ServiceName) -> Option<String> {
        let port = self.ported.get(name)?;
        let first = self.ported.iter().find(|(_, other)| *other == port).map(|(first, _)| first);
        if let Some(first) = first.filter(|first| *first != name) {
            return Some(format!(
                "`healthCheckNodePort` {port} is service {first}'s already: give this one another"
            ));
        }
        let error = self.unanswered.get(port)?;
        Some(format!("load balancers get no answer at `healthCheckNodePort` {port}: {error}"))
    }

    /// What is wrong with a backend.
    pub(super) fn wrong(
        &self,
        name: &ServiceName,
        protocol: Protocol,
        backend: &Backend,
    ) -> Option<&str> {
        let check = self.objects.get(name)?.health_check.as_ref()?;
        self.health.wrong(&health::probe(check, protocol, backend.address)?)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.leaving.is_empty() && self.all.values().all(|state| state.is_realised)
    }
}

fn name(namespace: &str, name: &str) -> ServiceName {
    ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The service, as policies refer to it.
fn for_policy(object: &ServiceObject, slices: &BTreeMap<ObjectKey, EndpointSlice>) -> Service {
    let endpoints = slices.values().flat_map(|slice| &slice.endpoints);
    let backends: BTreeSet<IpAddr> = match object.selector.is_empty() {
        true => endpoints.map(|endpoint| endpoint.address).collect(),
        false => BTreeSet::new(),
    };
    Service {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        labels: object.labels.clone(),
        selector: object.selector.clone(),
        backends: backends.into_iter().collect(),
    }
}

/// The service, as the datapath balances it.
fn spec(
    name: &ServiceName,
    object: &ServiceObject,
    slices: &BTreeMap<ObjectKey, EndpointSlice>,
    node: &str,
) -> ServiceSpec {
    let ports = object.ports.iter().map(|port| PortSpec {
        name: port.name.clone(),
        protocol: port.protocol,
        frontends: frontends(object, port),
        backends: backends(slices, port, node),
    });
    ServiceSpec {
        name: name.clone(),
        ports: ports.collect(),
        external_local: object.external_local,
        internal_local: object.internal_local,
        affinity: object.affinity,
    }
}

fn frontends(object: &ServiceObject, port: &ServicePort) -> Vec<Frontend> {
    let at = |address: &IpAddr| SocketAddr::new(*address, port.port);
    let external = object.external_addresses.iter().chain(&object.balancer_addresses);
    let mut all: Vec<Frontend> =
        object.cluster_addresses.iter().map(|address| Frontend::Cluster(at(address))).collect();
    all.extend(external.map(|address| Frontend::External(at(address))));
    all.extend(port.node_port.map(Frontend::Node));
    all.sort_unstable();
    all.dedup();
    all
}

/// A backend that is in several slices, as it is while it moves from one to another, counts once, for
/// the best that is said of it.
fn backends(
    slices: &BTreeMap<ObjectKey, EndpointSlice>,
    port: &ServicePort,
    node: &str,
) -> Vec<Backend> {
    let mut all: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
    for slice in slices.values() {
        let own =
            slice.ports.iter().filter(|own| own.name == port.name && own.protocol == port.protocol);
        for own in own {
            for endpoint in &slice.endpoints {
                let address = SocketAddr::new(endpoint.address, own.port);
                let is_local = endpoint.node.as_deref() == Some(node);
                let new = Backend { address, state: state(endpoint), is_local };
                let known = all.entry(address).or_insert(new);
                if new.state < known.state {
                    *known = new;
                }
            }
        }
    }
    all.into_values().collect()
}

/// Ready says that it takes new connections; one that is about to leave and still answers is the last
/// resort (KEP-1669).
fn state(endpoint: &SliceEndpoint) -> BackendState {
    match endpoint {
        SliceEndpoint { ready: true, terminating: false, .. } => BackendState::Ready,
        SliceEndpoint { serving: true, terminating: true, .. } => BackendState::Terminating,
        // `publishNotReadyAddresses`: asked for even so.
        SliceEndpoint { ready: true, .. } => BackendState::Ready,
        _ => BackendState::NotReady,
    }
}

/// How many backends on this node take new connections, each counted once however many ports it has.
fn local(spec: &ServiceSpec) -> usize {
    let backends = spec.ports.iter().flat_map(|port| &port.backends);
    let ready = backends.filter(|one| one.is_local && one.state == BackendState::Ready);
    ready.map(|backend| backend.address.ip()).collect::<BTreeSet<_>>().len()
}
