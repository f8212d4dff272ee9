//! Policy files followed as they change: a thread that ends when nobody holds the guard any more.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::{Guard, Shared};
use crate::watch::PolicyWatch;

/// How often the thread looks whether it is still wanted. Longer than the watch takes to look at the
/// files by itself, which it begins anew each time.
const LOOK: Duration = Duration::from_secs(5);

/// Starts to follow. Where no thread can be had, policy stays as it is until it is reloaded.
pub(super) fn start(watched: PolicyWatch, guard: &Guard) {
    let shared = Arc::downgrade(&guard.0);
    let started = thread::Builder::new().name("policy".to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(follow(watched, &shared)),
            Err(error) => tracing::error!(%error, "policy files are not watched"),
        }
    });
    if let Err(error) = started {
        tracing::error!(%error, "policy files are not watched");
    }
}

async fn follow(mut watched: PolicyWatch, shared: &Weak<Shared>) {
    while shared.strong_count() > 0 {
        if tokio::time::timeout(LOOK, watched.changed()).await.is_err() {
            continue;
        }
        let Some(shared) = shared.upgrade() else { return };
        let guard = Guard(shared);
        match guard.reload() {
            Ok(revision) => tracing::info!(revision, "policy reloaded"),
            Err(error) => {
                let revision = guard.revision();
                tracing::error!(
                    "policy not reloaded, revision {revision} stays in force:\n{error}"
                );
            }
        }
    }
}
