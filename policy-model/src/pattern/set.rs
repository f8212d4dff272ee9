//! Many patterns over one value: which of them match? The cost depends on the value, and on how many
//! patterns are alike, not on how many there are.
//!
//! Literals are looked up in a hash table, and so are literal beginnings that end with a slash; other
//! beginnings stand in a trie. What may follow a beginning stands at its [`Place`]: anything; a gap up
//! to the next slash and again a set of patterns; or expressions, found by what they end with, or
//! compiled together.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::automaton::Automaton;
use super::group::{Behind, Building, GROUP_SIZE, Ids};
use super::shape::{Opaque, Rest, Scattered, Shape};
use super::trie::{Trie, number};
use super::{Pattern, is_one_line};

/// Patterns, known by the index at which they were given.
#[derive(Debug, Default)]
pub(crate) struct PatternSet {
    literals: FxHashMap<Box<[u8]>, Ids>,
    /// Beginnings that end with a slash, by themselves.
    slashed: FxHashMap<Box<[u8]>, u32>,
    /// A bit for each number of slashes that some of them have; the last stands for all above.
    depths: u64,
    /// All other beginnings, the empty one too.
    others: Trie,
    places: Vec<Place>,
}

/// What may follow a literal beginning. Most often that is anything, and nothing else.
#[derive(Debug, Default)]
struct Place {
    /// Patterns that allow anything.
    open: Option<Ids>,
    more: Option<Box<More>>,
}

/// What else may follow a literal beginning.
#[derive(Debug, Default)]
struct More {
    gaps: Vec<Gap>,
    /// Other expressions, whatever they end with.
    behind: Behind,
    endings: Option<Endings>,
}

/// Something without a slash, a slash, and patterns for what follows it.
#[derive(Debug)]
struct Gap {
    automaton: Arc<Automaton>,
    then: Arc<PatternSet>,
    /// By the index in `then`.
    patterns: Box<[u32]>,
}

/// Expressions by what they end with.
#[derive(Debug, Default)]
struct Endings {
    /// Of the endings, backwards.
    trie: Trie,
    behind: Vec<Behind>,
}

