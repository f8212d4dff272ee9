//! A folder that is watched: read again when the kernel says that something in it has changed, and now
//! and then where the kernel doesn't (network file systems, a folder that was replaced).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{ModifyKind, RenameMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use portreeve_policy::{Diagnostic, Severity};
use tokio::sync::Notify;

use super::folder::is_of_objects;
use super::settle::{Hints, SETTLE};
use super::{Batch, Folder, FolderError, NextBatch, Source};

/// What is moved to its place is seldom alone.
const TOGETHER: Duration = Duration::from_millis(1);

/// How often the folder is looked at without being told.
const POLL: Duration = Duration::from_secs(2);

/// What the kernel has told.
#[derive(Debug, Default)]
struct Told {
    something: Notify,
    hints: Mutex<Hints>,
}

/// A folder that is watched.
#[derive(Debug)]
pub struct WatchedFolder {
    folder: Folder,
    told: Arc<Told>,
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
        let told = Arc::<Told>::default();
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
            let pause = if self.folder.is_waiting() { SETTLE } else { POLL };
            let mut all = false;
            tokio::select! {
                () = self.told.something.notified() => tokio::time::sleep(TOGETHER).await,
                () = self.again.notified() => {
                    self.folder.look_at_all();
                    all = true;
                }
                () = tokio::time::sleep(pause) => {}
            }
            let batch = self.read(all);
            let said = (batch.unreadable.clone(), batch.doubles.clone());
            if !batch.events.is_empty() || said != self.said {
                self.said = said;
                return batch;
            }
        }
    }

    fn read(&mut self, all: bool) -> Batch {
        let mut hints = std::mem::take(&mut *self.told.hints());
        hints.all |= all;
        self.folder.look(&hints).unwrap_or_else(|error| {
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

impl Told {
    fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            // Whatever it was, the folder says what is there.
            return self.something.notify_one();
        };
        // Reading the files is an event, too.
        if event.kind.is_access() {
            return;
        }
        if let EventKind::Modify(ModifyKind::Name(mode)) = event.kind {
            self.hear_of_move(mode, &event.paths);
        }
        self.something.notify_one();
    }

    fn hear_of_move(&self, mode: RenameMode, paths: &[PathBuf]) {
        let mut hints = self.hints();
        match (mode, paths) {
            (RenameMode::To, [to]) => hints.arrived(to),
            (RenameMode::Both, [from, to]) => {
                if is_of_objects(to) {
                    hints.gone.extend(from.file_name().map(ToOwned::to_owned));
                }
                hints.arrived(to);
            }
            _ => {}
        }
    }
}

impl Hints {
    fn arrived(&mut self, path: &Path) {
        let Some(name) = path.file_name() else { return };
        // A ConfigMap's files change all at once, when the link to their folder is moved to its place.
        self.all |= name == "..data";
        self.whole.insert(name.to_owned());
        self.gone.remove(name);
    }
}

fn watcher(path: &Path, told: Arc<Told>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event| told.hear(event))?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
