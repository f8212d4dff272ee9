//! All maps. Numbers of entries are what the loader takes unless it is told otherwise; hash maps are not
//! preallocated, so that room costs nothing before it is used.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{
    ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash, SockMap,
};
use aya_ebpf::macros::btf_map;
use portreeve_ebpf_common::{
    Affinity, AffinityKey, Backend, Config, Conversation, ConversationKey, Counter, Event, FlowKey,
    FlowValue, JoinKey, JoinState, ListenerSlot, PolicyValue, PortKey, ReverseKey, ReverseValue,
    Service, ServiceKey, Slot, SlotKey, SocketState,
};

const GROWS: usize = BPF_F_NO_PREALLOC as usize;

/// Key 0: the policy in force. Replaced whole.
#[btf_map]
pub static POLICY: ArrayOfMaps<LpmTrie<[u32; 5], PolicyValue, 1_048_576>, 1> = ArrayOfMaps::new();

/// Key 0: see [`Config`]. A hash, because an array's entry changes in place, half by half.
#[btf_map]
pub static CONFIG: HashMap<u32, Config, 1, GROWS> = HashMap::new();

#[btf_map]
pub static SERVICES: HashMap<ServiceKey, Service, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static SLOTS: HashMap<SlotKey, Slot, 1_048_576, GROWS> = HashMap::new();

#[btf_map]
pub static BACKENDS: HashMap<u32, Backend, 262_144, GROWS> = HashMap::new();

#[btf_map]
static AFFINITY: LruHashMap<AffinityKey, Affinity, 65_536> = LruHashMap::new();

/// Which backends clients of a service come back to.
#[inline(always)]
pub fn affinity(_: &ServiceKey) -> &'static LruHashMap<AffinityKey, Affinity, 65_536> {
    &AFFINITY
}

/// Both ways between a service and the backend that a datagram socket has.
#[btf_map]
pub static REVERSE: LruHashMap<ReverseKey, ReverseValue, 65_536> = LruHashMap::new();

#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();

#[btf_map]
pub static FLOWS: HashMap<FlowKey, FlowValue, 262_144, GROWS> = HashMap::new();

/// How many sockets of the workload hold a port.
#[btf_map]
pub static PORTS: HashMap<PortKey, u32, 65_536, GROWS> = HashMap::new();

/// Connections of the proxy to the workload, while they are opened.
#[btf_map]
pub static EXEMPT: HashMap<FlowKey, u32, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static LISTENERS: SockMap<{ ListenerSlot::COUNT as usize }> = SockMap::new();

/// Sockets at both ends of connections that are joined. They leave when they are closed, and must not be
/// taken out before: what waits in their queues would be lost.
#[btf_map]
pub static JOINED: SockHash<JoinKey, 8192> = SockHash::new();

/// What is kept of them; by as many keys.
#[btf_map]
pub static JOINS: HashMap<JoinKey, JoinState, 8192, GROWS> = HashMap::new();

/// Who talks by datagrams, and who began.
#[btf_map]
pub static REPLIES: LruHashMap<ConversationKey, Conversation, 65_536> = LruHashMap::new();

#[btf_map]
pub static EVENTS: RingBuf<Event, { 1024 * 1024 }> = RingBuf::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// What the loader has set.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    // SAFETY: an entry that is replaced is freed when no program runs any more that could hold it.
    unsafe { CONFIG.get(&0) }
}