impl PatternSet {
    pub(crate) fn new<'p>(patterns: impl IntoIterator<Item = &'p Pattern>) -> Self {
        let shapes: Vec<&Shape> = patterns.into_iter().map(|pattern| &pattern.shape).collect();
        Self::of(&shapes, &mut Building::default())
    }

    fn of(shapes: &[&Shape], building: &mut Building) -> Self {
        let mut set = Self::default();
        let mut rests: Vec<Vec<(u32, &Arc<Rest>)>> = Vec::new();
        for (index, shape) in (0..).zip(shapes) {
            match shape {
                Shape::Any => {
                    let place = set.place(b"");
                    set.places[place].opens(index);
                }
                Shape::Literals(literals) => {
                    for literal in literals.iter() {
                        let known = set.literals.get_mut(literal);
                        match known {
                            Some(ids) => ids.push(index),
                            None => {
                                set.literals.insert(literal.clone(), Ids::One(index));
                            }
                        }
                    }
                }
                Shape::Prefix(prefix) => {
                    let place = set.place(prefix);
                    set.places[place].opens(index);
                }
                Shape::Regex { prefix, rest } => {
                    let place = set.place(prefix);
                    if rests.len() <= place {
                        rests.resize_with(place + 1, Vec::new);
                    }
                    rests[place].push((index, rest));
                }
            }
        }
        for (place, rests) in set.places.iter_mut().zip(rests) {
            if !rests.is_empty() {
                place.more = Some(Box::new(More::of(&rests, building)));
            }
        }
        set
    }

    /// The place behind this beginning, made if it isn't there.
    fn place(&mut self, prefix: &[u8]) -> usize {
        let next = number(self.places.len());
        let place = match prefix.last() {
            Some(b'/') => {
                self.depths |= 1 << slashes(prefix).min(63);
                *self.slashed.entry(prefix.into()).or_insert(next)
            }
            _ => self.others.entry(prefix.iter().copied(), next),
        };
        if place == next {
            self.places.push(Place::default());
        }
        place as usize
    }

    /// Calls `found` with the index of every pattern that the whole value matches.
    pub(crate) fn each_match(&self, value: &[u8], found: &mut dyn FnMut(u32)) {
        if let Some(ids) = self.literals.get(value) {
            ids.as_slice().iter().copied().for_each(&mut *found);
        }
        if self.depths != 0 {
            let mut depth = 0_u32;
            for slash in memchr::memchr_iter(b'/', value) {
                depth += 1;
                if self.depths >> depth.min(63) == 0 {
                    break;
                }
                if self.depths & (1 << depth.min(63)) != 0
                    && let Some(place) = self.slashed.get(&value[..=slash])
                {
                    self.places[*place as usize].each_match(&value[slash + 1..], found);
                }
            }
        }
        self.others.each(value.iter().copied(), &mut |place, taken| {
            self.places[place as usize].each_match(&value[taken..], found);
        });
    }

    /// Most steps that a value can cost, where a match of a pattern costs what `of` says.
    pub(crate) fn worst_cost(&self, of: &dyn Fn(u32) -> usize) -> usize {
        let sum = |ids: &Ids| ids.as_slice().iter().map(|id| of(*id)).sum::<usize>();
        let literal = self.literals.values().map(sum).max().unwrap_or(0);
        let cost: Vec<usize> = self.places.iter().map(|place| place.worst_cost(of)).collect();
        // Beginnings that a value can have at once are beginnings of each other.
        let nested = |prefix: &[u8]| {
            let slashes = memchr::memchr_iter(b'/', prefix);
            let known = slashes.filter_map(|slash| self.slashed.get(&prefix[..=slash]));
            known.map(|place| cost[*place as usize]).sum::<usize>()
        };
        let slashed = self.slashed.keys().map(|prefix| nested(prefix)).max().unwrap_or(0);
        literal + slashed + self.others.heaviest(&|place| cost[place as usize])
    }

    /// Bytes held by automata, each counted once.
    pub(crate) fn memory(&self, seen: &mut rustc_hash::FxHashSet<usize>) -> usize {
        let mut bytes = 0;
        let mut add = |automaton: &Arc<Automaton>, seen: &mut rustc_hash::FxHashSet<usize>| {
            if seen.insert(Arc::as_ptr(automaton).addr()) {
                bytes += automaton.memory();
            }
        };
        for place in &self.places {
            let Some(more) = &place.more else { continue };
            let behind = more.endings.iter().flat_map(|endings| &endings.behind);
            let endings = behind.flat_map(|behind| &behind.groups);
            more.behind.groups.iter().chain(endings).for_each(|group| add(&group.automaton, seen));
            more.gaps.iter().for_each(|gap| add(&gap.automaton, seen));
        }
        let more = self.places.iter().filter_map(|place| place.more.as_ref());
        let gaps = more.flat_map(|more| &more.gaps);
        bytes + gaps.map(|gap| gap.then.memory(seen)).sum::<usize>()
    }
}

impl Place {
    /// A pattern that allows anything here.
    fn opens(&mut self, index: u32) {
        match &mut self.open {
            Some(ids) => ids.push(index),
            None => self.open = Some(Ids::One(index)),
        }
    }

    fn each_match(&self, rest: &[u8], found: &mut dyn FnMut(u32)) {
        if let Some(open) = &self.open
            && is_one_line(rest)
        {
            open.as_slice().iter().copied().for_each(&mut *found);
        }
        if let Some(more) = &self.more {
            more.each_match(rest, found);
        }
    }

    fn worst_cost(&self, of: &dyn Fn(u32) -> usize) -> usize {
        let open = self.open.iter().flat_map(Ids::as_slice);
        let open: usize = open.map(|id| of(*id)).sum();
        open + self.more.as_ref().map_or(0, |more| more.worst_cost(of))
    }
}

