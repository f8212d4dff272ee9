//! Backends of services that are asked for from outside, as Maglev lays them out (Eisenbud et al. 2016,
//! section 3.4): whichever node a connection comes to, and whether or not anybody remembers it, it gets
//! the same backend; and when one comes or goes, few others are moved.

use portreeve_ebpf_common::node::Ends;
use portreeve_ebpf_common::{Address, Endpoint, Slot};

/// A table of backends: number, weight, and where each is. None of the weights is 0. It does not depend
/// on the numbers, which are a node's own, nor on the order.
pub(super) fn table(backends: &[(u32, u32, Endpoint)]) -> Vec<Slot> {
    let size = size(backends.len());
    let Some(heaviest) = backends.iter().map(|(_, weight, _)| *weight).max() else {
        return Vec::new();
    };
    let mut order: Vec<Turn> = backends.iter().map(|backend| Turn::of(*backend, size)).collect();
    order.sort_unstable_by_key(|turn| turn.place);
    let mut slots: Vec<Option<u32>> = vec![None; size];
    let mut left = slots.len();
    // Each round gives a slot to the heaviest, and to others in their share.
    while left > 0 {
        for turn in &mut order {
            turn.credit += u64::from(turn.weight);
            if turn.credit < u64::from(heaviest) {
                continue;
            }
            turn.credit -= u64::from(heaviest);
            if left > 0 {
                turn.take(&mut slots);
                left -= 1;
            }
        }
    }
    let slot = |backend| Slot { threshold: 0, backend, other: backend };
    slots.into_iter().flatten().map(slot).collect()
}

/// Slots for so many backends: a prime number, some hundred times as many, so that shares are right to a
/// few of a hundred. It changes with the number of backends as seldom as may be, for everything moves then.
fn size(backends: usize) -> usize {
    match backends {
        0 | 1 => backends,
        2..=4 => 251,
        5..=16 => 1021,
        17..=64 => 4093,
        65..=256 => 16_381,
        _ => 65_521,
    }
}

/// A backend that goes through the slots in an order of its own.
struct Turn {
    number: u32,
    weight: u32,
    place: Endpoint,
    next: usize,
    skip: usize,
    size: usize,
    credit: u64,
}

impl Turn {
    fn of((number, weight, place): (u32, u32, Endpoint), size: usize) -> Self {
        let (next, skip) = match size {
            0 | 1 => (0, 0),
            _ => (hash(place, 1) % size, hash(place, 2) % (size - 1) + 1),
        };
        Self { number, weight, place, next, skip, size, credit: 0 }
    }

    /// Takes the next slot that nobody has; there is one.
    fn take(&mut self, slots: &mut [Option<u32>]) {
        loop {
            let place = self.next;
            self.next = (self.next + self.skip) % self.size;
            match slots.get_mut(place) {
                Some(slot @ None) => {
                    *slot = Some(self.number);
                    return;
                }
                Some(Some(_)) => {}
                None => return,
            }
        }
    }
}

/// The same on every node, as programs have it of connections.
fn hash(place: Endpoint, which: u16) -> usize {
    let destination = Endpoint::new(Address::UNSPECIFIED, which);
    let hash = Ends { source: place, destination, ..Ends::default() }.hash();
    usize::try_from(hash).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn backend(number: u8, weight: u32) -> (u32, u32, Endpoint) {
        let address = Address::v4(u32::from_ne_bytes([10, 0, 3, number]));
        (u32::from(number), weight, Endpoint::new(address, 8080))
    }

    fn shares(slots: &[Slot]) -> BTreeMap<u32, usize> {
        let mut shares = BTreeMap::new();
        for slot in slots {
            assert_eq!(slot.backend, slot.pick(u32::MAX), "one slot, one backend");
            *shares.entry(slot.backend).or_default() += 1;
        }
        shares
    }

    #[test]
    fn everyone_gets_his_share() {
        for count in [1_u8, 2, 3, 4, 5, 16, 17, 40] {
            let slots = table(&(1..=count).map(|number| backend(number, 7)).collect::<Vec<_>>());
            let shares = shares(&slots);
            assert_eq!(shares.len(), usize::from(count));
            let even = slots.len() / usize::from(count);
            assert!(shares.values().all(|share| share.abs_diff(even) <= 1), "{count}: {shares:?}");
        }
        let shares = shares(&table(&[backend(1, 1), backend(2, 3)]));
        assert!(shares[&1].abs_diff(251 / 4) <= 1, "{shares:?}");
        assert_eq!(table(&[]), []);
    }

    #[test]
    fn who_leaves_moves_few_others() {
        let all: Vec<_> = (1..=10).map(|number| backend(number, 1)).collect();
        let (before, after) = (table(&all), table(&all[..9]));
        assert_eq!(before.len(), after.len());
        let stayed = before.iter().zip(&after).filter(|(before, _)| before.backend != 10);
        let moved = stayed.filter(|(before, after)| before != after).count();
        // The paper finds some two of a hundred at a hundred slots each; all that matters is that it is few.
        assert!(moved * 5 < before.len(), "{moved} of {}", before.len());
    }

    #[test]
    fn neither_order_nor_numbers_matter() {
        let one = table(&[backend(1, 1), backend(2, 1), backend(3, 2)]);
        let mut others = [backend(3, 2), backend(1, 1), backend(2, 1)];
        assert_eq!(one, table(&others));
        others.iter_mut().for_each(|other| other.0 += 100);
        let numbers: Vec<u32> = table(&others).iter().map(|slot| slot.backend - 100).collect();
        assert_eq!(numbers, one.iter().map(|slot| slot.backend).collect::<Vec<_>>());
    }
}
