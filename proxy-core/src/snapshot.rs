//! What every decision reads: one immutable snapshot, replaced whole when policy changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use portreeve_policy::EndpointPolicy;
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
        let first = Snapshot { revision: 1, since: SystemTime::now(), policy };
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
        let next = Snapshot { revision, since: SystemTime::now(), policy };
        self.current.store(Arc::new(next));
        self.revision.store(revision, Ordering::Release);
        self.changed.send_replace(revision);
        revision
    }

    /// Tells of every new revision.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
