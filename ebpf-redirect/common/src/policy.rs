//! The whole policy of a workload is one trie, so that it changes with one store: a program sees the
//! old one or the new one, never some of both. Three kinds of entries live in it, told apart by the
//! first four bytes of the key:
//!
//! - *header*: revision, and which directions are enforced;
//! - *addresses*: prefix → identity, and its class in each direction (those that policy treats alike
//!   share a class);
//! - *ports*: class, protocol, prefix of the port → verdict and rule.

use crate::address::Address;

const HEADER: u32 = 0u32.to_be();
const ADDRESS: u32 = 1u32.to_be();
const PORT: u32 = 2u32.to_be();

const KIND_BITS: u32 = 32;

/// Key of the trie: `prefix_len` counts the bits of `data` that matter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Bits of `data` that matter, from the first byte on.
    pub prefix_len: u32,
    /// The kind, then what is looked for, in network order.
    pub data: [u32; 5],
}

impl PolicyKey {
    /// The header's key.
    pub const HEADER: Self = Self { prefix_len: KIND_BITS, data: [HEADER, 0, 0, 0, 0] };
    /// Bits of a key that names one address.
    pub const WHOLE_ADDRESS: u32 = 128;

    /// Addresses whose first `bits` of 128 are those of `address`; the bits of an IPv4 prefix are 96
    /// more than it has.
    #[inline(always)]
    #[must_use]
    pub const fn address(address: Address, bits: u32) -> Self {
        let [a, b, c, d] = address.0;
        Self { prefix_len: KIND_BITS + bits, data: [ADDRESS, a, b, c, d] }
    }

    /// Ports of a class whose first `bits` of 16 are those of `port`.
    #[inline(always)]
    #[must_use]
    pub const fn port(class: u32, protocol: u8, port: u16, bits: u32) -> Self {
        let [high, low] = port.to_be_bytes();
        let last = u32::from_ne_bytes([protocol, high, low, 0]);
        Self { prefix_len: KIND_BITS + 40 + bits, data: [PORT, class.to_be(), last, 0, 0] }
    }
}

/// Value of the trie; what its words mean depends on the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyValue(pub [u32; 3]);

impl PolicyValue {
    /// The header: the policy's revision, and whether a policy restricts each direction.
    #[inline(always)]
    #[must_use]
    pub const fn header(revision: u32, egress: bool, ingress: bool) -> Self {
        Self([revision, egress as u32, ingress as u32])
    }

    /// Who has an address.
    #[inline(always)]
    #[must_use]
    pub const fn identity(identity: u32, egress: u32, ingress: u32) -> Self {
        Self([identity, egress, ingress])
    }

    /// What happens with a connection; `rule` is one more than the rule's index, 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn verdict(verdict: Verdict, rule: u32) -> Self {
        Self([verdict as u32, rule, 0])
    }

    /// Of an address: its class in a direction.
    #[inline(always)]
    #[must_use]
    pub const fn class(self, direction: Direction) -> u32 {
        match direction {
            Direction::Egress => self.0[1],
            Direction::Ingress => self.0[2],
        }
    }

    /// Of the header: whether a policy restricts a direction.
    #[inline(always)]
    #[must_use]
    pub const fn is_enforced(self, direction: Direction) -> bool {
        self.class(direction) != 0
    }

    /// Of ports: the verdict. What is not one of those known is a denial.
    #[inline(always)]
    #[must_use]
    pub const fn as_verdict(self) -> Verdict {
        match self.0[0] {
            1 => Verdict::Allow,
            2 => Verdict::Inspect,
            _ => Verdict::Deny,
        }
    }
}

/// Which way a connection is opened, as the workload sees it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The workload opens it.
    Egress = 0,
    /// It is opened to the workload.
    Ingress = 1,
}

/// What happens with a connection.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Refused at once.
    Deny = 0,
    /// It never touches the proxy.
    Allow = 1,
    /// The proxy has to read it.
    Inspect = 2,
}
