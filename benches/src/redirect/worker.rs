//! The process that is measured. It is this program, started with `worker` and what to do, in a cgroup.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::messages;
use crate::Failure;

/// What a worker does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Connects and resets, so often: median nanoseconds of `connect()`.
    Connect(usize),
    /// Sends so many MiB in writes of 64 KiB: MiB a second.
    Send(usize),
    /// So many requests, a connection each: median nanoseconds from `connect()` to the last byte.
    Request(usize),
    /// So many requests on one connection: median nanoseconds.
    KeepAlive(usize),
    /// Messages of so many bytes that come back, for a while: median nanoseconds of a round.
    PingPong(usize),
    /// Writes of so many bytes that nobody answers, for a while: MiB a second.
    OneWay(usize),
}

impl Work {
    fn arguments(self) -> [String; 2] {
        let (name, number) = match self {
            Self::Connect(number) => ("connect", number),
            Self::Send(number) => ("send", number),
            Self::Request(number) => ("request", number),
            Self::KeepAlive(number) => ("keep-alive", number),
            Self::PingPong(number) => ("ping-pong", number),
            Self::OneWay(number) => ("one-way", number),
        };
        [name.to_owned(), number.to_string()]
    }

    fn of(name: &str, number: usize) -> Option<Self> {
        Some(match name {
            "connect" => Self::Connect(number),
            "send" => Self::Send(number),
            "request" => Self::Request(number),
            "keep-alive" => Self::KeepAlive(number),
            "ping-pong" => Self::PingPong(number),
            "one-way" => Self::OneWay(number),
            _ => return None,
        })
    }
}

/// Lets a process in `cgroup` do it, as the user `nobody` if that is asked for.
///
/// # Errors
/// When it fails; with what it said.
pub fn measure(cgroup: &Path, work: Work, to: SocketAddr, as_nobody: bool) -> Result<f64, Failure> {
    let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    let mut command = Command::new("sh");
    command.args(["-c", &join, "sh"]);
    if as_nobody {
        command.args(["setpriv", "--reuid", "65534", "--clear-groups"]);
    }
    figure(command.arg(std::env::current_exe()?), work, to)
}

/// Lets a process do it in the network namespace of this thread.
///
/// # Errors
/// When it fails; with what it said.
pub fn measure_here(work: Work, to: SocketAddr) -> Result<f64, Failure> {
    figure(&mut Command::new(std::env::current_exe()?), work, to)
}

fn figure(command: &mut Command, work: Work, to: SocketAddr) -> Result<f64, Failure> {
    let output = command
        .arg("worker")
        .args(work.arguments())
        .arg(to.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().parse() {
        Ok(figure) if output.status.success() => Ok(figure),
        _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into()),
    }
}

/// Does it, if this process is a worker. Returns whether it is one.
///
/// # Errors
/// Those of the sockets.
pub fn run() -> Result<bool, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [worker, name, number, to] = arguments.as_slice() else { return Ok(false) };
    if worker != "worker" {
        return Ok(false);
    }
    stay_on(0)?;
    let to: SocketAddr = to.parse()?;
    let work = Work::of(name, number.parse()?).ok_or("no such work")?;
    let figure = match work {
        Work::Connect(times) => median(times, || connect(to))?,
        Work::Send(mebibytes) => send(to, mebibytes)?,
        Work::Request(times) => median(times, || request(to))?,
        Work::KeepAlive(times) => {
            let mut stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            median(times, || {
                let began = Instant::now();
                exchange(&mut stream)?;
                Ok(nanoseconds(began))
            })?
        }
        Work::PingPong(size) => messages::ping_pong(to, size)?,
        Work::OneWay(size) => messages::one_way(to, size)?,
    };
    println!("{figure}");
    Ok(true)
}

/// Keeps this thread, and those that it starts, to one processor: wherever the scheduler puts client and
/// server, it puts them there in every round.
///
/// # Errors
/// When there is no such processor.
pub fn stay_on(processor: usize) -> Result<(), Failure> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn median(times: usize, mut once: impl FnMut() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let mut all = (0..times).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(f64::total_cmp);
    all.get(times / 2).copied().ok_or_else(|| "nothing was measured".into())
}

fn nanoseconds(began: Instant) -> f64 {
    began.elapsed().as_nanos() as f64
}

fn connect(to: SocketAddr) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(to)?;
    let took = nanoseconds(began);
    // It was accepted when the other side has closed it: the queue never overflows.
    let _ = stream.read(&mut [0]);
    // No TIME_WAIT: there are more connections than ports.
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
    Ok(took)
}

fn send(to: SocketAddr, mebibytes: usize) -> Result<f64, Failure> {
    const CHUNK: usize = 64 * 1024;
    let mut stream = TcpStream::connect(to)?;
    let chunk = vec![b'x'; CHUNK];
    let began = Instant::now();
    for _ in 0..mebibytes * 1024 * 1024 / CHUNK {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The other side closes when it has read everything.
    stream.read_to_end(&mut Vec::new())?;
    Ok(mebibytes as f64 / began.elapsed().as_secs_f64())
}

const REQUEST: &[u8] = b"GET /public/a HTTP/1.1\r\nHost: service\r\nX-Token: 1\r\n\r\n";
const BODY: usize = 2;

fn request(to: SocketAddr) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(to)?;
    exchange(&mut stream)?;
    let took = nanoseconds(began);
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
    Ok(took)
}

fn exchange(stream: &mut TcpStream) -> Result<(), Failure> {
    stream.write_all(REQUEST)?;
    let (mut answer, mut filled) = ([0; 4096], 0);
    loop {
        let read = stream.read(&mut answer[filled..])?;
        if read == 0 {
            return Err("the connection was closed".into());
        }
        filled += read;
        let head = answer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
        if head.is_some_and(|head| filled >= head + 4 + BODY) {
            return match answer.starts_with(b"HTTP/1.1 200") {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&answer[..filled]).into_owned().into()),
            };
        }
    }
}
