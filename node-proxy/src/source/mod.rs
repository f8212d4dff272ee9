//! The source of truth: where objects come from. It yields what changed, in batches; who reads it need
//! not know whether it is a folder or a cluster.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Source`], [`Batch`], [`Event`] |
//! | `split.rs` | a file as documents, each with its place |
//! | `folder.rs` | a folder of files: what changed since it was last read |
//! | `settle.rs` | files that are being written |
//! | `watch.rs` | the same, told by the kernel when to look |

mod folder;
mod settle;
mod split;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::pin::Pin;

use portreeve_policy::Diagnostic;

pub use self::folder::{Folder, FolderError};
pub use self::watch::WatchedFolder;
use crate::objects::{Object, ObjectKey};

/// A batch that is still to come.
pub type NextBatch<'s> = Pin<Box<dyn Future<Output = Batch> + Send + 's>>;

/// Where objects come from.
pub trait Source: Send {
    /// Waits until something has changed, and says what. The first batch is all there is. Dropping the
    /// future before it is ready loses nothing.
    fn next(&mut self) -> NextBatch<'_>;

    /// What it is called in messages.
    fn name(&self) -> String;
}

/// What changed together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The changes, in order.
    pub events: Vec<Event>,
    /// What can't be read at present, and of which it is not known which objects it would be: all of
    /// it, not only what is new. Objects that may have been there keep their last good version.
    pub unreadable: Vec<Diagnostic>,
    /// Objects that are written twice at present: all of them. The first one that was read counts.
    pub doubles: Vec<Diagnostic>,
}

/// A change of one object.
#[derive(Debug)]
pub struct Event {
    /// Which.
    pub key: ObjectKey,
    /// Where it is written.
    pub origin: Origin,
    /// What happened to it.
    pub what: What,
    /// Errors and warnings about what is written now.
    pub diagnostics: Vec<Diagnostic>,
}

/// What happened to an object.
#[derive(Debug)]
pub enum What {
    /// It is new, or says something else.
    Put(Box<Object>),
    /// It has errors. What it said before stays in force.
    Broken,
    /// It says what it said, elsewhere.
    Moved,
    /// It is gone.
    Removed,
}

/// Where an object is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: String,
    /// The line it begins at.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
