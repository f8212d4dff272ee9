//! The response stream: the server's answers followed to their end, the gate's own in their turn.

use super::chunked::{Chunked, Progress};
use super::head::Body;
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Handler;
use super::response::{self, ResponseHead};
use super::{Asking, Http1};
use crate::gate::{Close, Op};

/// Where the response stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answering {
    /// The front of the queue is to be answered.
    Head,
    /// The response has passed when we are asked again.
    Passed {
        status: u16,
        local: bool,
    },
    /// The head has passed, a chunked body follows.
    Chunks {
        state: Chunked,
        status: u16,
    },
    /// The rest of the stream is the body.
    UntilClose {
        status: u16,
    },
    Tunnel,
    Closing(Close),
}

impl Answering {
    /// No byte of the response to the front of the queue has been sent.
    pub(super) fn has_not_begun(self) -> bool {
        matches!(self, Self::Head)
    }

    /// An answer of the server is on its way to the client.
    pub(super) fn is_the_servers(self) -> bool {
        use Answering::{Chunks, Passed, Tunnel, UntilClose};
        matches!(self, Passed { local: false, .. } | Chunks { .. } | UntilClose { .. } | Tunnel)
    }
}

impl Http1 {
    /// What happens next with the bytes of the server.
    pub(super) fn answer(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        loop {
            match self.answering {
                Answering::Head => {
                    let Some(front) = self.in_flight.front() else {
                        if input.is_empty() {
                            return Op::NeedInput;
                        }
                        handler.refused(Refusal::ResponseUnasked);
                        self.answering = Answering::Closing(Close::Graceful);
                        continue;
                    };
                    if let Some(reply) = front.reply.take() {
                        return self.answer_locally(&reply, out, handler);
                    }
                    match self.answer_head(input, handler) {
                        Ok(op) => return op,
                        Err(refusal) => self.refuse_response(refusal, handler),
                    }
                }
                Answering::Passed { status, local } => self.finish(status, local, handler),
                Answering::Chunks { state, status } => {
                    match self.answer_chunks(state, status, input) {
                        Ok(Some(op)) => return op,
                        Ok(None) => self.answering = Answering::Passed { status, local: false },
                        Err(refusal) => {
                            handler.refused(refusal);
                            self.answering = Answering::Closing(Close::Abort);
                        }
                    }
                }
                Answering::UntilClose { .. } if input.is_empty() => return Op::NeedInput,
                Answering::UntilClose { .. } => {
                    // Not for ever: the bytes are to be counted.
                    self.sent = self.sent.saturating_add(input.len() as u64);
                    return Op::Forward(input.len() as u64);
                }
                Answering::Tunnel => return Op::Forward(Op::FOREVER),
                Answering::Closing(close) => return Op::Close(close),
            }
        }
    }

    /// The server has ended its stream.
    pub(super) fn answers_end(
        &mut self,
        cut_short: bool,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        match self.answering {
            Answering::Tunnel => Op::NeedInput,
            Answering::UntilClose { status } => {
                self.finish(status, false, handler);
                Op::Close(Close::Graceful)
            }
            Answering::Passed { local: false, .. } if cut_short => self.cut_short(handler),
            Answering::Chunks { .. } => self.cut_short(handler),
            Answering::Passed { .. } | Answering::Closing(_) => self.answer(&[], out, handler),
            Answering::Head => match self.in_flight.front() {
                None => Op::NeedInput,
                Some(front) if front.reply.is_some() => self.answer(input, out, handler),
                // A connection that was used before may be ended at any time: the client sees it
                // end, as it would have without us, and knows what can be asked again.
                Some(_) if self.answered && input.is_empty() => Op::Close(Close::Graceful),
                Some(_) => {
                    self.refuse_response(Refusal::ResponseMissing, handler);
                    self.answer(&[], out, handler)
                }
            },
        }
    }

    fn cut_short(&mut self, handler: &mut (impl Handler + ?Sized)) -> Op {
        handler.refused(Refusal::ResponseIncomplete);
        self.answering = Answering::Closing(Close::Abort);
        Op::Close(Close::Abort)
    }

    fn answer_locally(
        &mut self,
        reply: &Reply,
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        let front = self.in_flight.front();
        let (to_head, closes, reported) =
            front.map_or((false, true, false), |front| (front.to_head, front.last, front.reported));
        if reported {
            handler.responded(reply.status);
        }
        let begin = out.len();
        reply.write(to_head, closes, out);
        self.sent += (out.len() - begin) as u64;
        self.answering = Answering::Passed { status: reply.status, local: true };
        Op::Inject
    }

    fn answer_head(
        &mut self,
        input: &[u8],
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Refusal> {
        let (to_head, upgrade) =
            self.in_flight.front().map_or((false, false), |front| (front.to_head, front.upgrade));
        let Some(head) = response::read(input, to_head, &self.limits)? else {
            return Ok(Op::NeedInput);
        };
        let ResponseHead { length, status, body, websocket } = head;
        let length = length as u64;
        if status == 101 {
            if !(upgrade && websocket) {
                return Err(Refusal::ResponseUpgrade);
            }
            self.sent += length;
            handler.responded(status);
            self.finish(status, false, handler);
            self.answering = Answering::Tunnel;
            self.asking = Asking::Tunnel;
            return Ok(Op::Forward(length));
        }
        self.sent += length;
        if status < 200 {
            // An interim response; the final one follows.
            return Ok(Op::Forward(length));
        }
        handler.responded(status);
        Ok(match body {
            Body::Length(n) => {
                self.sent = self.sent.saturating_add(n);
                self.answering = Answering::Passed { status, local: false };
                Op::Forward(length + n)
            }
            Body::Chunked => {
                self.answering = Answering::Chunks { state: Chunked::Size, status };
                Op::Forward(length)
            }
            Body::UntilClose => {
                // No response can follow it.
                if let Some(front) = self.in_flight.front() {
                    front.cut = true;
                }
                self.answering = Answering::UntilClose { status };
                Op::Forward(length)
            }
        })
    }

    fn answer_chunks(
        &mut self,
        mut state: Chunked,
        status: u16,
        input: &[u8],
    ) -> Result<Option<Op>, Refusal> {
        let progress = state.advance(input, &self.limits).map_err(|_| Refusal::ResponseChunk)?;
        self.answering = Answering::Chunks { state, status };
        Ok(match progress {
            Progress::Done => None,
            Progress::NeedInput => Some(Op::NeedInput),
            Progress::Pass(n) => {
                self.sent = self.sent.saturating_add(n);
                Some(Op::Forward(n))
            }
        })
    }

    /// The server broke the protocol before a byte of its answer was sent: the client gets 502.
    fn refuse_response(&mut self, refusal: Refusal, handler: &mut (impl Handler + ?Sized)) {
        handler.refused(refusal);
        match self.in_flight.front() {
            Some(front) => {
                front.reply = Some(Reply::new(refusal.status()));
                front.last = true;
            }
            None => self.answering = Answering::Closing(Close::Abort),
        }
    }
}
