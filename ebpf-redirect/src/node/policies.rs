//! The policies in force: for each endpoint one trie in a map of maps. Another policy is another trie,
//! filled before it takes that place, so that a program sees all of the old one or all of the new one.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use portreeve_ebpf_common::PolicyValue;
use portreeve_ebpf_common::node::NodePolicyKey;

use super::policy::{NodePolicyTable, with_revision};
use crate::error::MapError;
use crate::policy_map::is_full;
use crate::sys::{self, NO_PREALLOC, map_kind};
use crate::table::Table;

type Trie = Table<NodePolicyKey, PolicyValue>;

/// The map `POLICIES`.
#[derive(Debug)]
pub(super) struct Policies {
    pub(super) outer: Table<u32, u32>,
    pub(super) capacity: u32,
}

impl Policies {
    /// Puts policies in force, each with its revision. One that fails leaves the one before in force.
    ///
    /// After each call that changes a map of maps, the kernel waits for all programs that run: some
    /// milliseconds. So many are put there with one call.
    pub(super) fn set(
        &self,
        policies: &[(u32, &NodePolicyTable, u32)],
    ) -> Vec<Result<(), MapError>> {
        policies.chunks(TOGETHER).flat_map(|some| self.set_together(some)).collect()
    }

    fn set_together(&self, policies: &[(u32, &NodePolicyTable, u32)]) -> Vec<Result<(), MapError>> {
        let tries: Vec<_> =
            policies.iter().map(|(_, table, revision)| self.filled(table, *revision)).collect();
        let entry =
            |endpoint: u32, trie: &Trie| (endpoint, trie.as_fd().as_raw_fd().unsigned_abs());
        let made = policies.iter().zip(&tries);
        let made =
            made.filter_map(|((endpoint, ..), trie)| Some(entry(*endpoint, trie.as_ref().ok()?)));
        let all_there = self.outer.put_all(made).is_ok();
        let put = |(endpoint, ..): &(u32, &NodePolicyTable, u32), trie: Trie| {
            let (endpoint, trie) = entry(*endpoint, &trie);
            // Which of them it was, is found out one by one.
            if all_there { Ok(()) } else { self.put(endpoint, trie) }
        };
        let each = policies.iter().zip(tries);
        each.map(|(policy, trie)| trie.and_then(|trie| put(policy, trie))).collect()
    }

    fn put(&self, endpoint: u32, trie: u32) -> Result<(), MapError> {
        self.outer.put(&endpoint, &trie).map_err(|error| match is_full(&error) {
            true => {
                let capacity = self.outer.capacity();
                MapError::Full { map: NAME, entries: capacity as usize + 1, capacity }
            }
            false => MapError::system("can't write", NAME)(error),
        })
    }

    /// A policy that is in force nowhere yet.
    fn filled(&self, table: &NodePolicyTable, revision: u32) -> Result<Trie, MapError> {
        if table.len() > self.capacity as usize {
            return Err(self.full(table));
        }
        // One more: some kernels take an entry that is replaced for another one (see `stamp`).
        let room = self.capacity.saturating_add(1);
        let trie = Trie::create("POLICY", map_kind::LPM_TRIE, room, NO_PREALLOC)
            .map_err(MapError::system("can't make a trie for", NAME))?;
        trie.put_all(table.stamped(revision)).map_err(|error| match is_full(&error) {
            true => self.full(table),
            false => MapError::system("can't fill a trie for", NAME)(error),
        })?;
        Ok(trie)
    }

    /// Who has a policy.
    pub(super) fn endpoints(&self) -> Result<Vec<u32>, MapError> {
        self.outer.keys().map_err(MapError::system("can't read", NAME))
    }

    /// The revision of an endpoint's policy; 0 if it has none.
    pub(super) fn revision(&self, endpoint: u32) -> Result<u32, MapError> {
        let read = || match self.trie(endpoint)? {
            Some(trie) => trie.get(&NodePolicyKey::HEADER),
            None => Ok(None),
        };
        let header = read().map_err(MapError::system("can't read", NAME))?;
        Ok(header.map_or(0, |header| header.0[0]))
    }

    /// Gives the policy that an endpoint has another revision.
    pub(super) fn stamp(&self, endpoint: u32, revision: u32) -> Result<(), MapError> {
        let write = || {
            let Some(trie) = self.trie(endpoint)? else { return Ok(()) };
            let Some(header) = trie.get(&NodePolicyKey::HEADER)? else { return Ok(()) };
            trie.put(&NodePolicyKey::HEADER, &with_revision(header, revision))
        };
        write().map_err(MapError::system("can't write", NAME))
    }

    /// All that an endpoint's policy has; `None`: it has none.
    pub(super) fn entries(
        &self,
        endpoint: u32,
    ) -> Result<Option<Vec<(NodePolicyKey, PolicyValue)>>, MapError> {
        let read = || self.trie(endpoint)?.map(|trie| trie.entries()).transpose();
        read().map_err(MapError::system("can't read", NAME))
    }

    fn trie(&self, endpoint: u32) -> io::Result<Option<Trie>> {
        let id = self.outer.get(&endpoint)?;
        id.map(|id| Trie::new(sys::map_by_id(id)?)).transpose()
    }

    pub(super) fn remove(&self, endpoint: u32) -> Result<(), MapError> {
        self.outer.remove(&endpoint).map_err(MapError::system("can't write", NAME))
    }

    fn full(&self, table: &NodePolicyTable) -> MapError {
        MapError::Full { map: "POLICY", entries: table.len(), capacity: self.capacity }
    }
}

const NAME: &str = "POLICIES";
/// Tries that are open at a time.
const TOGETHER: usize = 128;
