//! Which backends are asked whether they are well, and what follows from what they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portreeve_policy::Protocol;

use super::{News, Node};
use crate::datapath::{Backend, BackendState, PortSpec, ServiceName, ServiceSpec};
use crate::health::{Heard, Probe, Wanted};
use crate::objects::HealthCheck;

impl Node {
    /// Who is to be asked whether they are well, and what is to be told to those who ask; none: nothing has
    /// changed since this was called last.
    pub fn take_health(&mut self) -> Option<Wanted> {
        self.services.take_health()
    }

    /// Takes in what was heard. Whether anything follows for the datapath, which is not told yet: see
    /// [`Node::realise`].
    pub fn heard(&mut self, all: Vec<Heard>) -> bool {
        let (mut turned, mut turns) = (BTreeSet::new(), 0);
        for heard in all {
            match heard {
                Heard::Answer(probe, answer) => {
                    self.services.unable = None;
                    let Some(turn) = self.services.health.heard(&probe, answer) else { continue };
                    turns += 1;
                    self.tell_turn(probe.target, &turn, turns <= LINES);
                    turned.extend(turn.services);
                }
                Heard::Unable(error) => self.heard_unable(error),
                Heard::Unanswered(ports) => self.heard_unanswered(ports),
            }
        }
        if turns > LINES {
            tracing::warn!("{} more backends are healthy or unhealthy by now", turns - LINES);
        }
        // However many backends of a service have turned, it is worked out once.
        let follows = !turned.is_empty();
        for service in turned {
            self.services.renew(service, &self.options.name);
        }
        follows
    }

    fn tell_turn(&self, backend: SocketAddr, turn: &Turn, in_words: bool) {
        for service in turn.services.iter().map(ToString::to_string) {
            match &turn.wrong {
                _ if !in_words => {}
                Some(wrong) => tracing::warn!("{service}: backend {backend} is unhealthy: {wrong}"),
                None => tracing::info!("{service}: backend {backend} is healthy again"),
            }
            let backend = backend.to_string();
            self.news.tell(|| match turn.wrong.clone() {
                Some(error) => News::BackendUnhealthy { service, backend, error },
                None => News::BackendHealthy { service, backend },
            });
        }
    }

    fn heard_unable(&mut self, error: String) {
        if self.services.unable.as_ref() != Some(&error) {
            tracing::error!("backends can't be asked whether they are well: {error}");
        }
        self.services.unable = Some(error);
    }

    fn heard_unanswered(&mut self, ports: BTreeMap<u16, String>) {
        for (port, error) in &ports {
            if !self.services.unanswered.contains_key(port) {
                tracing::error!("can't answer at `healthCheckNodePort` {port}: {error}");
            }
        }
        self.services.unanswered = ports;
    }
}

/// Backends that have turned at once and are told of in words, one by one.
const LINES: usize = 20;

/// Every backend that somebody wants to be asked.
#[derive(Debug, Default)]
pub(super) struct Health {
    asked: BTreeMap<Probe, Asked>,
    of: BTreeMap<ServiceName, BTreeSet<Probe>>,
    /// Those of `asked`, and whether there may be others by now.
    probes: Arc<BTreeSet<Probe>>,
    has_changed: bool,
}

/// What is known of one.
#[derive(Debug, Default)]
struct Asked {
    /// Those that it answers for.
    services: BTreeSet<ServiceName>,
    has_answered: bool,
    /// What is wrong with it; none: it is healthy, or nobody knows yet.
    wrong: Option<String>,
    /// So many answers one after another say something else.
    others: u16,
}

/// A backend is not what it was.
pub(super) struct Turn {
    /// Those that it answers for.
    pub(super) services: BTreeSet<ServiceName>,
    /// What is wrong with it now; none: it is healthy again.
    pub(super) wrong: Option<String>,
}

