//! A message at most once a second, so that a flood of failures is not a flood of messages, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clock::millis;

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one message through in a second and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// [`millis`] of when the next message may pass.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    /// Whether a message may pass now: `Some` with how many were held back before it.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        if millis(now) < self.next.load(Ordering::Relaxed) {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.next.store(millis(now + INTERVAL), Ordering::Relaxed);
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_a_second_passes_and_the_others_are_counted() {
        let (throttle, begin) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.pass(begin), Some(0));
        assert_eq!(throttle.pass(begin), None);
        assert_eq!(throttle.pass(begin + INTERVAL / 2), None);
        assert_eq!(throttle.pass(begin + INTERVAL), Some(2));
    }
}
