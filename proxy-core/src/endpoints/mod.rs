//! The endpoints of a node: many workloads under one proxy, each with its own policy, limits and
//! numbers.
//!
//! The program that knows the node tells [`Endpoints`] who comes, changes and goes; workers ask it once
//! for each connection whose it is, by the addresses of its two ends. A connection whose client *and*
//! whose server are endpoints here is judged by both policies in one pass.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Endpoints`]: who is there, from any thread |
//! | `table.rs` | the table that workers read: immutable, replaced whole |
//! | `quota.rs` | [`EndpointLimits`], and what of them is used up |
//!
//! Nothing here judges: a policy is a [`Snapshot`](crate::Snapshot) as it is for one workload.

mod quota;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use portreeve_policy::EndpointPolicy;
use tokio::sync::watch;

pub use self::quota::EndpointLimits;
pub(crate) use self::quota::{Account, Quota, Role};
use self::table::Table;
pub(crate) use self::table::{Known, Parties};
use crate::snapshot::SnapshotStore;
use crate::telemetry::EndpointCounters;

/// A workload of this node, as the program knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Unique on the node; what logs and metrics call it.
    pub name: String,
    /// Its addresses. Each is one endpoint's: who comes first has it, see [`Endpoints::upsert`].
    pub addresses: Vec<IpAddr>,
    /// What it may use of the proxy.
    pub limits: EndpointLimits,
}

/// There is no endpoint of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no endpoint `{0}`")]
pub struct UnknownEndpoint(pub String);

/// What came of [`Endpoints::upsert`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an address that is another's was not given to the endpoint"]
#[non_exhaustive]
pub struct Upserted {
    /// The revision of the endpoint's policy.
    pub revision: u64,
    /// The addresses that it was not given.
    pub refused: Vec<AddressTaken>,
}

/// An address is another endpoint's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is the address of endpoint `{owner}`, and can't be `{name}`'s, too")]
pub struct AddressTaken {
    /// The address.
    pub address: IpAddr,
    /// Who has it, and keeps it.
    pub owner: String,
    /// Who was to have it.
    pub name: String,
}

/// How an endpoint stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The revision of its policy in force.
    pub revision: u64,
    /// Since when.
    pub since: SystemTime,
    /// Connections open now, as client or as server.
    pub connections: usize,
    /// Bytes that the proxy holds for them.
    pub buffered_bytes: usize,
}

/// The endpoints of a node. Reading takes no lock; changes are made one after the other.
#[derive(Debug)]
pub struct Endpoints {
    table: ArcSwap<Table>,
    /// Held by who changes; the number of the next endpoint.
    next: Mutex<u64>,
    /// Rises whenever somebody has an address that was nobody's or another's.
    arrivals: AtomicU64,
    /// Told when a policy was replaced, or an endpoint has come or gone.
    changed: watch::Sender<()>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::default()),
            next: Mutex::new(1),
            arrivals: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        }
    }
}

impl Endpoints {
    /// Adds an endpoint, or replaces what is known of the one of this name, and puts `policy` in force
    /// for it.
    ///
    /// An address that another endpoint has stays that one's, and its policy's: the endpoint is there
    /// without it, and [`Upserted::refused`] says so. To give it to this one, the other has to be removed,
    /// or named without it, and then this one to be named again. Of two that change addresses with each
    /// other, the first is without one until it is named again.
    ///
    /// An endpoint that has lost an address begins anew: its connections are closed, for the address is
    /// another workload's, or will be. So are connections with an address that was nobody's: who is there
    /// now has not judged them.
    pub fn upsert(&self, config: EndpointConfig, policy: EndpointPolicy) -> Upserted {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addresses: Vec<IpAddr> =
            config.addresses.iter().map(IpAddr::to_canonical).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let table = self.table.load();
        let refused = table.taken(&config.name, &addresses);
        addresses.retain(|address| refused.iter().all(|taken| taken.address != *address));
        let before = table.get(&config.name).filter(|before| before.keeps_all(&addresses));
        let (known, revision) = match before {
            Some(before) => {
                before.quota.limit(&config.limits);
                let revision = before.snapshots.replace(policy);
                (Known { addresses, ..before.share() }, revision)
            }
            None => {
                let known = Known {
                    number: *next,
                    name: config.name.into(),
                    addresses,
                    snapshots: Arc::new(SnapshotStore::new(policy)),
                    quota: Arc::new(Quota::new(&config.limits)),
                    counters: Arc::<EndpointCounters>::default(),
                };
                *next += 1;
                (known, 1)
            }
        };
        let arrives = table.is_new_to(&known);
        let (table, replaced) = table.with(Arc::new(known), Instant::now());
        self.table.store(Arc::new(table));
        if arrives {
            self.arrivals.fetch_add(1, Ordering::Release);
        }
        if let Some(gone) = replaced {
            gone.snapshots.retire();
        }
        self.changed.send_replace(());
        Upserted { revision, refused }
    }

    /// Puts a policy in force for one endpoint; the others' connections do not notice. Requests judged
    /// after this returns are judged by it. Returns its revision.
    ///
    /// # Errors
    /// [`UnknownEndpoint`].
    pub fn set_policy(&self, name: &str, policy: EndpointPolicy) -> Result<u64, UnknownEndpoint> {
        let _one_at_a_time = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load();
        let known = table.get(name).ok_or_else(|| UnknownEndpoint(name.to_owned()))?;
        let revision = known.snapshots.replace(policy);
        self.changed.send_replace(());
        Ok(revision)
    }

    /// Takes an endpoint away: its connections are closed, and new ones from and to its addresses refused.
    /// For ten minutes its addresses are taken for ones of this node: whoever comes next there may not be
    /// known yet. `false`: there was none of this name.
    pub fn remove(&self, name: &str) -> bool {
        let _one_at_a_time = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load();
        let Some(gone) = table.get(name).cloned() else { return false };
        self.table.store(Arc::new(table.without(name, Instant::now())));
        gone.snapshots.retire();
        self.changed.send_replace(());
        true
    }

    /// Every endpoint, by name.
    #[must_use]
    pub fn list(&self) -> Vec<EndpointStatus> {
        self.table.load().iter().map(|known| known.status()).collect()
    }

    /// How the endpoint of this name stands.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<EndpointStatus> {
        self.table.load().get(name).map(|known| known.status())
    }

    /// Whose a connection is. Both addresses in their canonical form.
    pub(crate) fn parties(&self, client: IpAddr, destination: IpAddr) -> Parties {
        self.table.load().parties(client, destination)
    }

    /// These addresses are known to be elsewhere, whoever had them here.
    pub fn elsewhere(&self, is_elsewhere: impl Fn(IpAddr) -> bool) {
        let _one_at_a_time = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = self.table.load().without_departed(is_elsewhere) {
            self.table.store(Arc::new(table));
        }
    }

    /// How often somebody has come. To be asked before [`Endpoints::parties`]: who comes in between is
    /// noticed later.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    /// The endpoint of this name.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<Known>> {
        self.table.load().get(name).cloned()
    }

    /// Calls `each` with every endpoint.
    pub(crate) fn for_each(&self, each: impl FnMut(&Arc<Known>)) {
        self.table.load().iter().for_each(each);
    }

    /// Tells of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
