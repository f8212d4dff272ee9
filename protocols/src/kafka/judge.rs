//! A request is looked through, and everything that it is about judged.

use std::ops::Range;

use super::api::{Api, error};
use super::edit::Edits;
use super::header::Header;
use super::ids::{NO_ID, TopicId, TopicNames};
use super::plan::{Plan, Purpose, plan};
use super::request::{Handler, Subject};
use super::schema::{self, Mark};
use super::walk::{ArrayHead, Visitor};
use super::wire::{Halt, Malformed, Reader};

/// Marked arrays that may stand inside of each other.
const DEPTH: usize = 3;

/// An item that is not allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied<'a> {
    /// The array that it is in.
    pub(super) mark: Mark,
    /// Where it begins.
    pub(super) at: usize,
    pub(super) error: i16,
    /// The group inside of which it is.
    pub(super) inside: Option<&'a [u8]>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Judgment<'a> {
    /// Topic ids without a known name. Nothing else counts while there are some.
    pub(super) unknown: Vec<TopicId>,
    /// The error for the whole of it.
    pub(super) whole: Option<i16>,
    /// What it asks for is everything, and only what may be seen is to be shown.
    pub(super) filter: bool,
    pub(super) denied: Vec<Denied<'a>>,
    /// The request without what is denied.
    pub(super) edits: Edits,
    /// Something of it is left without that.
    pub(super) some_left: bool,
    pub(super) acks: Option<i16>,
    /// Where the number of the fetch session stands, and what it is.
    pub(super) session: Option<(usize, i32)>,
    /// The same for its epoch.
    pub(super) epoch: Option<(usize, i32)>,
    /// The group of the request.
    pub(super) group: Option<&'a [u8]>,
    /// The member of it.
    pub(super) member: Option<&'a [u8]>,
}

/// What a request is judged with, besides policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'k> {
    /// Names of topics by their ids.
    pub(super) names: &'k TopicNames,
    /// The broker was asked: ids without a name have none.
    pub(super) ids_are_final: bool,
    /// Topics, groups and the like that one request may name.
    pub(super) most: usize,
}

/// Judges the request in `frame`, of which all is there.
pub(super) fn judge<'a>(
    frame: &'a [u8],
    header: &Header,
    known: Known<'_>,
    handler: &mut (impl Handler + ?Sized),
) -> Result<Judgment<'a>, Halt> {
    let plan = plan_of(header.api, header.version)?;
    let mut judge = Judge::new(header, plan, known, handler);
    let mut reader = Reader::new(frame, header.body, frame.len(), plan.flexible);
    plan.walk(&mut reader, &mut judge)?;
    if reader.left() > 0 {
        // Some clients forget bytes there, which brokers ignore. They are not judged, so they go.
        judge.found.edits.remove(reader.position()..frame.len());
    }
    Ok(judge.finish())
}

/// Judges a request that produces to one topic by its beginning, before its records have come. `Short`
/// while more of it is needed.
pub(super) fn by_beginning(
    input: &[u8],
    length: usize,
    header: &Header,
    known: Known<'_>,
    handler: &mut (impl Handler + ?Sized),
) -> Result<Beginning, Halt> {
    let plan = plan_of(header.api, header.version)?;
    let mut judge = Judge::new(header, plan, known, handler);
    judge.only_the_beginning = true;
    let mut reader = Reader::new(input, header.body, length, plan.flexible);
    match plan.walk(&mut reader, &mut judge) {
        Ok(()) => Ok(Beginning::NotEnough),
        Err(Halt::Enough) => {
            let Judge { found, is_seen_whole, .. } = judge;
            Ok(match found {
                Judgment { unknown, .. } if !unknown.is_empty() => Beginning::Unknown(unknown),
                _ if is_seen_whole => Beginning::NotEnough,
                _ => Beginning::Allowed { answered: found.acks != Some(0) },
            })
        }
        Err(halt) => Err(halt),
    }
}

/// What the beginning of a request told.
pub(super) enum Beginning {
    /// It may pass.
    Allowed {
        /// There will be a response.
        answered: bool,
    },
    /// Its topic is named by an id without a known name.
    Unknown(Vec<TopicId>),
    /// It must be seen whole.
    NotEnough,
}

fn plan_of(api: Api, version: i16) -> Result<&'static Plan, Halt> {
    plan(api.place(), version, Purpose::Judge).ok_or(Halt::Malformed(Malformed::Beyond))
}

/// A marked array that is being walked over.
#[derive(Clone, Debug)]
struct Level {
    mark: Mark,
    header: Range<usize>,
    count: usize,
    /// Items that are not denied.
    kept: usize,
    /// Where the item under way begins.
    item: usize,
    /// Its error.
    error: i16,
    /// How often policy had been asked when it began.
    asked: u32,
}

