//! The request stream: requests judged, and what is allowed of them passed on.

use super::answer::{self, Errors};
use super::api::{Api, error};
use super::header::{Header, LENGTH_BYTES, Start};
use super::in_flight::{Action, Change, Insert, Pending};
use super::judge::{self, Beginning, Judgment, Known};
use super::lookup;
use super::refusal::Refusal;
use super::request::{Decided, Handler, Outcome};
use super::schema::{self, Mark};
use super::versions;
use super::wire::Halt;
use super::{Kafka, ids::TopicId};
use crate::gate::{Close, Op};

/// Where the request stream stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asking {
    /// A request is next.
    Frame,
    /// Another one was sent in its place; as many bytes as it had are to be dropped.
    Replaced(u64),
    /// The broker is asked for names that the next request needs.
    Lookup,
    /// Nothing more is read.
    Held,
}

/// Why a request can't be decided now.
enum Undecided {
    /// More of it must arrive.
    Short,
    Refused(Refusal),
}

impl From<Refusal> for Undecided {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Halt> for Undecided {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Short => Self::Short,
            Halt::Malformed(malformed) => Self::Refused(malformed.into()),
            Halt::TooMany => Self::Refused(Refusal::TooManyTopics),
            Halt::TooLarge => Self::Refused(Refusal::HeldTooLarge),
            Halt::Enough => Self::Refused(Refusal::FieldBeyond),
        }
    }
}

impl Kafka {
    /// What happens next with the bytes of the client.
    pub(super) fn ask(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        match self.asking {
            Asking::Replaced(bytes) => {
                self.asking = Asking::Frame;
                Op::Discard(bytes)
            }
            Asking::Lookup | Asking::Held => self.wait(),
            Asking::Frame if self.is_full() => self.wait(),
            Asking::Frame => {
                self.begun = !input.is_empty();
                match self.ask_frame(input, out, handler) {
                    Ok(op) => op,
                    Err(Undecided::Short) => Op::NeedInput,
                    Err(Undecided::Refused(refusal)) => self.refuse(refusal, handler),
                }
            }
        }
    }

    /// As much is under way as may be.
    fn is_full(&self) -> bool {
        self.in_flight.len() >= usize::from(self.limits.in_flight.max(1))
            || self.owed > self.limits.held_bytes as usize
    }

    /// It is the broker's turn.
    fn wait(&mut self) -> Op {
        self.begun = false;
        Op::Wait
    }

    /// The client has ended its stream.
    pub(super) fn asked(
        &mut self,
        cut_short: bool,
        input: &[u8],
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        match self.asking {
            Asking::Held | Asking::Lookup => Op::NeedInput,
            Asking::Frame if input.is_empty() && !cut_short => Op::NeedInput,
            _ if cut_short => {
                handler.refused(Refusal::Incomplete);
                self.asking = Asking::Held;
                // The broker must not take the part for the whole.
                Op::Close(Close::Abort)
            }
            _ => {
                self.refuse(Refusal::Incomplete, handler);
                Op::NeedInput
            }
        }
    }

    /// Reads a request, asks for the verdict, and begins to carry it out.
    fn ask_frame(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Undecided> {
        let start = Start::read(input, &self.limits)?.ok_or(Undecided::Short)?;
        let api = Api::find(start.key).ok_or(Refusal::ApiUnknown)?;
        if !api.schema().knows(start.version) {
            return self.ask_unknown_version(api, start, handler);
        }
        let header = Header::read(input, start, api)?;
        if start.key == schema::PRODUCE
            && let Some(op) = self.ask_by_beginning(input, start, &header, out, handler)?
        {
            return Ok(op);
        }
        if start.length - LENGTH_BYTES > self.limits.held_bytes as usize {
            return Err(Refusal::HeldTooLarge.into());
        }
        let Some(frame) = input.get(..start.length) else { return Err(Undecided::Short) };
        self.begin(input, &header, handler);
        if !self.offers(api, start.version) {
            let errors = Errors::all(error::UNSUPPORTED_VERSION);
            return self.answer_refusal(frame, &header, &errors, true, handler);
        }
        let judgment = judge::judge(frame, &header, self.known(), handler)?;
        if !judgment.unknown.is_empty() {
            return Ok(self.look_up(judgment.unknown, frame, &header, out));
        }
        self.looked_up = false;
        self.carry_out(frame, &header, judgment, out, handler)
    }

    /// What a request is judged with.
    fn known(&self) -> Known<'_> {
        let most = self.limits.topics as usize;
        Known { names: &self.names, ids_are_final: self.looked_up, most }
    }

    /// The largest answer of the gate's own.
    fn largest(&self) -> usize {
        self.limits.held_bytes as usize
    }

