//! One request and its answer, across two connections.
//!
//! ```text
//! Waiting ──▶ Asked ──▶ Answering ──▶ over
//!    │          │           │
//!    └──────────┴───────────┴── either side resets: the other one is told why
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use portreeve_protocols::http1;
use portreeve_protocols::http2::{Reply, grpc};

use super::flow::{Flow, Moved, Sink};
use super::{GrpcPassed, Judge, Passed};

/// Informational answers that one request may get.
const INFORMATIONAL: u8 = 100;

/// A request under way.
pub(super) struct Exchange<T> {
    /// `None`: it has been reported.
    ticket: Option<T>,
    stage: Stage,
    facts: Facts,
}

/// What is known of an exchange besides its bodies.
#[derive(Clone, Copy)]
struct Facts {
    /// Of the answer; 0: none yet.
    status: u16,
    grpc: bool,
    /// Said in the head of the answer.
    grpc_status: Option<u8>,
    /// The request was HEAD: its answer has no body.
    to_head: bool,
    /// 1xx that came before the answer.
    informational: u8,
}

impl Facts {
    fn passed(self, request: Option<&Flow>, response: Option<&Flow>) -> Passed {
        let grpc = self.grpc.then(|| GrpcPassed {
            status: self.grpc_status.or_else(|| response.and_then(Flow::grpc_status)),
            request_messages: request.map_or(0, Flow::messages),
            response_messages: response.map_or(0, Flow::messages),
        });
        Passed {
            status: self.status,
            local: false,
            request_bytes: request.map_or(0, Flow::bytes),
            response_bytes: response.map_or(0, Flow::bytes),
            grpc,
        }
    }
}

enum Stage {
    /// Allowed; the upstream connection is being opened.
    Waiting { head: Request<()>, body: RecvStream, respond: SendResponse<Bytes> },
    /// The head has been sent to the server.
    Asked { request: Flow, answer: ResponseFuture, respond: SendResponse<Bytes> },
    /// The head of the answer has been sent to the client.
    Answering { request: Flow, response: Flow },
    /// Nothing is left to do.
    Over,
}

/// How an exchange stands after it was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Under,
    Over,
    /// The client took it back before it was answered.
    Cancelled,
}

/// Both connections, as far as sending on them is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sinks {
    pub(super) client: Sink,
    pub(super) upstream: Sink,
}

impl<T: Send + Unpin> Exchange<T> {
    pub(super) fn new(
        ticket: T,
        head: Request<()>,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        grpc: bool,
    ) -> Self {
        Self {
            ticket: Some(ticket),
            facts: Facts {
                status: 0,
                grpc,
                grpc_status: None,
                to_head: head.method() == http::Method::HEAD,
                informational: 0,
            },
            stage: Stage::Waiting { head, body, respond },
        }
    }

    /// Whether it asks for a tunnel (extended CONNECT, RFC 8441).
    pub(super) fn is_tunnel(&self) -> bool {
        match &self.stage {
            Stage::Waiting { head, .. } => head.method() == http::Method::CONNECT,
            _ => false,
        }
    }

