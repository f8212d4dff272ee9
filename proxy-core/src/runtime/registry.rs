//! The connections of one worker thread, by the endpoint whose policy judges them.
//!
//! A connection owns no timer: it writes its deadline into its [`Handle`], and the worker's
//! sweeper looks at all handles a few times a second. Ten thousand idle connections cost the
//! sweeper some tens of microseconds, a timer each would cost memory and a lock per request.

use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

use super::clock::millis;
use crate::endpoints::{Account, Quota, Role};

/// What the runtime wants of a connection; seen at its next poll.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signals(u8);

impl Signals {
    /// The deadline has passed.
    pub(crate) const EXPIRED: Self = Self(1);
    /// Policy has changed.
    pub(crate) const REVIEW: Self = Self(2);
    /// End between messages. Stays set.
    pub(crate) const DRAIN: Self = Self(4);
    /// End now.
    pub(crate) const ABORT: Self = Self(8);

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The face that a connection shows to its worker.
pub(crate) struct Handle {
    /// Set at the first poll; a spawned task's waker stays the same for life.
    waker: OnceLock<Waker>,
    /// [`millis`] of the deadline; 0: none.
    deadline: AtomicU64,
    signals: AtomicU8,
    registry: Arc<Registry>,
    slot: usize,
    /// Where its endpoint's quota counts it.
    account: Account,
}

impl Handle {
    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// Keeps the task's waker, at its first poll.
    pub(crate) fn remember(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            let _ = self.waker.set(waker.clone());
        }
    }

    /// What is wanted, once (draining is wanted for good).
    pub(crate) fn take_signals(&self) -> Signals {
        // The load keeps the usual poll free of a read-modify-write.
        match self.signals.load(Ordering::Relaxed) {
            0 => Signals(0),
            _ => Signals(self.signals.fetch_and(Signals::DRAIN.0, Ordering::AcqRel)),
        }
    }

    pub(crate) fn draining(&self) -> bool {
        Signals(self.signals.load(Ordering::Relaxed)).contains(Signals::DRAIN)
    }

    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.store(deadline.map_or(0, millis), Ordering::Relaxed);
    }

    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn deadline_passed(&self, now: Instant) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != 0 && deadline <= millis(now)
    }

    fn signal(&self, signal: Signals) {
        self.signals.fetch_or(signal.0, Ordering::AcqRel);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// Ends the registration of a connection when its task ends, however it ends.
pub(crate) struct Registration(Arc<Handle>);

impl Deref for Registration {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.registry.remove(self.0.slot, self.0.account);
    }
}

/// How many connections a worker has, over all endpoints.
#[derive(Debug)]
pub(crate) struct Crowd {
    active: AtomicUsize,
    limit: usize,
    /// Told when the first connection opens and when the last one ends.
    pub(super) changed: Notify,
}

impl Crowd {
    /// At most `limit` of them.
    pub(crate) fn new(limit: usize) -> Self {
        Self { active: AtomicUsize::new(0), limit, changed: Notify::new() }
    }

    /// Connections open now.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Only the worker's own thread opens connections: nobody can come in between.
    pub(crate) fn is_full(&self) -> bool {
        self.active() >= self.limit
    }

    fn enter(&self) {
        if self.active.fetch_add(1, Ordering::Relaxed) == 0 {
            self.changed.notify_one();
        }
    }

    fn leave(&self) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.changed.notify_one();
        }
    }
}

/// The connections of one endpoint on one worker.
pub(crate) struct Registry {
    slots: Mutex<Slots>,
    crowd: Arc<Crowd>,
    /// What the endpoint may have on all workers; `None`: whatever the worker has room for.
    quota: Option<Arc<Quota>>,
}

#[derive(Default)]
struct Slots {
    handles: Vec<Option<Arc<Handle>>>,
    free: Vec<usize>,
}

impl Registry {
    /// Of a worker that has this one endpoint.
    pub(crate) fn new(crowd: Arc<Crowd>) -> Self {
        Self { slots: Mutex::default(), crowd, quota: None }
    }

    /// Of one endpoint among others.
    pub(crate) fn under(crowd: Arc<Crowd>, quota: Arc<Quota>) -> Self {
        Self { slots: Mutex::default(), crowd, quota: Some(quota) }
    }

    /// Registers a connection in which the endpoint has this role; `None`: it has too many. Whether the
    /// worker has, is for [`Crowd::is_full`] to say.
    pub(crate) fn register(self: &Arc<Self>, role: Role) -> Option<Registration> {
        let account = self.enter(role)?;
        let handle = self.insert(|slot| {
            Arc::new(Handle {
                waker: OnceLock::new(),
                deadline: AtomicU64::new(0),
                signals: AtomicU8::new(0),
                registry: self.clone(),
                slot,
                account,
            })
        });
        self.crowd.enter();
        Some(Registration(handle.1))
    }

    /// Has a connection of another endpoint, which this one's policy judges, too, hear what the
    /// connections of this one hear. `None`: this endpoint has too many.
    pub(crate) fn join(self: &Arc<Self>, other: &Registration, role: Role) -> Option<Joined> {
        let account = self.enter(role)?;
        let (slot, _) = self.insert(|_| other.0.clone());
        Some(Joined { registry: self.clone(), slot, account })
    }

    /// Takes one of the endpoint's places.
    fn enter(&self, role: Role) -> Option<Account> {
        match &self.quota {
            // Nobody counts it.
            None => Some(Account::OfClient),
            Some(quota) => Some(role.into()).filter(|account| quota.enter(*account)),
        }
    }

    fn insert(&self, handle: impl FnOnce(usize) -> Arc<Handle>) -> (usize, Arc<Handle>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.handles.push(None);
            slots.handles.len() - 1
        });
        let handle = handle(slot);
        slots.handles[slot] = Some(handle.clone());
        (slot, handle)
    }

    /// Gives a slot and its place back.
    fn take(&self, slot: usize, account: Account) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = slots.handles.get_mut(slot).and_then(Option::take);
        slots.free.push(slot);
        drop(slots);
        drop(handle);
        if let Some(quota) = &self.quota {
            quota.leave(account);
        }
    }

    fn remove(&self, slot: usize, account: Account) {
        self.take(slot, account);
        self.crowd.leave();
    }

    /// Whether it has none now.
    pub(super) fn is_empty(&self) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.handles.len() == slots.free.len()
    }

    /// Signals every connection.
    pub(crate) fn signal_all(&self, signal: Signals) {
        self.for_each(|handle| handle.signal(signal));
    }

    /// Signals the connections whose deadline has passed.
    pub(crate) fn sweep(&self, now: Instant) {
        self.for_each(|handle| {
            if handle.deadline_passed(now) {
                handle.signal(Signals::EXPIRED);
            }
        });
    }

    fn for_each(&self, mut act: impl FnMut(&Handle)) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in slots.handles.iter().flatten() {
            act(handle);
        }
    }
}

/// Ends what [`Registry::join`] began when it is dropped.
pub(crate) struct Joined {
    registry: Arc<Registry>,
    slot: usize,
    account: Account,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.registry.take(self.slot, self.account);
    }
}
