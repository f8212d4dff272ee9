//! Changes to a frame: items taken out, counts corrected, values replaced.

use std::ops::Range;

use super::answer::set_length;
use super::wire::{write_length, write_text};

/// Changes, by where they are in the frame as it came.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<(Range<usize>, Vec<u8>)>);

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remove(&mut self, at: Range<usize>) {
        self.0.push((at, Vec::new()));
    }

    pub(super) fn replace(&mut self, at: Range<usize>, with: Vec<u8>) {
        self.0.push((at, with));
    }

    /// The count of an array becomes another.
    pub(super) fn count(&mut self, header: Range<usize>, count: usize, flexible: bool) {
        let mut with = Vec::with_capacity(5);
        write_length(count, flexible, &mut with);
        self.replace(header, with);
    }

    /// A text becomes another.
    pub(super) fn text(&mut self, at: Range<usize>, text: &[u8], flexible: bool) {
        let mut with = Vec::with_capacity(text.len() + 2);
        write_text(Some(text), flexible, &mut with);
        self.replace(at, with);
    }

    /// Appends `frame` with the changes, and the length that it now has, to `out`, which is empty.
    pub(super) fn apply(mut self, frame: &[u8], out: &mut Vec<u8>) {
        // What is inserted before an item comes before what becomes of the item.
        self.0.sort_by_key(|(at, _)| (at.start, at.end));
        let mut done = 0;
        for (at, with) in &self.0 {
            // Inside of something that was removed.
            if at.start < done {
                continue;
            }
            out.extend_from_slice(&frame[done..at.start]);
            out.extend_from_slice(with);
            done = at.end;
        }
        out.extend_from_slice(&frame[done..]);
        set_length(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_apply_in_any_order_and_the_length_follows() {
        let mut edits = Edits::default();
        edits.remove(7..9);
        edits.replace(5..6, b"XYZ".to_vec());
        edits.remove(8..9);
        edits.replace(9..9, b"+".to_vec());
        let mut out = Vec::new();
        edits.apply(b"\0\0\0\x06abcdef", &mut out);
        assert_eq!(out, b"\0\0\0\x07aXYZc+f");
    }
}
