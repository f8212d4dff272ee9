//! What the node's programs tell of, and by what they count.

use crate::address::Endpoint;

/// One entry of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeEvent {
    /// When, in nanoseconds of the monotonic clock.
    pub time: u64,
    /// Whose interface it was.
    pub endpoint: u32,
    /// See [`NodeEventKind`].
    pub kind: u8,
    /// See [`Reason`].
    pub reason: u8,
    /// See [`Direction`](crate::Direction): which way the packet went.
    pub direction: u8,
    /// The IP protocol.
    pub protocol: u8,
    /// Revision of the policy that decided.
    pub revision: u32,
    /// Who the peer is.
    pub identity: u32,
    /// One more than the index of the rule that decided; 0 for none.
    pub rule: u32,
    /// The packet's source.
    pub source: Endpoint,
    /// Its destination; the port of an ICMP message is its type.
    pub destination: Endpoint,
    /// Always 0.
    pub pad: u32,
}

/// What has happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEventKind {
    /// A packet was dropped.
    Dropped = 0,
    /// A connection was opened, or what stands for one in protocols without.
    Opened = 1,
}

/// What became of a packet, and why. Counted for each direction.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It went on.
    Forwarded = 0,
    /// It went to the proxy.
    ToProxy = 1,
    /// It opened a connection that goes on.
    Opened = 2,
    /// Policy says no.
    Policy = 3,
    /// Policy says since its last change that the proxy has to read what the proxy has not seen begin.
    PolicyChanged = 4,
    /// There is no policy.
    NoPolicy = 5,
    /// Nobody is known behind the interface.
    NoEndpoint = 6,
    /// Its source is not an address of the workload.
    Spoofed = 7,
    /// Its headers can't be read.
    Malformed = 8,
    /// It belongs to no connection that is known, and can't open one.
    NotTracked = 9,
    /// A later fragment whose first is not known.
    Fragment = 10,
    /// The proxy has to read it, and none listens.
    ProxyAway = 11,
    /// A map is full, so that what has to be kept can't be.
    MapFull = 12,
    /// Neither IPv4, IPv6, nor ARP.
    OtherLink = 13,
    /// An event that found no room in the ring buffer.
    EventLost = 14,
    /// A refusal that was answered.
    Answered = 15,
    /// A service has nobody who answers.
    NoBackend = 16,
    /// It went back to its workload, who answers for the service that it has asked for.
    TurnedBack = 17,
    /// It was turned to a backend, or what comes back to the service.
    Translated = 18,
    /// There is room for more connections, but not for more of this workload.
    Crowded = 19,
}

impl Reason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Forwarded,
        Self::ToProxy,
        Self::Opened,
        Self::Policy,
        Self::PolicyChanged,
        Self::NoPolicy,
        Self::NoEndpoint,
        Self::Spoofed,
        Self::Malformed,
        Self::NotTracked,
        Self::Fragment,
        Self::ProxyAway,
        Self::MapFull,
        Self::OtherLink,
        Self::EventLost,
        Self::Answered,
        Self::NoBackend,
        Self::TurnedBack,
        Self::Translated,
        Self::Crowded,
    ];
    /// How many counters there are: each reason once for each direction.
    pub const COUNTERS: u32 = 2 * (Self::Crowded as u32 + 1);

    /// The place of a reason's counter.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self, direction: crate::Direction) -> u32 {
        2 * self as u32 + direction as u32
    }

    /// Whether the packet was dropped.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        !matches!(
            self,
            Self::Forwarded
                | Self::ToProxy
                | Self::Opened
                | Self::EventLost
                | Self::Answered
                | Self::TurnedBack
                | Self::Translated
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_by_their_numbers() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        assert_eq!(Reason::Crowded.counter(crate::Direction::Ingress) + 1, Reason::COUNTERS);
    }
}
