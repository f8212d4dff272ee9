//! Whose policy judges a connection: of one workload, always the same; on a node, by its addresses.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portreeve_policy::TrafficDirection;
use rustc_hash::FxHashMap;

use super::pace::Share;
use super::{Registry, Signals, Worker};
use crate::endpoints::{Endpoints, Known, Quota};
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
    /// The revision that its connections were told of.
    told: Mutex<u64>,
}

impl Tenant {
    /// The only one.
    pub(crate) fn alone(worker: Arc<Worker>, snapshots: Arc<SnapshotStore>) -> Self {
        let registry = Arc::new(Registry::new(worker.crowd.clone()));
        let telemetry = worker.telemetry.clone();
        Self { worker, snapshots, telemetry, registry, among_others: None }
    }

    fn of(known: &Known, worker: &Arc<Worker>, telemetry: &Telemetry) -> Self {
        let quota = known.quota.clone();
        Self {
            registry: Arc::new(Registry::under(worker.crowd.clone(), quota.clone())),
            telemetry: telemetry.worker_of(&known.name, &known.counters),
            snapshots: known.snapshots.clone(),
            among_others: Some(AmongOthers {
                share: Share::new(worker.pace.clone(), quota.clone()),
                quota,
                told: Mutex::new(known.snapshots.revision()),
            }),
            worker: worker.clone(),
        }
    }

    /// Its time on the worker, if it does not have all of it.
    pub(crate) fn share(&self) -> Option<Arc<Share>> {
        self.among_others.as_ref().map(|among_others| among_others.share.clone())
    }

    /// Has its connections look at the policy, if they have not been told of the one in force.
    fn review(&self) {
        if let Some(among_others) = &self.among_others {
            let mut told = among_others.told.lock().unwrap_or_else(PoisonError::into_inner);
            let revision = self.snapshots.revision();
            if std::mem::replace(&mut *told, revision) == revision {
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
}

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

    /// Who judges a connection that was accepted for this direction; `None`: nobody here knows whose it
    /// is.
    pub(crate) fn judges(
        &self,
        direction: TrafficDirection,
        client: IpAddr,
        destination: IpAddr,
    ) -> Option<Judges> {
        match self {
            Self::One(tenant) => Some(Judges { near: (tenant.clone(), direction), far: None }),
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
    ) -> Option<Judges> {
        let parties = self.endpoints.parties(client.to_canonical(), destination.to_canonical());
        // Who is on the listener's side must be known: whatever came here else was led here wrongly.
        match direction {
            TrafficDirection::Egress => parties.client.as_ref()?,
            TrafficDirection::Ingress => parties.server.as_ref()?,
        };
        let (client, server) = (parties.client.as_deref(), parties.server.as_deref());
        match (client, server) {
            (Some(client), server) => Some(Judges {
                near: (self.tenant(client), TrafficDirection::Egress),
                far: server.map(|server| self.tenant(server)),
            }),
            (None, server) => {
                Some(Judges { near: (self.tenant(server?), TrafficDirection::Ingress), far: None })
            }
        }
    }

    fn tenant(&self, known: &Known) -> Arc<Tenant> {
        let mut met = self.lock();
        let new = || Arc::new(Tenant::of(known, &self.worker, &self.telemetry));
        met.entry(known.number).or_insert_with(new).clone()
    }

    /// Only the worker's own thread asks: nobody waits.
    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<u64, Arc<Tenant>>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
