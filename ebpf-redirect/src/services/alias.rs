//! Weights as an alias table (Walker 1977, Vose 1991), in whole numbers: every slot stands for the same
//! share of all clients and gives it to at most two backends.

use std::cmp::Ordering;

use portreeve_ebpf_common::{Endpoint, Slot};

/// A table of backends: number and weight, and where each is. None of the weights is 0.
pub(super) fn table(backends: &[(u32, u32, Endpoint)]) -> Vec<Slot> {
    // In units of which a slot holds `total`, a backend has its weight times the number of slots.
    let total: u64 = backends.iter().map(|(_, weight, _)| u64::from(*weight)).sum();
    let slots = backends.len() as u64;
    let (mut less, mut more) = (Vec::new(), Vec::new());
    let mut table = Vec::with_capacity(backends.len());
    for (number, weight, _) in backends {
        let left = u64::from(*weight) * slots;
        match left.cmp(&total) {
            Ordering::Less => less.push((*number, left)),
            Ordering::Equal => table.push(whole(*number)),
            Ordering::Greater => more.push((*number, left)),
        }
    }
    // What is left of all is exactly what the slots that are left hold: who has less than a slot is
    // joined by one who has more, and both kinds run out together.
    while let Some((backend, share)) = less.pop() {
        let Some((other, left)) = more.pop() else { break };
        table.push(Slot { threshold: threshold(share, total), backend, other });
        let left = left - (total - share);
        match left.cmp(&total) {
            Ordering::Less => less.push((other, left)),
            Ordering::Equal => table.push(whole(other)),
            Ordering::Greater => more.push((other, left)),
        }
    }
    table
}

/// A slot that is all of one backend.
fn whole(backend: u32) -> Slot {
    Slot { threshold: 0, backend, other: backend }
}

/// `share / total` of 2³², rounded down; `share < total`, so that it is less than 2³².
fn threshold(share: u64, total: u64) -> u32 {
    let threshold = (u128::from(share) << 32) / u128::from(total);
    u32::try_from(threshold).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use portreeve_policy::fuzz::random::Dice;

    use super::super::MAX_WEIGHT;
    use super::*;

    /// What everyone gets, of 2³² for every slot.
    fn shares(table: &[Slot]) -> BTreeMap<u32, u128> {
        let mut shares = BTreeMap::new();
        for Slot { threshold, backend, other } in table {
            *shares.entry(*backend).or_default() += u128::from(*threshold);
            *shares.entry(*other).or_default() += (1 << 32) - u128::from(*threshold);
        }
        shares
    }

    fn check(weights: &[u32]) {
        let backends: Vec<_> = (100..)
            .zip(weights.iter().copied())
            .map(|(number, weight)| (number, weight, Endpoint::default()))
            .collect();
        let table = table(&backends);
        assert_eq!(table.len(), backends.len());
        let shares = shares(&table);
        assert_eq!(shares.len(), backends.len(), "nobody else, and nobody left out: {weights:?}");
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let slots = weights.len() as u128;
        for (number, weight, _) in &backends {
            // Both sides times `total`, so that nothing is rounded here.
            let (found, exact) = (shares[number] * total, (u128::from(*weight) * slots) << 32);
            let wrong = found.abs_diff(exact);
            assert!(wrong < slots * total, "{wrong} of {number} in {weights:?}");
            assert!(shares[number] > 0);
        }
    }

    #[test]
    fn shares_are_the_weights() {
        check(&[1]);
        check(&[1, 1]);
        check(&[1, 2, 3]);
        check(&[MAX_WEIGHT, 1]);
        check(&[1, MAX_WEIGHT, MAX_WEIGHT, MAX_WEIGHT]);
        let mut dice = Dice::new(21);
        for round in 0..500 {
            let most = [3, 100, MAX_WEIGHT as usize][round % 3];
            let weight = |dice: &mut Dice| 1 + u32::try_from(dice.below(most)).unwrap();
            let weights: Vec<u32> = (0..=dice.below(40)).map(|_| weight(&mut dice)).collect();
            check(&weights);
        }
        let mut many = vec![MAX_WEIGHT; super::super::MAX_BACKENDS];
        many[0] = 1;
        check(&many);
    }

    #[test]
    fn shares_that_can_be_told_exactly_are_exact() {
        let table = table(&[(1, 1, Endpoint::default()), (2, 3, Endpoint::default())]);
        assert_eq!(shares(&table), BTreeMap::from([(1, 1 << 31), (2, 3 << 31)]));
    }

    #[test]
    fn nobody_has_no_slot() {
        assert_eq!(table(&[]), []);
    }
}
