//! The few requests to the kernel's network configuration (`NETLINK_ROUTE`) that a node needs. What is
//! there already is no error.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// A connection to the kernel.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

/// A request that is being written: its header, then a fixed part, then attributes.
pub(super) struct Request(Vec<u8>);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        // No protocol is number 0: NETLINK_ROUTE.
        Ok(Self(socket_with(AddressFamily::NETLINK, kind, flags, None)?))
    }

    /// An interface.
    pub(super) fn link(&self, interface: u32) -> io::Result<Link> {
        let mut links = self.get_links(interface, 0)?;
        links.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// All interfaces.
    pub(super) fn links(&self) -> io::Result<Vec<Link>> {
        self.get_links(0, NLM_F_DUMP)
    }

    fn get_links(&self, interface: u32, flags: u16) -> io::Result<Vec<Link>> {
        // `struct ifinfomsg`
        let fixed: Vec<u8> = [0, interface, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let answers = self.get(Request::new(RTM_GETLINK, &fixed), flags)?;
        let links = answers.iter().filter(|(kind, _)| *kind == RTM_NEWLINK);
        Ok(links.filter_map(|(_, body)| Link::read(body)).collect())
    }

    /// The number that a network namespace has here; none if nothing of here leads there.
    pub(super) fn namespace(&self, namespace: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        // `struct rtgenmsg`, filled up.
        let request = Request::new(RTM_GETNSID, &[0; 4])
            .with(NETNSA_FD, &namespace.as_raw_fd().to_ne_bytes());
        let answers = self.get(request, 0)?;
        let number = answers.iter().find_map(|(_, body)| attribute(body.get(4..)?, NETNSA_NSID));
        // What has none has -1.
        Ok(number.and_then(|number| word(number, 0)).filter(|number| number.cast_signed() >= 0))
    }

    /// Asks for something; the kind of each message that answers, and what it says.
    pub(super) fn get(&self, request: Request, flags: u16) -> io::Result<Vec<(u16, Vec<u8>)>> {
        let mut request = request.0;
        request.splice(6..8, (NLM_F_REQUEST | flags).to_ne_bytes());
        let length = u32::try_from(request.len()).map_err(io::Error::other)?;
        request.splice(..4, length.to_ne_bytes());
        send(&self.0, &request, SendFlags::empty())?;
        let (mut answers, mut room) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let (length, _) = recv(&self.0, &mut room[..], RecvFlags::empty())?;
            for (kind, body) in messages(room.get(..length).unwrap_or_default()) {
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let error = word(body, 0).map_or(libc::EIO, u32::cast_signed);
                        return Err(io::Error::from_raw_os_error(error.saturating_neg()));
                    }
                    _ => answers.push((kind, body.to_vec())),
                }
            }
            if flags & NLM_F_DUMP == 0 {
                return Ok(answers);
            }
        }
    }

    /// Sends a request, and waits for what comes of it.
    pub(super) fn ask(&self, request: Request) -> io::Result<()> {
        match self.answer(request)? {
            0 | libc::EEXIST => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Sends a request that removes something; whether it was there.
    pub(super) fn remove(&self, request: Request) -> io::Result<bool> {
        match self.answer(request)? {
            0 => Ok(true),
            libc::ENOENT | libc::ESRCH | libc::ENODEV => Ok(false),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// The number of the error that comes of a request; 0: none.
    fn answer(&self, request: Request) -> io::Result<i32> {
        let mut bytes = request.0;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        bytes.splice(..4, length.to_ne_bytes());
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        // `struct nlmsghdr`, then `struct nlmsgerr`, which begins with the error's number.
        let error = answer.get(..length).and_then(|answer| answer.get(16..20));
        let error = error.and_then(|error| error.try_into().ok()).map(i32::from_ne_bytes);
        let error = error.map(|error| error.saturating_neg());
        error.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Request {
    /// That something be there.
    pub(super) fn new(kind: u16, fixed: &[u8]) -> Self {
        Self::with_flags(kind, NLM_F_CREATE | NLM_F_EXCL, fixed)
    }

    /// That something be there no more.
    pub(super) fn removing(kind: u16, fixed: &[u8]) -> Self {
        Self::with_flags(kind, 0, fixed)
    }

    fn with_flags(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// What matters of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) number: u32,
    /// What its packets begin with, `ARPHRD_…`.
    pub(super) kind: u16,
    /// What is sent there comes back to this host, whatever its kind.
    pub(super) is_loopback: bool,
    /// The namespace where the other end of a cable is, by its number here; none if it is here, too.
    pub(super) leads_to: Option<u32>,
    /// The device that it is a part of, as a port is of a bridge.
    pub(super) master: Option<u32>,
}

impl Link {
    /// Whether packets have the header of Ethernet, as programs take for granted.
    pub(super) fn is_ethernet(&self) -> bool {
        /// `ARPHRD_ETHER`
        const ETHERNET: u16 = 1;
        /// `ARPHRD_LOOPBACK`, which has one, too.
        const LOOPBACK: u16 = 772;
        matches!(self.kind, ETHERNET | LOOPBACK)
    }

    /// From `struct ifinfomsg` and the attributes behind it.
    fn read(body: &[u8]) -> Option<Self> {
        let (number, attributes) = (word(body, 4)?, body.get(16..)?);
        /// `IFF_LOOPBACK`
        const LOOPBACK: u32 = 8;
        let number_of = |kind| attribute(attributes, kind).and_then(|value| word(value, 0));
        Some(Self {
            number,
            kind: u16::from_ne_bytes(body.get(2..4)?.try_into().ok()?),
            is_loopback: word(body, 8)? & LOOPBACK != 0,
            leads_to: number_of(IFLA_LINK_NETNSID),
            master: number_of(IFLA_MASTER),
        })
    }
}

/// Four bytes.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Messages, one after another: the kind of each, and what is behind its header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok().filter(|length| *length >= HEADER)?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The value of an attribute of some kind: each has its length, its kind, and its value.
pub(super) fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let half =
            |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, found) = (usize::from(half(0)?), half(2)?);
        if length < 4 {
            return None;
        }
        if found == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

// include/uapi/linux/netlink.h, rtnetlink.h, if_link.h and net_namespace.h
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINK_NETNSID: u16 = 37;
const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_lie_about_their_length_end_what_is_read() {
        let message = |length: u32, kind: u16| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(20, 0);
            bytes
        };
        let kinds = |bytes: &[u8]| messages(bytes).map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(&[message(20, 1), message(18, 2)].concat()), [1, 2]);
        assert_eq!(kinds(&[message(20, 1), message(21, 2)].concat()), [1]);
        assert_eq!(kinds(&message(15, 1)), [0; 0]);
        assert_eq!(kinds(&[]), [0; 0]);
    }

    #[test]
    fn attributes_are_found_and_nothing_behind_the_end() {
        let bytes =
            [&[5, 0, 1, 0, 9, 0, 0, 0][..], &8_u16.to_ne_bytes(), &[10, 0, 7, 0, 0, 0]].concat();
        assert_eq!(attribute(&bytes, 1), Some(&[9][..]));
        assert_eq!(attribute(&bytes, 10), Some(&[7, 0, 0, 0][..]));
        assert_eq!(attribute(&bytes, 11), None);
        assert_eq!(attribute(&bytes[..14], 10), None);
        assert_eq!(attribute(&[0, 0, 1, 0], 1), None);
    }
}
