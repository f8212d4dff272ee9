//! Services, as the kernel's maps are to have them: what a service means inside, and what it means to
//! those outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portreeve_ebpf::{BackendConfig, ServiceConfig, Transport};
use portreeve_policy::{Labels, Protocol};

use super::{
    Backend, BackendState, DatapathError, Frontend, Listing, PortSpec, ServiceName, ServiceSpec,
};

/// What a service means to whom.
type Views = Vec<Arc<ServiceConfig>>;

/// The services of a node.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    /// Where node ports are answered.
    node: Vec<IpAddr>,
    configs: BTreeMap<ServiceName, Views>,
    /// What those that were put or removed were before this round.
    before: BTreeMap<ServiceName, Views>,
    /// Whose address it is.
    owners: BTreeMap<Place, ServiceName>,
}

/// An address and a port, the protocol's number, and whether it is asked for from outside.
type Place = ((IpAddr, u16), u8, bool);

impl Balancing {
    /// On a node with these addresses.
    pub(super) fn new(node: Vec<IpAddr>) -> Self {
        Self { node, ..Self::default() }
    }

    /// Takes a service in, in the place of what it was.
    ///
    /// # Errors
    /// When another service has one of its addresses, and when it can't be so; then it is what it was.
    pub(super) fn put(&mut self, spec: &ServiceSpec) -> Result<(), DatapathError> {
        let views: Vec<_> = spec.ports.iter().flat_map(|port| self.views(spec, port)).collect();
        let mut owned = BTreeSet::new();
        for view in &views {
            view.check().map_err(|error| DatapathError(error.to_string()))?;
            for frontend in &view.frontends {
                let place = (*frontend, view.protocol.number(), view.external);
                let other = self.owners.get(&place).filter(|owner| **owner != spec.name);
                if other.is_some() || !owned.insert(place) {
                    let (ip, port) = *frontend;
                    let other = other.unwrap_or(&spec.name);
                    return Err(DatapathError(format!(
                        "`{}` ({}) is an address of service {other} already",
                        SocketAddr::new(ip, port),
                        view.protocol
                    )));
                }
            }
        }
        let before = self.replace(&spec.name, views.into_iter().map(Arc::new).collect());
        self.before.entry(spec.name.clone()).or_insert(before);
        Ok(())
    }

    /// Takes a service out.
    pub(super) fn remove(&mut self, name: &ServiceName) {
        let before = self.replace(name, Vec::new());
        self.before.entry(name.clone()).or_insert(before);
    }

    /// Another round begins; what was changed in this one, as it was before.
    pub(super) fn end_round(&mut self) -> BTreeMap<ServiceName, Views> {
        std::mem::take(&mut self.before)
    }

    /// Makes a service something else; what it was.
    pub(super) fn replace(&mut self, name: &ServiceName, views: Views) -> Views {
        let places = |views: &Views| -> Vec<Place> {
            let places = views.iter().flat_map(|view| {
                let place = |at: &(IpAddr, u16)| (*at, view.protocol.number(), view.external);
                view.frontends.iter().map(place)
            });
            places.collect()
        };
        let before = self.configs.remove(name).unwrap_or_default();
        for place in places(&before) {
            self.owners.remove(&place);
        }
        self.owners.extend(places(&views).into_iter().map(|place| (place, name.clone())));
        if !views.is_empty() {
            self.configs.insert(name.clone(), views);
        }
        before
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<ServiceConfig>> {
        self.configs.values().flatten().cloned().collect()
    }

    /// What a port means to whom: `internalTrafficPolicy` is about the cluster's own addresses,
    /// `externalTrafficPolicy` about those who come from outside; who is inside and asks for an address
    /// of outside gets any backend (KEP-1669).
    fn views(&self, spec: &ServiceSpec, port: &PortSpec) -> Vec<ServiceConfig> {
        // Nothing tells one connection of another protocol from the next.
        let protocol = match port.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            _ => return Vec::new(),
        };
        let (mut cluster, mut outer) = (Vec::new(), Vec::new());
        for frontend in &port.frontends {
            match *frontend {
                Frontend::Cluster(at) => cluster.push((at.ip(), at.port())),
                Frontend::External(at) => outer.push((at.ip(), at.port())),
                Frontend::Node(port) => outer.extend(self.node.iter().map(|ip| (*ip, port))),
            }
        }
        let view = |frontends: &[(IpAddr, u16)], local, external| ServiceConfig {
            name: match port.name.as_str() {
                "" => spec.name.name.clone(),
                name => format!("{}:{name}", spec.name.name),
            },
            namespace: spec.name.namespace.clone(),
            labels: Labels::default(),
            frontends: frontends.to_vec(),
            protocol,
            backends: backends(&port.backends, local),
            external,
            affinity: spec.affinity,
        };
        [
            view(&cluster, spec.internal_local, false),
            view(&outer, false, false),
            view(&outer, spec.external_local, true),
        ]
        .into_iter()
        .filter(|config| !config.frontends.is_empty())
        .collect()
    }

