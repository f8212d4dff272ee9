//! One body on its way from one connection to the other: taken only as fast as the receiver takes it,
//! so that a slow side slows down the other and not the proxy's memory.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use portreeve_protocols::http2::grpc::{self, Messages};

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
        }
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
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
        let message = http::HeaderValue::from_static("The upstream connection was lost");
        trailers.insert("grpc-message", message);
        self.grpc_status = Some(14);
        self.held = Bytes::new();
        let sent = self.to.send_trailers(trailers);
        self.state = if sent.is_ok() { State::Ended } else { State::Cut };
    }

    /// Moves what can be moved; `frames` counts what was sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, frames: &mut u32) -> Moved {
        while self.state == State::Flowing {
            if !self.held.is_empty() {
                // As often as there is room: perhaps for a part only.
                match self.send_held(cx, now, frames) {
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
                        *frames += 1;
                        let sent = match trailers {
                            None => self.to.send_data(Bytes::new(), true),
                            Some(trailers) => {
                                self.grpc_status = grpc::status(&trailers);
                                self.to.send_trailers(trailers)
                            }
                        };
                        self.state = if sent.is_ok() { State::Ended } else { State::Cut };
                    }
                },
            }
        }
        Moved::Rests
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
                Poll::Ready(None) | Poll::Pending => return Moved::Rests,
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
    fn send_held(&mut self, cx: &mut Context<'_>, now: Instant, frames: &mut u32) -> Poll<()> {
        self.to.reserve_capacity(self.held.len());
        let mut room = self.to.capacity();
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
        *frames += 1;
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
