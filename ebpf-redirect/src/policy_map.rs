//! The policy in force: one trie in a map of one place. Another policy is another trie, filled before
//! it takes that place, so that a program sees all of the old one or all of the new one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portreeve_ebpf_common::{PolicyKey, PolicyValue};

use crate::error::MapError;
use crate::sys::{self, NO_PREALLOC, map_kind};
use crate::table::Table;

/// A policy's entries.
pub(crate) type Entries = BTreeMap<PolicyKey, PolicyValue>;
type Trie = Table<PolicyKey, PolicyValue>;

/// The map `POLICY`.
#[derive(Debug)]
pub(crate) struct PolicyMap {
    outer: Table<u32, u32>,
    capacity: u32,
    in_force: Mutex<Option<InForce>>,
}

/// What this process has put there.
#[derive(Debug)]
struct InForce {
    entries: Entries,
    trie: Trie,
}

impl PolicyMap {
    pub(crate) fn open(path: &Path, capacity: u32) -> Result<Self, MapError> {
        let outer = Table::open(path).map_err(MapError::system("can't open", NAME))?;
        Ok(Self { outer, capacity, in_force: Mutex::new(None) })
    }

    /// Puts a policy in force. A failure leaves the one before in force.
    pub(crate) fn set(&self, entries: &Entries) -> Result<(), MapError> {
        if entries.len() > self.capacity as usize {
            return Err(self.full(entries));
        }
        let mut in_force = lock(&self.in_force);
        if let Some(current) = &mut *in_force
            && current.change(entries)?
        {
            return Ok(());
        }
        let trie = self.filled(entries)?;
        let fd = trie.as_fd().as_raw_fd().unsigned_abs();
        self.outer.put(&0, &fd).map_err(MapError::system("can't replace", NAME))?;
        *in_force = Some(InForce { entries: entries.clone(), trie });
        Ok(())
    }

    fn filled(&self, entries: &Entries) -> Result<Trie, MapError> {
        let trie = Trie::create(NAME, map_kind::LPM_TRIE, self.capacity, NO_PREALLOC)
            .map_err(MapError::system("can't make a trie for", NAME))?;
        trie.put_all(entries.iter().map(|(key, value)| (*key, *value))).map_err(|error| {
            match is_full(&error) {
                true => self.full(entries),
                false => MapError::system("can't fill", NAME)(error),
            }
        })?;
        Ok(trie)
    }

    fn full(&self, entries: &Entries) -> MapError {
        MapError::Full { map: NAME, entries: entries.len(), capacity: self.capacity }
    }
}

impl InForce {
    /// Makes of the trie in force what is wanted, if one entry has to change, and the revision at most;
    /// whether it did. The entry comes first: what is told with the older revision in between is decided
    /// by the newer policy already.
    fn change(&mut self, wanted: &Entries) -> Result<bool, MapError> {
        let Some(changes) = few_changes(&self.entries, wanted) else { return Ok(false) };
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = change.apply(&self.trie) {
                for change in changes[..done].iter().rev() {
                    change.reversed(&self.entries).apply(&self.trie).map_err(failed)?;
                }
                return Err(failed(error));
            }
        }
        self.entries.clone_from(wanted);
        Ok(true)
    }
}

/// A change of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Put(PolicyKey, PolicyValue),
    Remove(PolicyKey),
}

impl Change {
    fn key(&self) -> &PolicyKey {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }

    fn apply(&self, trie: &Trie) -> io::Result<()> {
        match self {
            Self::Put(key, value) => trie.put(key, value),
            Self::Remove(key) => trie.remove(key),
        }
    }

    /// What brings back what there was.
    fn reversed(&self, before: &Entries) -> Self {
        let key = *self.key();
        before.get(&key).map_or(Self::Remove(key), |value| Self::Put(key, *value))
    }
}

/// What differs, if it is few enough to be seen at once: one entry, then the header if all that it says
/// anew is the revision.
fn few_changes(old: &Entries, new: &Entries) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut header = None;
    for change in differences(old, new) {
        match change {
            Change::Put(PolicyKey::HEADER, value) if only_revision(old, &value) => {
                header = Some(change);
            }
            Change::Put(PolicyKey::HEADER, _) | Change::Remove(PolicyKey::HEADER) => return None,
            _ if changes.is_empty() => changes.push(change),
            _ => return None,
        }
    }
    changes.extend(header);
    Some(changes)
}

