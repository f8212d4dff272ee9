//! Bytes that say where they belong, sent and read in the ways that programs do: whatever is lost, comes
//! twice or out of order is seen, and where.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// What is wrong with what has come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("other bytes than were sent after {at}: those {shift:+} from there")]
    Wrong { at: u64, shift: i64 },
    #[error("the end of the stream after {at} of {total} bytes")]
    Short { at: u64, total: u64 },
    #[error("{extra} bytes more than were sent")]
    Extra { extra: usize },
    #[error("{length} bytes after {at} that FIONREAD did not count")]
    Uncounted { at: u64, length: usize },
    #[error("nothing to be seen any more after {at} bytes")]
    Stalled { at: u64 },
    #[error("FIONREAD said {counted} where {waiting} bytes waited")]
    Counted { counted: u64, waiting: u64 },
    #[error("all of {waiting} bytes were taken, and nobody read them")]
    Unbounded { waiting: u64 },
    #[error("messages went another way (mode {found}, not {expected})")]
    Mode { found: u32, expected: u32 },
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Noise, so long that a piece of it tells where it is from.
pub(super) struct Noise {
    bytes: Vec<u8>,
    longest: usize,
}

impl Noise {
    /// With pieces of up to `longest` bytes.
    pub(super) fn new(longest: usize) -> Self {
        let mut random = Random::new(1);
        let mut bytes: Vec<u8> = (0..PERIOD).map(|_| random.next().to_ne_bytes()[7]).collect();
        while bytes.len() < PERIOD + longest {
            let more = longest.min(PERIOD).min(PERIOD + longest - bytes.len());
            bytes.extend_from_within(..more);
        }
        Self { bytes, longest }
    }

    /// Where bytes that are not what comes after `at` would be right.
    fn misplaced(&self, from: u64, at: u64, bytes: &[u8]) -> Fault {
        let start = usize::try_from((from + at) % PERIOD as u64).unwrap_or(0);
        let some = &bytes[..bytes.len().min(16)];
        let found = self.bytes[..PERIOD + 16].windows(some.len()).position(|window| window == some);
        let shift = found.map_or(i64::MAX, |found| found as i64 - start as i64);
        Fault::Wrong { at, shift }
    }

    /// What comes after `at` bytes of a stream.
    fn piece(&self, at: u64, length: usize) -> &[u8] {
        let start = usize::try_from(at % PERIOD as u64).unwrap_or(0);
        &self.bytes[start..start + length.min(self.longest)]
    }
}

/// How a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// It waits in the system call.
    Blocking,
    /// Many pieces with each call.
    Gathered,
    /// It waits for an edge.
    EdgeTriggered,
}

/// How a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It waits for something, and reads once.
    LevelTriggered,
    /// It waits for an edge, and reads until there is nothing.
    EdgeTriggered,
    /// It waits for something, asks how much there is (`FIONREAD`), and reads that.
    Counted,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Where in the noise it begins.
    pub(super) from: u64,
    /// How many bytes it has.
    pub(super) total: u64,
    /// The most that one call writes, and the most that one reads.
    pub(super) most: (usize, usize),
    pub(super) writing: Writing,
    pub(super) reading: Reading,
    /// The reader stops for a while after so many bytes.
    pub(super) pause: Option<(u64, Duration)>,
}

impl Stream {
    /// Writes all of it.
    pub(super) fn write(
        &self,
        mut socket: &TcpStream,
        noise: &Noise,
        random: &mut Random,
    ) -> io::Result<()> {
        let epoll = match self.writing {
            Writing::EdgeTriggered => Some(edges(socket, EventFlags::OUT)?),
            _ => None,
        };
        let mut sent = 0;
        while sent < self.total {
            let length = random.up_to(self.most.0).min(left(self.total, sent));
            let piece = noise.piece(self.from + sent, length);
            let done = match self.writing {
                Writing::Blocking => socket.write(piece)?,
                Writing::Gathered => {
                    let parts: Vec<_> = piece.chunks(1 + length / 7).map(IoSlice::new).collect();
                    socket.write_vectored(&parts)?
                }
                Writing::EdgeTriggered => {
                    match send(socket, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                        Err(Errno::AGAIN) => {
                            wait(epoll.as_ref(), sent).map_err(io::Error::other)?;
                            0
                        }
                        result => result?,
                    }
                }
            };
            sent += done as u64;
        }
        Ok(())
    }

