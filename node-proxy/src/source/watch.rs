//! A folder that is watched: read again when the kernel says that something in it has changed, and now
//! and then where the kernel doesn't (network file systems, a folder that was replaced).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use portreeve_policy::{Diagnostic, Severity};
use tokio::sync::Notify;

use super::{Batch, Folder, FolderError, NextBatch, Source};

/// How long to wait for a change to be complete: editors and tools write in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// The longest wait for that: somebody may be writing all the time.
const PATIENCE: u32 = 20;

/// How often the folder is looked at without being told.
const POLL: Duration = Duration::from_secs(2);

/// A folder that is watched.
#[derive(Debug)]
pub struct WatchedFolder {
    folder: Folder,
    told: Arc<Notify>,
    /// Asks for everything to be read again.
    again: Arc<Notify>,
    first: Option<Batch>,
    /// What could not be read, and what was there twice, when it was last said.
    said: (Vec<Diagnostic>, Vec<Diagnostic>),
    /// Kept alive; `None` where the kernel does not notify, and the slow poll has to do.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl WatchedFolder {
    /// Reads a folder and starts to watch it. `again` makes it read everything
    /// again at once.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn open(path: &Path, again: Arc<Notify>) -> Result<Self, FolderError> {
        let told = Arc::new(Notify::new());
        // Watched first: what changes while it is read is not missed.
        let watcher = watcher(path, told.clone())
            .inspect_err(|error| tracing::warn!(%error, "can't watch the objects, polling them"))
            .ok();
        let mut folder = Folder::new(path);
        let first = folder.read()?;
        let said = (first.unreadable.clone(), first.doubles.clone());
        Ok(Self { folder, told, again, first: Some(first), said, _watcher: watcher })
    }

    /// What can't be read.
    #[must_use]
    pub fn unreadable(&self) -> &[Diagnostic] {
        &self.said.0
    }

    async fn changed(&mut self) -> Batch {
        if let Some(first) = self.first.take() {
            return first;
        }
        loop {
            tokio::select! {
                () = self.told.notified() => self.settle().await,
                () = self.again.notified() => self.folder.look_at_all(),
                () = tokio::time::sleep(POLL) => {}
            }
            let batch = self.read();
            let said = (batch.unreadable.clone(), batch.doubles.clone());
            if !batch.events.is_empty() || said != self.said {
                self.said = said;
                return batch;
            }
        }
    }

    /// Waits until nothing is written for a moment.
    async fn settle(&self) {
        for _ in 0..PATIENCE {
            if tokio::time::timeout(SETTLE, self.told.notified()).await.is_err() {
                return;
            }
        }
    }

    fn read(&mut self) -> Batch {
        self.folder.read().unwrap_or_else(|error| {
            let unreadable = vec![Diagnostic {
                severity: Severity::Error,
                source: error.path.display().to_string(),
                line: 0,
                column: 0,
                path: String::new(),
                message: format!("can't be read: {}", error.source),
                hint: Some("all objects stay as they were".to_owned()),
                excerpt: None,
                advice: false,
            }];
            Batch { unreadable, ..Batch::default() }
        })
    }
}

impl Source for WatchedFolder {
    fn next(&mut self) -> NextBatch<'_> {
        Box::pin(self.changed())
    }

    fn name(&self) -> String {
        self.folder.path().display().to_string()
    }
}

fn watcher(path: &Path, told: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event, too; only the others say anything.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            told.notify_one();
        }
    })?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
