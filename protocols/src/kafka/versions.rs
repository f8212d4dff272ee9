//! `ApiVersions` narrowed to what the gate can judge: what it does not know is dropped, and nothing
//! is raised.

use super::answer::set_length;
use super::api::{Api, error};
use super::header::LENGTH_BYTES;
use super::schema;
use super::wire::{Halt, Reader, write_length};

/// The broker's response with what clients may use. `frame` is all of it, `version` is the request's.
pub(super) fn narrow(
    frame: &[u8],
    version: i16,
    rewrites_brokers: bool,
    out: &mut Vec<u8>,
) -> Result<i16, Halt> {
    let mut reader = Reader::new(frame, LENGTH_BYTES + 4, frame.len(), false);
    let error = reader.int16()?;
    // A broker that does not know the version says so in version 0 (KIP-511).
    let flexible = version >= 3 && error != error::UNSUPPORTED_VERSION;
    reader.set_flexible(flexible);
    let begin = reader.position();
    let count = reader.length()?.unwrap_or(0);
    let mut kept = 0;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (key, first, last) = (reader.int16()?, reader.int16()?, reader.int16()?);
        let tags = reader.position();
        if flexible {
            reader.skip_tags()?;
        }
        let offered = Api::find(key).and_then(|api| api.offered(rewrites_brokers));
        let Some((known_first, known_last)) = offered else { continue };
        // Clients take the first version of Produce for the age of a broker (KAFKA-18659).
        let first = if key == schema::PRODUCE { first } else { first.max(known_first) };
        let last = last.min(known_last);
        if first > last {
            continue;
        }
        kept += 1;
        for number in [key, first, last] {
            entries.extend_from_slice(&number.to_be_bytes());
        }
        entries.extend_from_slice(reader.slice(tags, reader.position()));
    }
    out.extend_from_slice(&frame[..begin]);
    write_length(kept, flexible, out);
    out.extend_from_slice(&entries);
    out.extend_from_slice(&frame[reader.position()..]);
    set_length(out);
    Ok(error)
}

/// What a client of a newer version is told, so that it asks again (KIP-511).
pub(super) fn unsupported(correlation: i32) -> Vec<u8> {
    let mut out = vec![0; LENGTH_BYTES];
    out.extend_from_slice(&correlation.to_be_bytes());
    out.extend_from_slice(&error::UNSUPPORTED_VERSION.to_be_bytes());
    write_length(1, false, &mut out);
    let (first, last) = Api::find(schema::API_VERSIONS).map_or((0, 0), |api| api.schema().versions);
    for number in [schema::API_VERSIONS, first, last] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    set_length(&mut out);
    out
}
