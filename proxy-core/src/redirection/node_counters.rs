//! What the programs of a node have counted themselves, asked for when somebody wants to see it.

use std::fmt;
use std::io;
use std::sync::Arc;

use portreeve_policy::TrafficDirection;

/// Packets of all endpoints, since the programs were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeKernelCounters {
    /// What became of them: each packet once for each direction that it has gone.
    pub packets: Vec<KernelPackets>,
    /// What was done with some of them besides.
    pub actions: Vec<KernelPackets>,
    /// Events that found no room in the queue that they are told by.
    pub events_lost: u64,
}

/// Packets of one direction of which the same has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelPackets {
    /// As the workloads see it.
    pub direction: TrafficDirection,
    /// A stable name.
    pub outcome: &'static str,
    /// How many.
    pub packets: u64,
}

/// Who is asked for it, or nobody.
#[derive(Clone, Default)]
pub struct KernelCounting(Option<Arc<Count>>);

type Count = dyn Fn() -> io::Result<NodeKernelCounters> + Send + Sync;

impl KernelCounting {
    /// This one.
    pub fn by(count: impl Fn() -> io::Result<NodeKernelCounters> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(count)))
    }

    /// What has been counted; `None`: nobody counts, or it can't be read.
    pub(crate) fn read(&self) -> Option<NodeKernelCounters> {
        let read = self.0.as_ref()?();
        read.inspect_err(|error| tracing::warn!("can't read the kernel's counters: {error}")).ok()
    }
}

impl fmt::Debug for KernelCounting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "KernelCounting" } else { "Uncounted" })
    }
}
