//! Expressions behind one beginning: compiled together where that pays, one by one where it does not.

use std::sync::Arc;

use regex_syntax::hir::Hir;
use rustc_hash::FxHashMap;

use super::automaton::Automaton;
use super::set::PatternSet;
use super::shape::{Opaque, Rest};

/// Bytes that the automaton of a group may need before its expressions are split in two.
const GROUP_LIMIT: usize = 1 << 18;
/// Most expressions that are compiled together; building costs more than proportionally.
pub(super) const GROUP_SIZE: usize = 64;

/// Expressions with one ending.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) groups: Vec<Group>,
    scattered: Vec<(u32, Arc<Rest>)>,
}

/// Expressions compiled together, or one for which several patterns stand.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) automaton: Arc<Automaton>,
    /// By the expression's index in the automaton.
    patterns: Box<[Ids]>,
}

/// One index or several.
#[derive(Clone, Debug)]
pub(super) enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    pub(super) fn push(&mut self, id: u32) {
        match self {
            Self::One(own) => *self = Self::Many(vec![*own, id]),
            Self::Many(ids) => ids.push(id),
        }
    }
}

impl Behind {
    pub(super) fn of(members: &[(u32, &Arc<Rest>)], building: &mut Building) -> Self {
        let opaque: Vec<(u32, &Opaque)> = members
            .iter()
            .filter_map(|(index, rest)| match &***rest {
                Rest::Opaque(opaque) => Some((*index, opaque)),
                _ => None,
            })
            .collect();
        let scattered = members.iter().filter(|(_, rest)| matches!(&***rest, Rest::Scattered(_)));
        let scattered = scattered.map(|(index, rest)| (*index, Arc::clone(rest))).collect();
        Self { groups: groups(&opaque, building), scattered }
    }

    /// Calls `found` with the index of every pattern that matches.
    pub(super) fn each_match(&self, rest: &[u8], found: &mut dyn FnMut(u32)) {
        self.groups.iter().for_each(|group| group.each_match(rest, found));
        for (index, expression) in &self.scattered {
            if expression.matches(rest) {
                found(*index);
            }
        }
    }

    /// Most steps that a value can cost, where a match of a pattern costs what `of` says.
    pub(super) fn worst_cost(&self, of: &dyn Fn(u32) -> usize) -> usize {
        let groups = self.groups.iter().map(|group| group.worst_cost(of)).sum::<usize>();
        groups + self.scattered.iter().map(|(index, _)| 1 + of(*index)).sum::<usize>()
    }
}

/// What is known while a set is built.
pub(super) struct Building {
    /// How often compiling expressions together may yet fail: expressions that explode together are
    /// left alone after a few tries.
    tries: u32,
    /// Sets behind gaps, by the expressions they were built from: many places have the same.
    pub(super) behind_gaps: FxHashMap<Vec<usize>, Arc<PatternSet>>,
}

impl Default for Building {
    fn default() -> Self {
        Self { tries: 16, behind_gaps: FxHashMap::default() }
    }
}

impl Group {
    fn each_match(&self, rest: &[u8], found: &mut dyn FnMut(u32)) {
        if let [only] = &*self.patterns {
            if self.automaton.matches(rest) {
                only.as_slice().iter().copied().for_each(found);
            }
            return;
        }
        self.automaton.each_match(rest, &mut |index| {
            self.patterns[index].as_slice().iter().copied().for_each(&mut *found);
        });
    }

    fn worst_cost(&self, of: &dyn Fn(u32) -> usize) -> usize {
        let patterns = self.patterns.iter().flat_map(Ids::as_slice);
        1 + patterns.map(|id| of(*id)).sum::<usize>()
    }
}

/// Expressions as groups; equal ones are one.
fn groups(members: &[(u32, &Opaque)], building: &mut Building) -> Vec<Group> {
    let mut places: FxHashMap<&str, usize> = FxHashMap::default();
    let mut distinct: Vec<(&Opaque, Ids)> = Vec::new();
    for (index, opaque) in members {
        match places.get(&*opaque.text) {
            Some(place) => distinct[*place].1.push(*index),
            None => {
                places.insert(&opaque.text, distinct.len());
                distinct.push((opaque, Ids::One(*index)));
            }
        }
    }
    let mut groups = Vec::new();
    for members in distinct.chunks(GROUP_SIZE) {
        group(members, &mut groups, building);
    }
    groups
}

/// Compiles expressions together, or, where that grows too large, in halves. One alone keeps the
/// automaton it already has.
fn group(members: &[(&Opaque, Ids)], groups: &mut Vec<Group>, building: &mut Building) {
    if let [(opaque, ids)] = members {
        let automaton = opaque.automaton.clone();
        groups.push(Group { automaton, patterns: [ids.clone()].into() });
        return;
    }
    if building.tries == 0 {
        members.chunks(1).for_each(|one| group(one, groups, building));
        return;
    }
    let parsed: Vec<Hir> =
        members.iter().filter_map(|(opaque, _)| super::syntax::reparse(&opaque.text)).collect();
    let compiled = (parsed.len() == members.len())
        .then(|| Automaton::new(&parsed.iter().collect::<Vec<_>>(), GROUP_LIMIT).ok())
        .flatten();
    match compiled {
        Some(automaton) => {
            let patterns = members.iter().map(|(_, ids)| ids.clone()).collect();
            groups.push(Group { automaton: Arc::new(automaton), patterns });
        }
        None => {
            building.tries -= 1;
            let (left, right) = members.split_at(members.len() / 2);
            group(left, groups, building);
            group(right, groups, building);
        }
    }
}
