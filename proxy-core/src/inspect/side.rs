//! One endpoint's policy about a connection: who the peer is to it, what it says, and what it reports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use portreeve_policy::{Action, ConnectionVerdict, Identity, Protocol, Reason, TrafficDirection};

use super::carried_out;
use crate::runtime::{Joined, Tenant};
use crate::snapshot::Snapshot;
use crate::telemetry::{ConnectionRecord, Party, Verdict, WorkerTelemetry};

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) upstream: SocketAddr,
}

/// A connection as one endpoint sees it.
pub(super) struct Side {
    pub(super) tenant: Arc<Tenant>,
    pub(super) snapshot: Arc<Snapshot>,
    peer: Identity,
    /// The port that policy sees.
    port: u16,
    pub(super) direction: TrafficDirection,
    /// Its policy no longer allows the connection.
    pub(super) revoked: bool,
}

impl Side {
    pub(super) fn new(
        tenant: Arc<Tenant>,
        direction: TrafficDirection,
        ends: &Ends,
        port: u16,
    ) -> Self {
        let snapshot = tenant.snapshots.load();
        tenant.telemetry.connection_opened(direction);
        let peer = Identity::UNKNOWN;
        let mut side = Self { tenant, snapshot, peer, port, direction, revoked: false };
        side.identify(ends);
        side
    }

    pub(super) fn telemetry(&self) -> &WorkerTelemetry {
        &self.tenant.telemetry
    }

    /// Whether another policy is in force than the one this connection was judged by.
    pub(super) fn outdated(&self) -> bool {
        self.snapshot.revision != self.tenant.snapshots.revision()
    }

    /// Takes the policy in force.
    pub(super) fn renew(&mut self, ends: &Ends) {
        self.snapshot = self.tenant.snapshots.load();
        self.identify(ends);
    }

    /// What policy says of this connection, as far as this proxy can carry it out.
    pub(super) fn verdict(&self) -> ConnectionVerdict {
        let policy = &self.snapshot.policy;
        let verdict = policy.connection(self.direction, self.peer, Protocol::Tcp, self.port);
        if self.tenant.snapshots.is_retired() {
            // Its endpoint is gone, and with it who had allowed it.
            return verdict.refused(Reason::UnknownIdentity);
        }
        carried_out(Protocol::Tcp, verdict)
    }

    /// Reports a connection that was denied or audited.
    pub(super) fn decided(&self, ends: &Ends, outcome: Verdict, verdict: &ConnectionVerdict) {
        if let Some(rule) = verdict.rule {
            self.snapshot.count(rule);
        }
        self.telemetry().connection_judged(&self.record(ends, outcome, verdict));
    }

    /// Reports that it passes unread.
    pub(super) fn passed(&self, ends: &Ends, verdict: &ConnectionVerdict) {
        if verdict.audited {
            self.decided(ends, Verdict::Audit, verdict);
        } else {
            self.telemetry().connection_passed(|| self.record(ends, Verdict::Allow, verdict));
        }
    }

    /// Reports that it passes, though it would be denied if its policy were enforced.
    pub(super) fn audited(&self, ends: &Ends, verdict: &ConnectionVerdict) {
        if verdict.audited && matches!(verdict.action, Action::Allow) {
            self.decided(ends, Verdict::Audit, verdict);
        }
    }

    fn record(
        &self,
        ends: &Ends,
        outcome: Verdict,
        verdict: &ConnectionVerdict,
    ) -> ConnectionRecord<'_> {
        let (source, destination) = self.parties_in(&self.snapshot, ends);
        let rule = verdict.rule.map(|rule| self.snapshot.policy.rule(rule));
        ConnectionRecord {
            time: SystemTime::now(),
            direction: self.direction,
            verdict: outcome,
            source,
            destination,
            rule: rule.map_or("", |rule| rule.section()),
            policy: rule.map_or("", |rule| rule.policy()),
            reason: verdict.reason.as_str(),
            revision: self.snapshot.revision,
            by_kernel: None,
        }
    }

    /// Source and destination as the log names them: the peer by its identity, the workload by its own;
    /// with the labels of `snapshot`, which may be an older one.
    pub(super) fn parties_in<'a>(
        &self,
        snapshot: &'a Snapshot,
        ends: &Ends,
    ) -> (Party<'a>, Party<'a>) {
        let policy = &snapshot.policy;
        let (peer, workload) = (self.peer, policy.workload());
        let (source, destination) = match self.direction {
            TrafficDirection::Ingress => (peer, workload),
            TrafficDirection::Egress => (workload, peer),
        };
        let party = |address, identity: Identity| Party {
            address: Some(address),
            identity: identity.get(),
            labels: policy.labels(identity),
        };
        (party(ends.client, source), party(ends.upstream, destination))
    }

    fn identify(&mut self, ends: &Ends) {
        let peer = match self.direction {
            TrafficDirection::Ingress => ends.client.ip(),
            TrafficDirection::Egress => ends.upstream.ip(),
        };
        self.peer = self.snapshot.policy.identify(peer);
    }
}

/// The server's side of a connection between two endpoints of this node.
pub(super) struct Far {
    pub(super) side: Side,
    /// What its policy says of the connection.
    pub(super) verdict: ConnectionVerdict,
    pub(super) _joined: Joined,
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is the IPv4 address it is: `::ffff:…`
/// must not slip past a rule about `10.0.0.0/8`.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_peer_is_judged_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:99".parse().expect("an address");
        assert_eq!(canonical(mapped).to_string(), "10.1.2.3:99");
    }
}