    /// Whether its answer has begun.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.stage, Stage::Answering { .. })
    }

    /// Sends the head, once the upstream is there.
    pub(super) fn ask(
        &mut self,
        requests: &SendRequest<Bytes>,
        judge: &mut impl Judge<Ticket = T>,
    ) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting { head, body, mut respond } => {
                let ended = body.is_end_stream();
                // A handle of its own, so that none waits for another's stream to be opened.
                match requests.clone().send_request(head, ended) {
                    Ok((answer, to)) => {
                        let request = Flow::of_request(body, to, ended, self.facts.grpc);
                        self.stage = Stage::Asked { request, answer, respond };
                    }
                    Err(_) => {
                        // The server has gone away meanwhile and knows nothing of it.
                        respond.send_reset(Reason::REFUSED_STREAM);
                        self.report(judge, None, None);
                    }
                }
            }
            other => self.stage = other,
        }
    }

    /// Answers in the server's place, if it still can.
    pub(super) fn answer(&mut self, status: u16, judge: &mut impl Judge<Ticket = T>) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting { respond, .. } => self.answer_locally(respond, status, None, judge),
            Stage::Asked { request, respond, .. } => {
                self.answer_locally(respond, status, Some(&request), judge);
            }
            other => self.stage = other,
        }
    }

    fn answer_locally(
        &mut self,
        mut respond: SendResponse<Bytes>,
        status: u16,
        request: Option<&Flow>,
        judge: &mut impl Judge<Ticket = T>,
    ) {
        let reply = Reply::new(status, self.facts.grpc);
        let answered = send_reply(&mut respond, &reply, self.facts.to_head);
        if let Some(ticket) = self.ticket.take() {
            let request_bytes = request.map_or(0, Flow::bytes);
            judge.finished(ticket, &Passed { request_bytes, ..answered });
        }
    }

    /// Ends it, telling both sides the same.
    pub(super) fn reset(&mut self, reason: Reason, judge: &mut impl Judge<Ticket = T>) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting { mut respond, .. } => {
                respond.send_reset(reason);
                self.report(judge, None, None);
            }
            Stage::Asked { mut request, mut respond, .. } => {
                request.reset(reason);
                respond.send_reset(reason);
                self.report(judge, Some(&request), None);
            }
            Stage::Answering { mut request, mut response } => {
                request.reset(reason);
                response.reset(reason);
                self.report(judge, Some(&request), Some(&response));
            }
            Stage::Over => {}
        }
    }

    /// Since when a side takes nothing of what waits for it.
    pub(super) fn blocked(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asked { request, .. } => request.blocked(),
            Stage::Answering { request, response } => {
                request.blocked().into_iter().chain(response.blocked()).min()
            }
            Stage::Waiting { .. } | Stage::Over => None,
        }
    }

    /// Carries it on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        judge: &mut impl Judge<Ticket = T>,
        sinks: &mut Sinks,
    ) -> Stand {
        let stand = match self.stage {
            Stage::Waiting { ref mut respond, .. } => match respond.poll_reset(cx) {
                Poll::Pending => Stand::Under,
                Poll::Ready(_) => {
                    self.report(judge, None, None);
                    Stand::Cancelled
                }
            },
            Stage::Asked { .. } => match self.poll_asked(cx, judge, sinks) {
                Stand::Under if matches!(self.stage, Stage::Answering { .. }) => {
                    self.poll_answering(cx, judge, sinks)
                }
                stand => stand,
            },
            Stage::Answering { .. } => self.poll_answering(cx, judge, sinks),
            Stage::Over => Stand::Over,
        };
        if stand != Stand::Under {
            self.stage = Stage::Over;
        }
        stand
    }

    fn poll_asked(
        &mut self,
        cx: &mut Context<'_>,
        judge: &mut impl Judge<Ticket = T>,
        sinks: &mut Sinks,
    ) -> Stand {
        let Stage::Asked { request, answer, respond } = &mut self.stage else {
            return Stand::Over;
        };
        let cancelled = match request.poll(cx, judge.now(), &mut sinks.upstream) {
            Moved::SenderFailed(error) => Some(error.reason().unwrap_or(Reason::CANCEL)),
            Moved::BadTrailers => return self.refuse_trailers(judge),
            Moved::Rests if request.is_read() => match respond.poll_reset(cx) {
                Poll::Ready(reason) => Some(reason.unwrap_or(Reason::CANCEL)),
                Poll::Pending => None,
            },
            Moved::Rests => None,
        };
        if let Some(reason) = cancelled {
            // Also the client's connection may be lost; then this reaches nobody.
            self.reset(reason, judge);
            return Stand::Cancelled;
        }
        while let Poll::Ready(Some(Ok(informational))) = answer.poll_informational(cx) {
            // They are under no flow control: what the client does not read would pile up.
            if self.facts.informational == INFORMATIONAL {
                self.reset(Reason::ENHANCE_YOUR_CALM, judge);
                return Stand::Over;
            }
            self.facts.informational += 1;
            sinks.client.frames += 1;
            let _ = respond.send_informational(informational);
        }
        match Pin::new(answer).poll(cx) {
            Poll::Pending => Stand::Under,
            Poll::Ready(Ok(response)) => self.begin_answer(response, judge, sinks),
            Poll::Ready(Err(error)) => {
                match unanswered(&error) {
                    Unanswered::Reset(reason) => self.reset(reason, judge),
                    Unanswered::Reply(status) => self.answer(status, judge),
                }
                Stand::Over
            }
        }
    }

    fn begin_answer(
        &mut self,
        response: Response<RecvStream>,
        judge: &mut impl Judge<Ticket = T>,
        sinks: &mut Sinks,
    ) -> Stand {
        let Stage::Asked { request, mut respond, .. } =
            std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return Stand::Over;
        };
        let (parts, body) = response.into_parts();
        self.facts.status = parts.status.as_u16();
        let ended = body.is_end_stream();
        if self.facts.grpc && ended {
            self.facts.grpc_status = grpc::status(&parts.headers);
        }
        if let Some(ticket) = &mut self.ticket {
            judge.responded(ticket);
        }
        sinks.client.frames += 1;
        match respond.send_response(Response::from_parts(parts, ()), ended) {
            Ok(to) => {
                let response = Flow::new(body, to, ended, self.facts.grpc);
                if ended {
                    self.report(judge, Some(&request), Some(&response));
                }
                self.stage = Stage::Answering { request, response };
                Stand::Under
            }
            Err(_) => {
                self.report(judge, Some(&request), None);
                Stand::Over
            }
        }
    }

    fn poll_answering(
        &mut self,
        cx: &mut Context<'_>,
        judge: &mut impl Judge<Ticket = T>,
        sinks: &mut Sinks,
    ) -> Stand {
        let Stage::Answering { request, response } = &mut self.stage else {
            return Stand::Over;
        };
        let now = judge.now();
        let mut failure = None;
        let asked = request.poll(cx, now, &mut sinks.upstream);
        if matches!(asked, Moved::BadTrailers) {
            return self.refuse_trailers(judge);
        }
        if let Moved::SenderFailed(error) = asked {
            failure = Some(error.reason().unwrap_or(Reason::CANCEL));
        } else if let Moved::SenderFailed(error) = response.poll(cx, now, &mut sinks.client) {
            match broken(&error) {
                Broken::Lost if self.facts.grpc => {
                    response.end_as_unavailable();
                    self.report_both(judge);
                    return Stand::Over;
                }
                Broken::Lost => failure = Some(Reason::INTERNAL_ERROR),
                Broken::Reset(reason) => failure = Some(reason),
            }
        } else if response.has_ended() {
            if let Some(ticket) = self.ticket.take() {
                judge.finished(ticket, &self.facts.passed(Some(request), Some(response)));
            }
            if request.has_ended() {
                return Stand::Over;
            }
            // Answered before all was asked: the server says whether it wants the rest. If not, dropping
            // the stream tells the client so, once the answer has been sent.
            if request.poll_receiver(cx).is_ready() {
                return Stand::Over;
            }
        } else if (request.is_read() || response.is_over())
            // The client may take it back at any time, and what it sent has been read to its end.
            && let Poll::Ready(reason) = response.poll_receiver(cx)
        {
            failure = Some(reason);
        }
        match failure {
            None => Stand::Under,
            Some(reason) => {
                self.reset(reason, judge);
                Stand::Over
            }
        }
    }

    /// What belongs into a head would have been judged there.
    fn refuse_trailers(&mut self, judge: &mut impl Judge<Ticket = T>) -> Stand {
        judge.refused_head(http1::Refusal::TrailerField);
        self.reset(Reason::PROTOCOL_ERROR, judge);
        Stand::Over
    }

    fn report_both(&mut self, judge: &mut impl Judge<Ticket = T>) {
        if let Stage::Answering { request, response } = &self.stage
            && let Some(ticket) = self.ticket.take()
        {
            judge.finished(ticket, &self.facts.passed(Some(request), Some(response)));
        }
    }

    fn report(
        &mut self,
        judge: &mut impl Judge<Ticket = T>,
        request: Option<&Flow>,
        response: Option<&Flow>,
    ) {
        if let Some(ticket) = self.ticket.take() {
            judge.finished(ticket, &self.facts.passed(request, response));
        }
    }
}

