//! A map as Rust sees it: keys and values have types, and the map was asked whether its own sizes are
//! theirs. Handles are shared between threads; each operation is one system call.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use portreeve_ebpf_common::{self as common, node};

use crate::sys::{self, MapInfo, map_kind};

/// What may be copied to and from the kernel as it is.
///
/// # Safety
/// Every byte of it is named (no padding), and any bytes are one.
pub(crate) unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($type:ty: $size:literal),* $(,)?) => { $(
        const _: () = assert!(size_of::<$type>() == $size);
        // SAFETY: integers and arrays of them, `repr(C)`, whose sizes add up to the one that is checked.
        unsafe impl Plain for $type {}
    )* };
}

plain! {
    u32: 4, u64: 8, i32: 4,
    common::Address: 16, common::Endpoint: 20,
    common::PolicyKey: 24, common::PolicyValue: 12,
    common::Config: 56, common::Event: 96,
    common::ServiceKey: 24, common::Service: 16, common::SlotKey: 8, common::Slot: 12,
    common::Backend: 24, common::AffinityKey: 16, common::Affinity: 16, common::ReverseKey: 32, common::ReverseValue: 24,
    common::SocketState: 72, common::FlowKey: 40, common::FlowValue: 48, common::PortKey: 24,
    common::ConversationKey: 24, common::Conversation: 16,
    common::JoinKey: 40, common::JoinState: 32,
    node::NodeConfig: 40, node::EndpointEntry: 44, node::PrefixKey: 20, node::NodePolicyKey: 16,
    node::Opened: 40, node::TrackKey: 44, node::Tracked: 64, node::Ends: 48, node::Translation: 56, node::NodeEvent: 72,
}

