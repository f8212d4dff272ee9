//! Connections as a node keeps track of them. A connection is kept as the workload sees it, whoever
//! opened it: one look finds it for packets of both directions.

use crate::address::Address;
use crate::policy::Direction;

/// A connection of an endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrackKey {
    /// The workload's address.
    pub local: Address,
    /// The other's address.
    pub remote: Address,
    /// The endpoint's number.
    pub endpoint: u32,
    /// The workload's port; the identifier of an ICMP echo.
    pub local_port: u16,
    /// The other's port; 0 for ICMP.
    pub remote_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// See [`Leg`].
    pub leg: u8,
    /// Always 0.
    pub pad: u16,
}

/// Whose connection it is: a proxy's upstream connection may have the same addresses and ports as the
/// client's.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The peer's.
    Peer = 0,
    /// The proxy's, in a client's name.
    Proxy = 1,
}

/// What is kept of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// When it was opened, in nanoseconds of the monotonic clock.
    pub since: u64,
    /// When its last packet was seen.
    pub seen: u64,
    /// Packets, by [`Direction`].
    pub packets: [u64; 2],
    /// Bytes, by [`Direction`].
    pub bytes: [u64; 2],
    /// See [`state`].
    pub state: u32,
    /// Revision of the policy that let it pass.
    pub revision: u32,
    /// One more than the index of the rule that did; 0 for none.
    pub rule: u32,
    /// Who the peer is.
    pub identity: u32,
}

/// Bits of [`Tracked::state`].
pub mod state {
    /// It was opened to the workload, not by it.
    pub const INGRESS: u32 = 1;
    /// The proxy has it.
    pub const INSPECTED: u32 = 2;
    /// The other side has answered.
    pub const ANSWERED: u32 = 4;
    /// The workload has sent its end (TCP).
    pub const ENDED_BY_WORKLOAD: u32 = 8;
    /// The peer has sent its end (TCP).
    pub const ENDED_BY_PEER: u32 = 16;
    /// The workload has reset it (TCP).
    pub const RESET_BY_WORKLOAD: u32 = 32;
    /// The workload has asked for a service: what comes is to come from there.
    pub const TRANSLATED: u32 = 64;
    /// The peer has reset it (TCP).
    pub const RESET_BY_PEER: u32 = 128;
    /// The peer is outside and has asked for a service of the node, which the workload answers for.
    pub const BY_SERVICE: u32 = 256;
    /// Either has.
    pub const RESET: u32 = RESET_BY_WORKLOAD | RESET_BY_PEER;
}

/// Flags of TCP's header.
pub mod tcp {
    /// The sender has no more to say.
    pub const FIN: u8 = 1;
    /// Opens.
    pub const SYN: u8 = 2;
    /// Ends at once.
    pub const RST: u8 = 4;
    /// The acknowledgement counts.
    pub const ACK: u8 = 16;
}

impl Tracked {
    /// Which way it was opened.
    #[inline(always)]
    #[must_use]
    pub const fn opened(&self) -> Direction {
        if self.state & state::INGRESS == 0 { Direction::Egress } else { Direction::Ingress }
    }

    /// Whether the proxy has it.
    #[inline(always)]
    #[must_use]
    pub const fn is_inspected(&self) -> bool {
        self.state & state::INSPECTED != 0
    }

    /// Whether it is over, but for what is still on its way.
    #[inline(always)]
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        const ENDED: u32 = state::ENDED_BY_WORKLOAD | state::ENDED_BY_PEER;
        self.state & state::RESET != 0 || self.state & ENDED == ENDED
    }

    /// For how long it is kept without a packet, in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn life(&self, protocol: u8) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let answered = self.state & state::ANSWERED != 0;
        match protocol {
            crate::protocol::TCP if self.is_closing() => 10 * SECOND,
            // A SYN is repeated for this long.
            crate::protocol::TCP if !answered => 130 * SECOND,
            crate::protocol::TCP => 21_600 * SECOND,
            // `nf_conntrack_udp_timeout` and `nf_conntrack_udp_timeout_stream`.
            _ if answered => 120 * SECOND,
            _ => 30 * SECOND,
        }
    }

    /// Whether it is still there at a time.
    #[inline(always)]
    #[must_use]
    pub const fn is_alive(&self, now: u64, protocol: u8) -> bool {
        // Another CPU's clock may be a little ahead.
        now.saturating_sub(self.seen) <= self.life(protocol)
    }

    /// The state after a packet with these flags of TCP (0 for other protocols) has gone one way.
    #[inline(always)]
    #[must_use]
    pub const fn after(&self, way: Direction, flags: u8) -> u32 {
        let mut after = self.state;
        if way as u8 != self.opened() as u8 {
            after |= state::ANSWERED;
        }
        if flags & tcp::FIN != 0 {
            after |= match way {
                Direction::Egress => state::ENDED_BY_WORKLOAD,
                Direction::Ingress => state::ENDED_BY_PEER,
            };
        }
        let (own, others) = match way {
            Direction::Egress => (state::RESET_BY_WORKLOAD, state::RESET_BY_PEER),
            Direction::Ingress => (state::RESET_BY_PEER, state::RESET_BY_WORKLOAD),
        };
        match flags & tcp::RST {
            // Who goes on after a reset has not believed it: it was not the other's (RFC 5961).
            0 => after & !others,
            _ => after | own,
        }
    }
}

