//! What programs tell and count.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use portreeve_ebpf_common::Direction;
use portreeve_ebpf_common::node::{NodeEvent, Reason};

use crate::instance::Folder;
use crate::table::read;

/// Events that nobody has read yet. There is one reader: what it takes is gone for others.
pub struct NodeEvents {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for NodeEvents {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NodeEvents").finish_non_exhaustive()
    }
}

impl NodeEvents {
    pub(super) fn open(folder: &Folder) -> io::Result<Self> {
        let map = MapData::from_pin(folder.map("EVENTS")).map_err(io::Error::other)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(io::Error::other)?;
        Ok(Self { ring })
    }

    /// The oldest event, if there is one; the descriptor is readable when there is another.
    #[expect(clippy::should_implement_trait, reason = "none now does not mean none later")]
    pub fn next(&mut self) -> Option<NodeEvent> {
        loop {
            // Of another length there is none: the layout was compared before the programs were loaded.
            if let Some(event) = read(&self.ring.next()?) {
                return Some(event);
            }
        }
    }
}

impl AsFd for NodeEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Packets since the instance was made, over all CPUs: by what became of them, and by which way they
/// went (egress: from the workload).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters(BTreeMap<(u8, u8), u64>);

impl NodeCounters {
    pub(super) fn read(folder: &Folder) -> io::Result<Self> {
        let map = MapData::from_pin(folder.map("COUNTERS")).map_err(io::Error::other)?;
        let counters: PerCpuArray<_, u64> =
            Map::PerCpuArray(map).try_into().map_err(io::Error::other)?;
        let mut all = BTreeMap::new();
        for reason in Reason::ALL {
            for direction in [Direction::Egress, Direction::Ingress] {
                let values =
                    counters.get(&reason.counter(direction), 0).map_err(io::Error::other)?;
                all.insert((reason as u8, direction as u8), values.iter().sum());
            }
        }
        Ok(Self(all))
    }

    /// How many packets of a direction this has become of.
    #[must_use]
    pub fn get(&self, reason: Reason, direction: Direction) -> u64 {
        self.0.get(&(reason as u8, direction as u8)).copied().unwrap_or_default()
    }

    /// How many packets were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let drops = Reason::ALL.into_iter().filter(|reason| reason.is_drop());
        drops
            .map(|reason| {
                self.get(reason, Direction::Egress) + self.get(reason, Direction::Ingress)
            })
            .sum()
    }
}
