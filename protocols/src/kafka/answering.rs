//! The response stream: the broker's responses passed on, changed where they have to be, and the gate's
//! own put between them.

use super::header::{LENGTH_BYTES, frame_length};
use super::ids::Named;
use super::in_flight::{Action, Pending};
use super::limits::Limits;
use super::look::{self, Seen, Wanted};
use super::refusal::Refusal;
use super::request::{Exchange, Handler};
use super::schema;
use super::versions;
use super::wire::{Halt, write_length};
use super::{Asking, Kafka};
use crate::gate::{Close, Op};

/// Responses up to this size are looked through for their error.
const LOOKED_THROUGH: usize = 64 * 1024;

/// Metadata up to this size is kept: the ids of its topics need not be asked for then.
const LEARNED: usize = 256 * 1024;

/// Where the response stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answering {
    /// A response is next.
    Frame,
    /// The beginning of one was sent in other words: so many bytes are to be dropped, and so many
    /// more are to pass.
    Replaced { dropped: usize, passing: usize, exchange: Exchange },
    /// So many bytes of one are to pass.
    Rest { passing: usize, exchange: Exchange },
    /// One has passed when we are asked again.
    Passed(Exchange),
    /// The connection ends.
    Closing(Close),
}

impl Kafka {
    /// What happens next with the bytes of the broker.
    pub(super) fn answer(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        loop {
            match self.answering {
                Answering::Frame => match self.in_flight.front() {
                    Some(Pending { action: Action::Ours { reply, error }, .. }) => {
                        out.extend_from_slice(reply);
                        let response_bytes = reply.len() as u64;
                        let exchange = Exchange { error: *error, local: true, response_bytes };
                        self.answering = Answering::Passed(exchange);
                        return Op::Inject;
                    }
                    // The broker, too, would not answer what came before a broken request.
                    _ if self.ending => self.answering = Answering::Closing(Close::Graceful),
                    None if input.is_empty() => return Op::NeedInput,
                    None => self.refuse_response(Refusal::ResponseUnasked, handler),
                    Some(_) => match self.answer_frame(input, out, handler) {
                        Ok(op) => return op,
                        Err(Halt::Short) => return Op::NeedInput,
                        Err(Halt::TooLarge) => {
                            self.refuse_response(Refusal::HeldTooLarge, handler);
                        }
                        Err(_) => self.refuse_response(Refusal::ResponseMalformed, handler),
                    },
                },
                Answering::Replaced { dropped, passing, exchange } => {
                    self.answering = match passing {
                        0 => Answering::Passed(exchange),
                        _ => Answering::Rest { passing, exchange },
                    };
                    return Op::Discard(dropped as u64);
                }
                Answering::Rest { passing, exchange } => {
                    self.answering = Answering::Passed(exchange);
                    return Op::Forward(passing as u64);
                }
                Answering::Passed(exchange) => {
                    if let Some(pending) = self.in_flight.pop() {
                        self.owed -= pending.owed();
                    }
                    handler.finished(&exchange);
                    self.answering = Answering::Frame;
                }
                Answering::Closing(close) => return Op::Close(close),
            }
        }
    }

    /// The broker has ended its stream.
    pub(super) fn answers_end(
        &mut self,
        cut_short: bool,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        match self.answering {
            Answering::Closing(close) => Op::Close(close),
            Answering::Passed(Exchange { local: true, .. }) => self.answer(input, out, handler),
            _ if cut_short => {
                handler.refused(Refusal::ResponseIncomplete);
                self.answering = Answering::Closing(Close::Abort);
                Op::Close(Close::Abort)
            }
            Answering::Frame => match self.in_flight.front() {
                Some(Pending { action: Action::Ours { .. }, .. }) => {
                    self.answer(input, out, handler)
                }
                _ => Op::Close(Close::Graceful),
            },
            _ => self.answer(input, out, handler),
        }
    }

    fn refuse_response(&mut self, refusal: Refusal, handler: &mut (impl Handler + ?Sized)) {
        handler.refused(refusal);
        self.answering = Answering::Closing(Close::Abort);
    }

