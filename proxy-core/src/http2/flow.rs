//! One body on its way from one connection to the other: taken only as fast as the receiver takes it,
//! so that a slow side slows down the other and not the proxy's memory.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};
use portreeve_protocols::http2::grpc::{self, Messages};
use portreeve_protocols::http2::{are_trailers, keep_trailers};

/// Bytes of a request that are sent with its head. Peers' windows are at least as large, unless they say
/// otherwise (RFC 9113 section 6.9.2).
const FIRST: usize = 16 * 1024;

/// A body with its trailers.
pub(super) struct Flow {
    from: RecvStream,
    to: SendStream<Bytes>,
    /// Received and not yet sent.
    held: Bytes,
    state: State,
    bytes: u64,
    /// Of gRPC.
    messages: Option<Messages>,
    grpc_status: Option<u8>,
    /// Since when the receiver takes nothing of what is held.
    blocked: Option<Instant>,
    /// Nothing more comes but what is held, and trailers.
    read: bool,
    /// From the client to the server.
    is_request: bool,
    /// Some of it has been sent, or tried.
    begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    /// All of it has been sent.
    Ended,
    /// The receiver wants no more of it.
    Cut,
}

/// How far a flow got.
pub(super) enum Moved {
    /// It waits for either side, or is over.
    Rests,
    /// The sender gave up, or its connection did.
    SenderFailed(h2::Error),
    /// The trailers of a request have something in them that belongs into its head.
    BadTrailers,
}

/// The connection that a flow sends on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sink {
    /// Its socket takes nothing: what is sent now only piles up, at a cost for each piece.
    pub(super) choked: bool,
    /// Frames with something in them that were sent.
    pub(super) frames: u32,
}

impl Flow {
    pub(super) fn new(from: RecvStream, to: SendStream<Bytes>, ended: bool, grpc: bool) -> Self {
        Self {
            from,
            to,
            held: Bytes::new(),
            state: if ended { State::Ended } else { State::Flowing },
            bytes: 0,
            messages: grpc.then(Messages::default),
            grpc_status: None,
            blocked: None,
            read: false,
            is_request: false,
            begun: false,
        }
    }

    /// The same for the body of a request.
    pub(super) fn of_request(
        from: RecvStream,
        to: SendStream<Bytes>,
        ended: bool,
        grpc: bool,
    ) -> Self {
        Self { is_request: true, ..Self::new(from, to, ended, grpc) }
    }

    /// All that the sender sent has been read: a reset of its is not seen by reading.
    pub(super) fn is_read(&self) -> bool {
        self.read || self.is_over()
    }

    /// Nothing more will move.
    pub(super) fn is_over(&self) -> bool {
        self.state != State::Flowing
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages.map_or(0, |messages| messages.count())
    }

    /// What the trailers said.
    pub(super) fn grpc_status(&self) -> Option<u8> {
        self.grpc_status
    }

    pub(super) fn blocked(&self) -> Option<Instant> {
        self.blocked
    }

