//! Names of topics by their ids (KIP-516), as the broker of this connection gave them.
//!
//! The names come from no other connection: two clusters, or one that lies, may use an id each in
//! its own way.

/// A topic's id.
pub(super) type TopicId = [u8; 16];

/// The id that stands for none.
pub(super) const NO_ID: TopicId = [0; 16];

/// Longest name of a topic that Kafka allows. A broker that says a longer one is not kept.
const LONGEST_NAME: usize = 249;

/// A topic's id and its name.
pub(super) type Named = (TopicId, Box<[u8]>);

/// Names by ids, sorted.
#[derive(Debug, Default)]
pub(super) struct TopicNames(Vec<Named>);

impl TopicNames {
    /// The name of the topic of this id.
    pub(super) fn get(&self, id: &TopicId) -> Option<&[u8]> {
        let place = self.0.binary_search_by_key(id, |(id, _)| *id).ok()?;
        Some(&self.0[place].1)
    }

    /// Takes in what the broker said. With more than `limit` of them, the old ones are forgotten:
    /// they can be asked for again.
    pub(super) fn learn(&mut self, mut found: Vec<Named>, limit: usize) {
        found.retain(|(_, name)| name.len() <= LONGEST_NAME);
        found.truncate(limit);
        if self.0.len() + found.len() > limit {
            self.0.clear();
        }
        // The sort is stable: of two with one id the newer stands behind, and is kept.
        self.0.append(&mut found);
        self.0.sort_by_key(|(id, _)| *id);
        self.0.reverse();
        self.0.dedup_by_key(|(id, _)| *id);
        self.0.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_name_counts_and_memory_is_bounded() {
        let id = |n: u8| [n; 16];
        let name = |text: &str| text.as_bytes().into();
        let mut names = TopicNames::default();
        names.learn(vec![(id(2), name("b")), (id(1), name("a"))], 3);
        names.learn(vec![(id(1), name("c"))], 3);
        assert_eq!(names.get(&id(1)), Some(&b"c"[..]));
        assert_eq!(names.get(&id(2)), Some(&b"b"[..]));
        names.learn(vec![(id(3), name("d")), (id(4), name("e"))], 3);
        assert_eq!((names.0.len(), names.get(&id(1))), (2, None));
        names.learn((0..9).map(|n| (id(n), name("x"))).collect(), 3);
        assert_eq!(names.0.len(), 3);
    }
}