    /// Reads all of it, and the end if `ends`.
    pub(super) fn read(
        &self,
        socket: &TcpStream,
        noise: &Noise,
        random: &mut Random,
        ends: bool,
    ) -> Result<(), Fault> {
        let mut reader = Reader::new(socket, self.reading)?;
        let mut buffer = vec![0; self.most.1.min(noise.longest)];
        let mut pause = self.pause;
        let mut at = 0;
        while at < self.total {
            if let Some((_, how_long)) = pause.take_if(|(after, _)| *after <= at) {
                std::thread::sleep(how_long);
            }
            let most = random.up_to(buffer.len());
            let length = reader.read(&mut buffer[..most], at)?;
            if length == 0 {
                return Err(Fault::Short { at, total: self.total });
            }
            if length > left(self.total, at) {
                return Err(Fault::Extra { extra: length - left(self.total, at) });
            }
            let expected = noise.piece(self.from + at, length);
            if let Some(good) = (0..length).find(|&index| buffer[index] != expected[index]) {
                let at = at + good as u64;
                return Err(noise.misplaced(self.from, at, &buffer[good..length]));
            }
            at += length as u64;
        }
        if ends {
            let extra = reader.read(&mut buffer, at)?;
            if extra > 0 {
                return Err(Fault::Extra { extra });
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    socket: &'a TcpStream,
    reading: Reading,
    epoll: Option<std::os::fd::OwnedFd>,
}

impl<'a> Reader<'a> {
    fn new(socket: &'a TcpStream, reading: Reading) -> io::Result<Self> {
        let epoll = match reading {
            Reading::EdgeTriggered => Some(edges(socket, EventFlags::IN | EventFlags::RDHUP)?),
            _ => None,
        };
        Ok(Self { socket, reading, epoll })
    }

    fn read(&mut self, buffer: &mut [u8], at: u64) -> Result<usize, Fault> {
        match self.reading {
            Reading::LevelTriggered => {
                self.poll(at)?;
                Ok(recv(self.socket, &mut *buffer, RecvFlags::DONTWAIT).map_err(io::Error::from)?.0)
            }
            Reading::EdgeTriggered => loop {
                match recv(self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                    Err(Errno::AGAIN) => wait(self.epoll.as_ref(), at)?,
                    result => return Ok(result.map_err(io::Error::from)?.0),
                }
            },
            Reading::Counted => {
                self.poll(at)?;
                let there = ioctl_fionread(self.socket).map_err(io::Error::from)?;
                let there = usize::try_from(there).unwrap_or(usize::MAX).min(buffer.len());
                // Something is there, so that nothing means the end.
                let room = if there == 0 { buffer.len() } else { there };
                let (length, _) = recv(self.socket, &mut buffer[..room], RecvFlags::DONTWAIT)
                    .map_err(io::Error::from)?;
                if there == 0 && length > 0 {
                    return Err(Fault::Uncounted { at, length });
                }
                Ok(length)
            }
        }
    }

    fn poll(&self, at: u64) -> Result<(), Fault> {
        let mut polled = [PollFd::new(self.socket, PollFlags::IN)];
        match poll(&mut polled, Some(&PATIENCE)).map_err(io::Error::from)? {
            0 => Err(Fault::Stalled { at }),
            _ => Ok(()),
        }
    }
}

fn edges(socket: &TcpStream, what: EventFlags) -> io::Result<std::os::fd::OwnedFd> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, socket, EventData::new_u64(0), what | EventFlags::ET)?;
    Ok(epoll)
}

fn wait(epoll: Option<&std::os::fd::OwnedFd>, at: u64) -> Result<(), Fault> {
    let Some(epoll) = epoll else { return Ok(()) };
    let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
    match epoll::wait(epoll.as_fd(), &mut events[..], Some(&PATIENCE)) {
        Ok(0) => Err(Fault::Stalled { at }),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

fn left(total: u64, done: u64) -> usize {
    usize::try_from(total.saturating_sub(done)).unwrap_or(usize::MAX)
}

/// Numbers that only look random (xorshift64*): the same from the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 1 to `most`.
    pub(super) fn up_to(&mut self, most: usize) -> usize {
        1 + usize::try_from(self.next() >> 8).unwrap_or(0) % most.max(1)
    }
}

/// A prime, so that no power of two is a multiple of it.
const PERIOD: usize = 1_048_573;
/// Loopback takes microseconds; who waits longer waits for ever.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