/// How many connections a workload has opened of late, and how much has been told of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// See [`Opened::window`].
    pub window: u64,
    /// As many in it, so far.
    pub count: u64,
    /// As many are let pass in one.
    pub limit: u64,
    /// The window in which something was told.
    pub told_window: u64,
    /// As much was to be told in it, so far.
    pub told: u64,
}

impl Opened {
    /// As many events of one workload are told in a window while half of the ring buffer is taken, so that
    /// the others' find room in the rest.
    pub const SHARE_OF_EVENTS: u64 = 512;

    /// The quarter of a second, or a little more, that a time of the monotonic clock falls into.
    #[inline(always)]
    #[must_use]
    pub const fn window(now: u64) -> u64 {
        now >> 28
    }
}

/// A packet that comes in parts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Its source.
    pub source: Address,
    /// Its destination.
    pub destination: Address,
    /// What its parts have in common.
    pub identification: u32,
    /// The endpoint whose interface it passes.
    pub endpoint: u32,
    /// The IP protocol.
    pub protocol: u32,
}

/// What only the first part says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// The source's port.
    pub source: u16,
    /// The destination's port.
    pub destination: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened_by_workload(state: u32) -> Tracked {
        Tracked { state, ..Tracked::default() }
    }

    #[test]
    fn a_connection_that_both_have_ended_is_soon_forgotten() {
        let mut tracked = opened_by_workload(0);
        assert_eq!(tracked.life(6), 130_000_000_000);
        tracked.state = tracked.after(Direction::Egress, tcp::SYN);
        assert_eq!(tracked.state, 0);
        tracked.state = tracked.after(Direction::Ingress, tcp::SYN | tcp::ACK);
        assert_eq!(tracked.state, state::ANSWERED);
        tracked.state = tracked.after(Direction::Egress, tcp::FIN | tcp::ACK);
        assert!(!tracked.is_closing(), "the other may go on");
        tracked.state = tracked.after(Direction::Ingress, tcp::FIN | tcp::ACK);
        assert!(tracked.is_closing());
        assert!(tracked.is_alive(10_000_000_000, 6));
        assert!(!tracked.is_alive(10_000_000_001, 6));
    }

    #[test]
    fn a_reset_ends_a_connection_from_either_side() {
        for way in [Direction::Egress, Direction::Ingress] {
            let reset = opened_by_workload(opened_by_workload(0).after(way, tcp::RST));
            assert!(reset.is_closing());
        }
    }

    #[test]
    fn a_reset_that_nobody_believes_ends_nothing() {
        for (way, other) in
            [(Direction::Egress, Direction::Ingress), (Direction::Ingress, Direction::Egress)]
        {
            let open = opened_by_workload(state::ANSWERED);
            let reset = opened_by_workload(open.after(way, tcp::RST));
            assert!(opened_by_workload(reset.after(way, tcp::ACK)).is_closing(), "who has sent it");
            assert!(!opened_by_workload(reset.after(other, tcp::ACK)).is_closing());
            assert!(opened_by_workload(reset.after(other, tcp::RST)).is_closing());
        }
    }

    #[test]
    fn a_clock_that_is_behind_forgets_nothing() {
        let tracked = Tracked { seen: 50, ..Tracked::default() };
        assert!(tracked.is_alive(20, 17));
    }
}
