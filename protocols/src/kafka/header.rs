//! The beginning of a request: whose it is and what it asks (Kafka protocol guide, "Request and
//! Response Headers").

use std::ops::Range;

use super::api::Api;
use super::limits::Limits;
use super::refusal::Refusal;
use super::wire::{Halt, Reader};

/// Bytes of the length before each frame.
pub(super) const LENGTH_BYTES: usize = 4;

/// The least that a frame holds: API, version, correlation id.
const LEAST_BYTES: usize = 8;

/// A request's header, as places in its frame.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) api: Api,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) client_id: Range<usize>,
    /// Where the body begins.
    pub(super) body: usize,
}

/// What is known of a frame by its beginning. Lengths include the length before the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) length: usize,
    pub(super) key: i16,
    pub(super) version: i16,
    pub(super) correlation: i32,
}

impl Start {
    /// Reads the beginning of a request; `None` while it is not all there.
    pub(super) fn read(input: &[u8], limits: &Limits) -> Result<Option<Self>, Refusal> {
        let Some(length) = frame_length(input)? else { return Ok(None) };
        if length < LENGTH_BYTES + LEAST_BYTES {
            return Err(Refusal::FrameLength);
        }
        if length - LENGTH_BYTES > limits.frame_bytes as usize {
            return Err(Refusal::FrameTooLarge);
        }
        let Some(head) = input.get(LENGTH_BYTES..LENGTH_BYTES + LEAST_BYTES) else {
            return Ok(None);
        };
        let key = i16::from_be_bytes([head[0], head[1]]);
        let version = i16::from_be_bytes([head[2], head[3]]);
        let correlation = i32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        Ok(Some(Self { length, key, version, correlation }))
    }
}

/// The length of the next frame, its own four bytes included.
pub(super) fn frame_length(input: &[u8]) -> Result<Option<usize>, Refusal> {
    match input {
        [a, b, c, d, ..] => match usize::try_from(i32::from_be_bytes([*a, *b, *c, *d])) {
            Ok(length) => Ok(Some(LENGTH_BYTES + length)),
            Err(_) => Err(Refusal::FrameLength),
        },
        _ => Ok(None),
    }
}

impl Header {
    /// Reads the header of a request whose API and version are known.
    pub(super) fn read(input: &[u8], start: Start, api: Api) -> Result<Self, Halt> {
        let mut reader = Reader::new(input, LENGTH_BYTES + LEAST_BYTES, start.length, false);
        // Not compact, whatever the version (KIP-511).
        let length = reader.text_length()?.unwrap_or(0);
        let from = reader.skip(length)?;
        let client_id = from..reader.position();
        if api.schema().is_flexible(start.version) {
            reader.skip_tags()?;
        }
        Ok(Self {
            api,
            version: start.version,
            correlation: start.correlation,
            client_id,
            body: reader.position(),
        })
    }
}
