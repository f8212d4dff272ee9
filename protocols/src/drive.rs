//! The little relay that drives gates in tests and fuzz targets: no sockets, and input that arrives in
//! pieces of any size.

use crate::gate::{Close, Direction, Gate, Op, UpstreamFailure};

/// Where bytes go, and how the connection ends. The handler of the gate that is driven.
pub trait Sink {
    /// These bytes reached the receiver of `direction`.
    fn deliver(&mut self, direction: Direction, bytes: &[u8]);
    /// The gate ends the connection.
    fn close(&mut self, close: Close);
    /// Whether it has ended it.
    fn is_closed(&self) -> bool;
}

/// What both sides of a connection say.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// What the client says, before it ends its stream.
    pub requests: &'a [u8],
    /// What the server says once it has been asked all that it will be, before it ends its stream.
    pub responses: &'a [u8],
    /// Whether the server can be reached.
    pub reachable: bool,
    /// Whether the streams end when all has been said.
    pub ends: bool,
}

/// One direction.
#[derive(Default)]
struct Stream<'a> {
    input: &'a [u8],
    arrived: usize,
    taken: usize,
    /// What is left of an operation that goes beyond what has arrived.
    rest: u64,
    forwards: bool,
    /// It is not read until the other one has moved.
    waits: bool,
    ended: bool,
}

impl Stream<'_> {
    fn unread(&self) -> &[u8] {
        &self.input[self.taken..self.arrived]
    }

    fn can_read(&self) -> bool {
        !self.waits || self.rest > 0
    }

    /// Carries on with an unfinished operation; returns what is forwarded.
    fn carry_on(&mut self) -> Vec<u8> {
        let n = usize::try_from(self.rest).unwrap_or(usize::MAX).min(self.unread().len());
        let moved = self.unread()[..n].to_vec();
        self.taken += n;
        if self.rest != Op::FOREVER {
            self.rest -= n as u64;
        }
        if self.forwards { moved } else { Vec::new() }
    }
}

impl Script<'_> {
    /// Drives `gate`, letting `cut` bytes arrive at a time.
    ///
    /// # Panics
    /// When the gate breaks its contract.
    pub fn run<G: Gate<H>, H: Sink>(
        &self,
        gate: &mut G,
        handler: &mut H,
        mut cut: impl FnMut() -> usize,
    ) {
        let mut streams = [
            Stream { input: self.requests, ..Stream::default() },
            Stream { input: self.responses, ..Stream::default() },
        ];
        loop {
            self.settle(gate, &mut streams, handler);
            if handler.is_closed() {
                break;
            }
            // The server speaks when the client can't go on.
            let Some(next) = streams.iter_mut().find(|s| s.arrived < s.input.len() && s.can_read())
            else {
                if !self.ends || !end_one(gate, &mut streams, handler) {
                    break;
                }
                continue;
            };
            next.arrived = (next.arrived + cut().max(1)).min(next.input.len());
        }
    }

    /// Steps both directions until neither moves.
    fn settle<G: Gate<H>, H: Sink>(
        &self,
        gate: &mut G,
        streams: &mut [Stream<'_>; 2],
        handler: &mut H,
    ) {
        let mut turns = 0;
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for direction in [Direction::Request, Direction::Response] {
                while self.turn(direction, gate, streams, handler) {
                    moved = true;
                    turns += 1;
                    assert!(turns < 1_000_000, "the gate goes round in circles");
                }
                if handler.is_closed() {
                    return;
                }
            }
        }
    }

    /// One operation of one direction; whether anything moved.
    fn turn<G: Gate<H>, H: Sink>(
        &self,
        direction: Direction,
        gate: &mut G,
        streams: &mut [Stream<'_>; 2],
        handler: &mut H,
    ) -> bool {
        let index = usize::from(direction == Direction::Response);
        let stream = &mut streams[index];
        if stream.ended {
            return false;
        }
        let taken = stream.taken;
        if stream.rest > 0 {
            let moved = stream.carry_on();
            handler.deliver(direction, &moved);
            if stream.rest > 0 {
                return false;
            }
        }
        let carried = stream.taken > taken;
        let mut out = Vec::new();
        let op = gate.step(direction, stream.unread(), &mut out, handler);
        assert!(op == Op::Inject || out.is_empty(), "{op:?} with something to inject");
        stream.waits = op == Op::Wait;
        let to_server =
            matches!(op, Op::Forward(_) | Op::Inject) && direction == Direction::Request;
        if to_server && !self.reachable {
            gate.upstream_failed(UpstreamFailure::Connect, handler);
            if let Op::Forward(n) = op {
                stream.rest = n;
                stream.forwards = false;
            }
            return true;
        }
        match op {
            Op::Forward(n) | Op::Discard(n) => {
                assert!(n > 0, "an operation on nothing");
                stream.rest = n;
                stream.forwards = matches!(op, Op::Forward(_));
                true
            }
            Op::Inject => {
                assert!(!out.is_empty());
                handler.deliver(direction, &out);
                true
            }
            Op::NeedInput | Op::Wait => carried,
            // What follows is not this gate's to judge.
            Op::HandOver => {
                handler.close(Close::Graceful);
                false
            }
            Op::Close(close) => {
                handler.close(close);
                false
            }
        }
    }
}

/// Ends the next stream that hasn't; whether there was one.
fn end_one<G: Gate<H>, H: Sink>(
    gate: &mut G,
    streams: &mut [Stream<'_>; 2],
    handler: &mut H,
) -> bool {
    for (direction, stream) in [Direction::Request, Direction::Response].into_iter().zip(streams) {
        // An end is noticed by whoever reads, after everything before it.
        if stream.ended || stream.waits || stream.arrived < stream.input.len() {
            continue;
        }
        stream.ended = true;
        for _ in 0..1000 {
            let mut out = Vec::new();
            match gate.end(direction, stream.unread(), &mut out, handler) {
                Op::Inject => handler.deliver(direction, &out),
                Op::Forward(n) | Op::Discard(n) => {
                    stream.rest = n;
                    let moved = stream.carry_on();
                    handler.deliver(direction, &moved);
                }
                Op::NeedInput | Op::Wait | Op::HandOver => break,
                Op::Close(close) => {
                    handler.close(close);
                    break;
                }
            }
        }
        return true;
    }
    false
}

/// Sizes of pieces, any from 0 to 36 bytes, by a seed.
pub fn pieces(seed: u8) -> impl FnMut() -> usize {
    let mut random = u32::from(seed) + 1;
    move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 24) as usize % 37
    }
}
