//! The gate's own question to the broker: what are topics of these ids called?

use super::answer::set_length;
use super::header::LENGTH_BYTES;
use super::ids::TopicId;
use super::schema;
use super::wire::{write_length, write_text};

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