struct Judge<'a, 'j, H: ?Sized> {
    header: &'j Header,
    flexible: bool,
    known: Known<'j>,
    /// Items of marked arrays so far.
    named: usize,
    handler: &'j mut H,
    levels: [Option<Level>; DEPTH],
    depth: usize,
    /// How often policy was asked, or something decided without.
    asked: u32,
    transactional: bool,
    key_type: u8,
    resource_type: u8,
    /// What FindCoordinator looks for, until its type is known.
    key: Option<&'a [u8]>,
    replica: bool,
    only_the_beginning: bool,
    /// Something is denied, or it is about more than one topic: all of it must be seen.
    is_seen_whole: bool,
    found: Judgment<'a>,
}

impl<'a, 'j, H: Handler + ?Sized> Judge<'a, 'j, H> {
    fn new(header: &'j Header, plan: &Plan, known: Known<'j>, handler: &'j mut H) -> Self {
        Self {
            header,
            flexible: plan.flexible,
            known,
            named: 0,
            handler,
            levels: [const { None }; DEPTH],
            depth: 0,
            asked: 0,
            transactional: false,
            key_type: 0,
            resource_type: 0,
            key: None,
            replica: false,
            only_the_beginning: false,
            is_seen_whole: false,
            found: Judgment::default(),
        }
    }

    fn level(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth.checked_sub(1)?)?.as_mut()
    }

    /// Asks policy, and notes what follows for the item under way, or for the whole.
    fn ask(&mut self, topic: Option<&[u8]>, group: Option<&[u8]>) {
        self.asked += 1;
        if self.handler.allows(&Subject { topic, group, everything: false }) {
            return;
        }
        let no_topic = Subject { topic: None, group, everything: false };
        match (topic, group) {
            (_, Some(_)) if !self.handler.may(&no_topic) => self.deny_group(),
            (Some(_), _) => self.deny(error::TOPIC),
            (None, _) => self.deny(self.refused()),
        }
    }

    /// Nothing that is asked of this group is allowed, whatever the topic.
    fn deny_group(&mut self) {
        let error = match self.header.api.refused() {
            error::TOPIC | error::CLUSTER => error::GROUP,
            refused => refused,
        };
        self.is_seen_whole = true;
        match self.levels.iter_mut().flatten().find(|level| level.mark != Mark::Topics) {
            Some(level) => level.error = error,
            None => self.found.whole = Some(error),
        }
    }

    /// The error of a request that is refused for what it is.
    fn refused(&self) -> i16 {
        match self.header.api.refused() {
            // A producer without transactions asks the cluster for its id.
            error::TRANSACTIONAL_ID if !self.transactional => error::CLUSTER,
            // The coordinator of a transaction is looked for.
            error::GROUP if self.transactional => error::TRANSACTIONAL_ID,
            refused => refused,
        }
    }

    fn deny(&mut self, error: i16) {
        self.is_seen_whole = true;
        match self.level() {
            Some(level) => level.error = error,
            None => self.found.whole = Some(error),
        }
    }

    /// An array that names nothing, and so stands for everything.
    fn ask_for_everything(&mut self) {
        let group = self.found.group;
        if self.handler.allows(&Subject { topic: None, group, everything: false }) {
            self.asked += 1;
            return;
        }
        let may_be_filtered = match self.header.api.key() {
            // Like Kafka itself: the brokers are for everybody, and the topics for whom they are.
            schema::METADATA => true,
            schema::OFFSET_FETCH | schema::DESCRIBE_TOPIC_PARTITIONS => {
                self.handler.may(&Subject { topic: None, group, everything: false })
            }
            _ => false,
        };
        if may_be_filtered {
            self.asked += 1;
            self.found.filter = true;
        } else {
            self.ask(None, group);
        }
    }

    fn ask_for_every_topic(&mut self) {
        let group = self.found.group;
        if !self.handler.allows(&Subject { topic: None, group, everything: true }) {
            self.deny(error::TOPIC);
        }
    }

    fn topic_of(&mut self, id: &[u8]) {
        let Ok(id) = <TopicId>::try_from(id) else { return };
        if id == NO_ID {
            // It stands for none: there may be a name, or nothing at all.
            self.is_seen_whole = true;
            return;
        }
        match self.known.names.get(&id) {
            Some(name) => {
                let group = self.found.group;
                self.ask(Some(name), group);
            }
            None if self.known.ids_are_final => {
                self.asked += 1;
                self.deny(error::UNKNOWN_TOPIC_ID);
            }
            None => self.found.unknown.push(id),
        }
    }

    fn key(&mut self, key: &[u8]) {
        match self.key_type {
            0 => self.ask(None, Some(key)),
            1 => {
                self.transactional = true;
                self.ask(None, None);
            }
            // Brokers look for the coordinators of share groups.
            _ => self.deny(error::CLUSTER),
        }
    }

    /// The item under way is over, and nothing in it was asked about by itself.
    fn ask_for_item(&mut self, mark: Mark) {
        match mark {
            Mark::Groups => self.ask(None, self.found.group),
            Mark::Transactions => {
                self.transactional = true;
                self.ask(None, None);
            }
            // Neither a name nor an id.
            Mark::Topics => self.deny(error::UNKNOWN_TOPIC_ID),
            _ => {}
        }
    }

    fn finish(mut self) -> Judgment<'a> {
        if let Some(key) = self.key {
            self.key(key);
        }
        if self.replica {
            // What a follower asks for passes by the rules for consumers.
            self.found.whole = Some(error::CLUSTER);
        }
        if self.asked == 0 && self.found.whole.is_none() && self.found.unknown.is_empty() {
            self.ask(None, self.found.group);
        }
        self.found
    }
}

