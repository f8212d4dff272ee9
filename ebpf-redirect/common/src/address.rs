//! Addresses in one form: IPv4 is `::ffff:a.b.c.d`, so that a socket of either family meets the same
//! entry, and `::ffff:10.0.0.1` can't slip past a rule about `10.0.0.1`.

/// An IPv6 address, or an IPv4 address in its mapped form; the bytes are in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u32; 4]);

/// The third word of every mapped address: `00 00 ff ff`.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// No address: what a socket that is bound to all of IPv6, or to none yet, shows.
    pub const UNSPECIFIED: Self = Self([0; 4]);
    /// All of IPv4.
    pub const UNSPECIFIED_V4: Self = Self::v4(0);

    /// An IPv4 address; the number as it is in memory, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(network_order: u32) -> Self {
        Self([0, 0, MAPPED, network_order])
    }

    /// An address from its bytes.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// Its bytes.
    #[inline(always)]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0[0].to_ne_bytes();
        let [e, f, g, h] = self.0[1].to_ne_bytes();
        let [i, j, k, l] = self.0[2].to_ne_bytes();
        let [m, n, o, p] = self.0[3].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Whether it never leaves the host: `127.0.0.0/8` or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            return self.0[3].to_ne_bytes()[0] == 127;
        }
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1u32.to_be()
    }

    /// Whether it stands for "any": a connection to it goes to loopback.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(self) -> bool {
        self.0[0] == 0
            && self.0[1] == 0
            && self.0[3] == 0
            && (self.0[2] == 0 || self.0[2] == MAPPED)
    }

    /// The address that a connection to this one really goes to: the kernel takes "any" for loopback,
    /// and so does the verdict.
    #[inline(always)]
    #[must_use]
    pub const fn reached(self) -> Self {
        match (self.is_unspecified(), self.is_v4()) {
            (false, _) => self,
            (true, true) => Self::v4(u32::from_ne_bytes([127, 0, 0, 1])),
            (true, false) => Self([0, 0, 0, 1u32.to_be()]),
        }
    }
}

/// An address and a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port, in the host's order.
    pub port: u32,
}

impl Endpoint {
    /// An address and a port.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port: port as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(bytes: [u8; 4]) -> Address {
        Address::v4(u32::from_ne_bytes(bytes))
    }

    #[test]
    fn ipv4_has_its_mapped_bytes() {
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
        assert_eq!(v4([10, 1, 2, 3]).to_bytes(), bytes);
        assert_eq!(Address::from_bytes(bytes), v4([10, 1, 2, 3]));
        assert!(v4([10, 1, 2, 3]).is_v4());
    }

    #[test]
    fn loopback_is_known_in_both_families() {
        let mut six = [0; 16];
        six[15] = 1;
        assert!(Address::from_bytes(six).is_loopback());
        assert!(v4([127, 9, 9, 9]).is_loopback());
        assert!(!v4([128, 0, 0, 1]).is_loopback());
        assert!(!Address::UNSPECIFIED.is_loopback());
    }

    #[test]
    fn any_is_where_the_kernel_goes_with_it() {
        assert_eq!(Address::UNSPECIFIED_V4.reached(), v4([127, 0, 0, 1]));
        let mut six = [0; 16];
        six[15] = 1;
        assert_eq!(Address::UNSPECIFIED.reached(), Address::from_bytes(six));
        assert_eq!(v4([10, 0, 0, 0]).reached(), v4([10, 0, 0, 0]));
    }
}
