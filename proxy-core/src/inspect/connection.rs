//! Who talks to whom, and what policy says of it: the part that all protocols share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve_policy::{Action, ConnectionVerdict, TrafficDirection};

use portreeve_protocols::gate::Phase;

use super::reading::Reading;
use super::side::{Ends, Far, Side, canonical};
use crate::endpoints::{Account, Role};
use crate::listener::Settings;
use crate::redirection::{Target, Way};
use crate::runtime::{Joined, Judges, Moment, Registration, Tenant, Worker};
use crate::snapshot::Snapshot;
use crate::telemetry::{
    ConnectOutcome, ConnectionStats, Limit, LimitRecord, Party, Verdict, WorkerTelemetry,
};

/// A client connection under policy.
pub(crate) struct Connection {
    near: Side,
    ends: Ends,
    opened: Moment,
    /// Unique on its worker.
    sequence: u64,
    /// The time of the poll under way.
    pub(super) now: Instant,
    /// What only connections of a node's endpoints have.
    on_node: Option<Box<OnNode>>,
}

/// What a connection of one endpoint among others has.
struct OnNode {
    /// The other end is an endpoint, too.
    far: Option<Far>,
    /// Who had come when it was asked whose the other end is.
    arrivals: u64,
    /// Bytes held for it, as its endpoint's quota knows.
    held: usize,
    /// Where that counts them.
    account: Account,
}

impl Connection {
    /// A connection that `judges` will judge.
    ///
    /// # Errors
    /// The telemetry of the far one of them, if that has no room for it.
    pub(crate) fn new(
        judges: Judges,
        settings: &Settings,
        client: SocketAddr,
        upstream: SocketAddr,
        sequence: u64,
        registration: &Registration,
    ) -> Result<Self, Arc<WorkerTelemetry>> {
        let (client, upstream) = (canonical(client), canonical(upstream));
        let port = settings.policy_port.unwrap_or(upstream.port());
        let ends = Ends { client, upstream };
        let far = match judges.far {
            Some(tenant) => match tenant.registry.join(registration, Role::Server(client.ip())) {
                Some(joined) => Some((joined, tenant)),
                None => return Err(tenant.telemetry.clone()),
            },
            None => None,
        };
        let (arrivals, (tenant, direction)) = (judges.arrivals, judges.near);
        let near = Side::new(tenant, direction, &ends, port);
        let on_node = near.tenant.among_others.is_some().then(|| {
            Box::new(OnNode {
                far: far.map(|(joined, tenant)| Far::new(tenant, joined, &ends, port)),
                arrivals,
                held: 0,
                account: registration.account(),
            })
        });
        let (opened, now) = (Moment::now(), Instant::now());
        Ok(Self { near, ends, opened, sequence, now, on_node })
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.near.tenant.worker
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.near.tenant
    }

    pub(super) fn telemetry(&self) -> &WorkerTelemetry {
        self.near.telemetry()
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.near.snapshot
    }

    pub(super) fn direction(&self) -> TrafficDirection {
        self.near.direction
    }

    pub(super) fn client(&self) -> SocketAddr {
        self.ends.client
    }

    /// Policy no longer allows it.
    pub(super) fn revoked(&self) -> bool {
        self.near.revoked || self.far().is_some_and(|far| far.side.revoked)
    }

    /// The near policy no longer allows it: the far one is not asked any more.
    pub(super) fn near_revoked(&self) -> bool {
        self.near.revoked
    }

    /// It goes on only if both sides say so.
    pub(super) fn goes_on(&mut self, near: bool, far: bool) {
        self.near.revoked |= !near;
        if let Some(other) = self.far_mut() {
            other.side.revoked |= !far;
        }
    }

    /// The server's side, where it is an endpoint of this node, too.
    pub(super) fn far(&self) -> Option<&Far> {
        self.on_node.as_ref()?.far.as_ref()
    }

    fn far_mut(&mut self) -> Option<&mut Far> {
        self.on_node.as_mut()?.far.as_mut()
    }

    /// Whether all that the client sends comes over TCP.
    pub(super) fn comes_over_tcp(&self) -> bool {
        !(self.worker().joins_sockets && self.direction() == TrafficDirection::Egress)
    }

