//! What the kernel has decided, as the access log and the metrics show what the proxy decides itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use portreeve_policy::{EndpointPolicy, Protocol, RuleOrigin, TrafficDirection};

use crate::inspect::{canonical, carried_out};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::telemetry::{ByKernel, ConnectionRecord, Party, Verdict, WorkerTelemetry};

/// One decision of the kernel's.
#[derive(Clone, Copy, Debug)]
pub struct KernelDecision {
    /// When.
    pub time: SystemTime,
    /// As the workload sees it.
    pub direction: TrafficDirection,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who asks. Of a connection of the workload it is not known yet.
    pub source: Option<SocketAddr>,
    /// Where it goes: the backend, if a service was asked for.
    pub destination: SocketAddr,
    /// The address of the service that was asked for.
    pub service: Option<SocketAddr>,
    /// What was decided.
    pub verdict: KernelVerdict,
    /// Why.
    pub reason: KernelReason,
    /// The number of the peer's identity, in the policy that decided.
    pub identity: u32,
    /// The index of the rule that decided, in that policy.
    pub rule: Option<u32>,
    /// The revision of that policy; 0: not one of this proxy's.
    pub revision: u64,
}

/// What the kernel tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelVerdict {
    /// Refused.
    Denied,
    /// Turned to the proxy, which judges and reports it again.
    Redirected,
}

/// Why the kernel decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelReason {
    /// Policy says so.
    Policy,
    /// It had no policy, or no configuration.
    NotReady,
    /// It is for the proxy, and none listened.
    ProxyAway,
    /// The service has no backend.
    NoBackend,
    /// A socket of a kind whose traffic no program sees.
    SocketKind,
    /// From another network namespace than the proxy's.
    OtherNamespace,
    /// A map was full.
    MapFull,
}

impl KernelReason {
    /// Every reason there is.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::NotReady,
        Self::ProxyAway,
        Self::NoBackend,
        Self::SocketKind,
        Self::OtherNamespace,
        Self::MapFull,
    ];

    /// A stable name, for log and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::NotReady => "not_ready",
            Self::ProxyAway => "proxy_away",
            Self::NoBackend => "no_backend",
            Self::SocketKind => "socket_kind",
            Self::OtherNamespace => "other_namespace",
            Self::MapFull => "map_full",
        }
    }
}

/// Takes the kernel's decisions down. It belongs to one thread, as its counters and lines do.
#[derive(Debug)]
pub struct Reporter {
    telemetry: Arc<WorkerTelemetry>,
    snapshots: Arc<SnapshotStore>,
}

impl Reporter {
    pub(crate) fn new(telemetry: Arc<WorkerTelemetry>, snapshots: Arc<SnapshotStore>) -> Self {
        Self { telemetry, snapshots }
    }

    /// Takes one decision down. What is written waits for [`Reporter::flush`] on the same thread.
    pub fn report(&mut self, decision: &KernelDecision) {
        let snapshot = self.snapshots.load();
        let known = Some(&*snapshot).filter(|snapshot| snapshot.revision == decision.revision);
        if let (Some(snapshot), KernelVerdict::Denied) = (known, decision.verdict) {
            snapshot.count_index(decision.rule.map(|rule| rule as usize));
        }
        let by = ByKernel {
            protocol: decision.protocol,
            service: decision.service.map(canonical),
            redirected: decision.verdict == KernelVerdict::Redirected,
        };
        self.telemetry.kernel_decided(&record(decision, &snapshot.policy, known, by), decision);
    }

    /// Hands on what was written on this thread. To be called a few times a second.
    pub fn flush(&mut self) {
        self.telemetry.flush();
    }
}

/// As it is logged: with rule and labels, if the policy that decided is `known`.
fn record<'a>(
    decision: &KernelDecision,
    in_force: &'a EndpointPolicy,
    known: Option<&'a Snapshot>,
    by: ByKernel,
) -> ConnectionRecord<'a> {
    let rule = known.and_then(|known| known.policy.rules().get(decision.rule? as usize));
    let source = decision.source.map(canonical);
    let destination = canonical(decision.destination);
    let peer_address = match decision.direction {
        TrafficDirection::Ingress => source.map(|source| source.ip()),
        TrafficDirection::Egress => Some(destination.ip()),
    };
    let peer =
        known.zip(peer_address).map(|(known, at)| (&known.policy, known.policy.identify(at)));
    let peer = |address| Party {
        address,
        identity: decision.identity,
        labels: peer.map_or("", |(policy, identity)| policy.labels(identity)),
    };
    let workload = |address| Party {
        address,
        identity: in_force.workload().get(),
        labels: in_force.labels(in_force.workload()),
    };
    let (source, destination) = match decision.direction {
        TrafficDirection::Ingress => (peer(source), workload(Some(destination))),
        TrafficDirection::Egress => (workload(source), peer(Some(destination))),
    };
    ConnectionRecord {
        time: decision.time,
        direction: decision.direction,
        verdict: if by.redirected { Verdict::Allow } else { Verdict::Deny },
        source,
        destination,
        rule: rule.map_or("", RuleOrigin::section),
        policy: rule.map_or("", RuleOrigin::policy),
        reason: reason(decision, known, peer_address),
        revision: decision.revision,
        by_kernel: Some(by),
    }
}

/// Why, in the words of policy if it was policy.
fn reason(
    decision: &KernelDecision,
    known: Option<&Snapshot>,
    peer: Option<IpAddr>,
) -> &'static str {
    match (decision.reason, known, peer) {
        (KernelReason::Policy, Some(Snapshot { policy, .. }), Some(peer)) => {
            let (peer, port) = (policy.identify(peer), decision.destination.port());
            let verdict = policy.connection(decision.direction, peer, decision.protocol, port);
            carried_out(decision.protocol, verdict).reason.as_str()
        }
        (reason, ..) => reason.as_str(),
    }
}
