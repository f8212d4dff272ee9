//! What one endpoint may use of the proxy that it shares with the others.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Bounds of one endpoint, over all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Connections at once, as client or as server; beyond it new ones are reset. Default 8,192: a busy
    /// workload has hundreds, and eight that misbehave still leave room under
    /// [`Limits::connections`](crate::Limits::connections).
    pub connections: usize,
    /// Bytes that the proxy holds for its connections: what one side has sent and the other has not
    /// taken, denials that wait for their turn, and what the log will say of pipelined requests. A
    /// connection that would hold more is reset. Default 64 MiB: a thousand slow readers with what a read
    /// brings.
    pub buffered_bytes: usize,
    /// What it gets of a busy worker's time, in proportion to the others' shares. Default 100. What
    /// nobody else wants anyone may have.
    pub cpu_share: u32,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self { connections: 8192, buffered_bytes: 64 * 1024 * 1024, cpu_share: 100 }
    }
}

/// How much of it is used.
#[derive(Debug)]
pub(crate) struct Quota {
    connections: AtomicUsize,
    most_connections: AtomicUsize,
    buffered: AtomicUsize,
    most_buffered: AtomicUsize,
    cpu_share: AtomicU32,
}

impl Quota {
    pub(crate) fn new(limits: &EndpointLimits) -> Self {
        let quota = Self {
            connections: AtomicUsize::new(0),
            most_connections: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            most_buffered: AtomicUsize::new(0),
            cpu_share: AtomicU32::new(0),
        };
        quota.limit(limits);
        quota
    }

    /// Other bounds from now on. What is over them stays.
    pub(super) fn limit(&self, limits: &EndpointLimits) {
        self.most_connections.store(limits.connections, Ordering::Relaxed);
        self.most_buffered.store(limits.buffered_bytes, Ordering::Relaxed);
        self.cpu_share.store(limits.cpu_share.max(1), Ordering::Relaxed);
    }

    /// Takes the place of one connection, if there is one left.
    pub(crate) fn enter(&self) -> bool {
        let most = self.most_connections.load(Ordering::Relaxed);
        let enters = self.connections.fetch_add(1, Ordering::Relaxed) < most;
        if !enters {
            self.leave();
        }
        enters
    }

    /// Gives it back.
    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection that held `before` bytes holds `now`. `false`: that is more than there may be.
    pub(crate) fn hold(&self, before: usize, now: usize) -> bool {
        if now <= before {
            self.buffered.fetch_sub(before - now, Ordering::Relaxed);
            return true;
        }
        let held = self.buffered.fetch_add(now - before, Ordering::Relaxed) + (now - before);
        held <= self.most_buffered.load(Ordering::Relaxed)
    }

    pub(crate) fn cpu_share(&self) -> u32 {
        self.cpu_share.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }
}