/// Sends an answer of the proxy's own and says what was sent.
pub(super) fn send_reply(
    respond: &mut SendResponse<Bytes>,
    reply: &Reply,
    to_head: bool,
) -> Passed {
    let (head, body) = reply.to_response().into_parts();
    let body = if to_head { "" } else { body };
    // A client that is gone needs no answer.
    if let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), body.is_empty())
        && !body.is_empty()
    {
        let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
    }
    let status = reply.grpc_status();
    Passed {
        status: if status.is_some() { 200 } else { reply.status() },
        local: true,
        request_bytes: 0,
        response_bytes: body.len() as u64,
        grpc: status.map(|status| GrpcPassed { status: Some(status), ..GrpcPassed::default() }),
    }
}

/// What the client is told when there is no answer.
enum Unanswered {
    Reset(Reason),
    Reply(u16),
}

fn unanswered(error: &h2::Error) -> Unanswered {
    match error.reason() {
        // As the server said it.
        Some(reason) if error.is_reset() && error.is_remote() => Unanswered::Reset(reason),
        // The server leaves and has not looked at it: the client may ask again.
        Some(_) if error.is_go_away() && error.is_remote() => {
            Unanswered::Reset(Reason::REFUSED_STREAM)
        }
        _ => Unanswered::Reply(502),
    }
}

/// Why an answer that has begun ends too soon.
enum Broken {
    /// The server said so.
    Reset(Reason),
    /// Its connection was lost.
    Lost,
}

fn broken(error: &h2::Error) -> Broken {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => Broken::Reset(reason),
        _ => Broken::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An open stream is little more than this, and what the `h2` crate holds for it.
    #[test]
    fn an_exchange_stays_small() {
        let size = size_of::<Exchange<()>>();
        assert!(size <= 520, "{size} bytes");
    }
}
