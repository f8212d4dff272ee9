//! Tells when policy files may have changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::config::PolicySource;
use crate::policy_files::{Fingerprint, fingerprint, folders};

/// How long to wait for a change to be complete: editors and tools write in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// How often the files are looked at without being told.
const POLL: Duration = Duration::from_secs(2);

/// Watches policy paths for changes.
pub(crate) struct PolicyWatch {
    paths: Vec<PathBuf>,
    seen: Fingerprint,
    told: Arc<Notify>,
    /// Kept alive; `None` where the kernel does not notify, and the slow poll has to do.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl PolicyWatch {
    /// Watches where policy comes from, if that is files that are to be watched.
    pub(crate) fn of(source: &PolicySource) -> Option<Self> {
        source.files().filter(|files| files.watch).map(|files| Self::new(files.paths.clone()))
    }

    /// Starts to watch. What the files are now counts as seen.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let told = Arc::new(Notify::new());
        let watcher = watcher(&paths, told.clone())
            .inspect_err(|error| tracing::warn!(%error, "can't watch policy files, polling them"))
            .ok();
        Self { seen: fingerprint(&paths), paths, told, _watcher: watcher }
    }

    /// Waits until the files have changed and have stopped changing. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::select! {
                () = self.told.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            if fingerprint(&self.paths) != self.seen {
                break;
            }
        }
        loop {
            let before = fingerprint(&self.paths);
            tokio::time::sleep(SETTLE).await;
            if fingerprint(&self.paths) == before {
                self.seen = before;
                return;
            }
        }
    }
}

fn watcher(paths: &[PathBuf], told: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event, too; only the others say anything.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            told.notify_one();
        }
    })?;
    for folder in folders(paths) {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