    /// Where its upstream connection goes.
    pub(super) fn target(&self) -> Target {
        let worker = self.worker();
        let way = match (&worker.as_client, &worker.bypass, self.direction()) {
            (Some(as_client), ..) => Way::AsClient(as_client.clone(), self.ends.client.ip()),
            (None, Some(bypass), TrafficDirection::Ingress) => Way::Past(bypass.clone()),
            _ => Way::Straight,
        };
        Target { address: self.ends.upstream, limit: worker.limits.connect_timeout, way }
    }

    /// Worker and connection numbers, for a request id.
    pub(super) fn number(&self) -> (usize, u64) {
        (self.worker().index, self.sequence)
    }

    /// Whether it has to be judged anew: a newer policy is in force than the one it was judged by, or
    /// somebody has come who may be at its other end.
    pub(super) fn outdated(&self) -> bool {
        self.near.outdated() || self.on_node.as_ref().is_some_and(|on_node| on_node.outdated(self))
    }

    /// A number that rises with every policy that it is judged by.
    pub(super) fn revision(&self) -> u64 {
        let far = self.far().map_or(0, |far| far.side.snapshot.revision);
        self.near.snapshot.revision + far
    }

    /// Takes the policies in force and judges anew: what the near one says. The far one's word is in
    /// [`Connection::far`].
    pub(super) fn renew(&mut self) -> ConnectionVerdict {
        let ends = self.ends;
        self.near.renew(&ends);
        if let Some(far) = self.far_mut() {
            far.side.renew(&ends);
            far.verdict = far.side.verdict();
        }
        self.look_for_others();
        self.verdict()
    }

    /// Ends it if its other end is somebody's by now who has not judged it: his policy may want to read
    /// what nobody has read.
    fn look_for_others(&mut self) {
        let Some(among_others) = &self.near.tenant.among_others else { return };
        let Some(on_node) = &mut self.on_node else { return };
        on_node.arrivals = among_others.endpoints.arrivals();
        if on_node.far.is_some() {
            return;
        }
        let (client, upstream) = (self.ends.client.ip(), self.ends.upstream.ip());
        let parties = among_others.endpoints.parties(client, upstream);
        self.near.revoked |= match self.near.direction {
            TrafficDirection::Egress => parties.server.is_some(),
            TrafficDirection::Ingress => parties.client.is_some(),
        };
    }

    /// What the near policy says of this connection, as far as this proxy can carry it out.
    pub(super) fn verdict(&self) -> ConnectionVerdict {
        self.near.verdict()
    }

    /// What is to happen, by all who judge it. A denial has been reported then.
    pub(super) fn judged(&self) -> (ConnectionVerdict, Option<Reading>) {
        let verdict = self.verdict();
        let far = self.far();
        if matches!(verdict.action, Action::Deny) {
            self.denied(&self.near, &verdict);
            return (verdict, None);
        }
        if let Some(far) = far
            && matches!(far.verdict.action, Action::Deny)
        {
            self.denied(&far.side, &far.verdict);
            return (verdict, None);
        }
        match Reading::of(&verdict.action, far.map(|far| &far.verdict.action)) {
            Ok(reading) => {
                if let (Some(far), false) = (far, matches!(reading, Reading::Unseen)) {
                    // Who does not want to read tells of the connection that it would have denied; where
                    // nobody reads, that is told with the rest.
                    self.near.audited(&self.ends, &verdict);
                    far.side.audited(&self.ends, &far.verdict);
                }
                (verdict, Some(reading))
            }
            Err(reason) => {
                // Both would read it, and not in the same protocol: the server's policy, which came
                // last, can't be carried out.
                let (side, by) =
                    far.map_or((&self.near, &verdict), |far| (&far.side, &far.verdict));
                self.denied(side, &by.clone().refused(reason));
                (verdict, None)
            }
        }
    }

    fn denied(&self, side: &Side, verdict: &ConnectionVerdict) {
        side.decided(&self.ends, Verdict::Deny, verdict);
        self.ended(0, 0);
    }

    /// Reports that it passes unread.
    pub(super) fn passed(&self, verdict: &ConnectionVerdict) {
        self.near.passed(&self.ends, verdict);
        if let Some(far) = self.far() {
            far.side.passed(&self.ends, &far.verdict);
        }
    }

