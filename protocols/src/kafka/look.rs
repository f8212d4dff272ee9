//! A response is looked through: for its first error, for the names of topics, and for what has to be
//! changed in it.

use std::ops::Range;

use super::advertised::Advertised;
use super::api::Api;
use super::edit::Edits;
use super::header::LENGTH_BYTES;
use super::ids::{NO_ID, Named, TopicId};
use super::in_flight::{Change, Pending};
use super::plan::{Plan, Purpose, plan};
use super::request::{Handler, Subject};
use super::schema::{self, Kind, Mark};
use super::walk::{ArrayHead, Finder, Visitor};
use super::wire::{Halt, Malformed, Reader};

/// Marked arrays that may stand inside of each other.
const DEPTH: usize = 4;

/// What is to be done with a response besides reading it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'w> {
    pub(super) advertised: Option<&'w Advertised>,
    /// Keep the names of topics.
    pub(super) learn: bool,
}

/// What was seen in a response.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The first error.
    pub(super) error: i16,
    pub(super) names: Vec<Named>,
    pub(super) edits: Edits,
}

/// Looks through a response, of which all is there.
pub(super) fn look(
    frame: &[u8],
    pending: &Pending,
    wanted: Wanted<'_>,
    handler: &mut (impl Handler + ?Sized),
) -> Result<Seen, Halt> {
    let (plan, mut reader) = open(frame, frame.len(), pending.api, pending.version)?;
    let change = pending.change();
    let group = change.and_then(|change| change.group.as_deref());
    let mut look = Look {
        pending,
        change,
        wanted,
        flexible: plan.flexible,
        levels: [const { None }; DEPTH],
        depth: 0,
        group,
        topic: None,
        id: NO_ID,
        host: None,
        handler,
        seen: Seen::default(),
    };
    plan.walk(&mut reader, &mut look)?;
    Ok(look.seen)
}

/// Whether responses of this API say addresses of brokers.
pub(super) fn has_hosts(api: Api, version: i16) -> bool {
    api.schema().response.iter().filter(|field| field.is_in(version)).any(|field| {
        field.mark == Some(Mark::Host)
            || matches!(field.kind, Kind::Array(item)
                if item.iter().any(|field| field.mark == Some(Mark::Host)))
    })
}

/// The first error of a response that is too large to be looked through, as far as its first
/// partition. `Short` while too little of it is there.
pub(super) fn first_error(
    input: &[u8],
    length: usize,
    api: Api,
    version: i16,
) -> Result<i16, Halt> {
    let (plan, mut reader) = open(input, length, api, version)?;
    let mut beginning = Beginning { error: 0, in_partitions: false };
    match plan.walk(&mut reader, &mut beginning) {
        Ok(()) | Err(Halt::Enough) => Ok(beginning.error),
        Err(halt) => Err(halt),
    }
}

/// Where the count of the first array of `mark` stands, as far as the response is there.
pub(super) fn find_array(
    input: &[u8],
    length: usize,
    pending: &Pending,
    mark: Mark,
) -> Result<(Range<usize>, usize, bool), Halt> {
    let (plan, mut reader) = open(input, length, pending.api, pending.version)?;
    let mut finder = Finder { mark, found: None };
    match plan.walk(&mut reader, &mut finder) {
        Ok(()) | Err(Halt::Enough) => {}
        Err(halt) => return Err(halt),
    }
    let (header, count) = finder.found.ok_or(Halt::Malformed(Malformed::Beyond))?;
    Ok((header, count, plan.flexible))
}

/// The plan of a response, and a reader at the beginning of its body.
fn open<'a>(
    input: &'a [u8],
    length: usize,
    api: Api,
    version: i16,
) -> Result<(&'static Plan, Reader<'a>), Halt> {
    let plan = plan(api.place(), version, Purpose::Response);
    let plan = plan.ok_or(Halt::Malformed(Malformed::Beyond))?;
    let mut reader = Reader::new(input, LENGTH_BYTES + 4, length, plan.flexible);
    if api.schema().has_response_tags(version) {
        reader.skip_tags()?;
    }
    Ok((plan, reader))
}

/// A marked array that is being walked over.
#[derive(Clone, Debug)]
struct Level {
    mark: Mark,
    header: Range<usize>,
    count: usize,
    kept: usize,
    /// Where the item under way begins.
    item: usize,
}

