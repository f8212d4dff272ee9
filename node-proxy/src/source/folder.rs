//! A folder of files: what changed since it was last read. Files are known by what the system says of
//! them, documents by their text, so that a change costs what it touches.
//!
//! What can't be read removes nothing: the objects of a file that is broken stay as they were until
//! the file can be read as a whole again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use portreeve_policy::{Diagnostic, Severity};
use rustix::fs::OFlags;

use super::settle::{Hints, LONGEST, SETTLE, Waiting};
use super::split::{self, Piece};
use super::{Batch, Event, Origin, What};
use crate::objects::{Found, Object, ObjectKey};

/// Larger files are refused: nobody writes them, and reading takes memory.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A file that was written so short a time ago may be written again within the same tick of the file
/// system's clock, unnoticed: it is looked at once more.
const FRESH: Duration = Duration::from_millis(100);

/// Why the folder can't be read at all.
#[derive(Debug, thiserror::Error)]
#[error("can't read the folder of objects `{path}`: {source}", path = path.display())]
pub struct FolderError {
    /// The folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What is known of a folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// Who says something about an object; one of them is heard.
    claims: HashMap<ObjectKey, BTreeSet<PathBuf>>,
    heard: HashMap<ObjectKey, PathBuf>,
    waiting: Waiting<Stamp>,
    /// Objects that are to be told of, together.
    touched: BTreeSet<ObjectKey>,
    /// Those of them that stand nowhere any more, since when: one that is moved to another file may be there
    /// in a moment.
    orphans: BTreeMap<ObjectKey, Instant>,
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    documents: Vec<Document>,
    /// Where each object is written: of those that are written twice, the first one.
    places: HashMap<ObjectKey, usize>,
    /// Objects that were here and may still be: the file can't be read as a whole.
    kept: BTreeSet<ObjectKey>,
    trouble: Option<Diagnostic>,
}

/// Size, inode, time of change.
type Stamp = (u64, u64, i64, i64);

/// An object of a file.
#[derive(Debug)]
struct Document {
    piece: Piece,
    key: Option<ObjectKey>,
    /// Until it is handed on.
    object: Option<Object>,
    is_good: bool,
    diagnostics: Vec<Diagnostic>,
    is_new: bool,
    line: u32,
    /// The line that was told last.
    told: Option<u32>,
}

impl Folder {
    /// A folder of which nothing is known yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
            claims: HashMap::new(),
            heard: HashMap::new(),
            waiting: Waiting::default(),
            touched: BTreeSet::new(),
            orphans: BTreeMap::new(),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next time it is read, every file is.
    pub fn look_at_all(&mut self) {
        for file in self.files.values_mut() {
            file.stamp = None;
        }
    }

    /// What has changed since it was read.
    ///
    /// # Errors
    /// When the folder itself can't be read. Nothing has changed then.
    pub fn read(&mut self) -> Result<Batch, FolderError> {
        self.look(&Hints { all: true, ..Hints::default() })
    }

