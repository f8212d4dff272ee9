//! Who has how many connections: one map keeps those of all workloads, and forgets what it has not seen for
//! longest, so that one who opens very many would make those of others be forgotten.

use std::collections::BTreeMap;

use portreeve_ebpf_common::Direction;
use portreeve_ebpf_common::node::endpoint_flags;
use rustix::time::{ClockId, clock_gettime};

use super::error::NodeError;
use super::kernel::NodeKernel;

/// Connections of one workload that are alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// Opened by it.
    pub opened: usize,
    /// Opened to it.
    pub accepted: usize,
    /// Packets of services that become others: two entries for a connection.
    pub translated: usize,
}

/// Below it a workload has never too many, however many workloads there are.
const LEAST: usize = 1024;

impl NodeKernel {
    /// Counts everybody's connections. Takes a look at all of them.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn census(&self) -> Result<BTreeMap<u32, Crowd>, NodeError> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or_default();
        let mut all: BTreeMap<u32, Crowd> = BTreeMap::new();
        for (key, tracked) in self.connections()? {
            if tracked.is_alive(now, key.protocol) {
                let crowd = all.entry(key.endpoint).or_default();
                match tracked.opened() {
                    Direction::Egress => crowd.opened += 1,
                    Direction::Ingress => crowd.accepted += 1,
                }
            }
        }
        for (ends, translation) in self.translations()? {
            if !translation.is_over(ends.protocol, now) {
                all.entry(ends.scope).or_default().translated += 1;
            }
        }
        Ok(all)
    }

    /// So many connections may be opened before somebody has to look whether one workload has too many; and one
    /// workload opens no more in a quarter of a second.
    #[must_use]
    pub fn room_between_looks(&self) -> u64 {
        let [connections, translations] = self.room_for_connections();
        // Those of services have two entries.
        let room = connections.min(translations / 2);
        (room / 8).max(LEAST.min(room / 4)) as u64
    }

    /// Refuses new connections of those who have more than their share, while more than half of the room is
    /// taken; and of nobody else. Returns those who are refused, and which way.
    ///
    /// # Errors
    /// When a map can't be written.
    pub fn share_out(
        &self,
        census: &BTreeMap<u32, Crowd>,
    ) -> Result<BTreeMap<u32, u32>, NodeError> {
        let [connections, translations] = self.room_for_connections();
        let crowded = crowded(census, connections, translations);
        self.set_flags(endpoint_flags::CROWDED_OUT | endpoint_flags::CROWDED_IN, &crowded)?;
        Ok(crowded)
    }
}

/// Flags of those who have too many. Who is called may have twice as many as who calls, so that one who
/// calls can't keep another from being called by others.
fn crowded(
    census: &BTreeMap<u32, Crowd>,
    connections: usize,
    translations: usize,
) -> BTreeMap<u32, u32> {
    // While half of the room is free, a share is as much as one can have.
    let share = |room: usize, taken: usize| match taken > room / 2 {
        true => (room / 2 / census.len().max(1)).max(LEAST.min(room / 4)),
        false => room,
    };
    let sum = |of: fn(&Crowd) -> usize| census.values().map(of).sum();
    let connections = share(connections, sum(|crowd| crowd.opened + crowd.accepted));
    let translations = share(translations, sum(|crowd| crowd.translated));
    let flags = |crowd: &Crowd| {
        let out = crowd.opened > connections || crowd.translated > translations;
        let out = if out { endpoint_flags::CROWDED_OUT } else { 0 };
        let many = crowd.accepted > connections.saturating_mul(2);
        out | if many { endpoint_flags::CROWDED_IN } else { 0 }
    };
    let all = census.iter().map(|(endpoint, crowd)| (*endpoint, flags(crowd)));
    all.filter(|(_, flags)| *flags != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: u32 = endpoint_flags::CROWDED_OUT;
    const IN: u32 = endpoint_flags::CROWDED_IN;

    fn census(all: &[(u32, usize, usize)]) -> BTreeMap<u32, Crowd> {
        all.iter()
            .map(|(who, opened, accepted)| {
                (*who, Crowd { opened: *opened, accepted: *accepted, translated: 0 })
            })
            .collect()
    }

    #[test]
    fn while_there_is_room_for_all_nobody_has_too_many() {
        let alone = census(&[(1, 50_000, 0), (2, 10, 10)]);
        assert_eq!(crowded(&alone, 100_020 * 2, 1), BTreeMap::new());
        assert_eq!(crowded(&census(&[]), 100, 100), BTreeMap::new());
    }

    #[test]
    fn who_takes_the_others_room_is_refused_and_they_are_not() {
        let some = census(&[(1, 60_000, 0), (2, 3000, 100), (3, 0, 60_000), (4, 0, 25_000)]);
        assert_eq!(crowded(&some, 100_000, 100), BTreeMap::from([(1, OUT), (3, IN)]));
    }

    #[test]
    fn however_many_there_are_everybody_may_have_some() {
        let many: Vec<_> = (0..1000).map(|who| (who, 600, 0)).collect();
        assert_eq!(
            crowded(&census(&many), 1_000_000, 100),
            BTreeMap::new(),
            "600 are not too many"
        );
    }

    #[test]
    fn who_fills_the_room_for_services_is_refused_however_few_connections_he_has() {
        let mut some = census(&[(1, 10, 10), (2, 10, 10)]);
        some.insert(1, Crowd { translated: 50_000, ..Crowd::default() });
        assert_eq!(crowded(&some, 1000, 60_000), BTreeMap::from([(1, OUT)]));
    }
}
