//! The client's side of a pair: its connection, and what becomes of each request that comes on it.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use http::request::Parts;
use portreeve_protocols::http2::{self, Limits, Prepared, Refusal, Reply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Pair, State};
use crate::http2::exchange::{Exchange, send_reply};
use crate::http2::ready::{BACK, FRONT, STREAMS};
use crate::http2::upstream::{Connect, RETIRED, SMALL_FRAMES, Upstream};
use crate::http2::wire::Wire;
use crate::http2::{Decision, Edits, Judge};
use crate::relay::End;

/// The client's connection.
pub(super) enum Front<F> {
    Opening(server::Handshake<Wire<F>, Bytes>),
    Open(server::Connection<Wire<F>, Bytes>),
    Closed,
}

impl<F, C, J> Pair<F, C, J>
where
    F: AsyncRead + AsyncWrite + Send + Unpin,
    C: Connect,
    J: Judge,
{
    /// Carries the client's connection on, and takes its requests.
    pub(super) fn poll_front(&mut self) -> Option<End> {
        if let Front::Opening(opening) = &mut self.front {
            match self.ready.poll(FRONT, |cx| Pin::new(opening).poll(cx)) {
                Poll::Pending => return self.front_fault(),
                Poll::Ready(Ok(front)) => {
                    self.front = Front::Open(front);
                    if self.state == State::Leaving {
                        self.state = State::Running;
                        self.leave();
                    }
                }
                Poll::Ready(Err(error)) => return Some(self.front_failed(&error)),
            }
        }
        loop {
            let Front::Open(front) = &mut self.front else { return None };
            match self.ready.poll(FRONT, |cx| front.poll_accept(cx)) {
                Poll::Pending => return self.front_fault(),
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    self.front_failed(&error);
                    return self.front_closed();
                }
                Poll::Ready(None) => return self.front_closed(),
            }
        }
    }

    /// Nothing more is read from a client that floods.
    fn front_fault(&mut self) -> Option<End> {
        if let Some(refusal) = self.front_tally.fault()
            && self.state != State::Ending
        {
            self.judge.refused(refusal);
            if matches!(self.front, Front::Opening(_)) {
                return Some(End::Aborted);
            }
            self.end(Reason::ENHANCE_YOUR_CALM);
        }
        None
    }

    fn front_failed(&mut self, error: &h2::Error) -> End {
        if error.is_library() {
            self.judge.refused(Refusal::Protocol);
        }
        End::Closed
    }

    /// The client is gone: what it asked for is taken back.
    fn front_closed(&mut self) -> Option<End> {
        self.front = Front::Closed;
        self.state = State::Finishing;
        for index in 0..self.exchanges.len() {
            if let Some(exchange) = &mut self.exchanges[index] {
                exchange.reset(Reason::CANCEL, &mut self.judge);
                self.release(index);
            }
        }
        self.retired.push(std::mem::replace(&mut self.upstream, Upstream::Absent));
        self.retired.retain_mut(Upstream::finish);
        if self.retired.is_empty() {
            return Some(End::Closed);
        }
        self.linger();
        self.ready.set(BACK);
        None
    }

    /// A request has come: it is judged, and answered or begun.
    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.moved = true;
        let (mut parts, body) = request.into_parts();
        let protocol = parts.extensions.get::<h2::ext::Protocol>().cloned();
        let protocol = protocol.as_ref().map(h2::ext::Protocol::as_str);
        let prepared = http2::prepare(&mut parts, protocol, &self.limits);
        let seen = http2::Request::of(&parts);
        let to_head = parts.method == http::Method::HEAD;
        let (reply, ticket) = match prepared {
            Err(refusal) => {
                self.judge.refused_head(refusal);
                send_reply(&mut respond, &Reply::new(refusal.status(), seen.grpc), to_head);
                return;
            }
            Ok(Prepared::Redirect(path)) => {
                (Reply::redirect(&path, seen.grpc), self.judge.answered_unasked(&seen))
            }
            Ok(Prepared::Connect) => {
                let status = if protocol.is_some() { 501 } else { 405 };
                (Reply::new(status, seen.grpc), self.judge.answered_unasked(&seen))
            }
            Ok(Prepared::Ready) => {
                let mut edits = Edits::default();
                match self.judge.decide(&seen, &mut edits) {
                    (Decision::Deny, ticket) => (Reply::new(403, seen.grpc), ticket),
                    (Decision::Allow, ticket) => {
                        let grpc = seen.grpc;
                        let head = forwarded(parts, edits);
                        self.allow(Exchange::new(ticket, head, body, respond, grpc));
                        return;
                    }
                }
            }
        };
        let passed = send_reply(&mut respond, &reply, to_head);
        self.judge.finished(ticket, &passed);
    }

    /// Finds an allowed request a place, and the upstream.
    fn allow(&mut self, mut exchange: Exchange<J::Ticket>) {
        let room = self.exchanges.len() < 2 * self.limits.streams as usize;
        // Requests on their way when a server went away still find another; for ever they don't.
        let gone = self.retired.len() > RETIRED;
        if gone || (self.free.is_empty() && !room) {
            // Not looked at by any server: the client may ask again.
            exchange.reset(Reason::REFUSED_STREAM, &mut self.judge);
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.exchanges.push(None);
            self.exchanges.len() - 1
        });
        self.exchanges[index] = Some(Box::new(exchange));
        self.waiting.push(index);
        self.ready.set(STREAMS + index);
        self.ask_waiting();
    }
}

/// The head as the server gets it.
fn forwarded(mut parts: Parts, edits: Edits) -> Request<()> {
    edits.apply(&mut parts.headers);
    Request::from_parts(parts, ())
}

pub(super) fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .max_send_buffer_size(limits.send_buffer as usize)
        .data_frame_budget(SMALL_FRAMES)
        .enable_connect_protocol();
    builder
}