    /// Whether a file or an object does not count yet as it is.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.orphans.is_empty()
    }

    /// What has changed, but for files that may still be written.
    pub(super) fn look(&mut self, hints: &Hints) -> Result<Batch, FolderError> {
        let now = Instant::now();
        let names =
            list(&self.path).map_err(|source| FolderError { path: self.path.clone(), source })?;
        self.waiting.retain(|path| names.contains(path) || self.files.contains_key(path));
        let mut touched = std::mem::take(&mut self.touched);
        let gone: Vec<_> =
            self.files.keys().filter(|file| !names.contains(*file)).cloned().collect();
        for path in gone {
            if self.waiting.is_settled(&path, None, hints, now)
                && let Some(old) = self.files.remove(&path)
            {
                self.unclaim(&path, &old, &mut touched);
            }
        }
        for path in names {
            self.read_file(path, hints, now, &mut touched);
        }
        let mut events = Vec::new();
        if hints.all || !self.has_orphans(&touched, now) {
            self.orphans.clear();
            for key in touched {
                events.extend(self.tell(key));
            }
        } else {
            // All at once: what comes may be in the place of what goes.
            self.touched = touched;
        }
        // Removals first: a name, an address or an interface may be free for another now.
        events.sort_by_key(|event| !matches!(event.what, What::Removed));
        let (unreadable, doubles) = self.complaints();
        Ok(Batch { events, unreadable, doubles })
    }

    /// Whether any of these objects stands nowhere just now, and may yet.
    fn has_orphans(&mut self, touched: &BTreeSet<ObjectKey>, now: Instant) -> bool {
        let (claims, heard) = (&self.claims, &self.heard);
        let is_orphan = |key: &ObjectKey| !claims.contains_key(key) && heard.contains_key(key);
        self.orphans.retain(|key, _| is_orphan(key));
        for key in touched.iter().filter(|key| is_orphan(key)) {
            self.orphans.entry(key.clone()).or_insert(now);
        }
        let ages = || self.orphans.values().map(|since| now - *since);
        ages().any(|age| age < SETTLE) && ages().all(|age| age < LONGEST)
    }

    /// Reads a file if it has changed.
    fn read_file(
        &mut self,
        path: PathBuf,
        hints: &Hints,
        now: Instant,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        let stamp = stamp(&path);
        let old = self.files.get(&path);
        if let (Some(old), Some((stamp, _))) = (old, &stamp)
            && old.stamp == Some(*stamp)
        {
            self.waiting.forget(&path);
            return;
        }
        let seen = stamp.map(|(stamp, _)| stamp);
        if !self.waiting.is_settled(&path, seen, hints, now) {
            return;
        }
        let old = self.files.remove(&path).unwrap_or_default();
        self.unclaim(&path, &old, touched);
        let stamp = stamp.and_then(|(stamp, is_fresh)| (!is_fresh).then_some(stamp));
        let name = path.display().to_string();
        let file = match read_text(&path) {
            Ok(text) => {
                let before = old.keys();
                let had_doubles = old.has_doubles();
                let file = File::of(read_documents(&name, &text, old.documents));
                // Which of two was heard before is not known of each: all are told once more.
                let file = match had_doubles || file.has_doubles() {
                    true => File::of(read_documents(&name, &text, Vec::new())),
                    false => file,
                };
                let is_whole = file.documents.iter().all(|document| document.key.is_some());
                let kept = if is_whole { BTreeSet::new() } else { before };
                File { stamp, kept, ..file }
            }
            Err(error) => {
                let mut documents = old.documents;
                documents.retain(|document| document.key.is_some());
                let (kept, trouble) = (old.kept, Some(trouble(&name, &error)));
                File { kept, trouble, ..File::of(documents) }
            }
        };
        for key in file.keys() {
            self.claims.entry(key.clone()).or_default().insert(path.clone());
            touched.insert(key);
        }
        self.files.insert(path, file);
    }

    fn unclaim(&mut self, path: &Path, file: &File, touched: &mut BTreeSet<ObjectKey>) {
        for key in file.keys() {
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.remove(path);
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
            touched.insert(key);
        }
    }

    /// What there is to tell of an object.
    fn tell(&mut self, key: ObjectKey) -> Option<Event> {
        let before = self.heard.get(&key).cloned();
        let claims = self.claims.get(&key);
        // Who was heard is heard, as long as he says anything.
        let now = match (&before, claims) {
            (Some(before), Some(claims)) if claims.contains(before) => Some(before.clone()),
            (_, claims) => claims.and_then(|claims| claims.first().cloned()),
        };
        let Some(now) = now else {
            let origin = Origin { file: self.heard.remove(&key)?.display().to_string(), line: 0 };
            return Some(Event { key, origin, what: What::Removed, diagnostics: Vec::new() });
        };
        self.heard.insert(key.clone(), now.clone());
        let file = self.files.get_mut(&now)?;
        // None: it is kept, and what was said before is all that is known.
        let document = file.documents.get_mut(*file.places.get(&key)?)?;
        let origin = Origin { file: now.display().to_string(), line: document.line };
        let is_new = std::mem::take(&mut document.is_new);
        let what = match document.object.take() {
            Some(object) => What::Put(Box::new(object)),
            None if !document.is_good && (is_new || before.as_ref() != Some(&now)) => What::Broken,
            None if document.told == Some(document.line) => return None,
            None => What::Moved,
        };
        document.told = Some(document.line);
        let diagnostics = split::placed(&document.piece, &document.diagnostics);
        Some(Event { key, origin, what, diagnostics })
    }

    /// What can't be read, and what is said twice.
    fn complaints(&self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let (mut unreadable, mut doubles) = (Vec::new(), Vec::new());
        for (path, file) in &self.files {
            unreadable.extend(file.trouble.clone());
            for (place, document) in file.documents.iter().enumerate() {
                let Some(key) = &document.key else {
                    unreadable.extend(split::placed(&document.piece, &document.diagnostics));
                    continue;
                };
                let other = self.heard.get(key).filter(|heard| *heard != path);
                if other.is_some() || file.places.get(key) != Some(&place) {
                    let other = other.unwrap_or(path);
                    let first = self.line_of(other, key);
                    doubles.push(double(path, document.line, key, other, first));
                }
            }
        }
        (unreadable, doubles)
    }

    fn line_of(&self, path: &Path, key: &ObjectKey) -> u32 {
        let place = |file: &File| Some(file.documents.get(*file.places.get(key)?)?.line);
        self.files.get(path).and_then(place).unwrap_or_default()
    }
}

