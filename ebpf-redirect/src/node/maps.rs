//! The maps of a node, open: each with the type of its keys and values.

use std::mem::size_of;
use std::os::fd::AsFd;

use portreeve_ebpf_common::node::{
    EndpointEntry, Ends, FragmentKey, FragmentPorts, NODE_LAYOUT, NodeConfig, Opened, PrefixKey,
    TrackKey, Tracked, Translation,
};
use portreeve_ebpf_common::{
    Address, Affinity, AffinityKey, Backend, ReverseKey, ReverseValue, Service, ServiceKey, Slot,
    SlotKey, SocketState,
};

use super::error::NodeError;
use super::identities::Identities;
use super::policies::Policies;
use super::settings::NodeCapacity;
use crate::error::{MapError, SetupError};
use crate::instance::Folder;
use crate::maps::table;
use crate::service_maps::ServiceMaps;
use crate::services::ServiceRoom;
use crate::sys::{self, map_kind};
use crate::table::Table;

/// The maps that this side reads and writes.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) config: Table<u32, NodeConfig>,
    pub(super) endpoints: Table<u32, EndpointEntry>,
    pub(super) opened: Table<u32, Opened>,
    pub(super) own: Table<Address, u32>,
    pub(super) identities: Identities,
    pub(super) policies: Policies,
    pub(super) tracked: Table<TrackKey, Tracked>,
    pub(super) listeners: Table<u32, u64>,
    pub(super) services: ServiceMaps,
    pub(super) translated: Table<Ends, Translation>,
    pub(super) relayed: Table<Ends, Translation>,
}

impl Maps {
    /// Opens what is pinned.
    pub(super) fn open(folder: &Folder, capacity: &NodeCapacity) -> Result<Self, MapError> {
        Ok(Self {
            config: table(folder, "CONFIG")?,
            endpoints: table(folder, "ENDPOINTS")?,
            opened: table(folder, "OPENED")?,
            own: table(folder, "OWN")?,
            identities: Identities::new(table(folder, "HOSTS")?, table(folder, "PREFIXES")?),
            policies: Policies { outer: table(folder, "POLICIES")?, capacity: capacity.policy },
            tracked: table(folder, "TRACKED")?,
            listeners: table(folder, "LISTENERS")?,
            services: ServiceMaps::open(
                folder,
                ServiceRoom {
                    frontends: capacity.services as usize,
                    slots: capacity.slots as usize,
                    backends: capacity.backends as usize,
                },
                &["AFFINITY", "AFFINITY_OUTSIDE"],
            )?,
            translated: table(folder, "TRANSLATED")?,
            relayed: table(folder, "RELAYED")?,
        })
    }

    /// Revisions of policies, as many as are to be found: in force, and of connections that they let pass.
    pub(super) fn revisions(&self) -> Result<Vec<u32>, MapError> {
        let of_endpoints = self.endpoints.entries();
        let of_endpoints = of_endpoints.map_err(MapError::system("can't read", "ENDPOINTS"))?;
        let of_tracked = self.tracked.entries();
        let of_tracked = of_tracked.map_err(MapError::system("can't read", "TRACKED"))?;
        let mut all: Vec<u32> = of_endpoints.iter().map(|(_, entry)| entry.revision).collect();
        all.extend(of_tracked.iter().map(|(_, tracked)| tracked.revision));
        for endpoint in self.policies.endpoints()? {
            all.push(self.policies.revision(endpoint)?);
        }
        Ok(all)
    }
}

/// Refuses what another version has pinned, and what has less room than is asked for.
pub(super) fn check_pinned(folder: &Folder, capacity: &NodeCapacity) -> Result<(), NodeError> {
    let other = |found| NodeError::Layout { path: folder.path().to_owned(), found };
    for (map, kind, key, value) in SHAPES {
        let path = folder.map(map);
        if !path.exists() {
            continue;
        }
        let info = sys::object_get(&path)
            .and_then(|pinned| sys::map_info(pinned.as_fd()))
            .map_err(SetupError::file("can't open", &path))?;
        if (info.kind, info.key_size as usize, info.value_size as usize) != (kind, key, value) {
            return Err(other(format!("its map {map} is of another version")));
        }
        let wanted = capacity.by_map().into_iter().find(|(name, _)| *name == map);
        if let Some((_, wanted)) = wanted
            && info.max_entries < wanted
        {
            let pinned = info.max_entries;
            return Err(other(format!("its map {map} has room for {pinned}, not for {wanted}")));
        }
    }
    // Nothing is attached before there is a configuration, so without one it is half built and of any.
    let config = folder.map("CONFIG");
    if !config.exists() {
        return Ok(());
    }
    let read = Table::<u32, NodeConfig>::open(&config).and_then(|table| table.get(&0));
    match read.map_err(SetupError::file("can't read", &config))? {
        Some(config) if config.layout != NODE_LAYOUT => {
            Err(other(format!("its layout is {}, not {NODE_LAYOUT}", config.layout)))
        }
        _ => Ok(()),
    }
}

/// Each map's kind, and the bytes of its keys and values.
pub(super) const SHAPES: [(&str, u32, usize, usize); 24] = {
    use map_kind::{
        HASH, HASH_OF_MAPS, LPM_TRIE, LRU_HASH, PER_CPU_ARRAY, RING_BUFFER, SK_STORAGE, SOCKMAP,
    };
    const fn shape<K, V>(map: &'static str, kind: u32) -> (&'static str, u32, usize, usize) {
        (map, kind, size_of::<K>(), size_of::<V>())
    }
    [
        shape::<u32, NodeConfig>("CONFIG", HASH),
        shape::<u32, EndpointEntry>("ENDPOINTS", HASH),
        shape::<u32, Opened>("OPENED", HASH),
        shape::<Address, u32>("OWN", HASH),
        shape::<Address, u32>("HOSTS", HASH),
        shape::<PrefixKey, u32>("PREFIXES", LPM_TRIE),
        shape::<u32, u32>("POLICIES", HASH_OF_MAPS),
        shape::<TrackKey, Tracked>("TRACKED", LRU_HASH),
        shape::<FragmentKey, FragmentPorts>("FRAGMENTS", LRU_HASH),
        shape::<ServiceKey, Service>("SERVICES", HASH),
        shape::<SlotKey, Slot>("SLOTS", HASH),
        shape::<u32, Backend>("BACKENDS", HASH),
        shape::<AffinityKey, Affinity>("AFFINITY", LRU_HASH),
        shape::<AffinityKey, Affinity>("AFFINITY_OUTSIDE", LRU_HASH),
        shape::<ReverseKey, ReverseValue>("REVERSE", LRU_HASH),
        shape::<i32, SocketState>("SOCKETS", SK_STORAGE),
        shape::<Ends, Translation>("TRANSLATED", LRU_HASH),
        shape::<Ends, Translation>("RELAYED", LRU_HASH),
        shape::<FragmentKey, FragmentPorts>("FRAGMENTS_OUTSIDE", LRU_HASH),
        shape::<u32, [u8; 552]>("SCRATCH", PER_CPU_ARRAY),
        shape::<u32, u64>("LISTENERS", SOCKMAP),
        shape::<Ends, u32>("WAITING", LRU_HASH),
        shape::<(), ()>("EVENTS", RING_BUFFER),
        shape::<u32, u64>("COUNTERS", PER_CPU_ARRAY),
    ]
};
