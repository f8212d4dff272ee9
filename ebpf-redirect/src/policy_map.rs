//! The policy in force: one trie in a map of one place. Another policy is another trie, filled before
//! it takes that place, so that a program sees all of the old one or all of the new one.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portreeve_ebpf_common::{PolicyKey, PolicyValue};

use crate::error::MapError;
use crate::policy::{Change, PolicyTable};
use crate::sys::{self, NO_PREALLOC, map_kind};
use crate::table::Table;

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
    table: PolicyTable,
    trie: Trie,
}

impl PolicyMap {
    pub(crate) fn open(path: &Path, capacity: u32) -> Result<Self, MapError> {
        let outer = Table::open(path).map_err(MapError::system("can't open", NAME))?;
        Ok(Self { outer, capacity, in_force: Mutex::new(None) })
    }

    /// Puts a policy in force. A failure leaves the one before in force.
    pub(crate) fn set(&self, table: &PolicyTable) -> Result<(), MapError> {
        if table.len() > self.capacity as usize {
            return Err(self.full(table));
        }
        let mut in_force = lock(&self.in_force);
        if let Some(current) = &mut *in_force
            && current.change(table)?
        {
            return Ok(());
        }
        let trie = self.filled(table)?;
        let fd = trie.as_fd().as_raw_fd().unsigned_abs();
        self.outer.put(&0, &fd).map_err(MapError::system("can't replace", NAME))?;
        *in_force = Some(InForce { table: table.clone(), trie });
        Ok(())
    }

    fn filled(&self, table: &PolicyTable) -> Result<Trie, MapError> {
        let trie = Trie::create(NAME, map_kind::LPM_TRIE, self.capacity, NO_PREALLOC)
            .map_err(MapError::system("can't make a trie for", NAME))?;
        trie.put_all(table.entries()).map_err(|error| match is_full(&error) {
            true => self.full(table),
            false => MapError::system("can't fill", NAME)(error),
        })?;
        Ok(trie)
    }

    fn full(&self, table: &PolicyTable) -> MapError {
        MapError::Full { map: NAME, entries: table.len(), capacity: self.capacity }
    }
}

impl InForce {
    /// Makes of the trie in force what is wanted, if one entry has to change, and the revision at most;
    /// whether it did. The entry comes first: what is told with the older revision in between is decided
    /// by the newer policy already.
    fn change(&mut self, wanted: &PolicyTable) -> Result<bool, MapError> {
        let Some(changes) = few_changes(&self.table, wanted) else { return Ok(false) };
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = write(&self.trie, change) {
                for change in changes[..done].iter().rev() {
                    write(&self.trie, &reversed(change, &self.table)).map_err(failed)?;
                }
                return Err(failed(error));
            }
        }
        changes.into_iter().for_each(|change| self.table.apply(change));
        Ok(true)
    }
}

fn write(trie: &Trie, change: &Change) -> io::Result<()> {
    match change {
        Change::Put(key, value) => trie.put(key, value),
        Change::Remove(key) => trie.remove(key),
    }
}

/// What brings back what there was.
fn reversed(change: &Change, before: &PolicyTable) -> Change {
    let (Change::Put(key, _) | Change::Remove(key)) = *change;
    before.get(key).map_or(Change::Remove(key), |value| Change::Put(key, value))
}

/// What differs, if it is few enough to be seen at once: one entry, and the header, which comes last, if
/// all that it says anew is the revision.
fn few_changes(old: &PolicyTable, new: &PolicyTable) -> Option<Vec<Change>> {
    let changes = old.diff(new);
    let entries = match changes.as_slice() {
        [entries @ .., Change::Put(PolicyKey::HEADER, value)] => {
            if !only_revision(old, value) {
                return None;
            }
            entries
        }
        entries => entries,
    };
    let is_header = |change: &Change| *change == Change::Remove(PolicyKey::HEADER);
    (entries.len() <= 1 && !entries.iter().any(is_header)).then_some(changes)
}

fn only_revision(old: &PolicyTable, new: &PolicyValue) -> bool {
    old.get(PolicyKey::HEADER).is_some_and(|old| old.0[1..] == new.0[1..])
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

    fn policy(revision: u32, ports: &[(u16, Verdict)]) -> PolicyTable {
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
        let port = PolicyKey::port(1, 6, 80, 16);
        let header = Change::Put(PolicyKey::HEADER, PolicyValue::header(2, true, true));
        let denied = Change::Put(port, PolicyValue::verdict(Verdict::Deny, 0));
        assert_eq!(changes, [denied, header]);
        let allowed = Change::Put(port, PolicyValue::verdict(Verdict::Allow, 0));
        assert_eq!(reversed(&changes[0], &old), allowed);
    }

    #[test]
    fn an_entry_that_comes_or_goes_is_one_change() {
        let (one, two) = (policy(1, &[(80, Verdict::Allow)]), policy(1, &[]));
        let gone = few_changes(&one, &two).expect("few");
        assert_eq!(gone, [Change::Remove(PolicyKey::port(1, 6, 80, 16))]);
        let come = few_changes(&two, &one).expect("few");
        assert_eq!(reversed(&come[0], &two), gone[0]);
        assert_eq!(few_changes(&one, &one), Some(vec![]));
    }

    #[test]
    fn more_than_one_entry_is_another_trie() {
        let ports = [(80, Verdict::Allow), (81, Verdict::Allow)];
        let old = policy(1, &ports);
        assert_eq!(few_changes(&old, &policy(2, &[])), None);
        let moved = policy(2, &[(80, Verdict::Allow), (82, Verdict::Allow)]);
        assert_eq!(few_changes(&old, &moved), None, "one gone and one come are two");
        let header = (PolicyKey::HEADER, PolicyValue::header(2, false, true));
        let open = policy(2, &ports).entries().chain([header]).collect();
        assert_eq!(few_changes(&old, &open), None, "what is enforced is more than a revision");
        assert_eq!(few_changes(&policy(1, &[]), &PolicyTable::empty()), None);
        let bare: PolicyTable = old.entries().skip(1).collect();
        assert_eq!(few_changes(&old, &bare), None, "the header is gone");
    }

    #[test]
    fn what_was_changed_in_place_is_what_was_wanted() {
        let tables = [
            policy(1, &[]),
            policy(2, &[(80, Verdict::Allow)]),
            policy(3, &[(80, Verdict::Deny)]),
            policy(4, &[(80, Verdict::Deny), (81, Verdict::Allow)]),
            policy(5, &[(81, Verdict::Allow)]),
        ];
        for pair in tables.windows(2) {
            let mut table = pair[0].clone();
            let changes = few_changes(&table, &pair[1]).expect("few");
            changes.into_iter().for_each(|change| table.apply(change));
            assert_eq!(table, pair[1]);
        }
    }
}