impl Health {
    /// These are asked for a service, and nobody else. What is known of others is kept until it is to be
    /// [forgotten](Self::forget).
    pub(super) fn want(&mut self, service: &ServiceName, probes: BTreeSet<Probe>) {
        let before = self.of.get(service);
        if before.map_or(probes.is_empty(), |before| *before == probes) {
            return;
        }
        self.has_changed = true;
        for probe in &probes {
            let asked = self.asked.entry(probe.clone()).or_default();
            asked.services.insert(service.clone());
        }
        let before = match probes.is_empty() {
            true => self.of.remove(service),
            false => self.of.insert(service.clone(), probes.clone()),
        };
        for gone in before.unwrap_or_default().difference(&probes) {
            if let Some(asked) = self.asked.get_mut(gone) {
                asked.services.remove(service);
            }
        }
    }

    /// Forgets those whom nobody wants to be asked.
    pub(super) fn forget(&mut self) {
        if self.has_changed {
            self.asked.retain(|_, asked| !asked.services.is_empty());
        }
    }

    /// Marks the backends of a service that do not answer as they are to.
    pub(super) fn mark(&self, check: &HealthCheck, spec: &mut ServiceSpec) {
        for port in &mut spec.ports {
            for backend in &mut port.backends {
                let probe = probe(check, port.protocol, backend.address);
                if probe.is_some_and(|probe| self.wrong(&probe).is_some()) {
                    worsen(backend);
                }
            }
        }
    }

    /// Everybody who is asked.
    pub(super) fn probes(&mut self) -> Arc<BTreeSet<Probe>> {
        if std::mem::take(&mut self.has_changed) {
            self.probes = Arc::new(self.asked.keys().cloned().collect());
        }
        self.probes.clone()
    }

    /// What is wrong with a backend.
    pub(super) fn wrong(&self, probe: &Probe) -> Option<&str> {
        self.asked.get(probe)?.wrong.as_deref()
    }

    /// Takes in an answer. The first one counts alone: before it, nothing was known.
    pub(super) fn heard(&mut self, probe: &Probe, answer: Result<(), String>) -> Option<Turn> {
        let asked = self.asked.get_mut(probe)?;
        let is_first = !std::mem::replace(&mut asked.has_answered, true);
        let needed = match &answer {
            _ if is_first => 1,
            Ok(()) => probe.check.rise,
            Err(_) => probe.check.fall,
        };
        let wrong = answer.err();
        if wrong.is_some() == asked.wrong.is_some() {
            asked.others = 0;
            // Why may be another reason by now.
            asked.wrong = wrong;
            return None;
        }
        asked.others += 1;
        if asked.others < needed {
            return None;
        }
        (asked.others, asked.wrong) = (0, wrong.clone());
        Some(Turn { services: asked.services.clone(), wrong })
    }
}

/// Who is asked for a service: those to whom connections may be sent.
pub(super) fn probes(check: &HealthCheck, spec: &ServiceSpec) -> BTreeSet<Probe> {
    let of_port = |port: &PortSpec| {
        let usable = port.backends.iter().filter(|one| one.state != BackendState::NotReady);
        usable.filter_map(|one| probe(check, port.protocol, one.address)).collect::<Vec<_>>()
    };
    spec.ports.iter().flat_map(of_port).collect()
}

/// How a backend is asked; none: it is not, since nothing but TCP says that it is there, or since its address
/// is the asker's own, or his link's, whatever it is to clients.
pub(super) fn probe(check: &HealthCheck, protocol: Protocol, backend: SocketAddr) -> Option<Probe> {
    let is_of_asker = match backend.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let target = match check.port {
        _ if is_of_asker => return None,
        Some(port) => SocketAddr::new(backend.ip(), port),
        None if protocol == Protocol::Tcp => backend,
        None => return None,
    };
    Some(Probe { target, check: check.clone() })
}

/// What a backend is that does not answer as it is to: one that is ready is the last resort, when all of
/// them are so, which tells more of the question than of them.
fn worsen(backend: &mut Backend) {
    backend.state = match backend.state {
        BackendState::Ready | BackendState::Unhealthy => BackendState::Unhealthy,
        BackendState::Terminating | BackendState::NotReady => BackendState::NotReady,
    };
}
