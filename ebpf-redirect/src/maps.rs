//! The maps of an instance, open: each with the type of its keys and values.

use std::io;
use std::mem::size_of;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use portreeve_ebpf_common::{
    Affinity, AffinityKey, Backend, Config, Conversation, ConversationKey, Endpoint, FlowKey,
    FlowValue, JoinKey, JoinState, LAYOUT, ListenerSlot, PortKey, ReverseKey, ReverseValue,
    Service, ServiceKey, Slot, SlotKey, SocketState,
};

use crate::error::{MapError, SetupError};
use crate::instance::Folder;
use crate::join::JOINED;
use crate::policy_map::PolicyMap;
use crate::service_maps::ServiceMaps;
use crate::services::ServiceRoom;
use crate::settings::Capacity;
use crate::sys::{self, map_kind};
use crate::table::{Plain, Table};

/// The maps that this side reads and writes.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) policy: PolicyMap,
    pub(crate) config: Table<u32, Config>,
    pub(crate) services: ServiceMaps,
    pub(crate) flows: Table<FlowKey, FlowValue>,
    pub(crate) exempt: Table<FlowKey, u32>,
    pub(crate) ports: Table<PortKey, u32>,
    pub(crate) sockets: Table<i32, SocketState>,
    pub(crate) listeners: Table<u32, u64>,
}

impl Maps {
    /// Opens what is pinned.
    pub(crate) fn open(folder: &Folder, capacity: &Capacity) -> Result<Self, MapError> {
        Ok(Self {
            policy: PolicyMap::open(&folder.map("POLICY"), capacity.policy)?,
            config: table(folder, "CONFIG")?,
            services: ServiceMaps::open(
                folder,
                ServiceRoom {
                    frontends: capacity.services as usize,
                    slots: capacity.slots as usize,
                    backends: capacity.backends as usize,
                },
                &["AFFINITY"],
            )?,
            flows: table(folder, "FLOWS")?,
            exempt: table(folder, "EXEMPT")?,
            ports: table(folder, "PORTS")?,
            sockets: table(folder, "SOCKETS")?,
            listeners: table(folder, "LISTENERS")?,
        })
    }

    pub(crate) fn config(&self) -> Result<Option<Config>, MapError> {
        self.config.get(&0).map_err(MapError::system("can't read", "CONFIG"))
    }

    pub(crate) fn set_config(&self, config: &Config) -> Result<(), MapError> {
        self.config.put(&0, config).map_err(MapError::system("can't write", "CONFIG"))
    }

    /// Lets programs know a listening socket, until it is closed.
    pub(crate) fn register(&self, slot: ListenerSlot, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.listeners.put(&(slot as u32), &u64::from(listener.as_raw_fd().unsigned_abs()))
    }

    /// Forgets the connections that a proxy before this one was about to open.
    pub(crate) fn clear_exempt(&self) -> Result<(), MapError> {
        self.exempt
            .keys()
            .and_then(|keys| keys.iter().try_for_each(|key| self.exempt.remove(key)))
            .map_err(MapError::system("can't clear", "EXEMPT"))
    }
}

pub(crate) fn table<K: Plain, V: Plain>(
    folder: &Folder,
    map: &'static str,
) -> Result<Table<K, V>, MapError> {
    Table::open(&folder.map(map)).map_err(MapError::system("can't open", map))
}

/// Whether a listener is in its place. `None`: the kernel doesn't tell.
pub(crate) fn listens(listeners: &Table<u32, u64>, slot: ListenerSlot) -> Option<bool> {
    listeners.get(&(slot as u32)).map(|cookie| cookie.is_some()).ok()
}

/// Refuses what another version has pinned, and what has less room than is asked for.
pub(crate) fn check_pinned(folder: &Folder, capacity: &Capacity) -> Result<(), SetupError> {
    let instance = folder.name().to_string();
    let other = |found: String| SetupError::Layout { instance: instance.clone(), found };
    for (map, kind, key, value) in shapes() {
        let path = folder.map(map);
        if !path.exists() {
            continue;
        }
        let info = sys::object_get(&path)
            .and_then(|pinned| sys::map_info(pinned.as_fd()))
            .map_err(SetupError::file("can't open", &path))?;
        if (info.kind, info.key_size as usize, info.value_size as usize) != (kind, key, value) {
            return Err(other(format!("its map {map} is another")));
        }
        let wanted = capacity.by_map().into_iter().find(|(name, _)| *name == map);
        if let Some((_, wanted)) = wanted
            && info.max_entries < wanted
        {
            let pinned = info.max_entries;
            return Err(SetupError::Capacity { instance: instance.clone(), map, pinned, wanted });
        }
    }
    // Nothing is attached before there is a configuration, so without one it is half built and of any.
    let config = folder.map("CONFIG");
    if !config.exists() {
        return Ok(());
    }
    let read = Table::<u32, Config>::open(&config).and_then(|table| table.get(&0));
    match read.map_err(SetupError::file("can't read", &config))? {
        Some(config) if config.layout != LAYOUT => {
            Err(other(format!("its layout is {}, not {LAYOUT}", config.layout)))
        }
        _ => Ok(()),
    }
}

/// Each map's kind, and the bytes of its keys and values.
pub(crate) fn shapes() -> [(&'static str, u32, usize, usize); 17] {
    use map_kind::{
        ARRAY_OF_MAPS, HASH, LRU_HASH, PER_CPU_ARRAY, RING_BUFFER, SK_STORAGE, SOCKHASH, SOCKMAP,
    };
    const fn shape<K, V>(map: &'static str, kind: u32) -> (&'static str, u32, usize, usize) {
        (map, kind, size_of::<K>(), size_of::<V>())
    }
    [
        shape::<u32, u32>("POLICY", ARRAY_OF_MAPS),
        shape::<u32, Config>("CONFIG", HASH),
        shape::<ServiceKey, Service>("SERVICES", HASH),
        shape::<SlotKey, Slot>("SLOTS", HASH),
        shape::<u32, Backend>("BACKENDS", HASH),
        shape::<AffinityKey, Affinity>("AFFINITY", LRU_HASH),
        shape::<ReverseKey, ReverseValue>("REVERSE", LRU_HASH),
        shape::<i32, SocketState>("SOCKETS", SK_STORAGE),
        shape::<FlowKey, FlowValue>("FLOWS", HASH),
        shape::<PortKey, u32>("PORTS", HASH),
        shape::<FlowKey, u32>("EXEMPT", HASH),
        shape::<u32, u64>("LISTENERS", SOCKMAP),
        shape::<ConversationKey, Conversation>("REPLIES", LRU_HASH),
        shape::<(), ()>("EVENTS", RING_BUFFER),
        shape::<u32, u64>("COUNTERS", PER_CPU_ARRAY),
        shape::<JoinKey, u32>(JOINED, SOCKHASH),
        shape::<JoinKey, JoinState>("JOINS", HASH),
    ]
}

/// An address as sockets have it; what has no port that could be one, has port 0.
pub(crate) fn socket_address(endpoint: Endpoint) -> SocketAddr {
    let port = u16::try_from(endpoint.port).unwrap_or(0);
    SocketAddr::new(Ipv6Addr::from(endpoint.address.to_bytes()).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::endpoint;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.1.2.3:80", "[fd00::1]:443", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(socket_address(endpoint(address)), address);
        }
    }
}
