//! When to try again what failed.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// How often something has failed, and when it is tried again.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    again: Option<Instant>,
    pub(super) error: Option<String>,
}

impl Backoff {
    /// Whether it may be tried.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.again.is_none_or(|again| again <= now)
    }

    /// When it is tried again; none: it did not fail.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// It failed. Returns whether it said something else the time before.
    pub(super) fn failed(&mut self, error: String, now: Instant) -> bool {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.again = Some(now + wait);
        let is_new = self.error.as_ref() != Some(&error);
        self.error = Some(error);
        is_new
    }

    /// It worked. Returns whether it had failed before.
    pub(super) fn worked(&mut self) -> bool {
        let had_failed = self.failures > 0;
        *self = Self::default();
        had_failed
    }

    /// Something else is to be tried: at once.
    pub(super) fn hurry(&mut self) {
        self.again = None;
    }
}
