//! Addresses of the host's types as the kernel programs have them.

use std::net::{IpAddr, SocketAddr};

use portreeve_ebpf_common::{Address, Endpoint};

/// An address; IPv4 in its mapped form.
pub(crate) fn address(address: IpAddr) -> Address {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Address::from_bytes(address.octets())
}

/// The other way.
pub(crate) fn ip(address: Address) -> IpAddr {
    IpAddr::V6(address.to_bytes().into()).to_canonical()
}

/// An address and a port.
pub(crate) fn endpoint(socket: SocketAddr) -> Endpoint {
    Endpoint::new(address(socket.ip()), socket.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_the_same_in_its_mapped_form() {
        let plain: SocketAddr = "10.1.2.3:80".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(endpoint(plain), endpoint(mapped));
        assert_eq!(endpoint(plain).address, Address::v4(u32::from_ne_bytes([10, 1, 2, 3])));
    }
}
