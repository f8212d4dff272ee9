//! What every decision reads: one immutable snapshot, replaced whole when policy changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use portreeve_policy::{EndpointPolicy, RuleId};
use tokio::sync::watch;

/// A policy in force, and since when.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises with every policy that comes into force; the first is 1.
    pub revision: u64,
    /// When it came into force.
    pub since: SystemTime,
    /// What the workload's policy allows.
    pub policy: EndpointPolicy,
    /// How often each rule has decided, by its index.
    hits: Box<[AtomicU64]>,
}

impl Snapshot {
    /// A snapshot; rules that the one before had, too, go on counting.
    pub(crate) fn new(revision: u64, policy: EndpointPolicy, before: Option<&Self>) -> Self {
        let mut counted = HashMap::new();
        if let Some(before) = before {
            for (rule, hits) in before.policy.rules().iter().zip(&before.hits) {
                counted.insert((rule.policy(), rule.section()), hits.load(Ordering::Relaxed));
            }
        }
        let hits = policy.rules().iter().map(|rule| {
            let hits = counted.get(&(rule.policy(), rule.section()));
            AtomicU64::new(hits.copied().unwrap_or_default())
        });
        let hits = hits.collect();
        Self { revision, since: SystemTime::now(), policy, hits }
    }

    /// The same policy in force, knowing more peers than before.
    pub(crate) fn knowing(&self, policy: EndpointPolicy) -> Self {
        Self { since: self.since, ..Self::new(self.revision, policy, Some(self)) }
    }

    /// Counts a decision of this rule.
    pub fn count(&self, rule: RuleId) {
        self.count_index(Some(rule.index()));
    }

    /// Counts a decision of the rule of this index, if there is one.
    pub(crate) fn count_index(&self, rule: Option<usize>) {
        if let Some(hits) = rule.and_then(|index| self.hits.get(index)) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each rule has decided, in the order of [`EndpointPolicy::rules`].
    pub fn hits(&self) -> impl Iterator<Item = u64> {
        self.hits.iter().map(|hits| hits.load(Ordering::Relaxed))
    }
}

/// Holds the snapshot in force. Readers compare a number per request and load the snapshot only
/// when it has changed.
#[derive(Debug)]
pub struct SnapshotStore {
    current: ArcSwap<Snapshot>,
    revision: AtomicU64,
    changed: watch::Sender<u64>,
}

impl SnapshotStore {
    /// A store whose first snapshot is `policy`, as revision 1.
    #[must_use]
    pub fn new(policy: EndpointPolicy) -> Self {
        let first = Snapshot::new(1, policy, None);
        Self {
            current: ArcSwap::from_pointee(first),
            revision: AtomicU64::new(1),
            changed: watch::Sender::new(1),
        }
    }

    /// The snapshot in force.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The revision in force: one relaxed-cost load, for the question "has anything changed?".
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Puts `policy` in force with one atomic store and returns its revision. Requests judged
    /// after this returns are judged by it. To be called by one thread at a time.
    pub fn replace(&self, policy: EndpointPolicy) -> u64 {
        let revision = self.revision() + 1;
        let next = Snapshot::new(revision, policy, Some(&self.current.load()));
        self.current.store(Arc::new(next));
        self.revision.store(revision, Ordering::Release);
        self.changed.send_replace(revision);
        revision
    }

    /// The endpoint is gone: nothing is in force any more, and whoever compares revisions notices.
    pub(crate) fn retire(&self) {
        self.revision.store(RETIRED, Ordering::Release);
        self.changed.send_replace(RETIRED);
    }

    /// Whether the endpoint is gone.
    pub(crate) fn is_retired(&self) -> bool {
        self.revision() == RETIRED
    }

    /// Tells of every new revision.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// The revision of who has none any more: that of no snapshot.
const RETIRED: u64 = u64::MAX;