struct Look<'a, 'l, H: ?Sized> {
    pending: &'l Pending,
    change: Option<&'l Change>,
    wanted: Wanted<'l>,
    flexible: bool,
    levels: [Option<Level>; DEPTH],
    depth: usize,
    group: Option<&'a [u8]>,
    topic: Option<&'a [u8]>,
    id: TopicId,
    host: Option<(Range<usize>, &'a [u8])>,
    handler: &'l mut H,
    seen: Seen,
}

impl<'a, H: Handler + ?Sized> Look<'a, '_, H> {
    /// Whether the client may see the item that ends.
    fn shows(&mut self, mark: Mark) -> bool {
        let Some(change) = self.change.filter(|change| change.filter) else { return true };
        let request = change.request(self.pending);
        match mark {
            Mark::Topics => {
                // One without a name can't be judged.
                let Some(topic) = self.topic else { return false };
                self.handler.shows(
                    &request,
                    &Subject { topic: Some(topic), group: self.group, everything: false },
                )
            }
            Mark::Groups if self.pending.api.key() == schema::LIST_GROUPS => self
                .handler
                .shows(&request, &Subject { topic: None, group: self.group, everything: false }),
            _ => true,
        }
    }

    /// A broker's address is complete.
    fn address(&mut self, at: Range<usize>, port: i32) {
        let Some((host_at, host)) = self.host.take() else { return };
        let told = self.wanted.advertised.and_then(|advertised| advertised.of(host, port));
        if let Some((host, port)) = told {
            self.seen.edits.text(host_at, host.as_bytes(), self.flexible);
            self.seen.edits.replace(at, i32::from(port).to_be_bytes().to_vec());
        }
    }
}

impl<'a, H: Handler + ?Sized> Visitor<'a> for Look<'a, '_, H> {
    fn array(&mut self, head: &ArrayHead) -> Result<(), Halt> {
        let Some(free) = self.levels.get_mut(self.depth) else {
            return Err(Malformed::Count.into());
        };
        let count = head.count.unwrap_or(0);
        let header = head.header.clone();
        *free = Some(Level { mark: head.mark, header, count, kept: 0, item: 0 });
        self.depth += 1;
        Ok(())
    }

    fn item(&mut self, mark: Mark, at: usize) -> Result<(), Halt> {
        if mark == Mark::Topics {
            (self.topic, self.id) = (None, NO_ID);
        }
        if let Some(level) = self.levels[self.depth - 1].as_mut() {
            level.item = at;
        }
        Ok(())
    }

    fn item_end(&mut self, mark: Mark, at: usize) -> Result<(), Halt> {
        let shows = self.shows(mark);
        if let Some(level) = self.levels[self.depth - 1].as_mut() {
            if shows {
                level.kept += 1;
            } else {
                self.seen.edits.remove(level.item..at);
            }
        }
        if self.wanted.learn
            && mark == Mark::Topics
            && let Some(name) = self.topic
            && self.id != NO_ID
        {
            self.seen.names.push((self.id, name.into()));
        }
        Ok(())
    }

    fn array_end(&mut self, mark: Mark) -> Result<(), Halt> {
        self.depth -= 1;
        let Some(level) = self.levels[self.depth].take() else { return Ok(()) };
        let inside = self.levels[..self.depth].iter().flatten().last().map(|outer| outer.mark);
        let group = if inside == Some(Mark::Groups) { self.group } else { None };
        let mut count = level.kept;
        if let Some(change) = self.change {
            for insert in change.inserts.iter().filter(|insert| insert.mark == mark) {
                if insert.inside.as_deref() == group {
                    count += insert.count;
                    let before = level.header.end..level.header.end;
                    self.seen.edits.replace(before, insert.items.clone());
                }
            }
        }
        if count != level.count {
            self.seen.edits.count(level.header, count, self.flexible);
        }
        Ok(())
    }

    fn value(&mut self, mark: Mark, at: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt> {
        let Some(value) = value else { return Ok(()) };
        match mark {
            Mark::Error if self.seen.error == 0 => self.seen.error = error_code(value),
            Mark::Topic => self.topic = Some(value),
            Mark::TopicId => self.id = value.try_into().unwrap_or(NO_ID),
            Mark::Group => self.group = Some(value),
            Mark::Host => self.host = Some((at, value)),
            Mark::Port => {
                if let Ok(port) = value.try_into() {
                    self.address(at, i32::from_be_bytes(port));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Looks for the first error, no further than the first partition.
struct Beginning {
    error: i16,
    in_partitions: bool,
}

impl<'a> Visitor<'a> for Beginning {
    fn item(&mut self, mark: Mark, _: usize) -> Result<(), Halt> {
        self.in_partitions |= mark == Mark::Partitions;
        Ok(())
    }

    fn value(&mut self, mark: Mark, _: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt> {
        if mark == Mark::Error {
            self.error = error_code(value.unwrap_or_default());
            if self.in_partitions || self.error != 0 {
                return Err(Halt::Enough);
            }
        }
        Ok(())
    }
}

fn error_code(value: &[u8]) -> i16 {
    value.try_into().map_or(0, i16::from_be_bytes)
}
