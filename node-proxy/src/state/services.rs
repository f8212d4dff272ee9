//! Services and slices as what the datapath balances, and what `toServices` refers to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use portreeve_policy::{Change, Engine, Service};

use super::backoff::Backoff;
use crate::datapath::{Backend, BackendState, Frontend, PortSpec, ServiceName, ServiceSpec};
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
                if self.all.remove(&name).is_some() {
                    self.leaving.insert(name, Backoff::default());
                }
                continue;
            };
            let none = BTreeMap::new();
            let slices = self.slices.get(&name).unwrap_or(&none);
            note(engine.upsert_service(for_policy(object, slices)));
            let spec = spec(&name, object, slices, node);
            let is_empty = spec.ports.iter().all(|port| port.frontends.is_empty());
            match self.all.get_mut(&name) {
                _ if is_empty => {
                    if self.all.remove(&name).is_some() {
                        self.leaving.insert(name, Backoff::default());
                    }
                }
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
