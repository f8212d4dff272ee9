//! Instants as numbers, which take half the room: in nanoseconds, or as milliseconds since the process began to count, so that a deadline fits an atomic.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A moment in half of what an [`Instant`] takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(nanos(Instant::now()))
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_nanos(nanos(Instant::now()).saturating_sub(self.0))
    }
}

fn nanos(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(*START).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// Milliseconds from the first call in this process to `instant`, plus one: never 0, which stands
/// for "no deadline".
pub(super) fn millis(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(*START).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
}
