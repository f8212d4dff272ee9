//! A process of a workload that talks: sockets of several kinds, and what is sent over them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Opens a socket of a kind, and connects it.
pub(crate) fn open(kind: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let (protocol, flags) = match kind {
        "multipath" => (libc::IPPROTO_MPTCP, libc::SOCK_NONBLOCK),
        "blocking" => (libc::IPPROTO_TCP, 0),
        _ => (libc::IPPROTO_TCP, libc::SOCK_NONBLOCK),
    };
    // SAFETY: the call takes numbers; what it returns is nobody else's.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | flags, protocol);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    let stream = TcpStream::from(socket);
    match kind {
        "zerocopy" => option(&stream, kind)?,
        "fastopen" => set(&stream, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1_i32)?,
        _ => {}
    }
    match rustix::net::connect(&stream, &to) {
        Err(rustix::io::Errno::INPROGRESS) => {}
        result => result?,
    }
    if kind == "fastopen" {
        // Connects in truth, and with a cookie this goes along.
        let _ = (&stream).write(b"first");
    }
    wait(&stream, PollFlags::OUT)?;
    stream.peer_addr()?;
    if kind == "fastopen" {
        let mut answer = [0; 5];
        exchange(&stream, b"first", &mut answer, true)?;
    }
    Ok(stream)
}

/// Sends messages and reads what comes back, which is to be the same.
pub(crate) fn talk(stream: &TcpStream, messages: usize, size: usize) -> io::Result<()> {
    let mut answer = vec![0; size];
    for number in 0..messages {
        let message: Vec<u8> = (0..size).map(|at| byte(at, number)).collect();
        exchange(stream, &message, &mut answer, false)?;
        if answer != message {
            return Err(io::Error::other(format!("message {number} came back as another")));
        }
    }
    Ok(())
}

/// One that differs from those before and after, in this message and in others.
fn byte(at: usize, message: usize) -> u8 {
    (at * 31 + message * 7 + (at >> 11)).to_le_bytes()[0]
}

/// Writes and reads at once, as far as the socket takes and has something.
fn exchange(
    mut stream: &TcpStream,
    message: &[u8],
    answer: &mut [u8],
    sent_already: bool,
) -> io::Result<()> {
    let (mut sent, mut read) = (if sent_already { message.len() } else { 0 }, 0);
    while read < answer.len() {
        let out = if sent < message.len() { PollFlags::OUT } else { PollFlags::empty() };
        let ready = wait(stream, PollFlags::IN | out)?;
        if ready.contains(PollFlags::OUT) && sent < message.len() {
            sent += again(stream.write(&message[sent..]))?;
        }
        if ready.contains(PollFlags::IN) {
            match stream.read(&mut answer[read..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => read += again(result)?,
            }
        }
    }
    Ok(())
}

/// Writes without reading.
pub(crate) fn send(mut stream: &TcpStream, size: usize) -> io::Result<()> {
    let mut sent = 0;
    while sent < size {
        wait(stream, PollFlags::OUT)?;
        sent += again(stream.write(&vec![7; size - sent]))?;
    }
    Ok(())
}

/// Reads until there is nothing more to come.
pub(crate) fn end(mut stream: &TcpStream) -> io::Result<()> {
    loop {
        wait(stream, PollFlags::IN)?;
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return Ok(()),
            result => again(result)?,
        };
    }
}

/// Sets an option that joined sockets don't have.
pub(crate) fn option(stream: &TcpStream, option: &str) -> io::Result<()> {
    match option {
        "zerocopy" => set(stream, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1_i32),
        "tls" => set(stream, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls"),
        _ => panic!("{option}"),
    }
}

fn set<T: ?Sized>(stream: &TcpStream, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).expect("a small number");
    // SAFETY: there are as many bytes as is said.
    let result = unsafe {
        libc::setsockopt(stream.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn again(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

fn wait(stream: &TcpStream, what: PollFlags) -> io::Result<PollFlags> {
    let mut polled = [PollFd::from_borrowed_fd(stream.as_fd(), what)];
    match poll(&mut polled, Some(&Timespec { tv_sec: 10, tv_nsec: 0 }))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(polled[0].revents()),
    }
}