/// What the kernel has written, if it is as long as it has to be.
pub(crate) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are as many bytes as a `T` has, and any bytes are one.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// A map with keys `K` and values `V`.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    map: OwnedFd,
    info: MapInfo,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// The map, if its keys and values are as long as these types.
    pub(crate) fn new(map: OwnedFd) -> io::Result<Self> {
        let info = sys::map_info(map.as_fd())?;
        // Of others a value may be longer than its size: as many as there are CPUs.
        if !SINGLE_VALUED.contains(&info.kind) {
            let message = format!("it is a map of kind {}", info.kind);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let (key, value) = (info.key_size as usize, info.value_size as usize);
        if (key, value) != (size_of::<K>(), size_of::<V>()) {
            let (own_key, own_value) = (size_of::<K>(), size_of::<V>());
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "its keys and values have {key} and {value} bytes, not {own_key} and {own_value}"
                ),
            ));
        }
        Ok(Self { map, info, types: PhantomData })
    }

    /// The map that is pinned at a path.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::new(sys::object_get(path)?)
    }

    /// A new map.
    pub(crate) fn create(name: &str, kind: u32, max_entries: u32, flags: u32) -> io::Result<Self> {
        let [key_size, value_size] =
            [size_of::<K>(), size_of::<V>()].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let wanted = MapInfo { kind, id: 0, key_size, value_size, max_entries, flags };
        Self::new(sys::map_create(&wanted, name)?)
    }

    /// How many entries there is room for.
    pub(crate) fn capacity(&self) -> u32 {
        self.info.max_entries
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        // SAFETY: sizes were compared when the table was made; any bytes are a `V`.
        let found = unsafe { sys::map_lookup(self.map.as_fd(), from(key), to(&mut value)) };
        match found {
            Ok(()) => Ok(Some(value)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts an entry in, or in the place of the one that has this key.
    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<()> {
        // SAFETY: sizes were compared when the table was made.
        unsafe { sys::map_update(self.map.as_fd(), from(key), from(value), 0) }
    }

    /// Puts an entry in unless there is one with this key; whether it did.
    pub(crate) fn put_new(&self, key: &K, value: &V) -> io::Result<bool> {
        // SAFETY: sizes were compared when the table was made.
        match unsafe { sys::map_update(self.map.as_fd(), from(key), from(value), sys::NO_EXIST) } {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry, if it is there.
    pub(crate) fn remove(&self, key: &K) -> io::Result<()> {
        // SAFETY: sizes were compared when the table was made.
        match unsafe { sys::map_delete(self.map.as_fd(), from(key)) } {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts many entries in, some thousands with each call.
    pub(crate) fn put_all(&self, entries: impl Iterator<Item = (K, V)>) -> io::Result<()> {
        let mut keys = Vec::with_capacity(BATCH);
        let mut values = Vec::with_capacity(BATCH);
        for (key, value) in entries {
            keys.push(key);
            values.push(value);
            if keys.len() == BATCH {
                self.put_batch(&keys, &values)?;
                keys.clear();
                values.clear();
            }
        }
        self.put_batch(&keys, &values)
    }

    fn put_batch(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        let count = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(());
        }
        let (keys, values) = (keys.as_ptr().cast(), values.as_ptr().cast());
        // SAFETY: sizes were compared when the table was made, and both slices have `count` elements.
        unsafe { sys::map_update_batch(self.map.as_fd(), keys, values, count) }
    }

    /// All entries, as those of [`keys`](Self::keys).
    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            entries.extend(self.get(&key)?.map(|value| (key, value)));
        }
        Ok(entries)
    }

    /// As many entries as `limit` of those whose keys are wanted, and how many there are; as those of
    /// [`keys`](Self::keys).
    pub(crate) fn some(
        &self,
        limit: usize,
        is_wanted: impl Fn(&K) -> bool,
    ) -> io::Result<(Vec<(K, V)>, usize)> {
        let (mut entries, mut count) = (Vec::new(), 0);
        let mut failed = Ok(());
        self.each_key(|key| {
            if is_wanted(&key) {
                count += 1;
                if entries.len() < limit {
                    match self.get(&key) {
                        Ok(value) => entries.extend(value.map(|value| (key, value))),
                        Err(error) => failed = Err(error),
                    }
                }
            }
            failed.is_ok()
        })?;
        failed.map(|()| (entries, count))
    }

    /// All keys. Those that come or go meanwhile may be there or not.
    pub(crate) fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys = Vec::new();
        self.each_key(|key| {
            keys.push(key);
            true
        })?;
        Ok(keys)
    }

    /// Goes through all keys as long as `goes_on` says so.
    fn each_key(&self, mut goes_on: impl FnMut(K) -> bool) -> io::Result<()> {
        let mut last: Option<K> = None;
        // A key that goes while it is held starts the walk again: not for ever.
        for _ in 0..2 * self.capacity() as usize {
            let mut next = K::default();
            let after = last.as_ref().map_or(std::ptr::null(), from);
            // SAFETY: sizes were compared when the table was made; any bytes are a `K`.
            match unsafe { sys::map_next_key(self.map.as_fd(), after, to(&mut next)) } {
                Ok(()) if goes_on(next) => last = Some(next),
                Ok(()) => break,
                Err(error) if is_absent(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many entries a map has, about: others may write meanwhile.
pub(crate) fn count(map: BorrowedFd<'_>) -> io::Result<usize> {
    let info = sys::map_info(map)?;
    let mut key = vec![0_u8; info.key_size as usize];
    let mut next = key.clone();
    let mut count = 0;
    while count < info.max_entries as usize {
        let after = if count == 0 { std::ptr::null() } else { key.as_ptr() };
        // SAFETY: both have the map's own size of a key.
        match unsafe { sys::map_next_key(map, after, next.as_mut_ptr()) } {
            Ok(()) => count += 1,
            Err(error) if is_absent(&error) => break,
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
    Ok(count)
}

impl<K, V> AsFd for Table<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

fn from<T: Plain>(value: &T) -> *const u8 {
    std::ptr::from_ref(value).cast()
}

fn to<T: Plain>(value: &mut T) -> *mut u8 {
    std::ptr::from_mut(value).cast()
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Kinds of maps whose values have the size that the map tells.
const SINGLE_VALUED: [u32; 8] = [
    map_kind::HASH,
    map_kind::LRU_HASH,
    map_kind::LPM_TRIE,
    map_kind::ARRAY_OF_MAPS,
    map_kind::HASH_OF_MAPS,
    map_kind::SOCKMAP,
    map_kind::SOCKHASH,
    map_kind::SK_STORAGE,
];
/// Entries written with one call.
const BATCH: usize = 4096;
