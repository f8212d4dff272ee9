//! Who gives identities out. In memory here; a cluster has an allocator of its own, that all of its
//! nodes ask.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{FIRST_LOCAL, FIRST_WORKLOAD, Identity};
use crate::label::Labels;

/// Gives numbers to sets of labels.
pub trait IdentityAllocator: Send {
    /// The number of these labels, which are held once more. `None`: there are none left.
    fn acquire(&mut self, labels: &Labels) -> Option<Identity>;

    /// One who had these labels is gone. When all are, the number may be given out again, to others.
    fn release(&mut self, labels: &Labels);

    /// The number of a prefix that policies name, or of an address and the DNS names it stands for: one
    /// node's own, from 2²⁴ to 2²⁵ (Cilium: scope 1). `None`: there are none left.
    fn acquire_prefix(&mut self, prefix: IpNet, names: &[String]) -> Option<Identity>;

    /// Nothing is about the prefix any more, or it stands for other names. The number may be given out
    /// again, to others.
    fn release_prefix(&mut self, prefix: IpNet, names: &[String], identity: Identity);
}

/// Numbers from 256 on, counted by who holds them.
#[derive(Debug)]
pub struct InMemoryIdentities {
    by_labels: HashMap<Labels, (Identity, usize)>,
    numbers: Numbers,
    local: LocalIdentities,
}

impl Default for InMemoryIdentities {
    fn default() -> Self {
        let numbers =
            Numbers { first: FIRST_WORKLOAD, last: FIRST_LOCAL - 1, ..Numbers::default() };
        Self { by_labels: HashMap::new(), numbers, local: LocalIdentities::default() }
    }
}

#[cfg(test)]
impl InMemoryIdentities {
    /// So many for prefixes.
    pub(super) fn with_prefixes(count: u32) -> Self {
        Self { local: LocalIdentities::of(count), ..Self::default() }
    }
}

impl IdentityAllocator for InMemoryIdentities {
    fn acquire(&mut self, labels: &Labels) -> Option<Identity> {
        if let Some((identity, held)) = self.by_labels.get_mut(labels) {
            *held += 1;
            return Some(*identity);
        }
        let identity = Identity(self.numbers.take()?);
        self.by_labels.insert(labels.clone(), (identity, 1));
        Some(identity)
    }

    fn release(&mut self, labels: &Labels) {
        let Some((identity, held)) = self.by_labels.get_mut(labels) else { return };
        *held -= 1;
        if *held == 0 {
            self.numbers.give_back(identity.0);
            self.by_labels.remove(labels);
        }
    }

    fn acquire_prefix(&mut self, _: IpNet, _: &[String]) -> Option<Identity> {
        self.local.take()
    }

    fn release_prefix(&mut self, _: IpNet, _: &[String], identity: Identity) {
        self.local.give_back(identity);
    }
}

/// Numbers of one node's own: prefixes and addresses outside of the cluster (Cilium: scope 1).
#[derive(Debug)]
struct LocalIdentities(Numbers);

impl Default for LocalIdentities {
    fn default() -> Self {
        Self(Numbers { first: FIRST_LOCAL, last: 2 * FIRST_LOCAL - 1, ..Numbers::default() })
    }
}

impl LocalIdentities {
    /// Only so many.
    #[cfg(test)]
    fn of(count: u32) -> Self {
        let last = FIRST_LOCAL + count - 1;
        Self(Numbers { first: FIRST_LOCAL, last, ..Numbers::default() })
    }

    fn take(&mut self) -> Option<Identity> {
        self.0.take().map(Identity)
    }

    fn give_back(&mut self, identity: Identity) {
        self.0.give_back(identity.0);
    }
}

/// A range of numbers. One that was given back waits until the others have had their turn: a number
/// that means somebody else a moment later is a trap for whoever remembers it.
#[derive(Debug, Default)]
struct Numbers {
    first: u32,
    last: u32,
    taken: u32,
    free: BTreeMap<u64, u32>,
    returned: u64,
}

impl Numbers {
    fn take(&mut self) -> Option<u32> {
        let next = self.first.checked_add(self.taken).filter(|next| *next <= self.last);
        match next {
            Some(next) => {
                self.taken += 1;
                Some(next)
            }
            None => self.free.pop_first().map(|(_, number)| number),
        }
    }

    fn give_back(&mut self, number: u32) {
        self.free.insert(self.returned, number);
        self.returned += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_labels_have_the_same_number_while_somebody_has_them() {
        let mut identities = InMemoryIdentities::default();
        let (a, b): (Labels, Labels) = ("app=a".parse().unwrap(), "app=b".parse().unwrap());
        let first = identities.acquire(&a);
        assert_eq!(first, identities.acquire(&a));
        assert_ne!(first, identities.acquire(&b));
        identities.release(&a);
        assert_eq!(first, identities.acquire(&a), "still held");
        identities.release(&a);
        identities.release(&a);
        assert_ne!(first, identities.acquire(&a), "a number is not used again at once");
    }

    #[test]
    fn numbers_run_out_and_come_back() {
        let mut numbers = Numbers { first: 1, last: 2, ..Numbers::default() };
        assert_eq!((numbers.take(), numbers.take(), numbers.take()), (Some(1), Some(2), None));
        numbers.give_back(1);
        assert_eq!((numbers.take(), numbers.take()), (Some(1), None));
    }
}
