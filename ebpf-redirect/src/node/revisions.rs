//! The numbers by which programs tell one policy of an endpoint from the next. They outlive the process in
//! what is pinned, and so they go on where it left off: a number that came again would let connections
//! pass that another policy had judged.

/// The next number. 0 is none's: it stands for no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revisions {
    last: u32,
}

impl Revisions {
    /// Those that come after all that were found.
    pub(super) fn after(found: impl IntoIterator<Item = u32>) -> Self {
        Self { last: found.into_iter().max().unwrap_or(0) }
    }

    /// One that no policy has.
    pub(super) fn next(&mut self) -> u32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_after_the_highest_that_is_found_and_are_never_0() {
        let mut revisions = Revisions::after([7, 0, 3]);
        assert_eq!([revisions.next(), revisions.next()], [8, 9]);
        assert_eq!(Revisions::after([]).next(), 1);
        assert_eq!(Revisions::after([u32::MAX]).next(), 1);
    }
}
