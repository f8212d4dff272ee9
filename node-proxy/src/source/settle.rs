//! Files that are being written: who writes in place, writes in several steps, and a name may be free for a
//! moment in between. What was moved to its place is complete, and counts at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file has to stay as it is: editors and tools write in several steps.
pub(super) const SETTLE: Duration = Duration::from_millis(50);

/// The longest wait for that: somebody may be writing all the time.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// What is known of changes, besides that there are some.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Names of files that were moved to their places.
    pub(super) whole: BTreeSet<OsString>,
    /// Names of files that were moved away, to another place in the folder.
    pub(super) gone: BTreeSet<OsString>,
    /// Whatever is there counts.
    pub(super) all: bool,
}

/// Files that do not count yet as they are.
#[derive(Debug, Default)]
pub(super) struct Waiting<S> {
    files: BTreeMap<PathBuf, Seen<S>>,
}

#[derive(Debug)]
struct Seen<S> {
    /// What the system says of it; none if it is not there.
    stamp: Option<S>,
    since: Instant,
    first: Instant,
}

impl<S: PartialEq> Waiting<S> {
    /// Whether a file counts as it is now.
    pub(super) fn is_settled(
        &mut self,
        path: &Path,
        stamp: Option<S>,
        hints: &Hints,
        now: Instant,
    ) -> bool {
        // The folder may be called otherwise by who tells of it.
        let name = path.file_name().unwrap_or_default();
        let known = match stamp {
            Some(_) => hints.whole.contains(name),
            None => hints.gone.contains(name),
        };
        let settled = hints.all || known || self.has_stayed(path, stamp, now);
        if settled {
            self.files.remove(path);
        }
        settled
    }

    fn has_stayed(&mut self, path: &Path, stamp: Option<S>, now: Instant) -> bool {
        let Some(seen) = self.files.get_mut(path) else {
            self.files.insert(path.to_owned(), Seen { stamp, since: now, first: now });
            return false;
        };
        if seen.stamp != stamp {
            (seen.stamp, seen.since) = (stamp, now);
        }
        now - seen.since >= SETTLE || now - seen.first >= LONGEST
    }

    /// Of files that are neither there nor known, nothing is waited for.
    pub(super) fn retain(&mut self, is_known: impl Fn(&PathBuf) -> bool) {
        self.files.retain(|path, _| is_known(path));
    }

    /// It is as it was when it was read.
    pub(super) fn forget(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Whether any file does not count yet.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_when_it_has_stayed_as_it_is_for_a_while() {
        let (mut waiting, begin) = (Waiting::default(), Instant::now());
        let mut look = |stamp, millis| {
            let now = begin + Duration::from_millis(millis);
            waiting.is_settled(Path::new("a.yaml"), stamp, &Hints::default(), now)
        };
        assert_eq!([look(Some(1), 0), look(Some(1), 49), look(Some(2), 50)], [false; 3]);
        assert_eq!([look(None, 99), look(Some(2), 101), look(Some(2), 151)], [false, false, true]);
        // One that is written all the time counts now and then.
        let counted = (0..100).filter(|turn| look(Some(turn + 3), 200 + turn * 40)).count();
        assert_eq!(counted, 3);
    }

    #[test]
    fn what_was_moved_counts_at_once() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let [new, old, other] = ["new.yaml", "old.yaml", "other.yaml"].map(PathBuf::from);
        let hints = Hints {
            whole: ["new.yaml".into()].into(),
            gone: ["old.yaml".into()].into(),
            all: false,
        };
        assert!(waiting.is_settled(&new, Some(1), &hints, now));
        assert!(waiting.is_settled(&old, None, &hints, now));
        assert!(!waiting.is_settled(&new, None, &hints, now), "it is gone again");
        assert!(!waiting.is_settled(&other, Some(1), &hints, now));
        assert!(!waiting.is_empty());
        waiting.retain(|path| *path != other && *path != new);
        assert!(waiting.is_empty(), "of what is gone nothing is waited for");
        assert!(!waiting.is_settled(&other, Some(1), &hints, now), "it begins anew");
        let all = Hints { all: true, ..Hints::default() };
        assert!(waiting.is_settled(&other, Some(1), &all, now));
    }
}
