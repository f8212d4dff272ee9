//! Numbers on disk: one file, written anew and put in the old one's place, so that there is always one
//! that is whole.
//!
//! ```json
//! {"format": "portreeve-node identities", "version": 1, "next": 258, "turn": 256,
//!  "entries": [[256, [["k8s", "app", "shop"]]], [257, [["k8s", "app", "client"]]]]}
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{Name, Numbering};

/// The layout that is written. Another one is refused, not guessed at.
const VERSION: u32 = 1;

/// Why numbers can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file can't be read.
    #[error("can't read `{path}`: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file can't be written.
    #[error("can't write `{path}`: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error(
        "`{path}` is damaged: {what}\n  hint: put a copy of it back, or, when no programs in the \
         kernel and no other node go by its numbers, remove it to have new numbers given out",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file was written by another version.
    #[error(
        "`{path}` has the layout {found}, and this version knows {VERSION}\n  hint: run the version \
         that wrote it, or convert the file",
        path = path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
}

/// What every layout begins with.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    format: String,
    version: u32,
    next: Option<u32>,
    /// Where it is looked for numbers that nobody has any more.
    turn: Option<u32>,
    /// Numbers that nobody has any more, as they were listed once.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "what files may have")]
    free: serde::de::IgnoredAny,
    entries: Vec<(u32, serde_json::Value)>,
}

/// Numbers as a file has them; none if there is no such file.
pub(super) fn read<N: Name>(
    path: &Path,
    range: RangeInclusive<u32>,
    now: Instant,
) -> Result<Numbering<N>, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Numbering::new(range)),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    };
    let damaged = |what: String| StateError::Damaged { path: path.to_owned(), what };
    let head: Head = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if head.format != N::FORMAT {
        return Err(damaged(format!("it is about `{}`, not `{}`", head.format, N::FORMAT)));
    }
    if head.version != VERSION {
        return Err(StateError::Version { path: path.to_owned(), found: head.version });
    }
    let layout: Layout =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let mut names = Vec::with_capacity(layout.entries.len());
    for (number, name) in layout.entries {
        let read = N::from_json(&name);
        names.push((read.ok_or_else(|| damaged(format!("{number} has no name: {name}")))?, number));
    }
    Numbering::restore(range, layout.next, layout.turn, names, now)
        .ok_or_else(|| damaged("a number is there twice, or was never given out".to_owned()))
}

/// Writes numbers down. When this returns, they are on disk.
pub(super) fn write<N: Name>(path: &Path, numbers: &Numbering<N>) -> Result<(), StateError> {
    let mut entries: Vec<_> =
        numbers.entries().map(|(name, entry)| (entry.number, name.to_json())).collect();
    entries.sort_by_key(|(number, _)| *number);
    let layout = Layout {
        format: N::FORMAT.to_owned(),
        version: VERSION,
        next: numbers.next,
        turn: Some(numbers.turn),
        free: serde::de::IgnoredAny,
        entries,
    };
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let mut text = serde_json::to_vec(&layout).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    replace(path, &text).map_err(failed)
}

/// Puts a file in another one's place, whole, and does not return before it is on disk.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name, too.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
