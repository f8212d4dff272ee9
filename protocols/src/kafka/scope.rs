//! One level of a request, looked into again to write an answer from it.

use std::ops::Range;

use super::plan::Plan;
use super::schema::Mark;
use super::walk::{ArrayHead, Visitor};
use super::wire::{Halt, Reader};

/// The marked values and arrays of one structure; what is inside of its arrays is not among them.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    values: [Option<Option<&'a [u8]>>; Mark::COUNT],
    arrays: [Option<Items>; Mark::COUNT],
    /// How deep inside of arrays the walk is.
    depth: usize,
}

/// The items of an array.
#[derive(Clone, Debug)]
pub(super) struct Items {
    pub(super) count: usize,
    /// The steps over an item.
    pub(super) body: Range<usize>,
    /// Where the first one begins.
    pub(super) first: usize,
}

impl<'a> Scope<'a> {
    /// The structure that `steps` lead over from `at`, and where it ends.
    pub(super) fn read(
        plan: &Plan,
        steps: Range<usize>,
        frame: &'a [u8],
        at: usize,
    ) -> Result<(Self, usize), Halt> {
        let mut scope = Self { values: [None; Mark::COUNT], arrays: Default::default(), depth: 0 };
        let mut reader = Reader::new(frame, at, frame.len(), plan.flexible);
        plan.walk_steps(steps, &mut reader, &mut scope)?;
        Ok((scope, reader.position()))
    }

    /// The value of this mark; `None` if there is none here, `Some(None)` if it is null.
    pub(super) fn value(&self, mark: Mark) -> Option<Option<&'a [u8]>> {
        self.values[mark as usize]
    }

    /// The array of this mark, if there is one here and it is not null.
    pub(super) fn items(&self, mark: Mark) -> Option<&Items> {
        self.arrays[mark as usize].as_ref()
    }
}

impl<'a> Visitor<'a> for Scope<'a> {
    fn array(&mut self, head: &ArrayHead) -> Result<(), Halt> {
        if self.depth == 0
            && let Some(count) = head.count
        {
            let items = Items { count, body: head.body.clone(), first: head.header.end };
            self.arrays[head.mark as usize] = Some(items);
        }
        self.depth += 1;
        Ok(())
    }

    fn array_end(&mut self, _: Mark) -> Result<(), Halt> {
        self.depth -= 1;
        Ok(())
    }

    fn value(&mut self, mark: Mark, _: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt> {
        if self.depth == 0 {
            self.values[mark as usize] = Some(value);
        }
        Ok(())
    }
}
