//! Who is there: identities, held as long as somebody has them, and prefixes, as long as something is
//! about them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashSet;

use crate::endpoint::Peer;
use crate::identity::{Identities, Identity, IdentityAllocator, IdentityIndex, built_in_labels};
use crate::label::Labels;
use crate::resolve::Selections;

/// What a change concerns.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Workloads by name.
    pub(super) endpoints: BTreeSet<String>,
    /// Selections that select others than before.
    pub(super) selections: FxHashSet<u32>,
    pub(super) services: bool,
    pub(super) groups: bool,
    pub(super) ports: bool,
}

impl Touched {
    /// This change and another one.
    pub(super) fn add(&mut self, other: Self) {
        let Self { endpoints, selections, services, groups, ports } = other;
        self.endpoints.extend(endpoints);
        self.selections.extend(selections);
        self.services |= services;
        self.groups |= groups;
        self.ports |= ports;
    }
}

/// Everybody, with those who hold them.
pub(super) struct Registry {
    identities: Arc<Identities>,
    pub(super) index: IdentityIndex,
    allocator: Box<dyn IdentityAllocator>,
    /// How many have an identity.
    held: HashMap<Identity, usize>,
    /// Who is at a place, the latest last: several may be, and one who leaves does not take it with him.
    places: HashMap<IpNet, Vec<Identity>>,
    /// How many rules, groups, services and names a prefix is held by.
    prefixes: HashMap<IpNet, usize>,
    peers: HashMap<String, Known>,
    /// How often somebody may have come to a place, or left one.
    pub(super) placements: u64,
}

/// A peer with the identity that it holds.
pub(super) struct Known {
    pub(super) peer: Peer,
    pub(super) labels: Labels,
    pub(super) identity: Identity,
}

impl Registry {
    pub(super) fn new(single_stack: bool, allocator: Box<dyn IdentityAllocator>) -> Self {
        let mut index = IdentityIndex::default();
        let identities = Arc::new(Identities::new(single_stack, &mut index));
        Self {
            identities,
            index,
            allocator,
            held: HashMap::new(),
            places: HashMap::new(),
            prefixes: HashMap::new(),
            peers: HashMap::new(),
            placements: 0,
        }
    }

    pub(super) fn identities(&self) -> Arc<Identities> {
        Arc::clone(&self.identities)
    }

    /// Somebody with these labels comes to these places. `None`: there is no number left for him, and
    /// who is at the places is nobody known.
    pub(super) fn arrive(
        &mut self,
        labels: &Labels,
        places: impl Iterator<Item = IpNet>,
        selections: &mut Selections,
        touched: &mut Touched,
    ) -> Option<Identity> {
        let built_in = built_in_labels(labels);
        let Some(identity) = built_in.or_else(|| self.allocator.acquire(labels)) else {
            self.settle_in(Identity::UNKNOWN, places);
            return None;
        };
        *self.held.entry(identity).or_default() += 1;
        let identities = Arc::make_mut(&mut self.identities);
        if identities.add_labels(identity, labels, &mut self.index)
            && let Some(known) = identities.get(identity)
        {
            touched.selections.extend(selections.came(known));
        }
        self.settle_in(identity, places);
        Some(identity)
    }

    fn settle_in(&mut self, identity: Identity, places: impl Iterator<Item = IpNet>) {
        self.placements += 1;
        let identities = Arc::make_mut(&mut self.identities);
        for place in places.map(|place| place.trunc()) {
            self.places.entry(place).or_default().push(identity);
            identities.place(place, identity);
        }
    }

    /// Somebody leaves.
    pub(super) fn leave(
        &mut self,
        identity: Identity,
        labels: &Labels,
        places: impl Iterator<Item = IpNet>,
        selections: &mut Selections,
        touched: &mut Touched,
    ) {
        self.placements += 1;
        let identities = Arc::make_mut(&mut self.identities);
        for place in places.map(|place| place.trunc()) {
            let Some(there) = self.places.get_mut(&place) else { continue };
            if let Some(own) = there.iter().rposition(|other| *other == identity) {
                there.remove(own);
            }
            match there.last() {
                Some(other) => identities.place(place, *other),
                None => {
                    self.places.remove(&place);
                    identities.displace(place);
                }
            }
        }
        if identity == Identity::UNKNOWN {
            return;
        }
        if built_in_labels(labels).is_none() {
            self.allocator.release(labels);
        }
        let Some(held) = self.held.get_mut(&identity) else { return };
        *held -= 1;
        if *held > 0 {
            return;
        }
        self.held.remove(&identity);
        if built_in_labels(labels).is_none() {
            identities.remove(identity, &mut self.index);
            touched.selections.extend(selections.went(identity));
        }
    }

    pub(super) fn remember(&mut self, name: &str, known: Known) {
        self.peers.insert(name.to_owned(), known);
    }

    pub(super) fn forget(&mut self, name: &str) -> Option<Known> {
        self.peers.remove(name)
    }

    /// Something is about a prefix.
    pub(super) fn hold(
        &mut self,
        prefix: IpNet,
        names: Vec<String>,
        selections: &mut Selections,
        touched: &mut Touched,
    ) {
        let held = self.prefixes.entry(prefix).or_default();
        *held += 1;
        if *held == 1 {
            self.add_prefix(prefix, names, selections, touched);
        }
    }

    /// Something is no longer about a prefix.
    pub(super) fn let_go(
        &mut self,
        prefix: IpNet,
        selections: &mut Selections,
        touched: &mut Touched,
    ) {
        let Some(held) = self.prefixes.get_mut(&prefix) else { return };
        *held -= 1;
        if *held == 0 {
            self.prefixes.remove(&prefix);
            self.remove_prefix(prefix, selections, touched);
        }
    }

    /// An address stands for other names than before.
    pub(super) fn rename(
        &mut self,
        prefix: IpNet,
        names: Vec<String>,
        selections: &mut Selections,
        touched: &mut Touched,
    ) {
        if self.prefixes.contains_key(&prefix) {
            self.remove_prefix(prefix, selections, touched);
            self.add_prefix(prefix, names, selections, touched);
        }
    }

    fn add_prefix(
        &mut self,
        prefix: IpNet,
        names: Vec<String>,
        selections: &mut Selections,
        touched: &mut Touched,
    ) {
        self.placements += 1;
        let identities = Arc::make_mut(&mut self.identities);
        let added = identities.add_prefix(prefix, names, &mut *self.allocator, &mut self.index);
        if let Some(known) = added.and_then(|identity| identities.get(identity)) {
            touched.selections.extend(selections.came(known));
        }
    }

    fn remove_prefix(&mut self, prefix: IpNet, selections: &mut Selections, touched: &mut Touched) {
        self.placements += 1;
        let identities = Arc::make_mut(&mut self.identities);
        if let Some(gone) = identities.remove_prefix(prefix, &mut *self.allocator, &mut self.index)
        {
            touched.selections.extend(selections.went(gone));
        }
    }
}
