//! What the kernel has decided, as the access log and the metrics show what the proxy decides itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use portreeve_policy::{Action, EndpointPolicy, Identity, Protocol, RuleOrigin, TrafficDirection};

use crate::inspect::{canonical, carried_out};
use crate::snapshot::SnapshotStore;
use crate::telemetry::{ByKernel, ConnectionRecord, Party, Verdict, WorkerTelemetry};

/// One decision of the kernel's.
#[derive(Clone, Copy, Debug)]
pub struct KernelDecision {
    /// When.
    pub time: SystemTime,
    /// As the workload sees it.
    pub direction: TrafficDirection,
    /// TCP or UDP; on a node any other, too.
    pub protocol: Protocol,
    /// Who asks. Of a connection of the workload it is not known yet, but on a node.
    pub source: Option<SocketAddr>,
    /// Where it goes: the backend, if a service was asked for.
    pub destination: SocketAddr,
    /// The address of the service that was asked for.
    pub service: Option<SocketAddr>,
    /// What was decided.
    pub verdict: KernelVerdict,
    /// Why.
    pub reason: KernelReason,
    /// The number of the peer's identity, in the policy that decided; 0: it was not asked.
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
    /// Let pass.
    Allowed,
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
    /// Of a node: a policy that has changed wants it read, and nobody has seen it begin.
    PolicyChanged,
    /// Of a node: its source is not an address of the workload.
    SpoofedSource,
    /// Of a node: its headers can't be read.
    Malformed,
    /// Of a node: it is of no connection that is known, and can't open one.
    NotTracked,
    /// Of a node: a later fragment whose first is not known.
    Fragment,
    /// Of a node: neither IPv4, IPv6, nor ARP.
    NotIp,
    /// Of a node: there is room for more connections, but not for more of this workload.
    TooManyConnections,
}

impl KernelReason {
    /// Every reason there is.
    pub const ALL: [Self; 14] = [
        Self::Policy,
        Self::NotReady,
        Self::ProxyAway,
        Self::NoBackend,
        Self::SocketKind,
        Self::OtherNamespace,
        Self::MapFull,
        Self::PolicyChanged,
        Self::SpoofedSource,
        Self::Malformed,
        Self::NotTracked,
        Self::Fragment,
        Self::NotIp,
        Self::TooManyConnections,
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
            Self::PolicyChanged => "policy_changed",
            Self::SpoofedSource => "spoofed_source",
            Self::Malformed => "malformed",
            Self::NotTracked => "not_tracked",
            Self::Fragment => "fragment",
            Self::NotIp => "not_ip",
            Self::TooManyConnections => "too_many_connections",
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
        let peer = known.zip(peer_address(decision)).map(|(known, at)| {
            let policy = &known.policy;
            (policy, policy.identify(at))
        });
        let words = Words {
            in_force: Some(&snapshot.policy),
            decided: known.map(|known| &known.policy),
            peer,
            identity: decision.identity,
        };
        self.telemetry.kernel_decided(&record(decision, &words), decision);
    }

    /// Hands on what was written on this thread. To be called a few times a second.
    pub fn flush(&mut self) {
        self.telemetry.flush();
    }
}

/// Where the words come from that a decision is told in.
pub(super) struct Words<'a> {
    /// The policy in force: it knows the workload. `None`: there is no such endpoint any more.
    pub(super) in_force: Option<&'a EndpointPolicy>,
    /// The policy that decided, if it is known.
    pub(super) decided: Option<&'a EndpointPolicy>,
    /// Who the peer is, and who knows the labels.
    pub(super) peer: Option<(&'a EndpointPolicy, Identity)>,
    /// The number that the peer is shown with.
    pub(super) identity: u32,
}

/// Where the one is whom policy was asked about.
pub(super) fn peer_address(decision: &KernelDecision) -> Option<IpAddr> {
    match decision.direction {
        TrafficDirection::Ingress => decision.source.map(|source| canonical(source).ip()),
        TrafficDirection::Egress => Some(canonical(decision.destination).ip()),
    }
}

/// As it is logged: with rule and labels, as far as there are words for them.
pub(super) fn record<'a>(decision: &KernelDecision, words: &Words<'a>) -> ConnectionRecord<'a> {
    let by = ByKernel {
        protocol: decision.protocol,
        service: decision.service.map(canonical),
        redirected: decision.verdict == KernelVerdict::Redirected,
    };
    let rule = words.decided.and_then(|policy| policy.rules().get(decision.rule? as usize));
    let source = decision.source.map(canonical);
    let destination = canonical(decision.destination);
    let peer = |address| Party {
        address,
        identity: words.identity,
        labels: words.peer.map_or("", |(policy, who)| policy.labels(who)),
    };
    let workload = |address| Party {
        address,
        identity: words.in_force.map_or(0, |policy| policy.workload().get()),
        labels: words.in_force.map_or("", |policy| policy.labels(policy.workload())),
    };
    let (source, destination) = match decision.direction {
        TrafficDirection::Ingress => (peer(source), workload(Some(destination))),
        TrafficDirection::Egress => (workload(source), peer(Some(destination))),
    };
    let (reason, audited) = reason(decision, words);
    ConnectionRecord {
        time: decision.time,
        direction: decision.direction,
        verdict: match decision.verdict {
            KernelVerdict::Denied => Verdict::Deny,
            KernelVerdict::Allowed if audited => Verdict::Audit,
            KernelVerdict::Allowed | KernelVerdict::Redirected => Verdict::Allow,
        },
        source,
        destination,
        rule: rule.map_or("", RuleOrigin::section),
        policy: rule.map_or("", RuleOrigin::policy),
        reason,
        revision: decision.revision,
        by_kernel: Some(by),
    }
}

/// Why, in the words of policy if it was policy; and whether a policy in audit mode would deny it.
fn reason(decision: &KernelDecision, words: &Words<'_>) -> (&'static str, bool) {
    match (decision.reason, words.decided, words.peer) {
        (KernelReason::Policy, Some(policy), Some((_, peer))) => {
            let port = decision.destination.port();
            let verdict = policy.connection(decision.direction, peer, decision.protocol, port);
            let verdict = carried_out(decision.protocol, verdict);
            let denies = matches!(verdict.action, Action::Deny);
            match denies == (decision.verdict == KernelVerdict::Denied) {
                true => (verdict.reason.as_str(), verdict.audited),
                // What was decided was not about these two ends, but about what the packet answers.
                false => (KernelReason::Policy.as_str(), false),
            }
        }
        (reason, ..) => (reason.as_str(), false),
    }
}
