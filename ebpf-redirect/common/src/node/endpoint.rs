//! Whose interface it is, and how packets are told apart that the node itself has a hand in.

use crate::address::Address;

/// The workload behind an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointEntry {
    /// One of its addresses of IPv4, and one of IPv6, so that who sends from those costs no look at what else
    /// it has. Never one that it has no more. Where it has none, see [`NO_ADDRESSES`](Self::NO_ADDRESSES).
    pub addresses: [Address; 2],
    /// Its number, from 1.
    pub endpoint: u32,
    /// See [`endpoint_flags`].
    pub flags: u32,
    /// Revision of its policy; 0: it has none. Written after the policy is in force, so that connections
    /// that were judged by the one before are not looked into until then. What is judged, is judged by
    /// the policy that is there.
    pub revision: u32,
}

impl EndpointEntry {
    /// Each is of the other's family, and so nobody's.
    pub const NO_ADDRESSES: [Address; 2] = [Address::UNSPECIFIED, Address::UNSPECIFIED_V4];

    /// Whether an address is one of these two of the workload's.
    #[inline(always)]
    #[must_use]
    pub fn is_known_to_have(&self, address: Address) -> bool {
        let [v4, v6] = self.addresses;
        address == if address.is_v4() { v4 } else { v6 }
    }

    /// Policy is to be enforced, and there is none: nothing passes.
    #[inline(always)]
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.flags & endpoint_flags::ENFORCED != 0 && self.revision == 0
    }
}

impl Default for EndpointEntry {
    fn default() -> Self {
        Self { addresses: Self::NO_ADDRESSES, endpoint: 0, flags: 0, revision: 0 }
    }
}

/// Bits of [`EndpointEntry::flags`].
pub mod endpoint_flags {
    /// Who is refused is told at once: by a TCP reset, or by ICMP.
    pub const TOLD_AT_ONCE: u32 = 1;
    /// Policy is enforced. Without it everything passes but what comes from addresses of others.
    pub const ENFORCED: u32 = 2;
    /// Tell of new connections, too.
    pub const TELL_FLOWS: u32 = 4;
    /// The interface is a bridge's port, or another device's part: what is for a socket of this host is not
    /// let go on there. Set by the loader.
    pub const PART_OF_ANOTHER: u32 = 8;
    /// The workload has opened more connections than its share: no more, until there are fewer.
    pub const CROWDED_OUT: u32 = 16;
    /// Others have opened more to it.
    pub const CROWDED_IN: u32 = 32;
}

/// Marks of packets. None of them comes out of a workload: a mark ends with its network namespace.
pub mod mark {
    /// To be delivered to the proxy: a rule leads such packets to a local route.
    pub const TO_PROXY: u32 = 0x5052_0001;
    /// The same of what a workload sends, on the way there: a bridge would send it elsewhere.
    pub const FROM_BRIDGE: u32 = 0x5052_0004;
    /// What the proxy sends, to whichever side.
    pub const FROM_PROXY: u32 = 0x5052_0002;
    /// An answer that a program has made: a reset, or a message that something is prohibited.
    pub const ANSWER: u32 = 0x5052_0003;
}

/// What programs are told besides all that has a map of its own. Replaced whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// [`NODE_LAYOUT`](crate::node::NODE_LAYOUT).
    pub layout: u32,
    /// The device on whose ingress sockets are assigned to what was on its way to a workload.
    pub device: u32,
    /// In whose name packets of services go on to other nodes: this node's address.
    pub node_v4: Address,
    /// The same over IPv6.
    pub node_v6: Address,
}

/// Key of the trie of prefixes: → identity.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey {
    /// Bits that matter; 96 more than an IPv4 prefix has.
    pub bits: u32,
    /// The address.
    pub address: Address,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_address_has_not_that_of_nobody_either() {
        let nobody = EndpointEntry::default();
        for address in [Address::UNSPECIFIED, Address::UNSPECIFIED_V4, Address::v4(7)] {
            assert!(!nobody.is_known_to_have(address), "{address:?}");
        }
    }

    #[test]
    fn an_address_of_either_family_is_known() {
        let (v4, v6) = (Address::v4(7), Address([1, 2, 3, 4]));
        let entry = EndpointEntry { addresses: [v4, v6], ..EndpointEntry::default() };
        assert!(entry.is_known_to_have(v4) && entry.is_known_to_have(v6));
        assert!(!entry.is_known_to_have(Address::v4(8)));
        assert!(!entry.is_known_to_have(Address([1, 2, 3, 5])));
    }
}