impl File {
    fn of(documents: Vec<Document>) -> Self {
        let mut places = HashMap::new();
        for (place, document) in documents.iter().enumerate() {
            if let Some(key) = &document.key {
                places.entry(key.clone()).or_insert(place);
            }
        }
        Self { documents, places, ..Self::default() }
    }

    fn has_doubles(&self) -> bool {
        let named = self.documents.iter().filter(|document| document.key.is_some());
        named.count() > self.places.len()
    }

    fn keys(&self) -> BTreeSet<ObjectKey> {
        self.places.keys().chain(&self.kept).cloned().collect()
    }
}

/// The objects of a text. Those that stood there already are the same as before.
fn read_documents(name: &str, text: &str, old: Vec<Document>) -> Vec<Document> {
    let by_digest = |document: Document| (document.piece.digest(), document);
    let mut known: HashMap<u64, Document> = old.into_iter().map(by_digest).collect();
    let mut same = |piece: &Piece| {
        let document = known.remove(&piece.digest())?;
        let (piece, line) = (piece.clone(), split::first_line(piece));
        (document.piece.text == piece.text).then_some(Document { piece, line, ..document })
    };
    let mut documents = Vec::new();
    for piece in split::documents(text) {
        if let Some(document) = same(&piece) {
            documents.push(document);
            continue;
        }
        // Of a list, those items that are new.
        for (piece, found) in split::read(name, &piece) {
            let document = same(&piece);
            documents.push(document.unwrap_or_else(|| Document::new(piece, found)));
        }
    }
    documents
}

impl Document {
    fn new(piece: Piece, found: Found) -> Self {
        let line = split::first_line(&piece);
        let Found { key, object, diagnostics } = found;
        let is_good = object.is_some();
        Self { piece, key, object, is_good, diagnostics, is_new: true, line, told: None }
    }
}

/// `*.yaml`, `*.yml` and `*.json`, but no hidden files: a ConfigMap's `..data` and editors' backups.
fn list(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_of_objects(&path) && !path.is_dir() {
            files.insert(path);
        }
    }
    Ok(files)
}

/// Whether a file of this name is read.
pub(super) fn is_of_objects(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// What the system says of a file, and whether it was written just now.
fn stamp(path: &Path) -> Option<(Stamp, bool)> {
    let meta = fs::metadata(path).ok()?;
    let written = meta.modified().ok()?;
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    Some(((meta.len(), meta.ino(), meta.mtime(), meta.mtime_nsec()), age < FRESH))
}

/// Whatever has the name of a file: nothing is waited for, and no more is read than a file may have.
fn read_text(path: &Path) -> io::Result<String> {
    let check = |meta: &fs::Metadata| match meta.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    };
    // Opening something else may do something.
    check(&fs::metadata(path)?)?;
    let mut options = fs::File::options();
    let file = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    check(&file.metadata()?)?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    match read as u64 > FILE_BYTES {
        true => Err(io::Error::other("larger than 64 MiB")),
        false => Ok(text),
    }
}

fn trouble(name: &str, error: &io::Error) -> Diagnostic {
    diagnostic(
        (name, 0),
        "",
        format!("can't be read: {error}"),
        "objects that were read from it before stay as they were",
    )
}

fn double(path: &Path, line: u32, key: &ObjectKey, other: &Path, first: u32) -> Diagnostic {
    diagnostic(
        (&path.display().to_string(), line),
        "metadata.name",
        format!("{} `{}` was already read from {}:{first}", key.kind, name(key), other.display()),
        "rename one of them, or remove it",
    )
}

fn name(key: &ObjectKey) -> String {
    match &key.namespace {
        Some(namespace) => format!("{namespace}/{}", key.name),
        None => key.name.clone(),
    }
}

fn diagnostic(at: (&str, u32), path: &str, message: String, hint: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        source: at.0.to_owned(),
        line: at.1,
        column: u32::from(at.1 > 0),
        path: path.to_owned(),
        message,
        hint: Some(hint.to_owned()),
        excerpt: None,
        advice: false,
    }
}
