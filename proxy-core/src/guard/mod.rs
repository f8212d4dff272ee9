//! One workload's policy for requests that somebody else has read: a web framework, another proxy.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Guard`]: asked for each request, told of new policy |
//! | `peer.rs` | [`Peer`]: who asks, and what a SPIFFE id says |
//! | `judged.rs` | [`Judged`], [`Checked`]: what was decided |
//! | `in_force.rs` | the policy in force, and who is known to it |
//! | `follow.rs` | policy files followed as they change |
//!
//! The `tower` layer and `portreeve authz` stand on it.

mod follow;
mod in_force;
mod judged;
mod peer;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use http::request::Parts;
use portreeve_policy::{
    Action, ConnectionVerdict, Endpoint, Engine, Identity, Inspection, Options, Outcome, Protocol,
    Reason, RequestVerdict, Source, TrafficDirection,
};
use portreeve_protocols::http2::{self, Limits, Prepared, Reply, Request};

use self::in_force::InForce;
pub use self::judged::{Checked, Judged};
pub use self::peer::{Peer, SERVICE_ACCOUNT, SpiffeError, spiffe_labels};
use crate::config::PolicySource;
pub use crate::edits::{Edit, Edits};
use crate::observer::{Asked, Flow, Observing, Party};
use crate::policy_loader::LoadError;
use crate::snapshot::Snapshot;
use crate::view::View;
use crate::watch::PolicyWatch;

/// What a guard is told before it starts.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// The workload under policy.
    pub endpoint: Endpoint,
    /// Who has which addresses; whom no entry names is `world`.
    pub peers: Vec<portreeve_policy::Peer>,
    /// How policy is evaluated (enforcement mode, audit).
    pub options: Options,
    /// Where policy comes from.
    pub policy: PolicySource,
    /// `Ingress`: the peer asks the workload. `Egress`: the workload asks the peer.
    pub direction: TrafficDirection,
    /// The port that policy sees.
    pub port: u16,
    /// SPIFFE trust domains whose ids are believed. None by default: two domains may give out the
    /// same name.
    pub trust_domains: Vec<String>,
    /// Bounds on heads.
    pub limits: Limits,
    /// Who is told of every decision.
    pub observer: Observing,
}

impl GuardConfig {
    /// For requests to `port` of a workload; the rest as it is by default.
    pub fn new(endpoint: Endpoint, port: u16, policy: impl Into<PolicySource>) -> Self {
        Self {
            endpoint,
            peers: Vec::new(),
            options: Options::default(),
            policy: policy.into(),
            direction: TrafficDirection::Ingress,
            port,
            trust_domains: Vec::new(),
            limits: Limits::default(),
            observer: Observing::default(),
        }
    }
}

/// Judges requests by the policy in force. Cheap to clone; all clones are the same guard.
///
/// A request is judged without a lock and without an allocation, unless its path has to be brought into
/// normal form or rules ask for changes of its head. Somebody who is seen for the first time, by labels
/// or by SPIFFE id, costs a partial computing of the policy, once.
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

struct Shared {
    config: GuardConfig,
    in_force: ArcSwap<InForce>,
    /// What the next policy is made from; held while it is made.
    making: Mutex<Making>,
}

struct Making {
    engine: Engine,
    source: PolicySource,
    last_error: Option<(SystemTime, String)>,
}

impl Guard {
    /// Loads policy. If it comes from files that are to be watched, a thread follows them until the
    /// last clone of the guard is gone.
    ///
    /// # Errors
    /// [`LoadError`]: without policy nothing could be decided.
    pub fn new(config: GuardConfig) -> Result<Self, LoadError> {
        // Before the files are read: what changes after must be noticed.
        let watched = PolicyWatch::of(&config.policy);
        let (engine, policy) = in_force::engine(&config, config.policy.read()?, [].iter())?;
        let in_force = InForce::new(Snapshot::new(1, policy, None), &config.endpoint, None);
        let making = Making { engine, source: config.policy.clone(), last_error: None };
        let guard = Self(Arc::new(Shared {
            config,
            in_force: ArcSwap::from_pointee(in_force),
            making: Mutex::new(making),
        }));
        if let Some(watched) = watched {
            follow::start(watched, &guard);
        }
        Ok(guard)
    }

    /// Brings a head into the form that is judged and forwarded, judges it, and makes the changes that
    /// rules ask for. `protocol` is what extended CONNECT (RFC 8441) asks for.
    pub fn check(&self, peer: Peer<'_>, parts: &mut Parts, protocol: Option<&str>) -> Checked {
        self.check_at(peer, self.0.config.port, parts, protocol)
    }

