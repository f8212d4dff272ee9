//! Names to numbers. A number is held as long as somebody has its name, kept for a while after, and
//! used again last.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::Name;

/// Names and their numbers.
#[derive(Clone, Debug)]
pub(super) struct Numbering<N> {
    range: RangeInclusive<u32>,
    /// The smallest number that never had a name; `None`: all had one.
    pub(super) next: Option<u32>,
    /// Numbers that were given up, the longest ago first.
    pub(super) free: VecDeque<u32>,
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
        let next = Some(*range.start());
        Self { range, next, free: VecDeque::new(), entries: HashMap::new() }
    }

    /// What was known when somebody wrote it down; nobody has come yet to say that he has a name.
    /// `None`: it can't be what was written.
    pub(super) fn restore(
        range: RangeInclusive<u32>,
        next: Option<u32>,
        free: Vec<u32>,
        names: Vec<(N, u32)>,
        now: Instant,
    ) -> Option<Self> {
        let beyond = next.unwrap_or(range.end().saturating_add(1));
        let mut seen = std::collections::HashSet::new();
        let numbers = names.iter().map(|(_, number)| *number).chain(free.iter().copied());
        for number in numbers {
            let was_given_out = range.contains(&number) && number < beyond;
            if !was_given_out || !seen.insert(number) {
                return None;
            }
        }
        if next.is_some_and(|next| !range.contains(&next)) {
            return None;
        }
        let count = names.len();
        let entry = |number| Entry { number, held: 0, released: now };
        let entries: HashMap<N, Entry> =
            names.into_iter().map(|(name, number)| (name, entry(number))).collect();
        (entries.len() == count).then(|| Self { range, next, free: free.into(), entries })
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
            None => self.free.pop_front(),
        }
    }

    /// The number of a name, if it has one.
    pub(super) fn number(&self, name: &N) -> Option<u32> {
        self.entries.get(name).map(|entry| entry.number)
    }

    /// Numbers that never had a name begin above this one. Returns whether they began below.
    pub(super) fn begin_after(&mut self, highest: u32) -> bool {
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
            self.free.push_back(*number);
        }
        gone
    }

    /// Every name and its number.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&N, &Entry)> {
        self.entries.iter()
    }
}
