//! What only the options for moving a connection to another machine (`TCP_REPAIR`) tell of a socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The sequence numbers of the next byte that a TCP socket will send and of the next that will come; takes
/// CAP_NET_ADMIN.
pub(super) fn sequences(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let of = |queue| {
        tcp_option(socket, libc::TCP_REPAIR_QUEUE, queue)?;
        read_tcp_option(socket, libc::TCP_QUEUE_SEQ)
    };
    tcp_option(socket, libc::TCP_REPAIR, REPAIR_ON)?;
    let sequence = of(SEND_QUEUE).and_then(|next| Ok((next, of(RECEIVE_QUEUE)?)));
    // Without a probe of the other end's window.
    tcp_option(socket, libc::TCP_REPAIR, REPAIR_OFF_NO_PROBE)?;
    sequence
}

fn tcp_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: these options are numbers of 4 bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            4,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn read_tcp_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<u32> {
    let mut value = 0_u32;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the option is 4 bytes, and there is room for them.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

// include/uapi/linux/tcp.h
const REPAIR_ON: libc::c_int = 1;
const REPAIR_OFF_NO_PROBE: libc::c_int = -1;
const RECEIVE_QUEUE: libc::c_int = 1;
const SEND_QUEUE: libc::c_int = 2;
