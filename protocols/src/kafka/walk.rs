//! A walk over a message: every length and count is checked against the frame before it is believed,
//! and whoever looks on is shown what is marked.

use std::ops::Range;

use super::plan::{Plan, Step};
use super::schema::Mark;
use super::wire::{Halt, Malformed, Reader};

/// Whoever looks on. Positions count from the beginning of the frame.
pub(super) trait Visitor<'a> {
    /// A marked array begins.
    fn array(&mut self, _: &ArrayHead) -> Result<(), Halt> {
        Ok(())
    }

    /// An item of a marked array begins.
    fn item(&mut self, _: Mark, _: usize) -> Result<(), Halt> {
        Ok(())
    }

    /// An item of a marked array has ended.
    fn item_end(&mut self, _: Mark, _: usize) -> Result<(), Halt> {
        Ok(())
    }

    /// A marked array has ended.
    fn array_end(&mut self, _: Mark) -> Result<(), Halt> {
        Ok(())
    }

    /// A marked value, where it is, and its bytes; `None` if it is null.
    fn value(&mut self, mark: Mark, at: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt>;
}

/// The beginning of a marked array.
#[derive(Clone, Debug)]
pub(super) struct ArrayHead {
    pub(super) mark: Mark,
    /// `None`: null.
    pub(super) count: Option<usize>,
    /// Where the count stands.
    pub(super) header: Range<usize>,
    /// The steps of an item.
    pub(super) body: Range<usize>,
}

/// Looks for the first array of a mark, and no further.
pub(super) struct Finder {
    pub(super) mark: Mark,
    /// Where its count stands, and the count.
    pub(super) found: Option<(Range<usize>, usize)>,
}

impl<'a> Visitor<'a> for Finder {
    fn array(&mut self, head: &ArrayHead) -> Result<(), Halt> {
        if head.mark != self.mark {
            return Ok(());
        }
        self.found = Some((head.header.clone(), head.count.unwrap_or(0)));
        Err(Halt::Enough)
    }

    fn value(&mut self, _: Mark, _: Range<usize>, _: Option<&'a [u8]>) -> Result<(), Halt> {
        Ok(())
    }
}

impl Plan {
    /// The steps over an item of the first array of this mark.
    pub(super) fn body_of(&self, wanted: Mark) -> Option<Range<usize>> {
        self.steps.iter().enumerate().find_map(|(place, step)| match step {
            Step::Array { mark: Some(mark), end, .. } if *mark == wanted => {
                Some(place + 1..*end as usize)
            }
            _ => None,
        })
    }

    /// Walks over the whole message, and leaves `reader` behind its last field.
    pub(super) fn walk<'a>(
        &self,
        reader: &mut Reader<'a>,
        visitor: &mut impl Visitor<'a>,
    ) -> Result<(), Halt> {
        self.walk_steps(0..self.steps.len(), reader, visitor)
    }

    /// Walks over a part of the message.
    pub(super) fn walk_steps<'a>(
        &self,
        steps: Range<usize>,
        reader: &mut Reader<'a>,
        visitor: &mut impl Visitor<'a>,
    ) -> Result<(), Halt> {
        let mut next = steps.start;
        while next < steps.end {
            let step = self.steps[next];
            next += 1;
            match step {
                Step::Skip(run) => {
                    reader.skip(run as usize)?;
                }
                Step::Value { mark, size } => {
                    let from = reader.skip(size.into())?;
                    let to = reader.position();
                    visitor.value(mark, from..to, Some(reader.slice(from, to)))?;
                }
                Step::Text { mark, nullable } => walk_text(mark, nullable, reader, visitor)?,
                Step::Bytes { nullable } => match reader.length()? {
                    None if !nullable => return Err(Malformed::Null.into()),
                    None => {}
                    Some(length) => {
                        reader.skip(length)?;
                    }
                },
                Step::Array { mark, nullable, end, size } => {
                    let body = next..end as usize;
                    next = end as usize;
                    self.walk_array(mark, nullable, size as usize, body, reader, visitor)?;
                }
                Step::Optional { end } => match reader.byte()? {
                    0xff => next = end as usize,
                    1 => {}
                    _ => return Err(Malformed::Null.into()),
                },
                Step::Tags { end } => {
                    // Most often there are none.
                    if !reader.skip_zero() {
                        self.walk_tags(next..end as usize, reader, visitor)?;
                    }
                    next = end as usize;
                }
                // Walked from `Tags`.
                Step::Tag { end, .. } => next = end as usize,
            }
        }
        Ok(())
    }

    #[inline]
    fn walk_array<'a>(
        &self,
        mark: Option<Mark>,
        nullable: bool,
        size: usize,
        body: Range<usize>,
        reader: &mut Reader<'a>,
        visitor: &mut impl Visitor<'a>,
    ) -> Result<(), Halt> {
        let begin = reader.position();
        let count = reader.length()?;
        let header = begin..reader.position();
        match count {
            None if !nullable => return Err(Malformed::Null.into()),
            // An item is at least a byte.
            Some(count) if count > reader.left() => return Err(Malformed::Count.into()),
            _ => {}
        }
        if size > 0 {
            reader.skip(count.unwrap_or(0).saturating_mul(size))?;
            return Ok(());
        }
        let Some(mark) = mark else {
            for _ in 0..count.unwrap_or(0) {
                self.walk_steps(body.clone(), reader, visitor)?;
            }
            return Ok(());
        };
        let head = ArrayHead { mark, count, header, body };
        visitor.array(&head)?;
        for _ in 0..count.unwrap_or(0) {
            visitor.item(mark, reader.position())?;
            self.walk_steps(head.body.clone(), reader, visitor)?;
            visitor.item_end(mark, reader.position())?;
        }
        visitor.array_end(mark)
    }

    /// Tagged fields (KIP-482). A reader that knows a field reads it by its type and one that does not
    /// skips it by its size: both must come to the same place.
    fn walk_tags<'a>(
        &self,
        known: Range<usize>,
        reader: &mut Reader<'a>,
        visitor: &mut impl Visitor<'a>,
    ) -> Result<(), Halt> {
        let count = reader.varint()?;
        let mut least = 0;
        for _ in 0..count {
            let (tag, size) = reader.tag(&mut least)?;
            let from = reader.position();
            match self.tag(known.clone(), tag) {
                None => {
                    reader.skip(size)?;
                }
                Some(steps) => {
                    self.walk_steps(steps, reader, visitor)?;
                    if reader.position() - from != size {
                        return Err(Malformed::Tags.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// The steps of a known tagged field.
    fn tag(&self, known: Range<usize>, wanted: u32) -> Option<Range<usize>> {
        let mut next = known.start;
        while next < known.end {
            let Step::Tag { tag, end } = self.steps[next] else { return None };
            if tag == wanted {
                return Some(next + 1..end as usize);
            }
            next = end as usize;
        }
        None
    }
}

#[inline]
fn walk_text<'a>(
    mark: Option<Mark>,
    nullable: bool,
    reader: &mut Reader<'a>,
    visitor: &mut impl Visitor<'a>,
) -> Result<(), Halt> {
    let begin = reader.position();
    let Some(length) = reader.text_length()? else {
        return match mark {
            _ if !nullable => Err(Malformed::Null.into()),
            Some(mark) => visitor.value(mark, begin..reader.position(), None),
            None => Ok(()),
        };
    };
    let from = reader.skip(length)?;
    let to = reader.position();
    match mark {
        Some(mark) => visitor.value(mark, begin..to, Some(reader.slice(from, to))),
        None => Ok(()),
    }
}