    fn begin(&self, input: &[u8], header: &Header, handler: &mut (impl Handler + ?Sized)) {
        let client_id = &input[header.client_id.clone()];
        handler.begin(&header.api.request(header.version, header.correlation, client_id));
    }

    /// The shape of the answer is not known, but for the API that tells versions (KIP-511).
    fn ask_unknown_version(
        &mut self,
        api: Api,
        start: Start,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Undecided> {
        if api.key() != schema::API_VERSIONS {
            return Err(Refusal::VersionUnknown.into());
        }
        handler.begin(&api.request(start.version, start.correlation, b""));
        let error = error::UNSUPPORTED_VERSION;
        let reply = versions::unsupported(start.correlation);
        let bytes = start.length as u64;
        handler.decided(&Decided { outcome: Outcome::Denied, error, answered: true, bytes });
        let (version, correlation) = (start.version, start.correlation);
        let action = Action::Ours { reply, error };
        self.push(Pending { api, version, correlation, action });
        self.begun = false;
        Ok(Op::Discard(bytes))
    }

    /// Forwards a request that its beginning shows to be allowed; `None` if more of it must be seen.
    fn ask_by_beginning(
        &mut self,
        input: &[u8],
        start: Start,
        header: &Header,
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Option<Op>, Undecided> {
        if !self.offers(header.api, start.version) {
            return Ok(None);
        }
        self.begin(input, header, handler);
        Ok(match judge::by_beginning(input, start.length, header, self.known(), handler)? {
            Beginning::Allowed { answered } => {
                self.looked_up = false;
                Some(self.forward(header, Action::Pass, start.length, answered, handler))
            }
            Beginning::Unknown(ids) => Some(self.look_up(ids, input, header, out)),
            Beginning::NotEnough => None,
        })
    }

    /// Asks the broker for names before the request is judged.
    fn look_up(
        &mut self,
        ids: Vec<TopicId>,
        input: &[u8],
        header: &Header,
        out: &mut Vec<u8>,
    ) -> Op {
        lookup::ask(&ids, &input[header.client_id.clone()], out);
        self.push(Pending {
            api: Api::metadata(),
            version: lookup::VERSION,
            correlation: lookup::CORRELATION,
            action: Action::Lookup,
        });
        self.asking = Asking::Lookup;
        Op::Inject
    }

    /// Does what the judgment says.
    fn carry_out(
        &mut self,
        frame: &[u8],
        header: &Header,
        mut judgment: Judgment<'_>,
        out: &mut Vec<u8>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Undecided> {
        let answered = judgment.acks != Some(0) || header.api.key() != schema::PRODUCE;
        if let Some(whole) =
            judgment.whole.or_else(|| self.session_error(header, &judgment, handler))
        {
            return self.answer_refusal(frame, header, &Errors::all(whole), answered, handler);
        }
        judgment.denied.sort_by_key(|denied| denied.at);
        let denied: Vec<_> =
            judgment.denied.iter().map(|denied| (denied.at, denied.error)).collect();
        if !denied.is_empty() && !can_be_split(header, &judgment) {
            let others = match header.api.key() {
                schema::ADD_PARTITIONS_TO_TXN => error::OPERATION_NOT_ATTEMPTED,
                _ => error::NONE,
            };
            let whole = denied.first().map_or(error::NONE, |(_, error)| *error);
            let errors = Errors { whole, others, denied: &denied };
            return self.answer_refusal(frame, header, &errors, answered, handler);
        }
        if let (Some((_, epoch)), Some(member)) = (judgment.epoch, judgment.member) {
            self.sessions.forwarded(epoch, judgment.group.unwrap_or_default(), member);
        }
        let action = self.action(frame, header, &judgment, handler)?;
        let patches = session_patches(header, &judgment);
        if judgment.edits.is_empty() && patches.is_none() {
            return Ok(self.forward(header, action, frame.len(), answered, handler));
        }
        if judgment.edits.is_empty() {
            out.extend_from_slice(frame);
            for (at, value) in patches.into_iter().flatten() {
                out[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
        } else {
            for (at, value) in patches.into_iter().flatten() {
                judgment.edits.replace(at..at + 4, value.to_be_bytes().to_vec());
            }
            judgment.edits.apply(frame, out);
        }
        // As a forwarded one, with other bytes.
        self.forward(header, action, frame.len(), answered, handler);
        self.asking = Asking::Replaced(frame.len() as u64);
        Ok(Op::Inject)
    }

    /// What is to be done with the response.
    fn action(
        &self,
        frame: &[u8],
        header: &Header,
        judgment: &Judgment<'_>,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Action, Undecided> {
        // An empty list once meant all of them.
        let none_left = header.api.key() == schema::METADATA && header.version == 0;
        let none_left = none_left && !judgment.some_left && !judgment.denied.is_empty();
        let filter = judgment.filter || none_left || lists_groups_of_some(header, handler);
        if judgment.denied.is_empty() && !filter {
            return Ok(Action::Pass);
        }
        let mut change = Change {
            inserts: Vec::new(),
            filter,
            client_id: frame[header.client_id.clone()].into(),
            group: judgment.group.map(Into::into),
            error: judgment.denied.first().map_or(error::NONE, |denied| denied.error),
        };
        let mut rest = &judgment.denied[..];
        while let Some(first) = rest.first() {
            let same = |denied: &&judge::Denied<'_>| {
                denied.mark == first.mark && denied.inside == first.inside
            };
            let run = rest.iter().take_while(same).count();
            let places: Vec<_> = rest[..run].iter().map(|item| (item.at, item.error)).collect();
            change.inserts.push(Insert {
                mark: first.mark,
                inside: first.inside.map(Into::into),
                count: run,
                items: answer::items(frame, header, first.mark, &places, self.largest())?,
            });
            rest = &rest[run..];
        }
        Ok(Action::Change(Box::new(change)))
    }

    /// The error of a request that goes on with a session that was not opened here.
    fn session_error(
        &mut self,
        header: &Header,
        judgment: &Judgment<'_>,
        handler: &(impl Handler + ?Sized),
    ) -> Option<i16> {
        let (_, epoch) = judgment.epoch?;
        match header.api.key() {
            schema::FETCH => (epoch > 0).then_some(error::FETCH_SESSION_ID_NOT_FOUND),
            _ => {
                let group = judgment.group.unwrap_or_default();
                let member = judgment.member.unwrap_or_default();
                let knows = self.sessions.knows(epoch, group, member, handler.revision());
                (!knows).then_some(error::SHARE_SESSION_NOT_FOUND)
            }
        }
    }

    /// Forwards the request as it came.
    fn forward(
        &mut self,
        header: &Header,
        action: Action,
        length: usize,
        answered: bool,
        handler: &mut (impl Handler + ?Sized),
    ) -> Op {
        let (outcome, error) = match &action {
            Action::Change(change) if !change.inserts.is_empty() => (Outcome::Partly, change.error),
            Action::Change(_) => (Outcome::Filtered, error::NONE),
            _ => (Outcome::Allowed, error::NONE),
        };
        let bytes = length as u64;
        handler.decided(&Decided { outcome, error, answered, bytes });
        if answered {
            self.push(Pending {
                api: header.api,
                version: header.version,
                correlation: header.correlation,
                action,
            });
        }
        Op::Forward(bytes)
    }

    /// Nothing of the request is forwarded.
    fn answer_refusal(
        &mut self,
        frame: &[u8],
        header: &Header,
        errors: &Errors<'_>,
        answered: bool,
        handler: &mut (impl Handler + ?Sized),
    ) -> Result<Op, Undecided> {
        let error = errors.denied.first().map_or(errors.whole, |(_, error)| *error);
        let bytes = frame.len() as u64;
        let reply = answer::refuse(frame, header, errors, self.largest())?;
        handler.decided(&Decided { outcome: Outcome::Denied, error, answered, bytes });
        if !answered {
            // To say nothing would be to lose what the client takes for sent.
            return Err(Refusal::UnansweredDenied.into());
        }
        self.looked_up = false;
        self.begun = false;
        self.push(Pending {
            api: header.api,
            version: header.version,
            correlation: header.correlation,
            action: Action::Ours { reply, error },
        });
        Ok(Op::Discard(bytes))
    }
}

/// Whether the list of all groups is for somebody who may see some of them only.
fn lists_groups_of_some(header: &Header, handler: &mut (impl Handler + ?Sized)) -> bool {
    header.api.key() == schema::LIST_GROUPS && handler.distinguishes_groups()
}

/// Whether what is allowed of the request can go on without the rest, and the response can say what
/// became of the rest.
fn can_be_split(header: &Header, judgment: &Judgment<'_>) -> bool {
    let key = header.api.key();
    // All or nothing (KIP-98).
    let atomic = key == schema::ADD_PARTITIONS_TO_TXN;
    let left = judgment.some_left || key == schema::METADATA;
    let response = header.api.schema().response;
    let can_say = |mark: Mark| answer::can_say(response, mark, header.version);
    left && !atomic && judgment.denied.iter().all(|denied| can_say(denied.mark))
}

/// Session 0 and epoch -1: the broker is to open none, and gets the whole list each time (KIP-227).
fn session_patches(header: &Header, judgment: &Judgment<'_>) -> Option<[(usize, i32); 2]> {
    if header.api.key() != schema::FETCH {
        return None;
    }
    let ((session_at, session), (epoch_at, epoch)) = (judgment.session?, judgment.epoch?);
    ((session, epoch) != (0, -1)).then_some([(session_at, 0), (epoch_at, -1)])
}
