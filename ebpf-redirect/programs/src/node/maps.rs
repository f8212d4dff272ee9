//! All maps. Numbers of entries are what the loader takes unless it is told otherwise.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{
    HashMap, HashOfMaps, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockMap,
};
use aya_ebpf::macros::btf_map;
use portreeve_ebpf_common::node::{
    EndpointEntry, Ends, FragmentKey, FragmentPorts, NodeConfig, NodeEvent, Opened, Reason,
    TrackKey, Tracked, Translation, VerdictKey,
};
use portreeve_ebpf_common::{
    Address, Affinity, AffinityKey, Backend, ListenerSlot, PolicyValue, ReverseKey, ReverseValue,
    Service, ServiceKey, Slot, SlotKey, SocketState,
};

use crate::scratch::Place;

const GROWS: usize = BPF_F_NO_PREALLOC as usize;

/// Key 0: see [`NodeConfig`]. A hash, because an array's entry changes in place, half by half.
#[btf_map]
pub static CONFIG: HashMap<u32, NodeConfig, 1, GROWS> = HashMap::new();

/// By the number of the interface at the host's end.
#[btf_map]
pub static ENDPOINTS: HashMap<u32, EndpointEntry, 4096, GROWS> = HashMap::new();

/// By endpoint: how fast it opens connections.
#[btf_map]
pub static OPENED: HashMap<u32, Opened, 4096, GROWS> = HashMap::new();

/// Whose address it is: the endpoint's number.
#[btf_map]
pub static OWN: HashMap<Address, u32, 16_384, GROWS> = HashMap::new();

/// Who has an address: an identity.
#[btf_map]
pub static HOSTS: HashMap<Address, u32, 524_288, GROWS> = HashMap::new();

/// The same of prefixes.
#[btf_map]
pub static PREFIXES: LpmTrie<[u32; 4], u32, 524_288> = LpmTrie::new();

/// By endpoint: its policy. Each is replaced whole.
#[btf_map]
pub static POLICIES: HashOfMaps<u32, LpmTrie<[u32; 3], PolicyValue, 1_048_576>, 4096> =
    HashOfMaps::new();

/// What policies have allowed. Each loader has its own: numbers of revisions may come again after it.
#[btf_map]
pub static VERDICTS: LruHashMap<VerdictKey, PolicyValue, 32_768> = LruHashMap::new();

#[btf_map]
pub static TRACKED: LruHashMap<TrackKey, Tracked, 524_288> = LruHashMap::new();

#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, 8192> = LruHashMap::new();

/// The same of those outside.
#[btf_map]
pub static FRAGMENTS_OUTSIDE: LruHashMap<FragmentKey, FragmentPorts, 8192> = LruHashMap::new();

#[btf_map]
pub static SERVICES: HashMap<ServiceKey, Service, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static SLOTS: HashMap<SlotKey, Slot, 1_048_576, GROWS> = HashMap::new();

#[btf_map]
pub static BACKENDS: HashMap<u32, Backend, 262_144, GROWS> = HashMap::new();

#[btf_map]
static AFFINITY: LruHashMap<AffinityKey, Affinity, 65_536> = LruHashMap::new();

/// The same of those outside, who may be as many as they like.
#[btf_map]
static AFFINITY_OUTSIDE: LruHashMap<AffinityKey, Affinity, 65_536> = LruHashMap::new();

/// Which backends clients of a service come back to.
#[inline(always)]
pub fn affinity(asked: &ServiceKey) -> &'static LruHashMap<AffinityKey, Affinity, 65_536> {
    if asked.is_external() { &AFFINITY_OUTSIDE } else { &AFFINITY }
}

/// Both ways between a service and the backend that a datagram socket has.
#[btf_map]
pub static REVERSE: LruHashMap<ReverseKey, ReverseValue, 65_536> = LruHashMap::new();

#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();

/// What becomes of packets of services: of those to backends, and of what comes back.
#[btf_map]
pub static TRANSLATED: LruHashMap<Ends, Translation, 65_536> = LruHashMap::new();

/// The same of packets of those outside, who have not been judged yet, and are not to push out others'.
#[btf_map]
pub static RELAYED: LruHashMap<Ends, Translation, 65_536> = LruHashMap::new();

/// Key 0: see [`Scratch`](crate::scratch::Scratch).
#[btf_map]
pub static SCRATCH: PerCpuArray<Place, 1> = PerCpuArray::new();

#[btf_map]
pub static LISTENERS: SockMap<{ ListenerSlot::COUNT as usize }> = SockMap::new();

/// Whose listening socket gets a connection, by its ends, while another still has them.
#[btf_map]
pub static WAITING: LruHashMap<Ends, u32, 1024> = LruHashMap::new();

#[btf_map]
pub static EVENTS: RingBuf<NodeEvent, { 1024 * 1024 }> = RingBuf::new();

/// By [`Reason::counter`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Reason::COUNTERS as usize }> = PerCpuArray::new();
