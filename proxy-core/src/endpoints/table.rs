//! Who has which address: an immutable table, so that workers look things up while it is replaced.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{AddressTaken, EndpointStatus, Quota};
use crate::snapshot::SnapshotStore;
use crate::telemetry::EndpointCounters;

/// An endpoint, and what its connections on all workers share.
#[derive(Debug)]
pub(crate) struct Known {
    /// No other endpoint has had it, not even one of the same name before.
    pub(crate) number: u64,
    pub(crate) name: Arc<str>,
    /// Sorted, canonical.
    pub(super) addresses: Vec<IpAddr>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) quota: Arc<Quota>,
    pub(crate) counters: Arc<EndpointCounters>,
}

impl Known {
    /// Whether `addresses`, which are sorted, are at least those that it has.
    pub(super) fn keeps_all(&self, addresses: &[IpAddr]) -> bool {
        self.addresses.iter().all(|address| addresses.binary_search(address).is_ok())
    }

    /// The same endpoint once more.
    pub(super) fn share(&self) -> Self {
        Self {
            number: self.number,
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            snapshots: self.snapshots.clone(),
            quota: self.quota.clone(),
            counters: self.counters.clone(),
        }
    }

    pub(super) fn status(&self) -> EndpointStatus {
        let snapshot = self.snapshots.load();
        EndpointStatus {
            name: self.name.to_string(),
            addresses: self.addresses.clone(),
            revision: snapshot.revision,
            since: snapshot.since,
            connections: self.quota.connections(),
            buffered_bytes: self.quota.buffered(),
        }
    }
}

/// Whose a connection is: at most one endpoint on either end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parties {
    /// Who has the client's address: its egress policy judges.
    pub(crate) client: Option<Arc<Known>>,
    /// Who has the destination's address: its ingress policy judges.
    pub(crate) server: Option<Arc<Known>>,
    /// Somebody here had the destination's address a moment ago, and nobody is known to have it now.
    pub(crate) server_departed: bool,
}

/// How long an address is taken for one of this node after who had it has gone. Its next owner may be
/// here before anybody says so; and who has moved away is said to be elsewhere, or is so after a while.
const DEPARTED: Duration = Duration::from_secs(600);

/// All endpoints at one moment.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_name: BTreeMap<Arc<str>, Arc<Known>>,
    by_address: FxHashMap<IpAddr, Arc<Known>>,
    /// When the last one who had it has gone.
    departed: FxHashMap<IpAddr, Instant>,
}

impl Table {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Known>> {
        self.by_name.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_name.values()
    }

    pub(super) fn parties(&self, client: IpAddr, destination: IpAddr) -> Parties {
        let server = self.by_address.get(&destination).cloned();
        let departed = || self.departed.get(&destination).is_some_and(|at| at.elapsed() < DEPARTED);
        Parties {
            client: self.by_address.get(&client).cloned(),
            server_departed: server.is_none() && departed(),
            server,
        }
    }

    /// Whether it has an address that was nobody's, or another's.
    pub(super) fn is_new_to(&self, known: &Known) -> bool {
        known.addresses.iter().any(|address| {
            self.by_address.get(address).is_none_or(|owner| owner.number != known.number)
        })
    }

    /// The table without memory of addresses that are somewhere else; `None`: there is none of them.
    pub(super) fn without_departed(&self, elsewhere: impl Fn(IpAddr) -> bool) -> Option<Self> {
        let mut departed = self.departed.clone();
        departed.retain(|address, _| !elsewhere(*address));
        let (by_name, by_address) = (self.by_name.clone(), self.by_address.clone());
        (departed.len() < self.departed.len()).then_some(Self { by_name, by_address, departed })
    }

    /// Which of these addresses are another's than the endpoint of this name.
    pub(super) fn taken(&self, name: &str, addresses: &[IpAddr]) -> Vec<AddressTaken> {
        let taken = addresses.iter().filter_map(|address| {
            let owner = self.by_address.get(address).filter(|owner| *owner.name != *name)?;
            let (owner, name) = (owner.name.to_string(), name.to_owned());
            Some(AddressTaken { address: *address, owner, name })
        });
        taken.collect()
    }

    /// The table with this endpoint, none of whose addresses is another's, in the place of the one of its
    /// name; and that one, unless it is the same.
    pub(super) fn with(&self, known: Arc<Known>, now: Instant) -> (Self, Option<Arc<Known>>) {
        let mut by_name = self.by_name.clone();
        let before = by_name.insert(known.name.clone(), known.clone());
        let replaced = before.filter(|before| before.number != known.number);
        (self.next(by_name, now), replaced)
    }

    pub(super) fn without(&self, name: &str, now: Instant) -> Self {
        let mut by_name = self.by_name.clone();
        by_name.remove(name);
        self.next(by_name, now)
    }

    /// The table of those who are there now.
    fn next(&self, by_name: BTreeMap<Arc<str>, Arc<Known>>, now: Instant) -> Self {
        let of_each = |known: &Arc<Known>| {
            let known = known.clone();
            known.addresses.clone().into_iter().map(move |address| (address, known.clone()))
        };
        let by_address: FxHashMap<_, _> = by_name.values().flat_map(of_each).collect();
        let before = self.departed.iter().map(|(address, at)| (*address, *at));
        let before = before.filter(|(_, at)| now.saturating_duration_since(*at) < DEPARTED);
        let gone = self.by_address.keys().map(|address| (*address, now));
        let departed = before.chain(gone);
        let departed = departed.filter(|(address, _)| !by_address.contains_key(address)).collect();
        Self { by_name, by_address, departed }
    }
}
