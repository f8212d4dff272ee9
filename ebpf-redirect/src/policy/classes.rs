//! Numbers for those whom a direction treats alike. Both directions share the trie, so that no number
//! may stand for a class of each. A class keeps its number from one policy to the next wherever that
//! can be: little changes in the trie when little changes in the policy.

use std::collections::BTreeMap;

use portreeve_ebpf_common::Direction;
use portreeve_policy::{
    EndpointPolicy, Identity, IdentityClass, IdentityClasses, TrafficDirection,
};

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// Bit of a number that tells the direction.
const INGRESS: u32 = 1 << 31;
/// Number of those of whom nothing is said.
const OTHERS: u32 = INGRESS - 1;

/// Classes of those who have an address, and their numbers.
pub(crate) struct Numbering<'p> {
    classes: [IdentityClasses<'p>; 2],
    /// By name: the class and its number.
    named: [BTreeMap<Option<Identity>, (IdentityClass, u32)>; 2],
}

impl<'p> Numbering<'p> {
    /// Those of all who have an address.
    pub(super) fn new(policy: &'p EndpointPolicy) -> Self {
        Self::of_those(policy, policy.addresses().map(|(_, who)| who))
    }

    pub(crate) fn of_those(
        policy: &'p EndpointPolicy,
        those: impl Iterator<Item = Identity>,
    ) -> Self {
        let classes = DIRECTIONS.map(|direction| policy.classes(engine(direction)));
        let mut named = [BTreeMap::new(), BTreeMap::new()];
        for who in those {
            for (classes, named) in classes.iter().zip(&mut named) {
                let class = classes.of(who);
                named.entry(class.name()).or_insert((class, 0));
            }
        }
        for (named, direction) in named.iter_mut().zip([0, INGRESS]) {
            // The name is the number, but for the last bit. Where one is too great for that, all are
            // counted through.
            let too_great = |name: &Option<Identity>| name.is_some_and(|name| name.get() >= OTHERS);
            let unclear = named.keys().any(too_great);
            for ((name, (_, number)), place) in named.iter_mut().zip(0..) {
                let own = name.map_or(OTHERS, Identity::get);
                *number = direction | if unclear { place } else { own };
            }
        }
        Self { classes, named }
    }

    /// The number of an identity's class.
    pub(crate) fn of(&self, direction: Direction, who: Identity) -> u32 {
        let place = direction as usize;
        let name = self.classes[place].of(who).name();
        self.named[place].get(&name).map_or(u32::MAX, |(_, number)| *number)
    }

    /// Every number and its class.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, IdentityClass, &IdentityClasses<'p>)> {
        self.named.iter().zip(&self.classes).flat_map(|(named, classes)| {
            named.values().map(move |(class, number)| (*number, *class, classes))
        })
    }
}

/// A direction as the engine calls it.
pub(crate) fn engine(direction: Direction) -> TrafficDirection {
    match direction {
        Direction::Egress => TrafficDirection::Egress,
        Direction::Ingress => TrafficDirection::Ingress,
    }
}