    pub(super) fn upstream_opened(&self) {
        self.telemetry().upstream_connect(ConnectOutcome::Opened);
    }

    /// Reports that the upstream can't be reached, with what to look at.
    pub(super) fn upstream_failed(&self, error: &io::Error) {
        let outcome = match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectOutcome::Refused,
            io::ErrorKind::TimedOut => ConnectOutcome::TimedOut,
            _ => ConnectOutcome::Failed,
        };
        self.telemetry().upstream_connect(outcome);
        if let Some(held_back) = self.worker().unreachable.pass(Instant::now()) {
            // What has a text of its own never left this proxy.
            let hint = match error.get_ref() {
                Some(_) => "",
                None => "; does the workload listen there?",
            };
            tracing::warn!(
                upstream = %self.ends.upstream, client = %self.ends.client, held_back,
                "can't reach the upstream: {error}{hint}"
            );
        }
    }

    /// How long the connection may stay in a phase.
    pub(super) fn time_allowed(&self, phase: Phase) -> Option<Duration> {
        let limits = &self.worker().limits;
        match phase {
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.header_timeout,
            Phase::Body => limits.body_timeout,
            Phase::Response => None,
            Phase::Tunnel => limits.tunnel_timeout,
        }
    }

    /// Whether its endpoint may have only so many bytes held for it.
    pub(super) fn counts_held(&self) -> bool {
        self.on_node.is_some()
    }

    /// So many bytes are held for it now. `false`: its endpoint may not have that many. The near one is
    /// charged for both ways, for it has opened the connection or is alone here: a server that were
    /// charged for what it does not take could be robbed of its limit by any client that sends.
    pub(super) fn holds(&mut self, bytes: usize) -> bool {
        let Some(on_node) = &mut self.on_node else { return true };
        if on_node.held == bytes {
            return true;
        }
        let before = std::mem::replace(&mut on_node.held, bytes);
        let Some(among_others) = &self.near.tenant.among_others else { return true };
        let fits = among_others.quota.hold(on_node.account, before, bytes);
        if !fits {
            self.near.telemetry().limit_hit(&LimitRecord {
                direction: self.near.direction,
                client: self.ends.client,
                upstream: Some(self.ends.upstream),
                limit: Limit::Buffers,
            });
        }
        fits
    }

    /// Reports the end.
    pub(super) fn ended(&self, to_upstream: u64, to_client: u64) {
        let stats = ConnectionStats {
            received: to_upstream,
            sent: to_client,
            duration: self.opened.elapsed(),
        };
        self.telemetry().connection_closed(self.direction(), &stats);
        if let Some(Far { side, .. }) = self.far() {
            side.telemetry().connection_closed(side.direction, &stats);
        }
    }

    /// Source and destination as the log names them.
    pub(super) fn parties(&self) -> (Party<'_>, Party<'_>) {
        self.parties_in(&self.near.snapshot)
    }

    /// The same with the labels of an older snapshot.
    pub(super) fn parties_in<'a>(&self, snapshot: &'a Snapshot) -> (Party<'a>, Party<'a>) {
        self.near.parties_in(snapshot, &self.ends)
    }

    /// As the far side names them.
    pub(super) fn far_parties_in<'a>(
        &self,
        far: &Far,
        snapshot: &'a Snapshot,
    ) -> (Party<'a>, Party<'a>) {
        far.side.parties_in(snapshot, &self.ends)
    }
}

impl OnNode {
    fn outdated(&self, connection: &Connection) -> bool {
        match (&self.far, &connection.near.tenant.among_others) {
            (Some(far), _) => far.side.outdated(),
            (None, Some(among_others)) => among_others.endpoints.arrivals() != self.arrivals,
            (None, None) => false,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.holds(0);
    }
}

impl Far {
    fn new(tenant: Arc<Tenant>, joined: Joined, ends: &Ends, port: u16) -> Self {
        let side = Side::new(tenant, TrafficDirection::Ingress, ends, port);
        let verdict = side.verdict();
        Self { side, verdict, _joined: joined }
    }
}