impl More {
    fn of(rests: &[(u32, &Arc<Rest>)], building: &mut Building) -> Self {
        let mut gaps: FxHashMap<usize, (&Arc<Automaton>, Members<'_>)> = FxHashMap::default();
        let mut by_ending: FxHashMap<&[u8], Members<'_>> = FxHashMap::default();
        for &(index, rest) in rests {
            match &**rest {
                Rest::Gap { gap, .. } => {
                    let own = gaps.entry(Arc::as_ptr(gap).addr()).or_insert((gap, Vec::new()));
                    own.1.push((index, rest));
                }
                Rest::Opaque(Opaque { suffix, .. }) | Rest::Scattered(Scattered { suffix, .. }) => {
                    by_ending.entry(suffix).or_default().push((index, rest));
                }
            }
        }
        let mut more = Self::default();
        let mut gaps: Vec<_> = gaps.into_values().collect();
        gaps.sort_by_key(|(_, members)| members.first().map(|(index, _)| *index));
        for (automaton, members) in gaps {
            more.gaps.push(Gap::of(automaton, &members, building));
        }
        // A few are compiled together; many are first told apart by what they end with.
        let many = by_ending.values().map(Vec::len).sum::<usize>() > GROUP_SIZE;
        let mut endings: Vec<_> = by_ending.into_iter().collect();
        endings.sort_by_key(|(_, members)| members.first().map(|(index, _)| *index));
        let mut together = Vec::new();
        for (ending, members) in endings {
            if ending.is_empty() || !many {
                together.extend(members);
                continue;
            }
            let own = more.endings.get_or_insert_default();
            let next = number(own.behind.len());
            own.trie.entry(ending.iter().rev().copied(), next);
            own.behind.push(Behind::of(&members, building));
        }
        together.sort_by_key(|(index, _)| *index);
        more.behind = Behind::of(&together, building);
        more
    }

    fn each_match(&self, rest: &[u8], found: &mut dyn FnMut(u32)) {
        if !self.gaps.is_empty()
            && let Some(slash) = memchr::memchr(b'/', rest)
        {
            for gap in &self.gaps {
                if gap.automaton.matches(&rest[..slash]) {
                    gap.then.each_match(&rest[slash + 1..], &mut |index| {
                        found(gap.patterns[index as usize]);
                    });
                }
            }
        }
        self.behind.each_match(rest, found);
        if let Some(endings) = &self.endings {
            endings.trie.each(rest.iter().rev().copied(), &mut |place, _| {
                endings.behind[place as usize].each_match(rest, found);
            });
        }
    }

    fn worst_cost(&self, of: &dyn Fn(u32) -> usize) -> usize {
        let gap = |gap: &Gap| 1 + gap.then.worst_cost(&|index| of(gap.patterns[index as usize]));
        let gaps: usize = self.gaps.iter().map(gap).sum();
        let endings = self.endings.as_ref().map_or(0, |endings| {
            endings.trie.heaviest(&|place| endings.behind[place as usize].worst_cost(of))
        });
        gaps + self.behind.worst_cost(of) + endings
    }
}

/// Expressions with their indices.
type Members<'r> = Vec<(u32, &'r Arc<Rest>)>;

impl Gap {
    fn of(automaton: &Arc<Automaton>, members: &Members<'_>, building: &mut Building) -> Self {
        let key: Vec<usize> = members.iter().map(|(_, rest)| Arc::as_ptr(rest).addr()).collect();
        let then = match building.behind_gaps.get(&key) {
            Some(known) => known.clone(),
            None => {
                let shapes: Vec<&Shape> = members
                    .iter()
                    .filter_map(|(_, rest)| match &***rest {
                        Rest::Gap { then, .. } => Some(then),
                        _ => None,
                    })
                    .collect();
                let then = Arc::new(PatternSet::of(&shapes, building));
                building.behind_gaps.insert(key, then.clone());
                then
            }
        };
        let patterns = members.iter().map(|(index, _)| *index).collect();
        Self { automaton: automaton.clone(), then, patterns }
    }
}

