//! The contract that every protocol keeps: bytes in, operations out.
//!
//! A gate is a state machine for **one** connection between a client and an upstream server. It
//! owns no socket, no buffer, no clock and no policy. The relay (in `portreeve-core`) shows it the
//! unread bytes of one direction, and the gate answers with one [`Op`] on that direction's stream.
//! The relay carries the operation out and asks again.
//!
//! # The driver's obligations
//! 1. It calls [`Gate::step`] with **all** unread bytes of that direction, front first; there may
//!    be none.
//! 2. It carries out each operation completely, in order, before it steps that direction again.
//!    `Forward(n)` with `n` beyond what is unread means: the rest moves as it arrives, and nobody
//!    looks at it.
//! 3. After an operation has been carried out it steps that direction again even when nothing is
//!    unread: that is where a gate learns that a body has passed.
//! 4. After it has carried out what one direction asked for until that direction stopped, it steps
//!    the other one, too: a denial decided on the
//!    request stream is injected on the response stream.
//! 5. After [`Op::NeedInput`] it steps again when more bytes have come or the other direction has
//!    moved; when the direction's sender has ended its stream, it calls [`Gate::end`] instead.
//! 6. It opens the upstream connection at the first `Forward` or `Inject` of the request
//!    direction. If that fails it calls [`Gate::upstream_failed`] and discards what was on its way.
//!
//! # The gate's obligations
//! 1. How the input was cut never shows: for every way of cutting the same bytes, the operations
//!    (adjacent `Forward`s and `Discard`s joined, `NeedInput` and `Wait` left out) are the same.
//! 2. No byte of a refused request is ever forwarded.
//! 3. A denial is injected in its turn: after the responses of all requests before it, before
//!    those of all after it.
//! 4. Memory per connection is bounded, and small while the connection is idle.

/// One of the two byte streams of a connection pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream server.
    Request,
    /// From the upstream server to the client.
    Response,
}

impl Direction {
    /// The other stream.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}

/// What the relay is to do next with one direction's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Pass the next `n` bytes on, those not yet arrived included; [`Op::FOREVER`] for a tunnel.
    /// `n > 0`.
    Forward(u64),
    /// Swallow the next `n` bytes, those not yet arrived included. `n > 0`.
    Discard(u64),
    /// Send what the gate appended to `out` to this direction's receiver, before anything later.
    Inject,
    /// The unread bytes are not enough for a decision.
    NeedInput,
    /// Whatever is unread must wait until the *other* direction has moved (a full pipeline, an
    /// upgrade that the server has not answered yet). The relay stops reading this direction.
    Wait,
    /// What is unread, from its first byte on, is another protocol's, or asks for one: the relay gives
    /// the client's connection away, with what is unread. Only as the first operation of the request
    /// direction.
    HandOver,
    /// Both directions end, after what was injected or forwarded before has been sent.
    Close(Close),
}

impl Op {
    /// Forward without end: the stream is a tunnel from here on.
    pub const FOREVER: u64 = u64::MAX;
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// In order: flush what is pending, end the stream, let the client read it (lingering close).
    Graceful,
    /// The message under way can't be completed: reset, so that nobody takes the part for the
    /// whole.
    Abort,
}

/// Which clock runs for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between messages: the idle time-out.
    Idle,
    /// A message head has begun and is not complete: the header time-out, from its first byte.
    Head,
    /// A request body is on its way: the body time-out, from one byte to the next.
    Body,
    /// The server's turn. No time-out of the proxy by default.
    Response,
    /// Opaque bytes either way.
    Tunnel,
}

/// Why the upstream connection can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// It could not be opened.
    Connect,
    /// It was reset, or ended while responses were due.
    Lost,
}

/// A protocol's state machine for one connection pair. `H` is what the protocol asks of its
/// driver: verdicts, and an ear for what happened (for HTTP/1.1, [`crate::http1::Handler`]).
pub trait Gate<H: ?Sized> {
    /// Looks at the unread bytes of one direction. `out` is empty on entry and holds the bytes to
    /// send when the answer is [`Op::Inject`], nothing otherwise.
    fn step(
        &mut self,
        direction: Direction,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut H,
    ) -> Op;

    /// The sender of `direction` has ended its stream; `input` is what is left unread. When the
    /// gate's last operation of this direction was a `Forward` or `Discard` and no
    /// [`Gate::step`] has followed it, the stream ended within it: the message is cut short.
    /// Called again after each operation, until the answer is [`Op::NeedInput`] (pass the end of
    /// stream on to the receiver, the other direction goes on) or [`Op::Close`].
    fn end(&mut self, direction: Direction, input: &[u8], out: &mut Vec<u8>, handler: &mut H)
    -> Op;

    /// The upstream can't be reached or was lost. What the driver had not yet sent there is
    /// dropped, and the rest of an unfinished `Forward` of the request direction becomes a
    /// `Discard`. The gate answers what is due in its next steps of the response direction.
    fn upstream_failed(&mut self, failure: UpstreamFailure, handler: &mut H);

    /// The clock of [`Gate::phase`] has run out. [`Op::Inject`] (then stepped again for the
    /// `Close`) or [`Op::Close`].
    fn timed_out(&mut self, out: &mut Vec<u8>, handler: &mut H) -> Op;

    /// Which clock runs now.
    fn phase(&self) -> Phase;

    /// Bytes that the gate keeps on its own account, besides what it leaves unread: answers that wait for
    /// their turn. For who has a bound on what is held for a connection; asked after every turn, so that
    /// it must not be counted up then.
    fn held(&self) -> usize {
        0
    }

    /// Bytes that the gate may leave unread with [`Op::NeedInput`]: its own limits are below. A gate
    /// that leaves more is broken, and its connection ends.
    fn unread_limit(&self) -> usize {
        1024 * 1024
    }
}
