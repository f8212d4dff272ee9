//! The request stream: heads judged, bodies passed on or drained.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::chunked::{Chunked, Progress};
use super::edits::{self, HeadEdits};
use super::head::{self, Body, Fields, Head, Section};
use super::in_flight::Pending;
use super::path::{Normalized, normalize};
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::{Decision, Handler, Headers, Request};
use super::{Http1, Limits};
use crate::gate::{Close, Op};
use crate::http2::PREFACE;

/// Where the request stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asking {
    /// A head is next. Its first `looked_at` bytes have no end; an empty line stood before it.
    Head {
        looked_at: u32,
        empty_line: bool,
    },
    /// A rewritten head has been sent; the `head` bytes as they were received are to be dropped.
    Rewritten {
        head: u32,
        body: Body,
    },
    /// The head has passed.
    Body(Body),
    /// The message has passed when we are asked again.
    Passed,
    /// A chunked body is passing, or draining: then at most so many bytes.
    Chunks {
        state: Chunked,
        drain: Option<u64>,
    },
    /// Nothing more is read: the connection ends after the responses that are due, or the server
    /// decides whether it becomes a tunnel.
    Held,
    Tunnel,
}

impl Asking {
    pub(super) const HEAD: Self = Self::Head { looked_at: 0, empty_line: false };
}

/// What the request line and the fields come to.
enum Judged {
    Allowed,
    Answered(Reply),
}

impl Http1 {
    /// What happens next with the bytes of the client.
    pub(super) fn ask(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        loop {
            match self.asking {
                Asking::Head { looked_at, empty_line } => {
                    if self.in_flight.len() >= usize::from(self.limits.pipelined.max(1)) {
                        return Op::Wait;
                    }
                    match self.ask_head(input, looked_at as usize, empty_line, out, handler) {
                        Ok(op) => return op,
                        Err(refusal) => self.refuse_head(refusal, handler),
                    }
                }
                Asking::Rewritten { head, body } => {
                    self.asking = Asking::Body(body);
                    return Op::Discard(head.into());
                }
                Asking::Body(Body::Length(0)) => self.asking = Asking::Passed,
                Asking::Body(Body::Length(n)) => {
                    self.asking = Asking::Passed;
                    return if self.draining { Op::Discard(n) } else { Op::Forward(n) };
                }
                Asking::Body(_) => {
                    let drain = self.draining.then_some(self.limits.drained_bytes);
                    self.asking = Asking::Chunks { state: Chunked::Size, drain };
                }
                Asking::Chunks { state, drain } => match self.ask_chunks(state, drain, input) {
                    Ok(Some(op)) => return op,
                    Ok(None) => self.asking = Asking::Passed,
                    Err(refusal) => self.refuse_body(refusal, handler),
                },
                Asking::Passed => self.request_passed(),
                Asking::Held => return Op::Wait,
                Asking::Tunnel => return Op::Forward(Op::FOREVER),
            }
        }
    }

    /// The client has ended its stream.
    pub(super) fn asked(
        &mut self,
        cut_short: bool,
        input: &[u8],
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        let in_message =
            cut_short || matches!(self.asking, Asking::Chunks { .. } | Asking::Body(_));
        match self.asking {
            Asking::Tunnel | Asking::Held => Op::NeedInput,
            Asking::Head { .. } if input.is_empty() && !cut_short => Op::NeedInput,
            Asking::Head { .. } => {
                self.refuse_head(Refusal::Incomplete, handler);
                Op::NeedInput
            }
            _ if in_message && !self.draining => {
                // The server must not take the part for the whole.
                handler.refused(Refusal::Incomplete);
                Op::Close(Close::Abort)
            }
            _ => {
                self.asking = Asking::Held;
                self.in_body = false;
                if self.in_flight.is_empty() { Op::Close(Close::Graceful) } else { Op::NeedInput }
            }
        }
    }