fn only_revision(old: &Entries, new: &PolicyValue) -> bool {
    old.get(&PolicyKey::HEADER).is_some_and(|old| old.0[1..] == new.0[1..])
}

fn differences<'a>(old: &'a Entries, new: &'a Entries) -> impl Iterator<Item = Change> + 'a {
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|key| Change::Remove(*key));
    let put = new.iter().filter(|&(key, value)| old.get(key) != Some(value));
    gone.chain(put.map(|(key, value)| Change::Put(*key, *value)))
}

/// What the header of the policy in force says, if this process may ask for it.
pub(crate) fn header(path: &Path) -> io::Result<Option<PolicyValue>> {
    trie_in_force(path)?.map_or(Ok(None), |trie| trie.get(&PolicyKey::HEADER))
}

/// The trie in force.
pub(crate) fn trie_in_force(path: &Path) -> io::Result<Option<Trie>> {
    let outer = Table::<u32, u32>::open(path)?;
    match outer.get(&0)? {
        Some(id) => Trie::new(sys::map_by_id(id)?).map(Some),
        None => Ok(None),
    }
}

fn failed(error: io::Error) -> MapError {
    MapError::system("can't change", NAME)(error)
}

/// What the kernel says of a map that has no more room, by its kind.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAME: &str = "POLICY";

#[cfg(test)]
mod tests {
    use portreeve_ebpf_common::{Address, Verdict};

    use super::*;

    fn policy(revision: u32, ports: &[(u16, Verdict)]) -> Entries {
        let ports = ports.iter().map(|&(port, verdict)| {
            (PolicyKey::port(1, 6, port, 16), PolicyValue::verdict(verdict, 0))
        });
        let header = (PolicyKey::HEADER, PolicyValue::header(revision, true, true));
        let anyone = PolicyKey::address(Address::UNSPECIFIED, 0);
        [header, (anyone, PolicyValue::identity(2, 1, 1))].into_iter().chain(ports).collect()
    }

    #[test]
    fn one_entry_changes_before_the_revision() {
        let old = policy(1, &[(80, Verdict::Allow)]);
        let new = policy(2, &[(80, Verdict::Deny)]);
        let changes = few_changes(&old, &new).expect("few");
        let keys: Vec<_> = changes.iter().map(|change| *change.key()).collect();
        assert_eq!(keys, [PolicyKey::port(1, 6, 80, 16), PolicyKey::HEADER]);
        assert_eq!(
            changes[0].reversed(&old),
            Change::Put(keys[0], PolicyValue::verdict(Verdict::Allow, 0))
        );
    }

    #[test]
    fn an_entry_that_comes_or_goes_is_one_change() {
        let (one, two) = (policy(1, &[(80, Verdict::Allow)]), policy(1, &[]));
        let gone = few_changes(&one, &two).expect("few");
        assert_eq!(gone, [Change::Remove(PolicyKey::port(1, 6, 80, 16))]);
        let come = few_changes(&two, &one).expect("few");
        assert_eq!(come[0].reversed(&two), gone[0]);
        assert_eq!(few_changes(&one, &one), Some(vec![]));
    }

    #[test]
    fn more_than_one_entry_is_another_trie() {
        let old = policy(1, &[(80, Verdict::Allow), (81, Verdict::Allow)]);
        assert_eq!(few_changes(&old, &policy(2, &[])), None);
        let moved = policy(2, &[(80, Verdict::Allow), (82, Verdict::Allow)]);
        assert_eq!(few_changes(&old, &moved), None, "one gone and one come are two");
        let mut open = policy(2, &[(80, Verdict::Allow), (81, Verdict::Allow)]);
        open.insert(PolicyKey::HEADER, PolicyValue::header(2, false, true));
        assert_eq!(few_changes(&old, &open), None, "what is enforced is more than a revision");
    }
}