impl<'a, H: Handler + ?Sized> Visitor<'a> for Judge<'a, '_, H> {
    fn array(&mut self, head: &ArrayHead) -> Result<(), Halt> {
        if self.only_the_beginning && head.mark == Mark::Topics && head.count != Some(1) {
            self.is_seen_whole = true;
            return Err(Halt::Enough);
        }
        let Some(free) = self.levels.get_mut(self.depth) else {
            return Err(Malformed::Count.into());
        };
        let count = head.count.unwrap_or(0);
        self.named += count;
        if self.named > self.known.most {
            return Err(Halt::TooMany);
        }
        *free = Some(Level {
            mark: head.mark,
            header: head.header.clone(),
            count,
            kept: 0,
            item: 0,
            error: 0,
            asked: 0,
        });
        if head.mark == Mark::Topics {
            let key = self.header.api.key();
            let empty_is_all = match key {
                schema::METADATA => self.header.version == 0,
                schema::DESCRIBE_TOPIC_PARTITIONS => true,
                _ => false,
            };
            match head.count {
                // A heartbeat without topics goes on with those of before.
                None if !is_heartbeat(key) => self.ask_for_everything(),
                Some(0) if empty_is_all => self.ask_for_everything(),
                // It asks for the brokers alone.
                Some(0) if key == schema::METADATA => self.asked += 1,
                _ => {}
            }
        }
        self.depth += 1;
        Ok(())
    }

    fn item(&mut self, mark: Mark, at: usize) -> Result<(), Halt> {
        if mark == Mark::Groups {
            self.found.group = None;
        }
        let asked = self.asked;
        if let Some(level) = self.level() {
            level.item = at;
            level.error = 0;
            level.asked = asked;
        }
        Ok(())
    }

    fn item_end(&mut self, mark: Mark, at: usize) -> Result<(), Halt> {
        let asked = self.asked;
        if self.level().is_some_and(|level| level.asked == asked) {
            self.ask_for_item(mark);
        }
        let Some(level) = self.level() else { return Ok(()) };
        if level.error == 0 {
            level.kept += 1;
            return Ok(());
        }
        let (begin, error) = (level.item, level.error);
        let outer = self.depth.checked_sub(2).and_then(|outer| self.levels[outer].as_ref());
        let inside = match outer.map(|level| level.mark) {
            Some(Mark::Groups) => self.found.group,
            _ => None,
        };
        self.found.denied.push(Denied { mark, at: begin, error, inside });
        self.found.edits.remove(begin..at);
        Ok(())
    }

    fn array_end(&mut self, _: Mark) -> Result<(), Halt> {
        self.depth -= 1;
        let Some(level) = self.levels[self.depth].take() else { return Ok(()) };
        self.found.some_left |= level.kept > 0;
        if level.kept < level.count {
            self.found.edits.count(level.header, level.kept, self.flexible);
        }
        Ok(())
    }

    fn value(&mut self, mark: Mark, at: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt> {
        let Some(value) = value else { return Ok(()) };
        let group = self.found.group;
        match mark {
            Mark::Topic => self.ask(Some(value), group),
            Mark::TopicId => self.topic_of(value),
            // Which topics it comes to is the broker's to say, when it pleases.
            Mark::Regex if !value.is_empty() => self.ask_for_every_topic(),
            Mark::Group => self.found.group = Some(value),
            Mark::Member => self.found.member = Some(value),
            Mark::Transaction => self.transactional = true,
            Mark::Key if self.depth == 0 => self.key = Some(value),
            Mark::Key => self.key(value),
            Mark::KeyType => self.key_type = value.first().copied().unwrap_or_default(),
            Mark::ResourceType => self.resource_type = value.first().copied().unwrap_or_default(),
            Mark::Resource => match self.resource_type {
                2 => self.ask(Some(value), group),
                32 => self.ask(None, Some(value)),
                _ => self.ask(None, None),
            },
            Mark::Acks => self.found.acks = number16(value),
            Mark::Replica => self.replica |= number32(value) != Some(-1),
            Mark::Session => self.found.session = number32(value).map(|n| (at.start, n)),
            Mark::Epoch => self.found.epoch = number32(value).map(|n| (at.start, n)),
            _ => {}
        }
        if self.only_the_beginning && matches!(mark, Mark::Topic | Mark::TopicId) {
            return Err(Halt::Enough);
        }
        Ok(())
    }
}

/// Heartbeats name topics only when these change.
fn is_heartbeat(key: i16) -> bool {
    matches!(key, schema::CONSUMER_GROUP_HEARTBEAT | schema::SHARE_GROUP_HEARTBEAT)
}

fn number16(value: &[u8]) -> Option<i16> {
    value.try_into().ok().map(i16::from_be_bytes)
}

fn number32(value: &[u8]) -> Option<i32> {
    value.try_into().ok().map(i32::from_be_bytes)
}