    /// Reads a response as far as it has to be, and begins to pass it on.
    fn answer_frame(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Halt> {
        let length = match frame_length(input) {
            Ok(Some(length)) if length < LENGTH_BYTES + 4 => return Err(Halt::Enough),
            Ok(Some(length)) => length,
            Ok(None) => return Err(Halt::Short),
            Err(_) => return Err(Halt::Enough),
        };
        let correlation = match input.get(LENGTH_BYTES..LENGTH_BYTES + 4) {
            Some(bytes) => bytes.try_into().map_or(0, i32::from_be_bytes),
            None => return Err(Halt::Short),
        };
        let Some(front) = self.in_flight.front() else { return Err(Halt::Enough) };
        if front.correlation != correlation {
            self.refuse_response(Refusal::ResponseOrder, handler);
            return Ok(Op::Close(Close::Abort));
        }
        let (key, version) = (front.api.key(), front.version);
        match &front.action {
            Action::Lookup => {
                let frame = whole(input, length, &self.limits)?;
                let wanted = Wanted { advertised: None, learn: true };
                let Seen { names, .. } = look::look(frame, front, wanted, handler)?;
                self.learn_asked(names);
                Ok(Op::Discard(length as u64))
            }
            Action::Change(change) if change.can_begin_at_once() && self.advertised.is_none() => {
                self.insert_in_beginning(input, length, out)
            }
            _ if key == schema::API_VERSIONS => {
                let frame = whole(input, length, &self.limits)?;
                let error = versions::narrow(frame, version, self.advertised.is_some(), out)?;
                Ok(self.replaced(length, error, out))
            }
            _ => self.look_through(input, length, out, handler),
        }
    }

    /// The broker has answered the gate's own question.
    fn learn_asked(&mut self, names: Vec<Named>) {
        self.names.learn(names, self.limits.topics as usize);
        self.in_flight.pop();
        self.looked_up = true;
        if matches!(self.asking, Asking::Lookup) {
            self.asking = Asking::Frame;
        }
    }

    /// Looks a response through if it is small or has to be changed, and passes it on.
    fn look_through(
        &mut self,
        input: &[u8],
        length: usize,
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Halt> {
        let Some(front) = self.in_flight.front() else { return Err(Halt::Enough) };
        let (api, version, key) = (front.api, front.version, front.api.key());
        let changes = front.change().is_some();
        let must = changes || (self.advertised.is_some() && look::has_hosts(api, version));
        let learn = key == schema::METADATA && length <= LEARNED;
        if !must && matches!(key, schema::FETCH | schema::SHARE_FETCH) {
            let error = match look::first_error(input, length, api, version) {
                Err(Halt::Short) => return Err(Halt::Short),
                // What is only looked at is nobody's to refuse.
                seen => seen.unwrap_or(0),
            };
            return Ok(self.passed(length, error));
        }
        if !must && !learn && length > LOOKED_THROUGH {
            return Ok(self.passed(length, 0));
        }
        let frame = whole(input, length, &self.limits)?;
        let advertised = self.advertised.clone();
        let wanted = Wanted { advertised: advertised.as_deref(), learn };
        let Some(front) = self.in_flight.front() else { return Err(Halt::Enough) };
        let Seen { error, names, edits } = match look::look(frame, front, wanted, handler) {
            Ok(seen) => seen,
            Err(halt) if must => return Err(halt),
            Err(_) => Seen::default(),
        };
        let inserted = front.change().map_or(0, |change| change.error);
        let error = if inserted == 0 { error } else { inserted };
        if !names.is_empty() {
            self.names.learn(names, self.limits.topics as usize);
        }
        if edits.is_empty() {
            return Ok(self.passed(length, error));
        }
        edits.apply(frame, out);
        Ok(self.replaced(length, error, out))
    }

    /// Puts items before those of the broker, without waiting for the records that come with these.
    fn insert_in_beginning(
        &mut self,
        input: &[u8],
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<Op, Halt> {
        let Some(front) = self.in_flight.front() else { return Err(Halt::Enough) };
        let Some(change) = front.change() else { return Err(Halt::Enough) };
        let Some(insert) = change.inserts.first() else { return Err(Halt::Enough) };
        let (header, count, flexible) = look::find_array(input, length, front, insert.mark)?;
        let dropped = header.end;
        out.extend_from_slice(&input[..header.start]);
        write_length(count + insert.count, flexible, out);
        out.extend_from_slice(&insert.items);
        let total = out.len() + (length - dropped);
        let told = u32::try_from(total - LENGTH_BYTES).map_err(|_| Halt::Enough)?;
        out[..LENGTH_BYTES].copy_from_slice(&told.to_be_bytes());
        let exchange = Exchange { error: change.error, local: false, response_bytes: total as u64 };
        self.answering = Answering::Replaced { dropped, passing: length - dropped, exchange };
        Ok(Op::Inject)
    }

    fn passed(&mut self, length: usize, error: i16) -> Op {
        let response_bytes = length as u64;
        self.answering = Answering::Passed(Exchange { error, local: false, response_bytes });
        Op::Forward(response_bytes)
    }

    fn replaced(&mut self, length: usize, error: i16, out: &[u8]) -> Op {
        let exchange = Exchange { error, local: false, response_bytes: out.len() as u64 };
        self.answering = Answering::Replaced { dropped: length, passing: 0, exchange };
        Op::Inject
    }
}

/// All of a response, if it is there; over the limit it is refused.
fn whole<'a>(input: &'a [u8], length: usize, limits: &Limits) -> Result<&'a [u8], Halt> {
    if length > limits.held_bytes as usize {
        return Err(Halt::TooLarge);
    }
    input.get(..length).ok_or(Halt::Short)
}
