//! Services on the way of packets: who has asked for a service gets a backend, and hears of nobody but the
//! service.

use crate::address::{Address, Endpoint};

/// The ends of a packet, before they become others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Who sends.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// Where: a workload's number, or one of [`scope`].
    pub scope: u32,
    /// The IP protocol.
    pub protocol: u32,
}

/// Places of [`Ends::scope`] that are no workload's interface.
pub mod scope {
    /// Where packets come from outside.
    pub const FROM_OUTSIDE: u32 = 0;
    /// Where packets leave for outside.
    pub const TO_OUTSIDE: u32 = u32::MAX;
}

/// What becomes of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Who sends, then.
    pub source: Endpoint,
    /// To whom, then.
    pub destination: Endpoint,
    /// See [`translation`].
    pub flags: u32,
    /// The backend's number, of packets to it.
    pub backend: u32,
    /// When it was last seen, in nanoseconds of the monotonic clock: to a second or so.
    pub seen: u64,
}

/// Bits of [`Translation::flags`].
pub mod translation {
    /// Of packets to the backend, not back.
    pub const TO_BACKEND: u32 = 1;
    /// The workload has got itself: its packets go back to where they come from.
    pub const HAIRPIN: u32 = 2;
    /// One of both has ended the connection (TCP).
    pub const ENDED: u32 = 4;
    /// Of packets to a backend on another node, where they get this node's name.
    pub const RELAYED: u32 = 8;
    /// The client has sent more than what opens (TCP).
    pub const GOES_ON: u32 = 16;
}

/// In whose name a workload's own packets come back to it, since nobody believes to hear from himself:
/// link-local, 169.254.80.82.
pub const HAIRPIN_V4: Address = Address::v4(u32::from_ne_bytes([169, 254, 80, 82]));
/// The same over IPv6: unique local (RFC 4193), fd50:5265:6576::5052.
pub const HAIRPIN_V6: Address =
    Address::from_bytes([0xfd, 0x50, 0x52, 0x65, 0x65, 0x76, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x52]);

impl Translation {
    /// Whether its ends may be another connection's by now.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(&self, protocol: u32, now: u64) -> bool {
        const SECOND: u64 = 1_000_000_000;
        // As long as connections are tracked, and a little longer: what is on its way is not another's.
        let life = if protocol != crate::protocol::TCP as u32 {
            125
        } else if self.flags & translation::ENDED != 0 {
            15
        } else if self.flags & translation::GOES_ON == 0 {
            135
        } else {
            21_605
        };
        now.saturating_sub(self.seen) > life * SECOND
    }
}

impl Ends {
    /// A number for a connection, the same on every node that it may come to: Maglev (Eisenbud 2016) asks
    /// no more of who chooses.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u32 {
        let (from, to) = (self.source.address.0, self.destination.address.0);
        let ports = self.source.port | self.destination.port << 16;
        let mut hash = mixed(self.protocol, ports);
        hash = mixed(mixed(hash, from[0]), from[1]);
        hash = mixed(mixed(hash, from[2]), from[3]);
        hash = mixed(mixed(hash, to[0]), to[1]);
        hash = mixed(mixed(hash, to[2]), to[3]);
        finished(hash)
    }

    /// A number for the client alone, who comes back to where it was. The address is not told from every
    /// other by it, but from nearly every one.
    #[inline(always)]
    #[must_use]
    pub const fn client(&self) -> u64 {
        let [a, b, c, d] = self.source.address.0;
        let high = mixed(mixed(0, a), c);
        (finished(high) as u64) << 32 | (b ^ d) as u64
    }
}

/// A word more (`MurmurHash3`, 32 bits).
#[inline(always)]
const fn mixed(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

#[inline(always)]
const fn finished(mut hash: u32) -> u32 {
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(host: u8, port: u16) -> Ends {
        let v4 = |bytes| Address::v4(u32::from_ne_bytes(bytes));
        Ends {
            source: Endpoint::new(v4([10, 0, 0, host]), port),
            destination: Endpoint::new(v4([10, 96, 0, 1]), 80),
            scope: 0,
            protocol: 6,
        }
    }

    #[test]
    fn connections_are_spread_evenly() {
        let mut found = [0_u32; 16];
        for port in 32_768..36_864 {
            found[crate::choose(ends(1, port).hash(), 16) as usize] += 1;
        }
        assert!(found.iter().all(|count| (190..330).contains(count)), "{found:?}");
    }

    #[test]
    fn a_connection_has_the_same_number_wherever_it_comes_in() {
        let here = ends(1, 40_000);
        assert_eq!(here.hash(), Ends { scope: 7, ..here }.hash());
        assert_ne!(here.hash(), ends(1, 40_001).hash());
        assert_ne!(here.hash(), ends(2, 40_000).hash());
    }

    #[test]
    fn a_client_has_one_number_for_all_its_ports() {
        assert_eq!(ends(1, 1).client(), ends(1, 2).client());
        assert_ne!(ends(1, 1).client(), ends(2, 1).client());
    }
}
