//! Connections that carry messages of one size: what a worker sends, and the proxy's end of it. Neither
//! end blocks in a socket, as proxies and most of their clients don't.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::Failure;

/// How long messages are sent.
const WHILE: Duration = Duration::from_millis(300);
/// What comes is not answered.
const SILENT: u8 = 0;
/// What comes is sent back.
const ANSWERED: u8 = 1;

/// Takes connections and does with each as its first byte says.
pub fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                // Who measures sees what is wrong.
                let _ = client.set_nonblocking(true).and_then(|()| answer(&client));
            });
        }
    });
}

fn answer(client: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut kind = [0];
    read_some(client, &mut kind)?;
    loop {
        let length = read_some(client, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if kind[0] == ANSWERED {
            write_all(client, &buffer[..length])?;
        }
    }
}

/// See [`Work::PingPong`](super::worker::Work::PingPong).
///
/// # Errors
/// Those of the sockets.
pub fn ping_pong(to: SocketAddr, size: usize) -> Result<f64, Failure> {
    let stream = open(to, ANSWERED)?;
    let (message, mut answer) = (vec![7; size], vec![0; size]);
    let mut all = Vec::new();
    let end = Instant::now() + WHILE;
    while Instant::now() < end {
        let began = Instant::now();
        write_all(&stream, &message)?;
        let mut read = 0;
        while read < size {
            read += match read_some(&stream, &mut answer[read..])? {
                0 => return Err("the connection was closed".into()),
                length => length,
            };
        }
        all.push(began.elapsed().as_nanos() as f64);
    }
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().ok_or_else(|| "nothing was measured".into())
}

/// See [`Work::OneWay`](super::worker::Work::OneWay).
///
/// # Errors
/// Those of the sockets.
pub fn one_way(to: SocketAddr, size: usize) -> Result<f64, Failure> {
    let stream = open(to, SILENT)?;
    let message = vec![7; size];
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < WHILE {
        for _ in 0..16 {
            write_all(&stream, &message)?;
            sent += size;
        }
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The other side closes when it has read everything.
    while read_some(&stream, &mut [0; 16])? > 0 {}
    Ok(sent as f64 / 1048576.0 / began.elapsed().as_secs_f64())
}

fn open(to: SocketAddr, kind: u8) -> Result<TcpStream, Failure> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream =
        TcpStream::from(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?);
    match connect(&stream, &to) {
        Err(rustix::io::Errno::INPROGRESS) => wait(&stream, PollFlags::OUT)?,
        result => result?,
    }
    stream.set_nodelay(true)?;
    write_all(&stream, &[kind])?;
    Ok(stream)
}

fn write_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(stream, PollFlags::OUT)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_some(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(stream, PollFlags::IN)?,
            result => return result,
        }
    }
}

fn wait(stream: &TcpStream, what: PollFlags) -> io::Result<()> {
    poll(&mut [PollFd::new(stream, what)], None)?;
    Ok(())
}
