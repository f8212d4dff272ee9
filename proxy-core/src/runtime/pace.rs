//! A worker's time, shared between the endpoints of a node: deficit round robin over their connections.
//!
//! A turn of the event loop gives every endpoint a slice of time. While it lasts, its connections run
//! as they wake; after that they queue, first come, first served, until the next turn. What one of them
//! took too much is taken off the slices to come. An endpoint with nothing to do gathers nothing for
//! later, and where nobody else has anything to do the next turn comes at once, so that no time is lost.
//!
//! A proxy of one workload has none of this.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::endpoints::Quota;

/// What a turn gives to an endpoint of the usual share. The latency that one busy endpoint adds to the
/// others' is about this; shorter ones only cost more turns.
const SLICE: Duration = Duration::from_micros(200);

/// The share that gets a whole [`SLICE`].
const USUAL: u32 = 100;

/// The turns of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    turn: AtomicU64,
    /// Endpoints with connections that queue.
    hungry: Mutex<Vec<Arc<Share>>>,
    /// Told when there is a first one.
    queued: Notify,
}

impl Pace {
    /// Begins turns for as long as somebody queues. Never ends.
    pub(super) async fn run(&self) {
        loop {
            self.queued.notified().await;
            while self.any_hungry() {
                // Comes back when all that is awake has run and the sockets were asked.
                tokio::task::yield_now().await;
                self.turn.fetch_add(1, Ordering::Relaxed);
                self.serve();
            }
        }
    }

    /// Lets the first of each queue run, as far as its endpoint has time.
    fn serve(&self) {
        let mut hungry = self.hungry.lock().unwrap_or_else(PoisonError::into_inner);
        hungry.retain(|share| {
            share.call_next();
            let still = share.queues();
            share.hungry.store(still, Ordering::Relaxed);
            still
        });
    }

    fn any_hungry(&self) -> bool {
        !self.hungry.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// The time of one endpoint on one worker. Only the worker's own thread uses it; that it could be sent
/// to another is what a spawned task has to promise.
#[derive(Debug)]
pub(crate) struct Share {
    pace: Arc<Pace>,
    quota: Arc<Quota>,
    /// Nanoseconds that it may still run; below 0 it has run too long.
    credit: AtomicI64,
    /// The turn that `credit` is of.
    turn: AtomicU64,
    queue: Mutex<Queue>,
    /// `queue.waiting.len()`, to be seen without the lock.
    waiting: AtomicUsize,
    /// It is in [`Pace::hungry`].
    hungry: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waker>,
    /// How many have been called; `called + waiting.len()` is the ticket of the next.
    called: u64,
}

impl Share {
    pub(crate) fn new(pace: Arc<Pace>, quota: Arc<Quota>) -> Arc<Self> {
        Arc::new(Self {
            turn: AtomicU64::new(pace.turn.load(Ordering::Relaxed)),
            credit: AtomicI64::new(slice(&quota)),
            pace,
            quota,
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            hungry: AtomicBool::new(false),
        })
    }

    /// Work of the endpoint that no connection of it does, such as to accept one.
    pub(crate) fn charge(&self, took: Duration) {
        let took = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
        self.credit.store(self.credit().saturating_sub(took), Ordering::Relaxed);
    }

    /// What it may still run in this turn.
    fn credit(&self) -> i64 {
        let turn = self.pace.turn.load(Ordering::Relaxed);
        let before = self.turn.swap(turn, Ordering::Relaxed);
        let mut credit = self.credit.load(Ordering::Relaxed);
        if turn != before {
            let slice = slice(&self.quota);
            let turns = i64::try_from(turn.wrapping_sub(before)).unwrap_or(i64::MAX);
            credit = credit.saturating_add(slice.saturating_mul(turns)).min(slice);
            self.credit.store(credit, Ordering::Relaxed);
        }
        credit
    }

    /// Whether a connection may run now; if not, it holds a ticket then, and is woken in its turn.
    fn admits(self: &Arc<Self>, ticket: &mut Option<u64>, waker: &Waker) -> bool {
        // Nearly always: nobody queues, and there is time.
        if ticket.is_none() && !self.queues() && self.credit() > 0 {
            return true;
        }
        let mut queue = self.lock();
        match *ticket {
            Some(held) if held >= queue.called => return false,
            Some(_) => {
                *ticket = None;
                return true;
            }
            None => {}
        }
        *ticket = Some(queue.called + queue.waiting.len() as u64);
        queue.waiting.push_back(waker.clone());
        self.waiting.store(queue.waiting.len(), Ordering::Relaxed);
        drop(queue);
        if !self.hungry.swap(true, Ordering::Relaxed) {
            let mut hungry = self.pace.hungry.lock().unwrap_or_else(PoisonError::into_inner);
            hungry.push(self.clone());
            self.pace.queued.notify_one();
        }
        false
    }

    /// Wakes the next one that queues, if there is time.
    fn call_next(&self) {
        if !self.queues() || self.credit() <= 0 {
            return;
        }
        let mut queue = self.lock();
        let Some(next) = queue.waiting.pop_front() else { return };
        queue.called += 1;
        self.waiting.store(queue.waiting.len(), Ordering::Relaxed);
        drop(queue);
        next.wake();
    }

    /// Whether anybody waits.
    fn queues(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slice(quota: &Quota) -> i64 {
    let nanos = SLICE.as_nanos() * u128::from(quota.cpu_share()) / u128::from(USUAL);
    i64::try_from(nanos).unwrap_or(i64::MAX).max(1)
}

/// A connection that runs in its endpoint's time.
pub(crate) struct Paced<F> {
    share: Arc<Share>,
    ticket: Option<u64>,
    connection: Pin<Box<F>>,
}

impl<F> Paced<F> {
    pub(crate) fn new(share: Arc<Share>, connection: F) -> Self {
        Self { share, ticket: None, connection: Box::pin(connection) }
    }
}

impl<F: Future> Future for Paced<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let paced = &mut *self;
        if !paced.share.admits(&mut paced.ticket, cx.waker()) {
            return Poll::Pending;
        }
        let began = Instant::now();
        let polled = paced.connection.as_mut().poll(cx);
        paced.share.charge(began.elapsed());
        paced.share.call_next();
        polled.map(drop)
    }
}

impl<F> Drop for Paced<F> {
    fn drop(&mut self) {
        // It may have been called and not have run any more: then the next one is due.
        if self.ticket.is_some() {
            self.share.call_next();
        }
    }
}

#[cfg(test)]
mod tests;
