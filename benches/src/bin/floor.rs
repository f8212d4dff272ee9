//! The floor: a TCP relay that copies bytes and looks at nothing. What an inspecting proxy costs on
//! top of it is what inspection costs.
//!
//! `floor LISTEN UPSTREAM`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 64 * 1024;

/// Two sockets, and for each direction what the receiver did not take yet.
struct Pair {
    sockets: [TcpStream; 2],
    held: [Vec<u8>; 2],
    ended: [bool; 2],
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || -> SocketAddr {
        arguments.next().and_then(|text| text.parse().ok()).expect("usage: floor LISTEN UPSTREAM")
    };
    let (listen, upstream) = (address(), address());
    let mut listener = TcpListener::bind(listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    open(client, upstream, &poll, &mut pairs)?;
                }
                continue;
            }
            let (index, side) = (event.token().0 / 2, event.token().0 % 2);
            let Some(pair) = pairs.get_mut(index).and_then(Option::as_mut) else { continue };
            let mut alive = true;
            if event.is_writable() {
                alive &= pair.pump(1 - side, &mut buffer).is_ok();
            }
            if event.is_readable() && alive {
                alive &= pair.pump(side, &mut buffer).is_ok();
            }
            if !alive || pair.ended == [true, true] {
                pairs[index] = None;
            }
        }
    }
}

fn open(
    client: TcpStream,
    upstream: SocketAddr,
    poll: &Poll,
    pairs: &mut Vec<Option<Pair>>,
) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let index = pairs.iter().position(Option::is_none).unwrap_or_else(|| {
        pairs.push(None);
        pairs.len() - 1
    });
    let mut sockets = [client, server];
    for (side, socket) in sockets.iter_mut().enumerate() {
        let _ = socket.set_nodelay(true);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(socket, Token(2 * index + side), both)?;
    }
    pairs[index] = Some(Pair { sockets, held: Default::default(), ended: [false; 2] });
    Ok(())
}

impl Pair {
    /// Moves what `from` has to the other side.
    fn pump(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            if !self.held[from].is_empty() {
                match self.sockets[1 - from].write(&self.held[from]) {
                    Ok(n) => {
                        self.held[from].drain(..n);
                        continue;
                    }
                    Err(error) if would_block(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.ended[from] {
                return Ok(());
            }
            let n = match self.sockets[from].read(buffer) {
                Ok(n) => n,
                Err(error) if would_block(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            if n == 0 {
                self.ended[from] = true;
                let _ = self.sockets[1 - from].shutdown(Shutdown::Write);
                return Ok(());
            }
            let written = match self.sockets[1 - from].write(&buffer[..n]) {
                Ok(written) => written,
                Err(error) if would_block(&error) => 0,
                Err(error) => return Err(error),
            };
            self.held[from].extend_from_slice(&buffer[written..n]);
            // A read that doesn't fill the buffer was the last one.
            if n < buffer.len() && self.held[from].is_empty() {
                return Ok(());
            }
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
