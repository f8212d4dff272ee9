//! Names to numbers. A number is held as long as somebody has its name, kept for a while after, and
//! used again last: when all have been given out, those that nobody has come in turn.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::Name;

/// Names and their numbers.
#[derive(Clone, Debug)]
pub(super) struct Numbering<N> {
    range: RangeInclusive<u32>,
    /// The smallest number that never had a name; `None`: all had one.
    pub(super) next: Option<u32>,
    /// Where it is looked for one that nobody has, when all had a name.
    pub(super) turn: u32,
    /// Somebody has these who has no name here.
    taken: BTreeSet<u32>,
    entries: HashMap<N, Entry>,
}

/// A number that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number.
    pub(super) number: u32,
    /// How many have it.
    pub(super) held: usize,
    /// When the last one went; meaningless while it is held.
    released: Instant,
}

impl<N: Name> Numbering<N> {
    /// Nobody has a number yet.
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        let start = *range.start();
        let (taken, entries) = (BTreeSet::new(), HashMap::new());
        Self { range, next: Some(start), turn: start, taken, entries }
    }

    /// What was known when somebody wrote it down; nobody has come yet to say that he has a name.
    /// `None`: it can't be what was written.
    pub(super) fn restore(
        range: RangeInclusive<u32>,
        next: Option<u32>,
        turn: Option<u32>,
        names: Vec<(N, u32)>,
        now: Instant,
    ) -> Option<Self> {
        let beyond = next.unwrap_or(range.end().saturating_add(1));
        let mut seen = HashSet::new();
        for number in names.iter().map(|(_, number)| *number) {
            let was_given_out = range.contains(&number) && number < beyond;
            if !was_given_out || !seen.insert(number) {
                return None;
            }
        }
        if next.into_iter().chain(turn).any(|number| !range.contains(&number)) {
            return None;
        }
        let turn = turn.unwrap_or(*range.start());
        let count = names.len();
        let entry = |number| Entry { number, held: 0, released: now };
        let entries: HashMap<N, Entry> =
            names.into_iter().map(|(name, number)| (name, entry(number))).collect();
        (entries.len() == count).then(|| Self {
            range,
            next,
            turn,
            taken: BTreeSet::new(),
            entries,
        })
    }

    /// The number of a name, held once more, and whether it is new. `None`: there are none left.
    pub(super) fn acquire(&mut self, name: &N, now: Instant) -> Option<(u32, bool)> {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.held += 1;
            return Some((entry.number, false));
        }
        let number = self.take()?;
        self.entries.insert(name.clone(), Entry { number, held: 1, released: now });
        Some((number, true))
    }

    fn take(&mut self) -> Option<u32> {
        match self.next {
            Some(next) => {
                self.next = next.checked_add(1).filter(|next| self.range.contains(next));
                Some(next)
            }
            None => self.take_again(),
        }
    }

    /// One that somebody had, the next in turn: who was given up a moment ago comes last, or nearly so.
    fn take_again(&mut self) -> Option<u32> {
        let held: HashSet<u32> = self.entries.values().map(|entry| entry.number).collect();
        let is_free = |number: &u32| !held.contains(number) && !self.taken.contains(number);
        let (start, end) = (*self.range.start(), *self.range.end());
        let number = (self.turn..=end).chain(start..self.turn).find(is_free)?;
        self.turn = number.checked_add(1).filter(|turn| self.range.contains(turn)).unwrap_or(start);
        Some(number)
    }

    /// The number of a name, if it has one.
    pub(super) fn number(&self, name: &N) -> Option<u32> {
        self.entries.get(name).map(|entry| entry.number)
    }

    /// Somebody has these. Numbers that never had a name begin above them. Returns whether they began below.
    pub(super) fn begin_after(&mut self, in_use: &BTreeSet<u32>) -> bool {
        self.taken = in_use.range(self.range.clone()).copied().collect();
        let Some(&highest) = self.taken.last() else { return false };
        let is_below = self.next.is_some_and(|next| next <= highest);
        if is_below {
            self.next = highest.checked_add(1).filter(|next| self.range.contains(next));
        }
        is_below
    }

    /// One who had a name is gone.
    pub(super) fn release(&mut self, name: &N, now: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.held = entry.held.saturating_sub(1);
            entry.released = now;
        }
    }

    /// Gives up the names that nobody has had for `keep`.
    pub(super) fn collect(&mut self, now: Instant, keep: Duration) -> Vec<(N, u32)> {
        let is_over = |entry: &Entry| {
            entry.held == 0 && now.saturating_duration_since(entry.released) >= keep
        };
        let over = self.entries.iter().filter(|(_, entry)| is_over(entry));
        let mut gone: Vec<(N, u32)> =
            over.map(|(name, entry)| (name.clone(), entry.number)).collect();
        gone.sort_by_key(|(_, number)| *number);
        for (name, number) in &gone {
            self.entries.remove(name);
            // It is not called so by anybody any more.
            self.taken.remove(number);
        }
        gone
    }

    /// Every name and its number.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&N, &Entry)> {
        self.entries.iter()
    }
}
