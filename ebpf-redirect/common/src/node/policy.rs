//! The policy of one endpoint is one trie, as that of a sidecar's workload (see
//! [`PolicyKey`](crate::PolicyKey)); but who has an address is said once for the whole node, so that
//! here identities stand in the place of addresses:
//!
//! - *header*: revision, and which directions are enforced;
//! - *identities*: identity → its class in each direction; the entry without an identity has the class
//!   of all of whom policy does not speak;
//! - *ports*: class, protocol, prefix of the port → verdict and rule; the entry without a protocol has
//!   the verdict of all protocols that have no entry.

use crate::Direction;

const HEADER: u32 = 0u32.to_be();
const IDENTITY: u32 = 1u32.to_be();
const PORT: u32 = 2u32.to_be();

const KIND_BITS: u32 = 32;

/// Key of the trie: `prefix_len` counts the bits of `data` that matter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePolicyKey {
    /// Bits of `data` that matter, from the first byte on.
    pub prefix_len: u32,
    /// The kind, then what is looked for, in network order.
    pub data: [u32; 3],
}

impl NodePolicyKey {
    /// The header's key.
    pub const HEADER: Self = Self { prefix_len: KIND_BITS, data: [HEADER, 0, 0] };
    /// All of whom policy does not speak.
    pub const OTHERS: Self = Self { prefix_len: KIND_BITS, data: [IDENTITY, 0, 0] };

    /// One identity.
    #[inline(always)]
    #[must_use]
    pub const fn identity(identity: u32) -> Self {
        Self { prefix_len: KIND_BITS + 32, data: [IDENTITY, identity.to_be(), 0] }
    }

    /// Ports of a class whose first `bits` of 16 are those of `port`. ICMP has types in their place.
    #[inline(always)]
    #[must_use]
    pub const fn port(class: u32, protocol: u8, port: u16, bits: u32) -> Self {
        let [high, low] = port.to_be_bytes();
        let last = u32::from_ne_bytes([protocol, high, low, 0]);
        Self { prefix_len: KIND_BITS + 40 + bits, data: [PORT, class.to_be(), last] }
    }

    /// Every protocol of a class that has no entry of its own.
    #[inline(always)]
    #[must_use]
    pub const fn other_protocols(class: u32) -> Self {
        Self { prefix_len: KIND_BITS + 32, data: [PORT, class.to_be(), 0] }
    }
}

/// What was asked of an endpoint's policy. A revision stands for one policy, and for no other one ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VerdictKey {
    /// Whose policy.
    pub endpoint: u32,
    /// Which one.
    pub revision: u32,
    /// Who the peer is.
    pub identity: u32,
    /// See [`VerdictKey::asked`].
    pub asked: u32,
}

impl VerdictKey {
    /// Direction, protocol and port as one word.
    #[inline(always)]
    #[must_use]
    pub const fn asked(direction: Direction, protocol: u8, port: u16) -> u32 {
        (direction as u32) << 24 | (protocol as u32) << 16 | port as u32
    }
}
