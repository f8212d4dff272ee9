//! The proxy's seam to the kernel, answered by the programs that this project loads.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use portreeve_core::carried_out;
use portreeve_core::redirection::{
    Exemption, KernelCounters, KernelDecisions, Redirection, Refusal,
};
use portreeve_ebpf::{
    Events, InstanceName, ListenerSlot, PolicyTable, Prepared, Redirect, ServiceConfig, Settings,
    SetupError, kernel_verdict, prepare,
};
use portreeve_policy::{EndpointPolicy, TrafficDirection};
use rustix::time::{ClockId, clock_gettime};

/// The programs, and what is kept of the proxy that they feed.
#[derive(Debug)]
pub(crate) struct Kernel {
    instance: InstanceName,
    /// The workload's cgroup, and its number: programs are attached to that one, and not to another in
    /// its place.
    cgroup: (PathBuf, Option<u64>),
    joins_sockets: bool,
    /// Until the first policy.
    prepared: Mutex<Option<(Prepared, Vec<ServiceConfig>)>>,
    /// From the first policy on, for the life of the process.
    redirect: OnceLock<&'static Redirect>,
    proxy: Mutex<Outbound>,
    /// Revision of the policy that came last.
    latest: Arc<AtomicU64>,
    /// When this proxy's first policy came, on the clock of events; what was decided before was decided
    /// by another proxy's.
    since: OnceLock<u64>,
}

/// Where the workload's connections are turned to.
#[derive(Clone, Copy, Debug, Default)]
struct Outbound {
    v4: Option<SocketAddrV4>,
    v6: Option<SocketAddrV6>,
}

impl Kernel {
    /// Looks for what is missing and loads the programs.
    pub(super) fn prepare(
        settings: &Settings,
        services: Vec<ServiceConfig>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            instance: settings.instance.clone(),
            cgroup: (settings.cgroup.clone(), number(&settings.cgroup)),
            joins_sockets: settings.join_sockets,
            prepared: Mutex::new(Some((prepare(settings)?, services))),
            redirect: OnceLock::new(),
            proxy: Mutex::default(),
            latest: Arc::default(),
            since: OnceLock::new(),
        })
    }

    pub(super) fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// The workload's cgroup, if it is not the one any more that programs are attached to.
    pub(super) fn lost_cgroup(&self) -> Option<&Path> {
        let (path, then) = &self.cgroup;
        (number(path) != *then).then_some(path)
    }

    /// What the programs tell.
    pub(super) fn events(&self) -> io::Result<Events> {
        self.redirect()?.events()
    }

    /// Puts other services in force.
    pub(super) fn set_services(&self, services: &[ServiceConfig]) -> Result<(), Refusal> {
        Ok(self.redirect()?.set_services(&shared(services.to_vec()))?)
    }

    /// Whether an event of this time was decided by a policy of this proxy.
    pub(super) fn is_ours(&self, time: u64) -> bool {
        self.since.get().is_some_and(|since| time >= *since)
    }

    fn redirect(&self) -> io::Result<&'static Redirect> {
        self.redirect.get().copied().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// With the first policy everything is there that attaching needs.
    fn begin(&self, first: &PolicyTable) -> Result<(), Refusal> {
        let Some((mut prepared, services)) = lock(&self.prepared).take() else {
            return Err("the redirection has failed to begin before".into());
        };
        let _ = self.since.set(now());
        prepared.set_policy(first)?;
        prepared.set_services(&shared(services))?;
        // Exemptions borrow it, and connections outlive everything but the process.
        let _ = self.redirect.set(Box::leak(Box::new(prepared.attach()?)));
        Ok(())
    }
}

fn shared(services: Vec<ServiceConfig>) -> Vec<Arc<ServiceConfig>> {
    services.into_iter().map(Arc::new).collect()
}

fn revoke(redirect: &Redirect, table: &PolicyTable) {
    match redirect.revoke(table) {
        Ok(0) => {}
        Ok(ended) => {
            tracing::info!(ended, "connections ended that policy does not allow as they were");
        }
        Err(error) => {
            tracing::warn!(%error, "connections that policy no longer allows may still be open");
        }
    }
}

/// A cgroup's number.
fn number(cgroup: &Path) -> Option<u64> {
    std::fs::metadata(cgroup).ok().map(|meta| meta.ino())
}

impl Redirection for Kernel {
    fn original_destination(
        &self,
        client: SocketAddr,
        local: SocketAddr,
    ) -> io::Result<SocketAddr> {
        Ok(self.redirect()?.original_destination(client, local)?.destination)
    }

    fn exempt(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Exemption> {
        Ok(Box::new(self.redirect()?.exempt(from, to)?))
    }

    fn listening(
        &self,
        direction: TrafficDirection,
        address: SocketAddr,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let redirect = self.redirect()?;
        let slot = match (direction, address) {
            (TrafficDirection::Ingress, SocketAddr::V4(_)) => ListenerSlot::InboundV4,
            (TrafficDirection::Ingress, SocketAddr::V6(_)) => ListenerSlot::InboundV6,
            (TrafficDirection::Egress, SocketAddr::V4(_)) => ListenerSlot::OutboundV4,
            (TrafficDirection::Egress, SocketAddr::V6(_)) => ListenerSlot::OutboundV6,
        };
        redirect.register(slot, socket)?;
        if direction == TrafficDirection::Ingress {
            return Ok(());
        }
        let mut proxy = lock(&self.proxy);
        match address {
            SocketAddr::V4(address) => proxy.v4 = Some(address),
            SocketAddr::V6(address) => proxy.v6 = Some(address),
        }
        redirect.set_proxy(proxy.v4, proxy.v6).map_err(io::Error::other)
    }

    fn policy(&self, revision: u64, policy: &EndpointPolicy) -> Result<(), Refusal> {
        let table = PolicyTable::new(policy, revision, |protocol, verdict| {
            kernel_verdict(protocol, &carried_out(protocol, verdict))
        });
        match self.redirect.get() {
            Some(redirect) => redirect.set_policy(&table)?,
            None => self.begin(&table)?,
        }
        let redirect = self.redirect()?;
        // Apart: the proxy is to follow the kernel at once, and the policy is in force whatever becomes
        // of this.
        let revoking = std::thread::Builder::new().name("revoke".to_owned());
        let latest = self.latest.clone();
        latest.store(revision, Ordering::Relaxed);
        revoking.spawn(move || {
            // One that was overtaken has nothing to say any more.
            if latest.load(Ordering::Relaxed) == revision {
                revoke(redirect, &table);
            }
        })?;
        Ok(())
    }

    fn joins_sockets(&self) -> bool {
        self.joins_sockets
    }

    fn counters(&self) -> io::Result<KernelCounters> {
        let counted = self.redirect()?.counters()?;
        let mut counters = KernelCounters::default();
        counters.egress = KernelDecisions {
            allowed: counted.egress_allowed,
            denied: counted.egress_denied,
            redirected: counted.egress_redirected,
        };
        counters.ingress = KernelDecisions {
            allowed: counted.ingress_allowed,
            denied: counted.ingress_denied,
            redirected: counted.ingress_redirected,
        };
        counters.events_lost = counted.events_lost;
        counters.maps_full = counted.map_full;
        counters.services_translated = counted.service_translated;
        counters.sockets_refused = counted.sockets_refused;
        counters.messages_joined = counted.messages_joined;
        Ok(counters)
    }
}

/// Now, on the clock of events.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
