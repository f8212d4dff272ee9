//! Services, as the kernel's maps are to have them: what a service means inside, and what it means to
//! those outside.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portreeve_ebpf::{BackendConfig, ServiceConfig, Transport};
use portreeve_policy::{Labels, Protocol};

use super::{Backend, BackendState, DatapathError, Frontend, PortSpec, ServiceName, ServiceSpec};

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
    /// What was there before anything was said. Where somebody has an address of it now, it has not.
    left: Views,
    /// The kernel has more of what was there before than that.
    has_more_left: bool,
}

/// An address and a port, the protocol's number, and whether it is asked for from outside.
type Place = ((IpAddr, u16), u8, bool);

impl Balancing {
    /// The node has these addresses by now; services have to be put again to be answered there.
    pub(super) fn answer_at(&mut self, node: Vec<IpAddr>) {
        self.node = node;
    }

    /// This is in force, and whose it is is not known yet.
    pub(super) fn begin_with(&mut self, left: Vec<ServiceConfig>) {
        self.left = left.into_iter().map(Arc::new).collect();
    }

    /// Of what was there before, only what is in the place of these stays. Whether the kernel has more of it,
    /// until it is [told](Self::kept).
    pub(super) fn keep(&mut self, failing: &[ServiceSpec]) -> bool {
        let wanted: BTreeSet<Place> = failing
            .iter()
            .flat_map(|spec| places(&self.wanted(spec)).collect::<Vec<_>>())
            .collect();
        let kept = without(&self.left, |place| !wanted.contains(place));
        self.has_more_left |= kept != self.left;
        self.left = kept;
        self.has_more_left
    }

    /// The kernel has what is to be kept.
    pub(super) fn kept(&mut self) {
        self.has_more_left = false;
    }

    /// Takes a service in, in the place of what it was.
    ///
    /// # Errors
    /// When another service has one of its addresses, and when it can't be so; then it is what it was.
    pub(super) fn put(&mut self, spec: &ServiceSpec) -> Result<(), DatapathError> {
        let views = self.wanted(spec);
        if let Err(error) = self.check(spec, &views) {
            self.put_back(&spec.name);
            return Err(error);
        }
        let before = self.replace(&spec.name, views);
        self.before.entry(spec.name.clone()).or_insert(before);
        Ok(())
    }

    fn check(&self, spec: &ServiceSpec, views: &Views) -> Result<(), DatapathError> {
        let mut owned = BTreeSet::new();
        for view in views {
            view.check().map_err(|error| DatapathError(error.to_string()))?;
            for place in places(std::slice::from_ref(view)) {
                let other = self.owners.get(&place).filter(|owner| **owner != spec.name);
                if other.is_some() || !owned.insert(place) {
                    let (ip, port) = place.0;
                    let other = other.unwrap_or(&spec.name);
                    return Err(DatapathError(format!(
                        "`{}` ({}) is an address of service {other} already",
                        SocketAddr::new(ip, port),
                        view.protocol
                    )));
                }
            }
        }
        Ok(())
    }

    fn wanted(&self, spec: &ServiceSpec) -> Views {
        let views = spec.ports.iter().flat_map(|port| self.views(spec, port));
        views.map(Arc::new).collect()
    }

    /// Takes services out that are put in again in this round, so that each may have what another had.
    pub(super) fn take_out(&mut self, names: &[ServiceName]) {
        for name in names {
            self.remove(name);
        }
    }

    /// One that was taken out and can't be put in as it is to be is what it was, as far as nobody else has
    /// its addresses by now.
    fn put_back(&mut self, name: &ServiceName) {
        if self.configs.contains_key(name) {
            return;
        }
        if let Some(before) = self.before.get(name) {
            let free = without(before, |place| self.owners.contains_key(place));
            self.replace(name, free);
        }
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
        let before = self.configs.remove(name).unwrap_or_default();
        for place in places(&before) {
            if self.owners.get(&place) == Some(name) {
                self.owners.remove(&place);
            }
        }
        self.owners.extend(places(&views).map(|place| (place, name.clone())));
        if !views.is_empty() {
            self.configs.insert(name.clone(), views);
        }
        before
    }