    /// Tells the receiver that the stream is over.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.to.send_reset(reason);
        self.state = State::Cut;
        self.held = Bytes::new();
    }

    /// Why the receiver ended the stream, once it has.
    pub(super) fn poll_receiver(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.to.poll_reset(cx).map(|reason| reason.unwrap_or(Reason::CANCEL))
    }

    /// Ends a gRPC answer whose server is lost: trailers are what all clients understand.
    pub(super) fn end_as_unavailable(&mut self) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        let message = HeaderValue::from_static("The upstream connection was lost");
        trailers.insert("grpc-message", message);
        self.grpc_status = Some(14);
        self.held = Bytes::new();
        let sent = self.to.send_trailers(trailers);
        self.state = if sent.is_ok() { State::Ended } else { State::Cut };
    }

    /// Moves what can be moved.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, sink: &mut Sink) -> Moved {
        while self.state == State::Flowing {
            if !self.held.is_empty() {
                // As often as there is room: perhaps for a part only.
                match self.send_held(cx, now, sink) {
                    Poll::Pending => return self.gather(cx),
                    Poll::Ready(()) => continue,
                }
            }
            match self.from.poll_data(cx) {
                Poll::Pending => return Moved::Rests,
                Poll::Ready(Some(Ok(data))) => self.take(data),
                Poll::Ready(Some(Err(error))) => return Moved::SenderFailed(error),
                Poll::Ready(None) => match self.from.poll_trailers(cx) {
                    Poll::Pending => return Moved::Rests,
                    Poll::Ready(Err(error)) => return Moved::SenderFailed(error),
                    Poll::Ready(Ok(trailers)) => {
                        sink.frames += 1;
                        if !self.end(trailers) {
                            return Moved::BadTrailers;
                        }
                    }
                },
            }
        }
        Moved::Rests
    }

    /// Sends the end, with trailers if there are any; `false`: with these, it may not be sent.
    fn end(&mut self, trailers: Option<HeaderMap>) -> bool {
        let sent = match trailers {
            None => self.to.send_data(Bytes::new(), true),
            Some(trailers) if self.is_request && !are_trailers(&trailers) => return false,
            Some(mut trailers) => {
                keep_trailers(&mut trailers);
                self.grpc_status = grpc::status(&trailers);
                self.to.send_trailers(trailers)
            }
        };
        self.state = if sent.is_ok() { State::Ended } else { State::Cut };
        true
    }

    /// Takes what has come while nothing can be sent: many small frames cost more where they are than
    /// as one. The sender's window is not opened for it, which bounds it.
    fn gather(&mut self, cx: &mut Context<'_>) -> Moved {
        loop {
            match self.from.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.note(&data);
                    let mut held = std::mem::take(&mut self.held)
                        .try_into_mut()
                        .unwrap_or_else(|held| BytesMut::from(&held[..]));
                    held.extend_from_slice(&data);
                    self.held = held.freeze();
                }
                Poll::Ready(Some(Err(error))) => return Moved::SenderFailed(error),
                // The end is dealt with when what is held has gone.
                Poll::Ready(None) => {
                    self.read = true;
                    return Moved::Rests;
                }
                Poll::Pending => return Moved::Rests,
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        self.note(&data);
        self.held = data;
    }

    fn note(&mut self, data: &Bytes) {
        self.bytes += data.len() as u64;
        if let Some(messages) = &mut self.messages {
            messages.look(data);
        }
    }

    /// Sends as much of what is held as the receiver has room for.
    fn send_held(&mut self, cx: &mut Context<'_>, now: Instant, sink: &mut Sink) -> Poll<()> {
        if sink.choked {
            self.blocked.get_or_insert(now);
            return Poll::Pending;
        }
        self.to.reserve_capacity(self.held.len());
        let mut room = self.to.capacity();
        if room == 0 && self.is_request && !self.begun && self.held.len() <= FIRST {
            // `h2` knows no room before the stream is open, which it is when its head has been written:
            // given now, the body goes in the same write. It is held there as long as it must.
            room = self.held.len();
        }
        self.begun = true;
        if room == 0 {
            room = match self.to.poll_capacity(cx) {
                Poll::Pending => {
                    self.blocked.get_or_insert(now);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(_) => {
                    self.cut();
                    return Poll::Ready(());
                }
            };
        }
        self.blocked = None;
        let part = self.held.split_to(room.min(self.held.len()));
        let n = part.len();
        let last = self.held.is_empty() && self.from.is_end_stream();
        // `h2` cuts it into frames of this size, and the receiver may answer each.
        sink.frames += u32::try_from(n.div_ceil(16 * 1024)).unwrap_or(u32::MAX).max(1);
        if self.to.send_data(part, last).is_err() {
            self.cut();
            return Poll::Ready(());
        }
        // The sender may send as much again; it fails only for a stream that is gone.
        let _ = self.from.flow_control().release_capacity(n);
        if last {
            self.state = State::Ended;
        }
        Poll::Ready(())
    }

    /// The receiver wants no more; the sender is not told to stop, that is the receiver's to say.
    fn cut(&mut self) {
        let _ = self.from.flow_control().release_capacity(self.held.len());
        self.held = Bytes::new();
        self.state = State::Cut;
        self.blocked = None;
    }
}