    /// The same, as a request to another port.
    pub fn check_at(
        &self,
        peer: Peer<'_>,
        port: u16,
        parts: &mut Parts,
        protocol: Option<&str>,
    ) -> Checked {
        let prepared = http2::prepare(parts, protocol, &self.0.config.limits);
        let request = Request::of(parts);
        let (reason, reply) = match prepared {
            Ok(Prepared::Ready) => {
                let judged = self.judge_at(peer, port, &request);
                if !judged.is_allowed() {
                    return Checked::Deny(judged, Reply::new(403, request.grpc));
                }
                judged.edits.apply(&mut parts.headers);
                return Checked::Forward(judged);
            }
            Ok(Prepared::Redirect(path)) => (ESCAPED_SLASH, Reply::redirect(&path, request.grpc)),
            Ok(Prepared::Connect) => (CONNECT, Reply::new(405, request.grpc)),
            Err(refusal) => (refusal.name(), Reply::new(refusal.status(), request.grpc)),
        };
        self.tell_refused(peer, reason);
        Checked::Refuse(reason, reply)
    }

    /// Judges a request whose head [`http2::prepare`] has found ready.
    #[must_use]
    pub fn judge(&self, peer: Peer<'_>, request: &Request<'_>) -> Judged {
        self.judge_at(peer, self.0.config.port, request)
    }

    /// The same, as a request to another port.
    #[must_use]
    pub fn judge_at(&self, peer: Peer<'_>, port: u16, request: &Request<'_>) -> Judged {
        let (snapshot, identity) = self.identify(peer);
        let direction = self.0.config.direction;
        let verdict = snapshot.policy.connection(direction, identity, Protocol::Tcp, port);
        let verdict = readable(verdict);
        let mut edits = Edits::default();
        let RequestVerdict { outcome, rule, reason } = match &verdict.action {
            Action::Deny => of_connection(&verdict, Outcome::Deny),
            Action::Inspect(Inspection::Http(rules)) => {
                rules.decide(&View(request), &mut |edit| edits.note(edit))
            }
            _ if verdict.audited => of_connection(&verdict, Outcome::Audit),
            _ => of_connection(&verdict, Outcome::Allow),
        };
        if let Some(rule) = rule {
            snapshot.count(rule);
        }
        let judged = Judged { outcome, reason, edits, rule, snapshot };
        self.tell_judged(peer.address(), identity, request, &judged);
        judged
    }

    /// Reads policy again, from where it comes from. What fails leaves the old one in force.
    ///
    /// # Errors
    /// [`LoadError`]; it is kept for [`Guard::last_error`].
    pub fn reload(&self) -> Result<u64, LoadError> {
        let mut making = self.making();
        let source = making.source.clone();
        self.remake(&mut making, source)
    }

    /// Puts other documents in the place of those in force. What fails leaves the old ones.
    ///
    /// # Errors
    /// [`LoadError`]; it is kept for [`Guard::last_error`].
    pub fn update(&self, documents: Vec<Source>) -> Result<u64, LoadError> {
        let mut making = self.making();
        match making.source {
            PolicySource::Files(_) => Err(LoadError::ReadFromFiles),
            PolicySource::Documents(_) => {
                self.remake(&mut making, PolicySource::Documents(documents))
            }
        }
    }

