//! Which parts of a pair have something to do. Each part (two connections, every stream) has a waker
//! of its own that sets a bit; the pair's task then polls only those. A wake-up from within the pair's
//! own poll sets the bit and wakes nobody: the poll under way sees it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};

/// The client connection's part.
pub(super) const FRONT: usize = 0;
/// The upstream connection's part.
pub(super) const BACK: usize = 1;
/// The first stream's part.
pub(super) const STREAMS: usize = 2;

/// The parts of one pair.
pub(super) struct Ready {
    shared: Arc<Shared>,
    /// Made when a part is first polled, kept for the next stream in its place.
    wakers: Vec<Waker>,
}

struct Shared {
    bits: Box<[AtomicU64]>,
    /// The pair is being polled.
    polling: AtomicBool,
    /// Set at the first poll; a spawned task's waker stays the same for life.
    task: OnceLock<Waker>,
}

struct Part {
    shared: Arc<Shared>,
    index: usize,
}

impl Wake for Part {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.set(self.index);
        if !self.shared.polling.load(Ordering::SeqCst)
            && let Some(task) = self.shared.task.get()
        {
            task.wake_by_ref();
        }
    }
}

impl Shared {
    fn set(&self, index: usize) {
        self.bits[index / 64].fetch_or(1 << (index % 64), Ordering::SeqCst);
    }
}

impl Ready {
    /// For `parts` parts, none of them due.
    pub(super) fn new(parts: usize) -> Self {
        let bits = (0..parts.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let shared = Shared { bits, polling: AtomicBool::new(false), task: OnceLock::new() };
        Self { shared: Arc::new(shared), wakers: Vec::new() }
    }

    /// The pair's task begins to poll.
    pub(super) fn begin(&self, task: &Waker) {
        if self.shared.task.get().is_none() {
            let _ = self.shared.task.set(task.clone());
        }
        self.shared.polling.store(true, Ordering::SeqCst);
    }

    /// The poll is over; whether a part is due nevertheless.
    pub(super) fn end(&self) -> bool {
        self.shared.polling.store(false, Ordering::SeqCst);
        // Whoever wakes sets a bit and then looks at `polling`: one of the two sees the other.
        self.shared.bits.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// A part is to be polled.
    pub(super) fn set(&self, part: usize) {
        self.shared.set(part);
    }

    /// Whether this part is due, once.
    pub(super) fn take(&self, part: usize) -> bool {
        let bit = 1 << (part % 64);
        let word = &self.shared.bits[part / 64];
        word.load(Ordering::Acquire) & bit != 0 && word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// The streams that are due, once; 64 of them from `word` on.
    pub(super) fn take_streams(&self, word: usize) -> u64 {
        let connections = if word == 0 { (1 << STREAMS) - 1 } else { 0 };
        let bits = &self.shared.bits[word];
        match bits.load(Ordering::Acquire) & !connections {
            0 => 0,
            _ => bits.fetch_and(connections, Ordering::AcqRel) & !connections,
        }
    }

    /// How many words of bits there are.
    pub(super) fn words(&self) -> usize {
        self.shared.bits.len()
    }

    /// Polls a part with its own waker.
    pub(super) fn poll<R>(&mut self, part: usize, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
        poll(&mut Context::from_waker(self.waker(part)))
    }

    fn waker(&mut self, part: usize) -> &Waker {
        while self.wakers.len() <= part {
            let index = self.wakers.len();
            self.wakers.push(Arc::new(Part { shared: self.shared.clone(), index }).into());
        }
        &self.wakers[part]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_part_that_wakes_is_due_once_and_wakes_the_task_only_from_outside() {
        let count = Arc::new(Count::default());
        let mut ready = Ready::new(200);
        ready.begin(&count.clone().into());
        ready.waker(130).wake_by_ref();
        ready.waker(FRONT).wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(ready.take(FRONT) && !ready.take(FRONT));
        assert_eq!((ready.take_streams(0), ready.take_streams(2)), (0, 1 << 2));
        assert!(!ready.end());
        ready.waker(5).wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(ready.end());
        assert_eq!(ready.take_streams(0), 1 << 5);
    }
}
