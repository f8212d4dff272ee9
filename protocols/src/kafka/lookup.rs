//! The gate's own question to the broker: what are topics of these ids called?

use std::ops::Range;

use super::answer::set_length;
use super::api::Api;
use super::header::LENGTH_BYTES;
use super::ids::{NO_ID, Named, TopicId};
use super::plan::{Purpose, plan};
use super::schema::{self, Mark};
use super::walk::Visitor;
use super::wire::{Halt, Reader, write_length, write_text};

/// The version to ask in. Who names topics by id in another request speaks to a broker that has it:
/// it came before them (KIP-516).
pub(super) const VERSION: i16 = 12;

/// The number of the question; the broker's answer has it again.
pub(super) const CORRELATION: i32 = i32::from_be_bytes(*b"Port");

/// Appends a Metadata request for `ids`.
pub(super) fn ask(ids: &[TopicId], client_id: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(&schema::METADATA.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&CORRELATION.to_be_bytes());
    write_text(Some(client_id), false, out);
    out.push(0);
    write_length(ids.len(), true, out);
    for id in ids {
        out.extend_from_slice(id);
        write_text(None, true, out);
        out.push(0);
    }
    // No topic is to be created, and nobody's rights are asked for; no tagged fields.
    out.extend_from_slice(&[0, 0, 0]);
    set_length(&mut out[begin..]);
}

/// Ids and names of topics in a Metadata response, of which all is there.
pub(super) fn read(frame: &[u8], version: i16) -> Result<Vec<Named>, Halt> {
    let api = Api::metadata();
    let plan = plan(api.place(), version, Purpose::Response).ok_or(Halt::Enough)?;
    let tags = usize::from(api.schema().has_response_tags(version));
    let mut found = Found::default();
    let body = LENGTH_BYTES + 4 + tags;
    plan.walk(&mut Reader::new(frame, body, frame.len(), plan.flexible), &mut found)?;
    Ok(found.names)
}

#[derive(Default)]
struct Found<'a> {
    name: Option<&'a [u8]>,
    id: TopicId,
    names: Vec<Named>,
}

impl<'a> Visitor<'a> for Found<'a> {
    fn item_end(&mut self, mark: Mark, _: usize) -> Result<(), Halt> {
        if mark == Mark::Topics
            && let Some(name) = self.name.take()
            && self.id != NO_ID
        {
            self.names.push((self.id, name.into()));
        }
        Ok(())
    }

    fn value(&mut self, mark: Mark, _: Range<usize>, value: Option<&'a [u8]>) -> Result<(), Halt> {
        match mark {
            Mark::Topic => self.name = value,
            Mark::TopicId => self.id = value.and_then(|id| id.try_into().ok()).unwrap_or(NO_ID),
            _ => {}
        }
        Ok(())
    }
}