    /// The revision in force.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.in_force.load().snapshot.revision
    }

    /// The policy in force, and how often each of its rules has decided.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.in_force.load().snapshot.clone()
    }

    /// When and why the last attempt to load policy failed; `None`: it did not.
    #[must_use]
    pub fn last_error(&self) -> Option<(SystemTime, String)> {
        self.making().last_error.clone()
    }

    /// What it was told.
    #[must_use]
    pub fn config(&self) -> &GuardConfig {
        &self.0.config
    }

    fn remake(&self, making: &mut Making, source: PolicySource) -> Result<u64, LoadError> {
        let Shared { config, in_force, .. } = &*self.0;
        let before = in_force.load_full();
        let made = source
            .read()
            .map_err(LoadError::from)
            .and_then(|documents| in_force::engine(config, documents, before.by_labels.keys()))
            .inspect_err(|error| {
                making.last_error = Some((SystemTime::now(), error.to_string()));
            });
        let (engine, policy) = made?;
        let revision = before.snapshot.revision + 1;
        let snapshot = Snapshot::new(revision, policy, Some(&before.snapshot));
        in_force.store(Arc::new(InForce::new(snapshot, &config.endpoint, Some(&before))));
        *making = Making { engine, source, last_error: None };
        Ok(revision)
    }

    /// Who a peer is to the policy in force, and that policy.
    fn identify(&self, peer: Peer<'_>) -> (Arc<Snapshot>, Identity) {
        let in_force = self.0.in_force.load();
        match in_force.identify(peer) {
            Some(identity) => (in_force.snapshot.clone(), identity),
            None => self.meet(peer),
        }
    }

    /// Somebody who is here for the first time: the policy is told of them. Who can't be told apart is
    /// unknown.
    #[cold]
    fn meet(&self, peer: Peer<'_>) -> (Arc<Snapshot>, Identity) {
        let config = &self.0.config;
        let unknown = |in_force: &InForce| (in_force.snapshot.clone(), Identity::UNKNOWN);
        let in_force = self.0.in_force.load();
        let (labels, spiffe) = match peer {
            Peer::Labels(labels) => (labels.clone(), None),
            Peer::Spiffe(id) => match spiffe_labels(id, &config.trust_domains) {
                Ok(labels) => (labels, Some(id)),
                Err(error) => {
                    tracing::debug!("peer without identity: {error}");
                    return unknown(&in_force);
                }
            },
            Peer::Address(_) | Peer::Unknown => return unknown(&in_force),
        };
        if in_force.is_full() {
            return unknown(&in_force);
        }
        let labels = Arc::new(labels);
        let mut making = self.making();
        // Others may have come first.
        let in_force = self.0.in_force.load_full();
        if let Some(identity) = in_force.identify(peer) {
            return (in_force.snapshot.clone(), identity);
        }
        if in_force.is_full() {
            return unknown(&in_force);
        }
        let met = in_force::introduce(&mut making.engine, &config.endpoint, &labels);
        if let Err(error) = in_force::settled(met) {
            tracing::warn!("`{labels}` stays unknown: {error}");
            return unknown(&in_force);
        }
        let Some(policy) = making.engine.policy(&config.endpoint.name) else {
            return unknown(&in_force);
        };
        let next = Arc::new(in_force.with(policy, &config.endpoint, &labels, spiffe));
        self.0.in_force.store(next.clone());
        (next.snapshot.clone(), next.identify(peer).unwrap_or(Identity::UNKNOWN))
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.0.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_judged(
        &self,
        address: Option<std::net::SocketAddr>,
        identity: Identity,
        request: &Request<'_>,
        judged: &Judged,
    ) {
        self.0.config.observer.tell(|| {
            let (source, destination) = self.parties(&judged.snapshot, address, identity);
            Flow {
                time: SystemTime::now(),
                direction: self.0.config.direction,
                verdict: judged.outcome,
                source,
                destination,
                asked: Asked::Http {
                    method: request.method.as_bytes(),
                    host: request.host.as_bytes(),
                    path: request.path.as_bytes(),
                    answer: None,
                },
                rule: judged.rule(),
                policy: judged.policy(),
                reason: judged.reason.as_str(),
                endpoint: "",
                revision: judged.revision(),
                by_kernel: false,
            }
        });
    }

    fn tell_refused(&self, peer: Peer<'_>, reason: &'static str) {
        if !self.0.config.observer.is_on() {
            return;
        }
        let (snapshot, identity) = self.identify(peer);
        let (source, destination) = self.parties(&snapshot, peer.address(), identity);
        self.0.config.observer.tell(|| Flow {
            time: SystemTime::now(),
            direction: self.0.config.direction,
            verdict: Outcome::Deny,
            source,
            destination,
            asked: Asked::Refused { protocol: "http" },
            rule: "",
            policy: "",
            reason,
            endpoint: "",
            revision: 0,
            by_kernel: false,
        });
    }

    /// Source and destination: the peer by its identity, the workload by its own.
    fn parties<'s>(
        &self,
        snapshot: &'s Snapshot,
        address: Option<std::net::SocketAddr>,
        identity: Identity,
    ) -> (Party<'s>, Party<'s>) {
        let policy = &snapshot.policy;
        let party = |address, identity: Identity| Party {
            address,
            identity: identity.get(),
            labels: policy.labels(identity),
        };
        let (peer, workload) = (party(address, identity), party(None, policy.workload()));
        match self.0.config.direction {
            TrafficDirection::Ingress => (peer, workload),
            TrafficDirection::Egress => (workload, peer),
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

/// Some servers take an escaped slash for one, others don't.
const ESCAPED_SLASH: &str = "escaped_slash";

/// This is no proxy for others.
const CONNECT: &str = "connect";

/// What can't be carried out where only HTTP requests are seen is a denial: to have the peer prove who
/// it is, and to judge other protocols.
fn readable(verdict: ConnectionVerdict) -> ConnectionVerdict {
    match verdict.action {
        Action::Deny => verdict,
        _ if verdict.needs_authentication() => verdict.refused(Reason::AuthenticationRequired),
        Action::Allow | Action::Inspect(Inspection::Http(_)) => verdict,
        Action::Inspect(ref as_what) if as_what.is_observed_only() => verdict.passed_unread(),
        _ => verdict.refused(Reason::NotInspectable),
    }
}

/// A verdict on the connection as one on each of its requests.
fn of_connection(verdict: &ConnectionVerdict, outcome: Outcome) -> RequestVerdict {
    RequestVerdict { outcome, rule: verdict.rule, reason: verdict.reason }
}
