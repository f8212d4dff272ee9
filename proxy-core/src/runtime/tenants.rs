//! Whose policy judges a connection: of one workload, always the same; on a node, by its addresses.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portreeve_policy::TrafficDirection;
use rustc_hash::FxHashMap;

use super::pace::Share;
use super::{Registry, Signals, Worker};
use crate::endpoints::{Endpoints, Known, Parties, Quota};
use crate::snapshot::SnapshotStore;
use crate::telemetry::{Telemetry, WorkerTelemetry};

/// One endpoint on one worker: what its connections share.
pub(crate) struct Tenant {
    pub(crate) worker: Arc<Worker>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) telemetry: Arc<WorkerTelemetry>,
    pub(crate) registry: Arc<Registry>,
    /// `None`: it has the whole proxy.
    pub(crate) among_others: Option<AmongOthers>,
}

/// What an endpoint has that shares the proxy.
pub(crate) struct AmongOthers {
    pub(crate) quota: Arc<Quota>,
    pub(crate) share: Arc<Share>,
    /// Who else is there.
    pub(crate) endpoints: Arc<Endpoints>,
    /// What its connections were told of: a revision, and who had come until then.
    told: Mutex<(u64, u64)>,
}

impl Tenant {
    /// The only one.
    pub(crate) fn alone(worker: Arc<Worker>, snapshots: Arc<SnapshotStore>) -> Self {
        let registry = Arc::new(Registry::new(worker.crowd.clone()));
        let telemetry = worker.telemetry.clone();
        Self { worker, snapshots, telemetry, registry, among_others: None }
    }

    fn of(known: &Known, many: &Many) -> Self {
        let Many { endpoints, telemetry, worker, .. } = many;
        let quota = known.quota.clone();
        // Before anything is asked of the table: who comes in between is told of.
        let arrivals = endpoints.arrivals();
        Self {
            registry: Arc::new(Registry::under(worker.crowd.clone(), quota.clone())),
            telemetry: telemetry.worker_of(&known.name, &known.counters),
            snapshots: known.snapshots.clone(),
            among_others: Some(AmongOthers {
                share: Share::new(worker.pace.clone(), quota.clone()),
                quota,
                endpoints: endpoints.clone(),
                told: Mutex::new((known.snapshots.revision(), arrivals)),
            }),
            worker: worker.clone(),
        }
    }

    /// Its time on the worker, if it does not have all of it.
    pub(crate) fn share(&self) -> Option<Arc<Share>> {
        self.among_others.as_ref().map(|among_others| among_others.share.clone())
    }

    /// Has its connections look at the policy, and at who judges them, if they have not been told.
    fn review(&self) {
        if let Some(among_others) = &self.among_others {
            let mut told = among_others.told.lock().unwrap_or_else(PoisonError::into_inner);
            let now = (self.snapshots.revision(), among_others.endpoints.arrivals());
            if std::mem::replace(&mut *told, now) == now {
                return;
            }
        }
        self.registry.signal_all(Signals::REVIEW);
    }

    fn is_over(&self) -> bool {
        self.snapshots.is_retired() && self.registry.is_empty()
    }
}

/// Who judges a connection.
pub(crate) struct Judges {
    /// The first to be asked: of both ends, the client's.
    pub(crate) near: (Arc<Tenant>, TrafficDirection),
    /// The server's, where both ends are endpoints of this node.
    pub(crate) far: Option<Arc<Tenant>>,
    /// Who had come when they were looked for; see [`Endpoints::arrivals`].
    pub(crate) arrivals: u64,
}

/// An address that is nobody's here, though it has to be somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the address of an endpoint of this node")]
pub(crate) struct NoEndpoint(pub(crate) IpAddr);

/// The endpoints that one worker has connections of.
pub(crate) enum Tenants {
    One(Arc<Tenant>),
    Many(Many),
}

/// The endpoints of a node, as far as one worker has met them.
pub(crate) struct Many {
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) worker: Arc<Worker>,
    /// By their number.
    pub(crate) met: Mutex<FxHashMap<u64, Arc<Tenant>>>,
}

impl Tenants {
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        match self {
            Self::One(tenant) => &tenant.worker,
            Self::Many(many) => &many.worker,
        }
    }

    /// Who judges a connection that was accepted for this direction.
    ///
    /// # Errors
    /// [`NoEndpoint`]: nobody here knows whose it is.
    pub(crate) fn judges(
        &self,
        direction: TrafficDirection,
        client: IpAddr,
        destination: IpAddr,
    ) -> Result<Judges, NoEndpoint> {
        match self {
            Self::One(tenant) => {
                Ok(Judges { near: (tenant.clone(), direction), far: None, arrivals: 0 })
            }
            Self::Many(many) => many.judges(direction, client, destination),
        }
    }

    /// Tells of changes of policy.
    pub(super) fn review(&self) {
        self.for_each(Tenant::review);
        self.forget();
    }

    pub(super) fn signal_all(&self, signal: Signals) {
        self.for_each(|tenant| tenant.registry.signal_all(signal));
    }

    /// Ends what has run out of time, and forgets endpoints that are gone.
    pub(super) fn sweep(&self, now: Instant) {
        self.for_each(|tenant| tenant.registry.sweep(now));
        self.forget();
    }

    fn forget(&self) {
        if let Self::Many(many) = self {
            many.lock().retain(|_, tenant| !tenant.is_over());
        }
    }

    fn for_each(&self, mut act: impl FnMut(&Tenant)) {
        match self {
            Self::One(tenant) => act(tenant),
            Self::Many(many) => many.lock().values().for_each(|tenant| act(tenant)),
        }
    }
}

impl Many {
    fn judges(
        &self,
        direction: TrafficDirection,
        client: IpAddr,
        destination: IpAddr,
    ) -> Result<Judges, NoEndpoint> {
        let (client, destination) = (client.to_canonical(), destination.to_canonical());
        let arrivals = self.endpoints.arrivals();
        let Parties { client: from, server: to, server_departed } =
            self.endpoints.parties(client, destination);
        let (near, far) = match (direction, from, to) {
            (_, Some(from), Some(to)) => {
                ((self.tenant(&from), TrafficDirection::Egress), Some(self.tenant(&to)))
            }
            // Who was there had a policy, and who is there now may have one.
            (TrafficDirection::Egress, Some(_), None) if server_departed => {
                return Err(NoEndpoint(destination));
            }
            (TrafficDirection::Egress, Some(from), None) => {
                ((self.tenant(&from), TrafficDirection::Egress), None)
            }
            (TrafficDirection::Ingress, None, Some(to)) => {
                ((self.tenant(&to), TrafficDirection::Ingress), None)
            }
            // Who is on the listener's side must be known: whatever came here else was led here wrongly.
            (TrafficDirection::Egress, None, _) => return Err(NoEndpoint(client)),
            (TrafficDirection::Ingress, _, None) => return Err(NoEndpoint(destination)),
        };
        Ok(Judges { near, far, arrivals })
    }

    fn tenant(&self, known: &Known) -> Arc<Tenant> {
        let mut met = self.lock();
        met.entry(known.number).or_insert_with(|| Arc::new(Tenant::of(known, self))).clone()
    }

    /// Only the worker's own thread asks: nobody waits.
    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<u64, Arc<Tenant>>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
