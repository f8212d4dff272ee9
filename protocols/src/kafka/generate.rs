//! Messages made up by their schemas: every field of a version, with values that a seed chooses. For
//! tests and fuzz targets.

use super::answer::set_length;
use super::api::Api;
use super::header::LENGTH_BYTES;
use super::schema::{self, Field, Kind, Mark, Schema};
use super::wire::{write_length, write_text, write_varint};

/// Where choices come from: bytes of a fuzzer's, and after them a number that goes on by itself.
pub(super) struct Choices<'a> {
    bytes: &'a [u8],
    random: u64,
}

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8], seed: u64) -> Self {
        Self { bytes, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    pub(super) fn next(&mut self) -> u8 {
        if let Some((first, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return *first;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.to_be_bytes()[3]
    }

    fn below(&mut self, n: u8) -> u8 {
        self.next() % n.max(1)
    }
}

/// Every API and version that is known.
pub fn every_version() -> impl Iterator<Item = (i16, i16)> {
    schema::ALL.iter().flat_map(|schema| {
        (schema.versions.0..=schema.versions.1).map(|version| (schema.key, version))
    })
}

/// A request's frame.
pub(super) fn request(api: Api, version: i16, choices: &mut Choices<'_>) -> Vec<u8> {
    let schema = api.schema();
    let mut out = vec![0; LENGTH_BYTES];
    out.extend_from_slice(&schema.key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, choices.next()]);
    write_text(Some(b"client"), false, &mut out);
    if schema.is_flexible(version) {
        out.push(0);
    }
    out.extend_from_slice(&body(schema, schema.request, version, choices));
    set_length(&mut out);
    out
}

/// A response's frame, to the request of this correlation id.
pub(super) fn response(
    api: Api,
    version: i16,
    correlation: [u8; 4],
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let schema = api.schema();
    let mut out = vec![0; LENGTH_BYTES];
    out.extend_from_slice(&correlation);
    if schema.has_response_tags(version) {
        out.push(0);
    }
    out.extend_from_slice(&body(schema, schema.response, version, choices));
    set_length(&mut out);
    out
}

/// The body of a request or a response.
pub(super) fn body(
    schema: &Schema,
    fields: &[Field],
    version: i16,
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let flexible = schema.is_flexible(version);
    let mut writer = Writer { version, flexible, choices, out: Vec::new(), depth: 0 };
    writer.structure(fields);
    writer.out
}

struct Writer<'c, 'a> {
    version: i16,
    flexible: bool,
    choices: &'c mut Choices<'a>,
    out: Vec<u8>,
    depth: u8,
}

impl Writer<'_, '_> {
    fn structure(&mut self, fields: &[Field]) {
        let version = self.version;
        let mine = || fields.iter().filter(move |field| field.is_in(version));
        for field in mine().filter(|field| field.tagged().is_none()) {
            self.field(field);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<_> = mine().filter(|field| field.tagged().is_some()).collect();
        tagged.sort_by_key(|field| field.tagged());
        tagged.retain(|_| self.choices.below(2) == 0);
        let unknown = self.choices.below(8) == 0;
        write_varint(u32::try_from(tagged.len()).unwrap_or(0) + u32::from(unknown), &mut self.out);
        for field in tagged {
            write_varint(field.tagged().unwrap_or_default(), &mut self.out);
            let outer = std::mem::take(&mut self.out);
            self.field(field);
            let value = std::mem::replace(&mut self.out, outer);
            write_varint(u32::try_from(value.len()).unwrap_or(0), &mut self.out);
            self.out.extend_from_slice(&value);
        }
        if unknown {
            // A tag, a size, and that many bytes.
            write_varint(1000, &mut self.out);
            self.out.extend_from_slice(&[3, 1, 2, 3]);
        }
    }

    fn field(&mut self, field: &Field) {
        let null = field.is_nullable(self.version) && self.choices.below(4) == 0;
        match field.kind {
            Kind::Fixed(size) => self.fixed(field.mark, size),
            Kind::Text if null => write_text(None, self.flexible, &mut self.out),
            Kind::Text => {
                let names = ["topic1", "denied", "", "other.topic"];
                let name = names[usize::from(self.choices.below(4))];
                write_text(Some(name.as_bytes()), self.flexible, &mut self.out);
            }
            Kind::Bytes if null => self.null_length(),
            Kind::Bytes => {
                let length = usize::from(self.choices.below(20));
                write_length(length, self.flexible, &mut self.out);
                self.out.extend(std::iter::repeat_n(7, length));
            }
            Kind::Array(_) | Kind::List(_) if null => self.null_length(),
            Kind::Array(item) | Kind::List(item) => {
                let count = self.choices.below(if self.depth > 3 { 2 } else { 4 });
                write_length(count.into(), self.flexible, &mut self.out);
                self.depth += 1;
                for _ in 0..count {
                    match field.kind {
                        Kind::List(_) => item.iter().for_each(|field| self.field(field)),
                        _ => self.structure(item),
                    }
                }
                self.depth -= 1;
            }
            Kind::Structure(_) if null => self.out.push(0xff),
            Kind::Structure(fields) => {
                if field.is_nullable(self.version) {
                    self.out.push(1);
                }
                self.structure(fields);
            }
        }
    }

    fn fixed(&mut self, mark: Option<Mark>, size: u8) {
        let value: i128 = match mark {
            Some(Mark::Replica) => -1,
            Some(Mark::Epoch) => i128::from(self.choices.below(3)) - 1,
            Some(Mark::Acks) => i128::from(self.choices.below(3)) - 1,
            Some(Mark::KeyType) => i128::from(self.choices.below(2)),
            // Of topic ids only a few, so that they are met again.
            _ => i128::from(self.choices.below(3)),
        };
        // A boolean is 0 or 1.
        let value = if size == 1 && mark.is_none() { value & 1 } else { value };
        self.out.extend_from_slice(&value.to_be_bytes()[16 - usize::from(size)..]);
    }

    fn null_length(&mut self) {
        if self.flexible {
            self.out.push(0);
        } else {
            self.out.extend_from_slice(&(-1_i32).to_be_bytes());
        }
    }
}
