//! The kernel's sockets, as `ss` lists them, and how to end one: `NETLINK_SOCK_DIAG` (Linux
//! `include/uapi/linux/inet_diag.h`). Only those of the network namespace this runs in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Length of `struct nlmsghdr`, of `struct inet_diag_sockid` and of `struct inet_diag_msg`.
const HEADER: usize = 16;
const ID: usize = 48;
const MESSAGE: usize = 72;

/// The attribute that tells a socket's cgroup.
const CGROUP_ID: u16 = 21;

/// A state of TCP.
pub(crate) const LISTEN: u8 = 10;
/// All but LISTEN and the two that wait for nothing but time.
const OPEN: u32 = (1 << 1) | (1 << 2) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11);

/// One socket.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) protocol: u8,
    pub(crate) state: u8,
    pub(crate) inode: u32,
    /// 0 if the kernel does not tell.
    pub(crate) cgroup: u64,
    family: u8,
    /// As the kernel wants it back.
    id: [u8; ID],
}

/// A connection to the kernel's list.
#[derive(Debug)]
pub(crate) struct SockDiag(OwnedFd);

impl SockDiag {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the system call.
    pub(crate) fn open() -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG))?;
        Ok(Self(socket))
    }

    /// The sockets of a protocol that listen or are connected, of both families.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn sockets(&self, protocol: u8) -> io::Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let states = OPEN | 1 << LISTEN;
            let request = request(BY_FAMILY, REQUEST | DUMP, (family, protocol), states, &[0; ID]);
            send(&self.0, &request, SendFlags::empty())?;
            self.receive(protocol, &mut sockets)?;
        }
        Ok(sockets)
    }

    /// Ends a connection: its owner's next call fails with ECONNABORTED, the other side gets a reset.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN`, and in kernels without `CONFIG_INET_DIAG_DESTROY`. A socket that is
    /// gone already is none.
    pub(crate) fn destroy(&self, socket: &Socket) -> io::Result<()> {
        let kind = (socket.family, socket.protocol);
        let request = request(DESTROY, REQUEST | ACKNOWLEDGE, kind, u32::MAX, &socket.id);
        send(&self.0, &request, SendFlags::empty())?;
        match self.receive(socket.protocol, &mut Vec::new()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn receive(&self, protocol: u8, sockets: &mut Vec<Socket>) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, body, after)) = message(rest) {
                rest = after;
                match kind {
                    DONE => return Ok(()),
                    ERROR => return acknowledged(body),
                    _ => sockets.extend(socket(protocol, body)),
                }
            }
        }
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(
    kind: u16,
    flags: u16,
    (family, protocol): (u8, u8),
    states: u32,
    id: &[u8; ID],
) -> Vec<u8> {
    const LENGTH: u32 = 72;
    const { assert!(LENGTH as usize == HEADER + 8 + ID) };
    let mut request = Vec::with_capacity(LENGTH as usize);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, protocol, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(id);
    request
}

/// The kind and the body of the first message, and what comes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(array(bytes, 4)?);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

fn acknowledged(body: &[u8]) -> io::Result<()> {
    match array(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `struct inet_diag_msg` and its attributes.
fn socket(protocol: u8, body: &[u8]) -> Option<Socket> {
    let [family, state, ..]: [u8; 4] = array(body, 0)?;
    let id: [u8; ID] = array(body, 4)?;
    let port = |at| Some(u16::from_be_bytes(array(&id, at)?));
    let address = |at| address(family, array(&id, at)?);
    let mut socket = Socket {
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        protocol,
        state,
        inode: u32::from_ne_bytes(array(body, MESSAGE - 4)?),
        cgroup: 0,
        family,
        id,
    };
    let mut attributes = body.get(MESSAGE..).unwrap_or_default();
    while let Some(length) = array(attributes, 0).map(u16::from_ne_bytes).map(usize::from) {
        if array(attributes, 2).map(u16::from_ne_bytes) == Some(CGROUP_ID) {
            socket.cgroup = u64::from_ne_bytes(array(attributes, 4)?);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

/// IPv4 in its mapped form is the IPv4 address it is.
fn address(family: u8, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(array::<4>(&bytes, 0)?).into()),
        AF_INET6 => Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()),
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const ESTABLISHED: u8 = 1;

    #[test]
    fn a_connection_is_listed_from_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let client = TcpStream::connect(there).unwrap();
        let here = client.local_addr().unwrap();
        let sockets = SockDiag::open().unwrap().sockets(6).unwrap();
        let find = |local, state| {
            sockets.iter().find(|socket| socket.local == local && socket.state == state)
        };
        assert_eq!(find(here, ESTABLISHED).unwrap().remote, there);
        assert!(find(there, LISTEN).unwrap().inode != 0);
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        assert!(message(&[0; 3]).is_none());
        assert!(message(&[255; 16]).is_none(), "a length beyond the end");
        assert!(socket(6, &[AF_INET; MESSAGE - 1]).is_none());
        assert!(socket(6, &[7; MESSAGE]).is_none(), "a family nobody knows");
    }
}
