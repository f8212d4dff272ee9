//! The addresses that this host has itself, asked of the kernel.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::netlink::{NLM_F_DUMP, Netlink, Request, attribute};

/// All addresses of the interfaces in the thread's network namespace, but for those that mean another host on
/// every link (RFC 4291 §2.5.6), or every host itself.
///
/// # Errors
/// When the kernel does not tell.
pub fn host_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let netlink = Netlink::open()?;
    // `struct ifaddrmsg`, of any family.
    let answers = netlink.get(Request::new(RTM_GETADDR, &[0; 8]), NLM_F_DUMP)?;
    let told = answers.iter().filter(|(kind, _)| *kind == RTM_NEWADDR);
    Ok(told.filter_map(|(_, body)| address(body)).filter(is_somewhere).collect())
}

fn address(body: &[u8]) -> Option<IpAddr> {
    let attributes = body.get(8..)?;
    // On a link with two ends, the address is the other's and this the own one.
    let own = attribute(attributes, IFA_LOCAL).or(attribute(attributes, IFA_ADDRESS))?;
    match *body.first()? {
        AF_INET => <[u8; 4]>::try_from(own).ok().map(IpAddr::from),
        AF_INET6 => <[u8; 16]>::try_from(own).ok().map(IpAddr::from),
        _ => None,
    }
}

fn is_somewhere(address: &IpAddr) -> bool {
    let is_of_link = matches!(address, IpAddr::V6(own) if own.is_unicast_link_local());
    !is_of_link && !address.is_loopback() && !address.is_unspecified()
}

// include/uapi/linux/rtnetlink.h and if_addr.h
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(family: u8, attributes: &[(u16, &[u8])]) -> Option<String> {
        let mut body = vec![family, 0, 0, 0, 0, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
        }
        address(&body).filter(is_somewhere).map(|address| address.to_string())
    }

    #[test]
    fn an_address_is_the_own_one_and_somewhere() {
        let (own, others) = ([192, 0, 2, 7], [192, 0, 2, 8]);
        let both: [(u16, &[u8]); 2] = [(IFA_ADDRESS, &others), (IFA_LOCAL, &own)];
        assert_eq!(told(AF_INET, &both).as_deref(), Some("192.0.2.7"));
        let mut v6 = [0; 16];
        (v6[0], v6[15]) = (0xfd, 1);
        assert_eq!(told(AF_INET6, &[(IFA_ADDRESS, &v6)]).as_deref(), Some("fd00::1"));
        (v6[0], v6[1]) = (0xfe, 0x80);
        assert_eq!(told(AF_INET6, &[(IFA_ADDRESS, &v6)]), None, "of a link");
        assert_eq!(told(AF_INET, &[(IFA_LOCAL, &[127, 0, 0, 1])]), None);
        assert_eq!(told(AF_INET, &[(IFA_LOCAL, &v6)]), None, "too long");
        assert_eq!(told(7, &[(IFA_LOCAL, &own)]), None);
        assert_eq!(address(&[AF_INET]), None);
    }

    #[test]
    fn this_host_answers() {
        host_addresses().expect("it does, whatever it has");
    }
}
