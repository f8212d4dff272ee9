//! Who talks to whom, and what policy says of it: the part that all protocols share.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portreeve_policy::{ConnectionVerdict, Identity, Protocol, TrafficDirection};

use portreeve_protocols::gate::Phase;

use super::carried_out;
use crate::listener::Settings;
use crate::redirection::Target;
use crate::runtime::Worker;
use crate::snapshot::Snapshot;
use crate::telemetry::{ConnectOutcome, ConnectionRecord, ConnectionStats, Party, Verdict};

/// A client connection under policy.
pub(crate) struct Connection {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    client: SocketAddr,
    upstream: SocketAddr,
    opened: Instant,
    /// Unique on its worker.
    sequence: u64,
    direction: TrafficDirection,
    /// The port that policy sees.
    port: u16,
    peer: Identity,
    /// The time of the poll under way.
    pub(super) now: Instant,
    /// Policy no longer allows it.
    pub(super) revoked: bool,
}

impl Connection {
    pub(crate) fn new(
        worker: Arc<Worker>,
        settings: &Settings,
        client: SocketAddr,
        upstream: SocketAddr,
        sequence: u64,
    ) -> Self {
        let (client, upstream) = (canonical(client), canonical(upstream));
        let snapshot = worker.snapshots.load();
        let direction = settings.direction;
        worker.telemetry.connection_opened(direction);
        let opened = Instant::now();
        let mut connection = Self {
            peer: Identity::UNKNOWN,
            now: opened,
            revoked: false,
            port: settings.policy_port.unwrap_or(upstream.port()),
            opened,
            worker,
            snapshot,
            client,
            upstream,
            sequence,
            direction,
        };
        connection.peer = connection.identify();
        connection
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(super) fn direction(&self) -> TrafficDirection {
        self.direction
    }

    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Whether all that the client sends comes over TCP.
    pub(super) fn comes_over_tcp(&self) -> bool {
        !(self.worker.joins_sockets && self.direction == TrafficDirection::Egress)
    }

    /// Where its upstream connection goes.
    pub(super) fn target(&self) -> Target {
        let bypass = match self.direction {
            TrafficDirection::Ingress => self.worker.bypass.clone(),
            TrafficDirection::Egress => None,
        };
        Target { address: self.upstream, limit: self.worker.limits.connect_timeout, bypass }
    }

    /// Worker and connection numbers, for a request id.
    pub(super) fn number(&self) -> (usize, u64) {
        (self.worker.index, self.sequence)
    }

    /// Whether a newer policy is in force than the one this connection was judged by.
    pub(super) fn outdated(&self) -> bool {
        self.snapshot.revision != self.worker.snapshots.revision()
    }

    /// Takes the policy in force and judges anew.
    pub(super) fn renew(&mut self) -> ConnectionVerdict {
        self.snapshot = self.worker.snapshots.load();
        self.peer = self.identify();
        self.verdict()
    }

    /// What policy says of this connection, as far as this proxy can carry it out.
    pub(super) fn verdict(&self) -> ConnectionVerdict {
        let policy = &self.snapshot.policy;
        let verdict = policy.connection(self.direction, self.peer, Protocol::Tcp, self.port);
        carried_out(Protocol::Tcp, verdict)
    }

    /// Reports a denial at L4.
    pub(super) fn denied(&self, verdict: &ConnectionVerdict) {
        self.decided(Verdict::Deny, verdict);
        self.ended(0, 0);
    }

    /// Reports that an audited policy would have denied it.
    pub(super) fn audited(&self, verdict: &ConnectionVerdict) {
        self.decided(Verdict::Audit, verdict);
    }

    /// Tells an observer, if there is one, that it passes unseen.
    pub(super) fn passed(&self, verdict: &ConnectionVerdict) {
        self.worker.telemetry.connection_passed(|| self.record(Verdict::Allow, verdict));
    }

    fn decided(&self, outcome: Verdict, verdict: &ConnectionVerdict) {
        if let Some(rule) = verdict.rule {
            self.snapshot.count(rule);
        }
        self.worker.telemetry.connection_judged(&self.record(outcome, verdict));
    }

    fn record(&self, outcome: Verdict, verdict: &ConnectionVerdict) -> ConnectionRecord<'_> {
        let (source, destination) = self.parties();
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

    pub(super) fn upstream_opened(&self) {
        self.worker.telemetry.upstream_connect(ConnectOutcome::Opened);
    }

    /// Reports that the upstream can't be reached, with what to look at.
    pub(super) fn upstream_failed(&self, error: &io::Error) {
        let outcome = match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectOutcome::Refused,
            io::ErrorKind::TimedOut => ConnectOutcome::TimedOut,
            _ => ConnectOutcome::Failed,
        };
        self.worker.telemetry.upstream_connect(outcome);
        if let Some(held_back) = self.worker.unreachable.pass(Instant::now()) {
            // What has a text of its own never left this proxy.
            let hint = match error.get_ref() {
                Some(_) => "",
                None => "; does the workload listen there?",
            };
            tracing::warn!(
                upstream = %self.upstream, client = %self.client, held_back,
                "can't reach the upstream: {error}{hint}"
            );
        }
    }

    /// How long the connection may stay in a phase.
    pub(super) fn time_allowed(&self, phase: Phase) -> Option<Duration> {
        let limits = &self.worker.limits;
        match phase {
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.header_timeout,
            Phase::Body => limits.body_timeout,
            Phase::Response => None,
            Phase::Tunnel => limits.tunnel_timeout,
        }
    }

    /// Reports the end.
    pub(super) fn ended(&self, to_upstream: u64, to_client: u64) {
        let stats = ConnectionStats {
            received: to_upstream,
            sent: to_client,
            duration: self.opened.elapsed(),
        };
        self.worker.telemetry.connection_closed(self.direction, &stats);
    }

    /// Source and destination as the log names them: the peer by its identity, the workload by
    /// its own.
    pub(super) fn parties(&self) -> (Party<'_>, Party<'_>) {
        self.parties_in(&self.snapshot)
    }

    /// The same with the labels of an older snapshot.
    pub(super) fn parties_in<'a>(&self, snapshot: &'a Snapshot) -> (Party<'a>, Party<'a>) {
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
        (party(self.client, source), party(self.upstream, destination))
    }

    fn identify(&self) -> Identity {
        let peer = match self.direction {
            TrafficDirection::Ingress => self.client.ip(),
            TrafficDirection::Egress => self.upstream.ip(),
        };
        self.snapshot.policy.identify(peer)
    }
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
