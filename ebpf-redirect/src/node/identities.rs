//! Who has which address: whole addresses in a hash, prefixes in a trie. What is wanted is said as a
//! whole; what differs is written.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use portreeve_ebpf_common::Address;
use portreeve_ebpf_common::node::PrefixKey;

use super::contents::prefix;
use crate::address::{address, ip};
use crate::error::MapError;
use crate::policy_map::is_full;
use crate::table::{Plain, Table};

/// The maps `HOSTS` and `PREFIXES`.
#[derive(Debug)]
pub(super) struct Identities {
    hosts: Mirrored<Address>,
    prefixes: Mirrored<PrefixKey>,
}

impl Identities {
    pub(super) fn new(hosts: Table<Address, u32>, prefixes: Table<PrefixKey, u32>) -> Self {
        Self { hosts: Mirrored::new("HOSTS", hosts), prefixes: Mirrored::new("PREFIXES", prefixes) }
    }

    /// Makes of what is there what is wanted.
    pub(super) fn sync(&self, wanted: impl Iterator<Item = (IpNet, u32)>) -> Result<(), MapError> {
        let (mut hosts, mut prefixes) = (BTreeMap::new(), BTreeMap::new());
        for (prefix, identity) in wanted {
            let key = key(prefix);
            match key.bits {
                WHOLE => drop(hosts.insert(key.address, identity)),
                _ => drop(prefixes.insert(key, identity)),
            }
        }
        self.hosts.sync(hosts)?;
        self.prefixes.sync(prefixes)
    }

    /// Says who has a prefix; `None`: nobody in particular.
    pub(super) fn set(&self, prefix: IpNet, identity: Option<u32>) -> Result<(), MapError> {
        let key = key(prefix);
        match key.bits {
            WHOLE => self.hosts.set(key.address, identity),
            _ => self.prefixes.set(key, identity),
        }
    }

    /// Every identity that somebody has.
    pub(super) fn numbers(&self) -> Result<BTreeSet<u32>, MapError> {
        let mut all = self.hosts.numbers()?;
        all.extend(self.prefixes.numbers()?);
        Ok(all)
    }

    /// Who has what, as the kernel has it.
    pub(super) fn contents(&self) -> Result<BTreeMap<IpNet, u32>, MapError> {
        let hosts = self.hosts.contents()?.into_iter();
        let hosts = hosts.map(|(address, identity)| (PrefixKey { bits: WHOLE, address }, identity));
        let all = hosts.chain(self.prefixes.contents()?);
        let named = all.filter_map(|(key, identity)| {
            let address = ip(key.address);
            // A short prefix of IPv6 may begin as mapped addresses do.
            let address = if key.bits < 96 { key.address.to_bytes().into() } else { address };
            Some((prefix(address, key.bits)?, identity))
        });
        Ok(named.collect())
    }

    /// How many there are, and how many there is room for.
    pub(super) fn fill(&self) -> Result<[(&'static str, usize, u32); 2], MapError> {
        Ok([self.hosts.fill()?, self.prefixes.fill()?])
    }
}

/// A map, and what is in it as far as this process knows.
#[derive(Debug)]
struct Mirrored<K> {
    name: &'static str,
    table: Table<K, u32>,
    /// `None`: not known, and to be read.
    mirror: Mutex<Option<BTreeMap<K, u32>>>,
}

impl<K: Plain + Ord + Hash> Mirrored<K> {
    fn new(name: &'static str, table: Table<K, u32>) -> Self {
        Self { name, table, mirror: Mutex::new(None) }
    }

    fn known<'m>(
        &self,
        mirror: &'m mut MutexGuard<'_, Option<BTreeMap<K, u32>>>,
    ) -> Result<&'m mut BTreeMap<K, u32>, MapError> {
        if mirror.is_none() {
            let entries =
                self.table.entries().map_err(MapError::system("can't read", self.name))?;
            **mirror = Some(entries.into_iter().collect());
        }
        Ok(mirror.get_or_insert_default())
    }

    fn contents(&self) -> Result<Vec<(K, u32)>, MapError> {
        self.table.entries().map_err(MapError::system("can't read", self.name))
    }

    fn sync(&self, wanted: BTreeMap<K, u32>) -> Result<(), MapError> {
        let mut mirror = lock(&self.mirror);
        if wanted.len() > self.table.capacity() as usize {
            return Err(self.full(wanted.len()));
        }
        let there = self.known(&mut mirror)?;
        // Those that go make room for those that come; nobody is somebody else meanwhile.
        let gone: Vec<K> = there.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let come: Vec<(K, u32)> = wanted
            .iter()
            .filter(|(key, identity)| there.get(key) != Some(identity))
            .map(|(key, identity)| (*key, *identity))
            .collect();
        *mirror = None;
        for key in &gone {
            self.table.remove(key).map_err(MapError::system("can't write", self.name))?;
        }
        self.table.put_all(come.into_iter()).map_err(|error| self.failed(error, wanted.len()))?;
        *mirror = Some(wanted);
        Ok(())
    }

    fn set(&self, key: K, identity: Option<u32>) -> Result<(), MapError> {
        let mut mirror = lock(&self.mirror);
        let there = self.known(&mut mirror)?;
        match identity {
            Some(identity) => {
                let entries = there.len() + 1;
                self.table.put(&key, &identity).map_err(|error| self.failed(error, entries))?;
                there.insert(key, identity);
            }
            None => {
                self.table.remove(&key).map_err(MapError::system("can't write", self.name))?;
                there.remove(&key);
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<BTreeSet<u32>, MapError> {
        let mut mirror = lock(&self.mirror);
        Ok(self.known(&mut mirror)?.values().copied().collect())
    }

    fn fill(&self) -> Result<(&'static str, usize, u32), MapError> {
        let mut mirror = lock(&self.mirror);
        Ok((self.name, self.known(&mut mirror)?.len(), self.table.capacity()))
    }

    fn failed(&self, error: std::io::Error, entries: usize) -> MapError {
        match is_full(&error) {
            true => self.full(entries),
            false => MapError::system("can't write", self.name)(error),
        }
    }

    fn full(&self, entries: usize) -> MapError {
        MapError::Full { map: self.name, entries, capacity: self.table.capacity() }
    }
}

fn key(prefix: IpNet) -> PrefixKey {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    PrefixKey { bits: mapped + u32::from(prefix.prefix_len()), address: address(prefix.network()) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bits of a whole address.
const WHOLE: u32 = 128;
