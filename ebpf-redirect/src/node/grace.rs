//! Grace periods made shorter. The kernel lets nobody attach the first program of an interface, or replace a
//! policy, without waiting for all programs that run: some 10 ms each, most of it for CPUs that have nothing
//! to do. It can ask all of them at once (`/sys/kernel/rcu_expedited`), which costs each an interrupt: so it
//! is told to for as long as such a call takes. Who wants none of that says so to the kernel
//! (`/sys/kernel/rcu_normal`), and nothing is changed here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::instance::Folder;

const EXPEDITED: &str = "/sys/kernel/rcu_expedited";
const NORMAL: &str = "/sys/kernel/rcu_normal";
/// A folder that is there as long as the kernel's setting is ours: whoever takes the instance over after a
/// crash puts the setting back.
const MARKER: &str = "expedited";

/// Grace periods are short as long as this lives.
#[derive(Debug)]
pub(super) struct Expedited {
    marker: PathBuf,
}

impl Expedited {
    /// Begins, unless they are short already, or are not to be, or the kernel is not to be told here. None of
    /// that is an error: what is done takes longer.
    pub(super) fn begin(folder: &Folder) -> Option<Self> {
        if is_set(EXPEDITED) || is_set(NORMAL) {
            return None;
        }
        let marker = folder.path().join(MARKER);
        fs::create_dir(&marker).ok()?;
        if fs::write(EXPEDITED, "1").is_err() {
            let _ = fs::remove_dir(&marker);
            return None;
        }
        Some(Self { marker })
    }

    /// Puts back what one who was killed has left.
    pub(super) fn put_back(folder: &Folder) {
        let marker = folder.path().join(MARKER);
        if marker.is_dir() {
            drop(Self { marker });
        }
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        // While it can't be put back the marker stays.
        let _ = put_back(&self.marker);
    }
}

fn put_back(marker: &Path) -> io::Result<()> {
    // Where it is not set there is nothing to put back.
    if is_set(EXPEDITED) {
        fs::write(EXPEDITED, "0")?;
    }
    fs::remove_dir(marker)
}

fn is_set(setting: &str) -> bool {
    fs::read_to_string(setting).is_ok_and(|value| value.trim() != "0")
}
