//! A folder that is watched: read again when the kernel says that something in it has changed, and now
//! and then where the kernel doesn't (network file systems, a folder that was replaced).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
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
    /// A folder was removed, perhaps the one that is watched: another may have its path, and its inode.
    is_folder_removed: AtomicBool,
}

/// Who has the kernel tell of a folder: of that which has the path, whichever it is by now.
#[derive(Debug)]
struct Ear {
    path: PathBuf,
    told: Arc<Told>,
    /// The device and inode of what was found at the path last.
    place: Option<(u64, u64)>,
    /// Kept alive; `None` where the kernel does not notify, and the slow poll has to do.
    watcher: Option<RecommendedWatcher>,
}

/// A folder that is watched.
#[derive(Debug)]
pub struct WatchedFolder {
    folder: Folder,
    ear: Ear,
    /// Asks for everything to be read again.
    again: Arc<Notify>,
    first: Option<Batch>,
    /// What could not be read, and what was there twice, when it was last said.
    said: (Vec<Diagnostic>, Vec<Diagnostic>),
}

impl WatchedFolder {
    /// Reads a folder and starts to watch it. `again` makes it read everything
    /// again at once.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn open(path: &Path, again: Arc<Notify>) -> Result<Self, FolderError> {
        // Watched first: what changes while it is read is not missed.
        let ear = Ear::at(path);
        let mut folder = Folder::new(path);
        let first = folder.read()?;
        let said = (first.unreadable.clone(), first.doubles.clone());
        Ok(Self { folder, ear, again, first: Some(first), said })
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
                () = self.ear.told.something.notified() => tokio::time::sleep(TOGETHER).await,
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
        self.ear.follow();
        let mut hints = std::mem::take(&mut *self.ear.told.hints());
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

impl Ear {
    fn at(path: &Path) -> Self {
        let mut ear =
            Self { path: path.to_owned(), told: Arc::default(), place: None, watcher: None };
        ear.follow();
        ear
    }

    /// Listens to what is at the path now. The kernel goes on telling of a folder that was moved away, or
    /// that a link does not lead to any more, and of none that is in its place.
    fn follow(&mut self) {
        let place = std::fs::metadata(&self.path).map(|meta| (meta.dev(), meta.ino())).ok();
        let is_removed = self.told.is_folder_removed.swap(false, Ordering::Relaxed);
        if place == self.place && !is_removed {
            return;
        }
        self.place = place;
        // That nothing is there is said by who reads it.
        let watched = place.map(|_| watcher(&self.path, self.told.clone())).transpose();
        self.watcher = watched.unwrap_or_else(|error| {
            tracing::warn!(%error, "can't watch the objects, polling them");
            None
        });
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
        match event.kind {
            EventKind::Modify(ModifyKind::Name(mode)) => self.hear_of_move(mode, &event.paths),
            EventKind::Remove(RemoveKind::Folder) => {
                self.is_folder_removed.store(true, Ordering::Relaxed);
            }
            _ => {}
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

fn watcher(path: &Path, told: Arc<Told>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event| told.hear(event))?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
