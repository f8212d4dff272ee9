//! The few requests to the kernel's network configuration (`NETLINK_ROUTE`) that a node needs. What is
//! there already is no error.

use std::io;
use std::os::fd::OwnedFd;

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

    /// The device that an interface is a part of, as a port is of a bridge.
    pub(super) fn master(&self, interface: u32) -> io::Result<Option<u32>> {
        let fixed: Vec<u8> = [0, interface, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut request = Request::new(RTM_GETLINK, &fixed).0;
        request.splice(6..8, NLM_F_REQUEST.to_ne_bytes());
        let length = u32::try_from(request.len()).map_err(io::Error::other)?;
        request.splice(..4, length.to_ne_bytes());
        send(&self.0, &request, SendFlags::empty())?;
        let mut answer = vec![0; 32 * 1024];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        match answer.get(4..6) {
            Some(kind) if *kind == RTM_NEWLINK.to_ne_bytes() => {}
            Some(kind) if *kind == NLMSG_ERROR.to_ne_bytes() => {
                let error = answer.get(16..20).and_then(|error| error.try_into().ok());
                let error = error.map_or(libc::EIO, i32::from_ne_bytes);
                return Err(io::Error::from_raw_os_error(error.saturating_neg()));
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        // `struct nlmsghdr`, then `struct ifinfomsg`.
        Ok(attribute(answer.get(32..).unwrap_or_default(), IFLA_MASTER)
            .and_then(|value| value.try_into().ok())
            .map(u32::from_ne_bytes))
    }

    /// Sends a request, and waits for what comes of it.
    pub(super) fn ask(&self, request: Request) -> io::Result<()> {
        let mut bytes = request.0;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        bytes.splice(..4, length.to_ne_bytes());
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        // `struct nlmsghdr`, then `struct nlmsgerr`, which begins with the error's number.
        let error = answer.get(..length).and_then(|answer| answer.get(16..20));
        let error = error.and_then(|error| error.try_into().ok()).map(i32::from_ne_bytes);
        match error.map(|error| error.saturating_neg()) {
            Some(0 | libc::EEXIST) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Request {
    pub(super) fn new(kind: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        bytes.extend(flags.to_ne_bytes());
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

/// The value of an attribute of some kind: each has its length, its kind, and its value.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let word =
            |at: usize| Some(u16::from_ne_bytes(attributes.get(at..at + 2)?.try_into().ok()?));
        let (length, found) = (usize::from(word(0)?), word(2)?);
        if length < 4 {
            return None;
        }
        if found == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

// include/uapi/linux/netlink.h, rtnetlink.h and if_link.h
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_MASTER: u16 = 10;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
