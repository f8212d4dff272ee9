//! When interfaces of this network namespace, their addresses, and rules of routing come or go (rtnetlink(7)). What has become of
//! which one is not read from the messages: who is told looks at all that matter, so that a message that was
//! lost is no worse than one that came late.

use std::io;
use std::os::unix::net;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// Where the kernel tells of interfaces.
#[derive(Debug)]
pub struct Links {
    /// It is none of `AF_UNIX`; but it, too, is waited for and received from.
    socket: UnixDatagram,
}

/// Groups of `NETLINK_ROUTE`. Routes are not among them: there may be a flood of those.
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV4_RULE: u32 = 0x80;
/// `RTNLGRP_IPV6_RULE`, the 19th.
const RTMGRP_IPV6_RULE: u32 = 1 << 18;
/// An interface that comes is told of several times.
const TOGETHER: Duration = Duration::from_millis(10);

impl Links {
    /// Listens from now on. Takes a runtime.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is number 0: NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let addresses = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
        let groups = RTMGRP_LINK | addresses | RTMGRP_IPV4_RULE | RTMGRP_IPV6_RULE;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket: UnixDatagram::from_std(net::UnixDatagram::from(socket))? })
    }

    /// Until something has become of an interface, an address or a rule. May be given up and called again at any time.
    pub async fn changed(&self) {
        if self.socket.readable().await.is_err() {
            // There is no runtime any more.
            return std::future::pending().await;
        }
        tokio::time::sleep(TOGETHER).await;
        let mut message = [0; 4096];
        loop {
            match self.socket.try_recv(&mut message) {
                // More than there was room for says, too, that something has changed.
                Err(error) if error.raw_os_error() != Some(NO_ROOM) => return,
                _ => {}
            }
        }
    }
}

/// `ENOBUFS`
const NO_ROOM: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
