//! What is there, as the kernel has it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use portreeve_ebpf_common::node::{EndpointEntry, TrackKey, Tracked, endpoint_flags};

use super::error::NodeError;
use super::kernel::NodeKernel;
use super::netlink::Netlink;
use super::report::{NodeCounters, NodeEvents};
use crate::error::MapError;
use crate::table;

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The map.
    pub map: &'static str,
    /// How many entries it has.
    pub entries: usize,
    /// How many there is room for.
    pub capacity: u32,
}

impl NodeKernel {
    /// Everybody of whom anything is there: an interface, an address, a policy.
    ///
    /// # Errors
    /// When maps can't be read.
    pub fn known_endpoints(&self) -> Result<BTreeSet<u32>, NodeError> {
        let mut all = self.owners();
        all.extend(self.maps.policies.endpoints()?);
        all.extend(self.endpoints()?.into_iter().map(|(_, entry)| entry.endpoint));
        Ok(all)
    }

    /// Every identity that an address has.
    ///
    /// # Errors
    /// When maps can't be read.
    pub fn known_identities(&self) -> Result<BTreeSet<u32>, NodeError> {
        Ok(self.maps.identities.numbers()?)
    }

    /// The interfaces that are attached, and whose they are, as the kernel has it.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn endpoints(&self) -> Result<Vec<(u32, EndpointEntry)>, NodeError> {
        let entries = self.maps.endpoints.entries();
        Ok(entries.map_err(MapError::system("can't read", "ENDPOINTS"))?)
    }

    /// Interfaces that have become part of another one, a bridge's say, since they were attached, or are no
    /// longer: what is to be read is led elsewhere then, once they are attached again.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn moved(&self) -> Result<BTreeSet<u32>, NodeError> {
        let attached: BTreeMap<u32, EndpointEntry> = self.endpoints()?.into_iter().collect();
        // One of its own: others may be asking for something meanwhile.
        let links = Netlink::open().and_then(|netlink| netlink.links());
        let links = links.map_err(NodeError::network("list interfaces"))?;
        let was_part = |entry: &EndpointEntry| entry.flags & endpoint_flags::PART_OF_ANOTHER != 0;
        let moved = links.iter().filter(|link| {
            let entry = attached.get(&link.number);
            entry.is_some_and(|entry| was_part(entry) != link.master.is_some())
        });
        Ok(moved.map(|link| link.number).collect())
    }

    /// All connections that are kept track of.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn connections(&self) -> Result<Vec<(TrackKey, Tracked)>, NodeError> {
        let entries = self.maps.tracked.entries();
        Ok(entries.map_err(MapError::system("can't read", "TRACKED"))?)
    }

    /// What has been counted.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn counters(&self) -> Result<NodeCounters, NodeError> {
        Ok(NodeCounters::read(&self.folder).map_err(MapError::system("can't read", "COUNTERS"))?)
    }

    /// What programs tell, from now on by this alone.
    ///
    /// # Errors
    /// When the map can't be opened.
    pub fn events(&self) -> Result<NodeEvents, NodeError> {
        Ok(NodeEvents::open(&self.folder).map_err(MapError::system("can't open", "EVENTS"))?)
    }

    /// How full the maps are.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn status(&self) -> Result<Vec<Fill>, NodeError> {
        let maps = &self.maps;
        let counted = [
            ("ENDPOINTS", maps.endpoints.as_fd(), maps.endpoints.capacity()),
            ("OWN", maps.own.as_fd(), maps.own.capacity()),
            ("POLICIES", maps.policies.outer.as_fd(), maps.policies.outer.capacity()),
            ("TRACKED", maps.tracked.as_fd(), maps.tracked.capacity()),
            ("TRANSLATED", maps.translated.as_fd(), maps.translated.capacity()),
            ("RELAYED", maps.relayed.as_fd(), maps.relayed.capacity()),
        ];
        let mut all = Vec::new();
        for (map, fd, capacity) in counted {
            let entries = table::count(fd).map_err(MapError::system("can't count", map))?;
            all.push(Fill { map, entries, capacity });
        }
        for (map, entries, capacity) in maps.identities.fill()? {
            all.push(Fill { map, entries, capacity });
        }
        Ok(all)
    }
}
