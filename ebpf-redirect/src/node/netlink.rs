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

// include/uapi/linux/netlink.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
