//! Which backends are asked whether they are well, and what follows from what they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

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
        let mut follows = false;
        for heard in all {
            match heard {
                Heard::Answer(probe, answer) => follows |= self.heard_answer(&probe, answer),
                Heard::Unanswered(ports) => self.heard_unanswered(ports),
            }
        }
        follows
    }

    fn heard_answer(&mut self, probe: &Probe, answer: Result<(), String>) -> bool {
        let Some(turn) = self.services.heard(probe, answer, &self.options.name) else {
            return false;
        };
        let backend = probe.target;
        for service in turn.services.iter().map(ToString::to_string) {
            match &turn.wrong {
                Some(wrong) => tracing::warn!("{service}: backend {backend} is unhealthy: {wrong}"),
                None => tracing::info!("{service}: backend {backend} is healthy again"),
            }
            let backend = backend.to_string();
            self.news.tell(|| match turn.wrong.clone() {
                Some(error) => News::BackendUnhealthy { service, backend, error },
                None => News::BackendHealthy { service, backend },
            });
        }
        true
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

/// Every backend that somebody wants to be asked.
#[derive(Debug, Default)]
pub(super) struct Health {
    asked: BTreeMap<Probe, Asked>,
    of: BTreeMap<ServiceName, BTreeSet<Probe>>,
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
    /// These are asked for a service, and nobody else. Whether others were before.
    pub(super) fn want(&mut self, service: &ServiceName, probes: BTreeSet<Probe>) -> bool {
        let before = self.of.get(service);
        if before.map_or(probes.is_empty(), |before| *before == probes) {
            return false;
        }
        for probe in &probes {
            let asked = self.asked.entry(probe.clone()).or_default();
            asked.services.insert(service.clone());
        }
        let before = match probes.is_empty() {
            true => self.of.remove(service),
            false => self.of.insert(service.clone(), probes.clone()),
        };
        for gone in before.unwrap_or_default().difference(&probes) {
            let Some(asked) = self.asked.get_mut(gone) else { continue };
            asked.services.remove(service);
            if asked.services.is_empty() {
                self.asked.remove(gone);
            }
        }
        true
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
    pub(super) fn probes(&self) -> BTreeSet<Probe> {
        self.asked.keys().cloned().collect()
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

/// How a backend is asked; none: it can't be, since nothing but TCP says that it is there.
pub(super) fn probe(check: &HealthCheck, protocol: Protocol, backend: SocketAddr) -> Option<Probe> {
    let target = match check.port {
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