    /// What is in force, for people and programs.
    pub(super) fn listing(&self) -> Listing {
        let columns = ["service", "asked", "frontend", "protocol", "backend", "state"];
        let mut rows = Vec::new();
        for config in self.configs.values().flatten() {
            let asked = if config.external { "outside" } else { "inside" };
            let name = format!("{}/{}", config.namespace, config.name);
            for frontend in &config.frontends {
                let frontend = SocketAddr::from(*frontend);
                let row = |backend: String, state: &str| {
                    let (name, asked) = (name.clone(), asked.to_owned());
                    let protocol = config.protocol.to_string();
                    vec![name, asked, frontend.to_string(), protocol, backend, state.to_owned()]
                };
                let own = config.backends.iter();
                let own = own.filter(|one| one.address.is_ipv4() == frontend.is_ipv4());
                let before = rows.len();
                rows.extend(own.map(|backend| {
                    let state = if backend.draining { "draining" } else { "active" };
                    row(backend.address.to_string(), state)
                }));
                if rows.len() == before {
                    rows.push(row("none".to_owned(), "refused"));
                }
            }
        }
        Listing { columns: columns.map(str::to_owned).to_vec(), rows }
    }
}

/// Those that are ready; if nobody is, those that are about to leave and still answer (KEP-1669). Others
/// keep the connections that they have.
fn backends(all: &[Backend], local: bool) -> Vec<BackendConfig> {
    let nearby = || all.iter().filter(|one| one.is_local || !local);
    let best = nearby().map(|backend| backend.state).min();
    let answers = |backend: &Backend| {
        best != Some(BackendState::NotReady)
            && Some(backend.state) == best
            && (backend.is_local || !local)
    };
    all.iter()
        .map(|backend| BackendConfig {
            address: backend.address,
            weight: 1,
            draining: !answers(backend),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(address: &str, state: BackendState, is_local: bool) -> Backend {
        Backend { address: address.parse().unwrap(), state, is_local }
    }

    fn spec(backends: Vec<Backend>) -> ServiceSpec {
        let at = |address: &str| address.parse::<SocketAddr>().unwrap();
        let frontends = vec![
            Frontend::Cluster(at("10.96.0.1:80")),
            Frontend::External(at("192.0.2.1:80")),
            Frontend::Node(30_080),
        ];
        ServiceSpec {
            name: ServiceName { namespace: "default".to_owned(), name: "web".to_owned() },
            ports: vec![PortSpec {
                name: "http".to_owned(),
                protocol: Protocol::Tcp,
                frontends,
                backends,
            }],
            external_local: false,
            internal_local: false,
            affinity: None,
        }
    }

    /// Who gets new connections, by who asks: for the cluster's address, for others inside, from outside.
    fn chosen(spec: &ServiceSpec) -> Vec<Vec<String>> {
        let mut balancing = Balancing::new(vec!["198.51.100.1".parse().unwrap()]);
        balancing.put(spec).unwrap();
        let active = |config: &Arc<ServiceConfig>| {
            let active = config.backends.iter().filter(|backend| !backend.draining);
            active.map(|backend| backend.address.ip().to_string()).collect()
        };
        balancing.all().iter().map(active).collect()
    }

    #[test]
    fn a_node_port_is_answered_at_the_nodes_addresses_from_inside_and_outside() {
        let mut balancing = Balancing::new(vec!["198.51.100.1".parse().unwrap()]);
        balancing.put(&spec(vec![backend("10.0.0.1:80", BackendState::Ready, true)])).unwrap();
        let frontends: Vec<_> =
            balancing.all().iter().map(|it| (it.external, it.frontends.len())).collect();
        assert_eq!(frontends, [(false, 1), (false, 2), (true, 2)]);
        assert!(balancing.all()[2].frontends.contains(&("198.51.100.1".parse().unwrap(), 30_080)));
    }

    #[test]
    fn local_policies_are_each_about_their_own_clients() {
        let ready = BackendState::Ready;
        let mut spec =
            spec(vec![backend("10.0.0.1:80", ready, true), backend("10.0.1.1:80", ready, false)]);
        let (both, local) = (vec!["10.0.0.1", "10.0.1.1"], vec!["10.0.0.1"]);
        assert_eq!(chosen(&spec), [both.clone(), both.clone(), both.clone()]);
        spec.external_local = true;
        assert_eq!(chosen(&spec), [both.clone(), both.clone(), local.clone()]);
        (spec.external_local, spec.internal_local) = (false, true);
        assert_eq!(chosen(&spec), [local, both.clone(), both]);
    }

    #[test]
    fn who_is_about_to_leave_answers_when_nobody_else_does() {
        let leaving = backend("10.0.0.2:80", BackendState::Terminating, true);
        let spec_of = |first| spec(vec![backend("10.0.0.1:80", first, true), leaving]);
        assert_eq!(chosen(&spec_of(BackendState::Ready))[0], ["10.0.0.1"]);
        assert_eq!(chosen(&spec_of(BackendState::NotReady))[0], ["10.0.0.2"]);
        let nobody = spec(vec![backend("10.0.0.1:80", BackendState::NotReady, true)]);
        assert!(chosen(&nobody)[0].is_empty());
    }

    #[test]
    fn locality_comes_before_readiness() {
        let away = backend("10.0.1.1:80", BackendState::Ready, false);
        let mut spec = spec(vec![backend("10.0.0.1:80", BackendState::Terminating, true), away]);
        spec.external_local = true;
        assert_eq!(chosen(&spec)[2], ["10.0.0.1"], "the last resort of this node");
        assert_eq!(chosen(&spec)[0], ["10.0.1.1"]);
    }

    #[test]
    fn an_address_has_one_service_until_that_is_gone() {
        let mut balancing = Balancing::default();
        let first = spec(vec![]);
        let mut second = first.clone();
        second.name.name = "other".to_owned();
        balancing.put(&first).unwrap();
        balancing.put(&first).unwrap();
        let error = balancing.put(&second).unwrap_err().to_string();
        assert_eq!(error, "`10.96.0.1:80` (TCP) is an address of service default/web already");
        balancing.remove(&first.name);
        balancing.put(&second).unwrap();
    }
}
