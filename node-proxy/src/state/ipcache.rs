//! Who is where: what is wanted, and what is in force.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;
use portreeve_policy::Identity;

use super::backoff::Backoff;

/// Addresses and identities.
#[derive(Debug, Default)]
pub(super) struct Ipcache {
    pub(super) wanted: HashMap<IpNet, Identity>,
    pub(super) realised: HashMap<IpNet, Identity>,
    /// Where the two may differ.
    pub(super) pending: BTreeSet<IpNet>,
    /// Some were written, and what is open has not been judged by them yet.
    pub(super) is_unjudged: bool,
    pub(super) backoff: Backoff,
    /// The revision of the engine's addresses that is wanted.
    pub(super) revision: Option<u64>,
}

impl Ipcache {
    /// These are all that is wanted.
    pub(super) fn want(&mut self, all: Vec<(IpNet, Identity)>, revision: u64) {
        self.revision = Some(revision);
        let mut old = std::mem::take(&mut self.wanted);
        let before = self.pending.len();
        for (prefix, identity) in &all {
            if old.remove(prefix) != Some(*identity) {
                self.pending.insert(*prefix);
            }
        }
        self.pending.extend(old.into_keys());
        self.wanted = all.into_iter().collect();
        if self.pending.len() > before {
            self.backoff.hurry();
        }
    }

    /// Whether everything that is wanted is in force, for what is open, too.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && !self.is_unjudged
    }

    /// Entries to write: new ones and changed ones first, then those that go.
    pub(super) fn work(&self) -> (Vec<(IpNet, Identity)>, Vec<IpNet>) {
        let (mut put, mut remove) = (Vec::new(), Vec::new());
        for prefix in &self.pending {
            match self.wanted.get(prefix) {
                Some(identity) if self.realised.get(prefix) != Some(identity) => {
                    put.push((*prefix, *identity));
                }
                Some(_) => {}
                None => remove.push(*prefix),
            }
        }
        (put, remove)
    }
}
