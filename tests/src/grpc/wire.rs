//! gRPC on HTTP/2: messages out of a body, and a body out of messages and trailers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::mpsc;

/// A message as it is sent: compressed or not.
pub(super) struct Message {
    pub(super) compressed: bool,
    pub(super) bytes: Bytes,
}

impl Message {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { compressed: false, bytes: Bytes::from(text.into()) }
    }

    fn encoded(&self) -> Bytes {
        let mut encoded = BytesMut::with_capacity(PREFIX + self.bytes.len());
        encoded.put_u8(u8::from(self.compressed));
        encoded.put_u32(u32::try_from(self.bytes.len()).expect("a length"));
        encoded.put(self.bytes.clone());
        encoded.freeze()
    }
}

/// The messages of a request.
pub(super) struct Messages {
    body: Incoming,
    buffered: BytesMut,
}

impl Messages {
    pub(super) fn of(body: Incoming) -> Self {
        Self { body, buffered: BytesMut::new() }
    }

    /// The next one; `None` when there are no more or the client is gone.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.buffered_message() {
                return Some(message);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffered.put(data);
            }
        }
    }

    fn buffered_message(&mut self) -> Option<Message> {
        let length = self.buffered.get(1..PREFIX)?.get_u32() as usize;
        if self.buffered.len() < PREFIX + length {
            return None;
        }
        let compressed = self.buffered.get_u8() == 1;
        self.buffered.advance(size_of::<u32>());
        Some(Message { compressed, bytes: self.buffered.split_to(length).freeze() })
    }
}

/// Where an answer's messages and trailers are put; what is put there after the client has gone is lost.
pub(super) struct Answering(mpsc::Sender<Frame<Bytes>>);

impl Answering {
    /// Whether somebody was there to take it.
    pub(super) async fn message(&self, message: &Message) -> bool {
        self.0.send(Frame::data(message.encoded())).await.is_ok()
    }

    pub(super) async fn trailers(&self, trailers: HeaderMap) {
        let _ = self.0.send(Frame::trailers(trailers)).await;
    }
}

/// An answer's body, and what is to live as long as it does.
pub(super) struct Answer<G> {
    frames: Option<mpsc::Receiver<Frame<Bytes>>>,
    guard: G,
}

impl<G> Answer<G> {
    /// A body to be written. `guard` goes with the body.
    pub(super) fn written(guard: G) -> (Answering, Self) {
        let (sender, frames) = mpsc::channel(16);
        (Answering(sender), Self { frames: Some(frames), guard })
    }

    /// None: all is said by the head.
    pub(super) fn none(guard: G) -> Self {
        Self { frames: None, guard }
    }
}

impl<G: Ended + Unpin> Body for Answer<G> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let frame = frames.poll_recv(context);
        if let Poll::Ready(Some(frame)) = &frame
            && frame.is_trailers()
        {
            self.guard.ended();
        }
        frame.map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }
}

/// Wants to know that an answer was sent to its end.
pub(super) trait Ended {
    /// It was.
    fn ended(&mut self);
}

/// Header fields by name.
pub(super) fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let value = |value: &str| HeaderValue::from_str(value).expect("a value");
    fields.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
}

/// The flag and the length before each message.
const PREFIX: usize = 5;
