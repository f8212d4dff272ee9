//! Services and their backends. A service's weights are an alias table (Walker, Vose): one random
//! number, one look, whatever the number of backends; the weights are exact.

use crate::address::Endpoint;

/// What clients connect to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The service's address and port.
    pub frontend: Endpoint,
    /// The IP protocol; for those who ask from outside, with [`ServiceKey::EXTERNAL`].
    pub protocol: u32,
}

impl ServiceKey {
    /// What the address means outside. An address inside of a cluster means nothing there.
    pub const EXTERNAL: u32 = 1 << 8;

    /// What an address means inside.
    #[inline(always)]
    #[must_use]
    pub const fn internal(frontend: Endpoint, protocol: u8) -> Self {
        Self { frontend, protocol: protocol as u32 }
    }

    /// What it means outside.
    #[inline(always)]
    #[must_use]
    pub const fn external(frontend: Endpoint, protocol: u8) -> Self {
        Self { frontend, protocol: protocol as u32 | Self::EXTERNAL }
    }

    /// Whether it is.
    #[inline(always)]
    #[must_use]
    pub const fn is_external(&self) -> bool {
        self.protocol & Self::EXTERNAL != 0
    }
}

/// A service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its number, for affinity: it stays when backends come and go.
    pub id: u32,
    /// The alias table in force.
    pub table: u32,
    /// Slots of that table: as many as there are backends to be chosen. 0: connections are refused.
    pub slots: u32,
    /// For how long a client comes back to the backend it had, in seconds; 0: it does not.
    pub affinity: u32,
}

/// Place in an alias table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// [`Service::table`].
    pub table: u32,
    /// From 0 to [`Service::slots`].
    pub index: u32,
}

/// One place of an alias table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Below it `backend` is taken, from it on `other`: a share of 2³².
    pub threshold: u32,
    /// A backend's number.
    pub backend: u32,
    /// The other backend's number.
    pub other: u32,
}

/// The slot's index and the share that [`Slot::pick`] takes, from two random numbers; `slots` is not 0.
#[inline(always)]
#[must_use]
pub const fn choose(random: u32, slots: u32) -> u32 {
    // Lemire's reduction: no division.
    ((random as u64 * slots as u64) >> 32) as u32
}

impl Slot {
    /// The backend that a random number stands for.
    #[inline(always)]
    #[must_use]
    pub const fn pick(self, random: u32) -> u32 {
        if random < self.threshold { self.backend } else { self.other }
    }
}

/// A backend, by its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Not 0: nobody new is sent there, affinity or not.
    pub draining: u32,
}

/// Who comes back to which service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The client: its network namespace's cookie.
    pub client: u64,
    /// [`Service::id`].
    pub service: u32,
    /// Always 0.
    pub pad: u32,
}

/// Which backend a client had.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// When, in nanoseconds of the monotonic clock.
    pub since: u64,
    /// The backend's number.
    pub backend: u32,
    /// Always 0.
    pub pad: u32,
}

/// A datagram socket and whom it talks to, or asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReverseKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// Whom it talks to, or asked for: the map is used both ways.
    pub endpoint: Endpoint,
    /// 0: from backend to service; 1: from service to backend.
    pub way: u32,
}

/// Who stands for whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseValue {
    /// The service's address, or the backend's.
    pub endpoint: Endpoint,
    /// The backend's number.
    pub backend: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_chosen_and_none_beyond() {
        assert_eq!(choose(0, 3), 0);
        assert_eq!(choose(u32::MAX, 3), 2);
        assert_eq!(choose(u32::MAX / 2 + 1, 2), 1);
        assert_eq!(choose(u32::MAX, 1), 0);
    }

    #[test]
    fn a_slot_shares_between_two() {
        let slot = Slot { threshold: 1 << 31, backend: 7, other: 8 };
        assert_eq!(slot.pick(0), 7);
        assert_eq!(slot.pick(1 << 31), 8);
    }
}