fn slashes(text: &[u8]) -> usize {
    memchr::memchr_iter(b'/', text).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The indices that the set finds, and those that one pattern after the other does.
    fn both(patterns: &[Pattern], value: &str) -> (Vec<u32>, Vec<u32>) {
        let mut found = Vec::new();
        PatternSet::new(patterns).each_match(value.as_bytes(), &mut |index| found.push(index));
        found.sort_unstable();
        let each = (0..).zip(patterns).filter(|(_, pattern)| pattern.matches(value.as_bytes()));
        (found, each.map(|(index, _)| index).collect())
    }

    fn memory(patterns: &[Pattern]) -> usize {
        PatternSet::new(patterns).memory(&mut rustc_hash::FxHashSet::default())
    }

    #[test]
    fn a_set_finds_what_each_pattern_alone_finds() {
        let patterns: Vec<Pattern> = [
            "/a",
            "/a/.*",
            "/a/b",
            "/a/[0-9]+",
            "/a/[a-z]+",
            "/ab.*",
            ".*",
            "/a/b/.*",
            "/a|/ab",
            ".*b",
            "/a/.*/c",
            "(?i)/A",
            "",
            "/abc",
            "/abd/.*",
            "/a/[a-z]+/c",
            "/a/[a-z]+/.*",
            "/a/[^/]+/[^/]+",
            "/a/x[a-z]*/c/d",
            "/.*/c",
        ]
        .iter()
        .map(|text| Pattern::new(text).unwrap())
        .collect();
        for value in [
            "/a", "/a/", "/a/b", "/a/12", "/ab", "/abc", "/a/x/c", "", "/", "b", "/abd/", "/A",
            "/a\nb", "/a/x/c/d", "/a//c", "/a/x/", "/x/y/c",
        ] {
            let (found, expected) = both(&patterns, value);
            assert_eq!(found, expected, "{value:?}");
        }
    }

    #[test]
    fn many_expressions_behind_one_gap_need_one_automaton() {
        let patterns: Vec<Pattern> =
            (0..500).map(|i| Pattern::new(&format!("/svc/[a-z]+/item{i}")).unwrap()).collect();
        let (found, expected) = both(&patterns, "/svc/abc/item321");
        assert_eq!(found, expected);
        assert_eq!(found, [321]);
        assert!(memory(&patterns) < 4096, "{}", memory(&patterns));
        let set = PatternSet::new(&patterns);
        assert!(set.worst_cost(&|_| 1) <= 2, "{}", set.worst_cost(&|_| 1));
    }

    #[test]
    fn many_expressions_that_cross_slashes_are_found_by_their_endings() {
        let pattern = |i| Pattern::new(&format!("/.*/svc-{i}/.*/item-{i}")).unwrap();
        let patterns: Vec<Pattern> = (0..500).map(pattern).collect();
        let (found, expected) = both(&patterns, "/x/svc-321/y/item-321");
        assert_eq!(found, expected);
        assert_eq!(found, [321]);
        let set = PatternSet::new(&patterns);
        assert!(set.worst_cost(&|_| 1) <= 4, "{}", set.worst_cost(&|_| 1));
    }

    #[test]
    fn what_can_cost_much_is_known_beforehand() {
        let patterns: Vec<Pattern> =
            (0..300).map(|i| Pattern::new(&format!("/.*/svc-{i}/.*")).unwrap()).collect();
        let set = PatternSet::new(&patterns);
        assert!(set.worst_cost(&|_| 1) >= 300);
        // These explode when they are compiled together; that is found out soon.
        let patterns: Vec<Pattern> =
            (0..300).map(|i| Pattern::new(&format!("/[a-z/]*x{i}[a-z/]*")).unwrap()).collect();
        assert!(PatternSet::new(&patterns).worst_cost(&|_| 1) >= 300);
    }
}