    /// What was changed in a round can't be there all at once: as much of it as can, services that have
    /// anything of each other's together. Those that can't are what they were.
    pub(super) fn one_by_one(
        &mut self,
        before: BTreeMap<ServiceName, Views>,
        mut set: impl FnMut(&[Arc<ServiceConfig>]) -> Result<(), DatapathError>,
    ) -> BTreeMap<ServiceName, DatapathError> {
        let wanted: BTreeMap<ServiceName, Views> =
            before.keys().map(|name| (name.clone(), self.replace(name, Vec::new()))).collect();
        self.put_all(before.iter());
        let mut failures = BTreeMap::new();
        for group in groups(&before, &wanted) {
            self.put_all(wanted.iter().filter(|(name, _)| group.contains(name)));
            if let Err(error) = set(&self.all()) {
                self.put_all(before.iter().filter(|(name, _)| group.contains(name)));
                failures.extend(group.into_iter().map(|name| (name.clone(), error.clone())));
            }
        }
        failures
    }

    /// Makes services something else together.
    fn put_all<'a>(&mut self, all: impl Iterator<Item = (&'a ServiceName, &'a Views)> + Clone) {
        for (name, _) in all.clone() {
            self.replace(name, Vec::new());
        }
        for (name, views) in all {
            self.replace(name, views.clone());
        }
    }

    /// All of them, and what is left of before.
    pub(super) fn all(&self) -> Vec<Arc<ServiceConfig>> {
        let left = without(&self.left, |place| self.owners.contains_key(place));
        self.configs.values().flatten().cloned().chain(left).collect()
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

    /// What the kernel's entries are called.
    pub(super) fn names(&self) -> ServiceNames {
        let mut all = BTreeMap::new();
        for config in self.configs.values().flatten() {
            let name = format!("{}/{}", config.namespace, config.name);
            for (ip, port) in &config.frontends {
                let place =
                    (SocketAddr::new(*ip, *port), config.protocol.number(), config.external);
                all.insert(place, name.clone());
            }
        }
        all
    }
}

fn places(views: &[Arc<ServiceConfig>]) -> impl Iterator<Item = Place> {
    views.iter().flat_map(|view| {
        let place = |at: &(IpAddr, u16)| (*at, view.protocol.number(), view.external);
        view.frontends.iter().map(place)
    })
}

/// The same without some addresses.
fn without(views: &Views, is_gone: impl Fn(&Place) -> bool) -> Views {
    let less = |view: &Arc<ServiceConfig>| {
        let (protocol, external) = (view.protocol.number(), view.external);
        let stays = |at: &&(IpAddr, u16)| !is_gone(&(**at, protocol, external));
        let frontends: Vec<_> = view.frontends.iter().filter(stays).copied().collect();
        if frontends.len() == view.frontends.len() {
            return Some(view.clone());
        }
        let less = ServiceConfig { frontends, ..ServiceConfig::clone(view) };
        (!less.frontends.is_empty()).then(|| Arc::new(less))
    };
    views.iter().filter_map(less).collect()
}

/// Services that have, or are to have, an address of each other's.
fn groups<'a>(
    before: &'a BTreeMap<ServiceName, Views>,
    wanted: &'a BTreeMap<ServiceName, Views>,
) -> Vec<BTreeSet<&'a ServiceName>> {
    let mut groups: Vec<BTreeSet<&ServiceName>> = Vec::new();
    let mut of_place: BTreeMap<Place, usize> = BTreeMap::new();
    for (name, views) in before.iter().chain(wanted) {
        let mut own = groups.iter().position(|group| group.contains(name)).unwrap_or_else(|| {
            groups.push(BTreeSet::from([name]));
            groups.len() - 1
        });
        for place in places(views) {
            let other = *of_place.entry(place).or_insert(own);
            if other == own {
                continue;
            }
            let joined = std::mem::take(&mut groups[own]);
            groups[other].extend(joined);
            for group in of_place.values_mut().filter(|group| **group == own) {
                *group = other;
            }
            own = other;
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// By address, protocol's number, and whether it is asked for from outside.
pub(super) type ServiceNames = BTreeMap<(SocketAddr, u8, bool), String>;

/// Those that are ready; if nobody is, those that are about to leave and still answer (KEP-1669); if nobody
/// is left, those that should be ready and don't answer as they are to. Others keep the connections that they have.
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