    /// Reads a head, asks for the verdict, and begins to carry it out.
    fn ask_head(
        &mut self,
        input: &[u8],
        looked_at: usize,
        empty_line: bool,
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Refusal> {
        if self.undecided && !input.is_empty() {
            self.undecided = PREFACE.starts_with(&input[..input.len().min(PREFACE.len())]);
            if self.undecided {
                self.head_begun = true;
                return Ok(if input.len() < PREFACE.len() { Op::NeedInput } else { Op::HandOver });
            }
        }
        match input {
            [] => {
                self.head_begun = false;
                return Ok(Op::NeedInput);
            }
            [b'\r', b'\n', ..] if empty_line => return Err(Refusal::EmptyLines),
            [b'\r', b'\n', ..] => {
                self.asking = Asking::Head { looked_at: 0, empty_line: true };
                return Ok(Op::Discard(2));
            }
            _ => self.head_begun = true,
        }
        let length = match head::find_end(input, looked_at, &self.limits)? {
            Section::Complete(length) => length,
            Section::Partial(looked_at) => {
                let looked_at = u32::try_from(looked_at).unwrap_or(0);
                self.asking = Asking::Head { looked_at, empty_line };
                return Ok(Op::NeedInput);
            }
        };
        let mut fields: Fields<'_> =
            [const { MaybeUninit::uninit() }; Limits::MAX_HEADERS as usize];
        let head = head::parse(&input[..length], &mut fields, &self.limits)?;
        if std::mem::take(&mut self.upgradable) && head.h2c {
            return Ok(Op::HandOver);
        }
        let (path, judged, edits) = judge(&head, handler)?;
        self.head_begun = false;
        self.draining = !matches!(judged, Judged::Allowed);
        self.in_body = head.body != Body::Length(0);
        self.last_request = !head.keep_alive;
        let mut pending = Pending {
            reply: None,
            request_bytes: length as u64,
            to_head: head.method == "HEAD",
            upgrade: false,
            last: self.last_request,
            cut: false,
            reported: true,
            receiving: true,
        };
        if let Body::Length(n) = head.body {
            pending.request_bytes += n;
        }
        match judged {
            Judged::Answered(reply) => {
                pending.reply = Some(reply);
                Ok(self.begin_drain(&head, length, pending))
            }
            Judged::Allowed => {
                pending.upgrade = head.upgrade;
                self.in_flight.push(pending);
                let rewrites =
                    path != head.target || head.absolute || head.drops_upgrade || !edits.is_empty();
                if rewrites {
                    edits::rewrite(&head, &path, &edits, out);
                }
                Ok(self.begin_pass(&head, length, rewrites))
            }
        }
    }

    /// An answer of our own is due; the request is thrown away, if that is soon done.
    fn begin_drain(&mut self, head: &Head<'_>, length: usize, mut pending: Pending) -> Op {
        let body = match head.body {
            Body::Length(n) => n,
            Body::Chunked | Body::UntilClose => 0,
        };
        // A client that waits for 100 may send the body or not (RFC 9110 section 10.1.1): there is
        // no telling what comes next. After CONNECT there is not either.
        let lost = (head.expects_continue && self.in_body) || head.method == "CONNECT";
        let held = lost || body > self.limits.drained_bytes;
        pending.last |= held;
        pending.receiving = !held;
        self.in_flight.push(pending);
        if held {
            self.in_body = false;
            self.asking = Asking::Held;
            return Op::Discard(length as u64);
        }
        self.asking = match head.body {
            Body::Length(_) => Asking::Passed,
            body => Asking::Body(body),
        };
        Op::Discard(length as u64 + body)
    }

    /// The request passes: as it came, or with a new head that is already written.
    fn begin_pass(&mut self, head: &Head<'_>, length: usize, rewrites: bool) -> Op {
        if rewrites {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let body = head.body;
            self.asking = Asking::Rewritten { head: length, body };
            return Op::Inject;
        }
        match head.body {
            Body::Length(n) => {
                self.asking = Asking::Passed;
                Op::Forward(length as u64 + n)
            }
            body => {
                self.asking = Asking::Body(body);
                Op::Forward(length as u64)
            }
        }
    }

    fn ask_chunks(
        &mut self,
        mut state: Chunked,
        drain: Option<u64>,
        input: &[u8],
    ) -> Result<Option<Op>, Refusal> {
        let progress = state.advance(input, &self.limits)?;
        let Progress::Pass(n) = progress else {
            self.asking = Asking::Chunks { state, drain };
            return Ok((progress == Progress::NeedInput).then_some(Op::NeedInput));
        };
        if let Some(pending) = self.in_flight.receiving() {
            pending.request_bytes = pending.request_bytes.saturating_add(n);
        }
        let Some(left) = drain else {
            self.asking = Asking::Chunks { state, drain };
            return Ok(Some(Op::Forward(n)));
        };
        if n <= left {
            self.asking = Asking::Chunks { state, drain: Some(left - n) };
            return Ok(Some(Op::Discard(n)));
        }
        // Too much to be read for nothing: the connection ends once the answer is out.
        self.hold_after_answers();
        Ok(Some(Op::Discard(left + 1)))
    }

    /// Reads nothing more; ends the connection after the answers that are due.
    fn hold_after_answers(&mut self) {
        self.asking = Asking::Held;
        self.in_body = false;
        match self.in_flight.receiving() {
            Some(pending) => {
                pending.cut = true;
                pending.receiving = false;
            }
            None => self.answering = super::Answering::Closing(Close::Graceful),
        }
    }

    fn request_passed(&mut self) {
        self.in_body = false;
        let mut upgrading = false;
        if let Some(pending) = self.in_flight.receiving() {
            pending.receiving = false;
            upgrading = pending.upgrade;
        }
        self.asking = if self.last_request || upgrading { Asking::Held } else { Asking::HEAD };
    }
}

/// Brings the target into normal form and asks the handler.
fn judge<'a>(
    head: &Head<'a>,
    handler: &mut (impl Handler + ?Sized),
) -> Result<(Cow<'a, str>, Judged, HeadEdits), Refusal> {
    let mut edits = HeadEdits::default();
    let (path, unasked) = match head.target {
        _ if head.method == "CONNECT" => (Cow::Borrowed(head.target), Some(Reply::new(405))),
        "*" => (Cow::Borrowed("*"), None),
        target => match normalize(target)? {
            Normalized::Path(path) => (path, None),
            Normalized::Redirect(clean) => (Cow::Borrowed(target), Some(Reply::redirect(clean))),
        },
    };
    let request = Request {
        method: head.method,
        path: &path,
        host: head.host,
        minor_version: head.minor_version,
        upgrade: head.upgrade,
        headers: Headers { fields: head.fields },
    };
    let judged = match unasked {
        Some(reply) => {
            handler.answered_unasked(&request, reply.status);
            Judged::Answered(reply)
        }
        None => match handler.decide(&request, &mut edits) {
            Decision::Allow => Judged::Allowed,
            Decision::Deny => Judged::Answered(Reply::new(403)),
        },
    };
    Ok((path, judged, edits))
}
