//! Service addresses: which backend stands for one.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use portreeve_ebpf_common::{
    Affinity, AffinityKey, Endpoint, Service, ServiceKey, SlotKey, choose,
};

use crate::maps::{BACKENDS, SERVICES, SLOTS, affinity};

/// What an address stands for.
pub enum Balanced {
    /// Itself.
    NotAService,
    /// A backend, and its number.
    Backend(Endpoint, u32),
    /// A service that has none.
    NoBackend,
}

impl Balanced {
    #[inline(always)]
    fn of((number, backend): (u32, Endpoint)) -> Self {
        Self::Backend(backend, number)
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

/// The backend for a connection of `client`, whatever number it has; asked for where it matters. Who has
/// no reason to choose has `dice` roll.
#[inline(always)]
pub fn balance(key: ServiceKey, client: impl Fn() -> u64, dice: impl Fn() -> [u32; 2]) -> Balanced {
    // SAFETY: copied at once; a service that is replaced is freed when no program holds it.
    let Some(service) = (unsafe { SERVICES.get(&key) }).copied() else {
        return Balanced::NotAService;
    };
    if service.affinity == 0 {
        return chosen(&service, dice()).map_or(Balanced::NoBackend, Balanced::of);
    }
    let client = client();
    if let Some(had) = affine(&key, &service, client) {
        return Balanced::of(had);
    }
    match chosen(&service, dice()) {
        Some((number, backend)) => {
            remember(&key, &service, client, number);
            Balanced::Backend(backend, number)
        }
        None => Balanced::NoBackend,
    }
}

/// Whether a backend that stood for a service still may: for datagrams, which are sent one by one.
#[inline(always)]
pub fn still_serves(key: ServiceKey, number: u32, backend: Endpoint) -> bool {
    // SAFETY: only looked at.
    unsafe {
        SERVICES.get(&key).is_some()
            && BACKENDS.get(&number).is_some_and(|now| now.draining == 0 && now.endpoint == backend)
    }
}

/// Nobody knows which.
#[inline(always)]
pub fn at_random() -> [u32; 2] {
    // SAFETY: the helper takes nothing.
    unsafe { [bpf_get_prandom_u32(), bpf_get_prandom_u32()] }
}

#[inline(always)]
fn chosen(service: &Service, [first, second]: [u32; 2]) -> Option<(u32, Endpoint)> {
    if service.slots == 0 {
        return None;
    }
    let key = SlotKey { table: service.table, index: choose(first, service.slots) };
    // SAFETY: copied at once.
    let slot = unsafe { SLOTS.get(&key) }.copied()?;
    let number = slot.pick(second);
    // SAFETY: copied at once.
    let backend = unsafe { BACKENDS.get(&number) }.copied()?;
    Some((number, backend.endpoint))
}

/// The backend that the client had, while it may come back to it.
#[inline(always)]
fn affine(asked: &ServiceKey, service: &Service, client: u64) -> Option<(u32, Endpoint)> {
    let key = AffinityKey { client, service: service.id, pad: 0 };
    // SAFETY: copied at once.
    let had = unsafe { affinity(asked).get(&key) }.copied()?;
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.wrapping_sub(had.since) > service.affinity as u64 * NANOSECONDS {
        return None;
    }
    // SAFETY: copied at once.
    let backend = unsafe { BACKENDS.get(&had.backend) }.copied()?;
    if backend.draining != 0 {
        return None;
    }
    remember(asked, service, client, had.backend);
    Some((had.backend, backend.endpoint))
}

/// Affinity runs from the client's last connection on.
#[inline(always)]
fn remember(asked: &ServiceKey, service: &Service, client: u64, backend: u32) {
    let key = AffinityKey { client, service: service.id, pad: 0 };
    // SAFETY: the helper takes nothing.
    let since = unsafe { bpf_ktime_get_ns() };
    // The oldest one is forgotten when there is no room.
    let _ = affinity(asked).insert(&key, &Affinity { since, backend, pad: 0 }, 0);
}
