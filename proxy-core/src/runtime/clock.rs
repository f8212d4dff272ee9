//! Instants as milliseconds since the process began to count, so that a deadline fits an atomic.

use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds from the first call in this process to `instant`, plus one: never 0, which stands
/// for "no deadline".
pub(super) fn millis(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(*START).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
}
