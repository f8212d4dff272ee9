//! Chunked bodies (RFC 9112 section 7.1), either way: where they end, and that every reader agrees
//! on it.

use super::head::{self, Section};
use super::limits::Limits;
use super::refusal::Refusal;

/// Bytes of a chunk's size line: sixteen digits would do, extensions are all but unheard of.
const SIZE_LINE: usize = 256;

/// Where in a chunked body the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// A size line is next.
    Size,
    /// A chunk's data has passed; its line end and the next size line are due.
    DataEnd,
    /// The last chunk has passed; the trailer section is due, or the empty line that ends it.
    Trailer,
    /// The body has passed.
    Done,
}

/// What the unread bytes of a chunked body allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next `n` bytes, those of the chunk that have not arrived included, are part of the
    /// body. `n > 0`.
    Pass(u64),
    /// Not enough to tell.
    NeedInput,
    /// The body is over.
    Done,
}

impl Chunked {
    /// Takes as many whole chunks as are there, and the last one's data even if it isn't.
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Progress, Refusal> {
        let mut passed: u64 = 0;
        loop {
            let rest = match usize::try_from(passed) {
                Ok(passed) if passed <= input.len() => &input[passed..],
                // The data goes on beyond what has arrived.
                _ => return Ok(Progress::Pass(passed)),
            };
            let taken = match self {
                Self::Done if passed == 0 => return Ok(Progress::Done),
                Self::Done => return Ok(Progress::Pass(passed)),
                Self::Size => self.size(rest, 0),
                Self::DataEnd => match rest {
                    [b'\r', b'\n', rest @ ..] => self.size(rest, 2),
                    [] | [b'\r'] => Ok(None),
                    _ => Err(Refusal::ChunkEnd),
                },
                Self::Trailer => self.trailer(rest, limits),
            };
            match taken {
                Ok(Some(taken)) => passed = passed.saturating_add(taken),
                // What was passed is passed; the error comes again when asked again.
                Ok(None) | Err(_) if passed > 0 => return Ok(Progress::Pass(passed)),
                Ok(None) => return Ok(Progress::NeedInput),
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Reads a size line, with `before` bytes ahead of it; returns the length of line and data.
    fn size(&mut self, rest: &[u8], before: u64) -> Result<Option<u64>, Refusal> {
        let window = &rest[..rest.len().min(SIZE_LINE)];
        let digits = window.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        // More than 2^60 bytes is no honest chunk, and fifteen digits can't overflow.
        if digits > 15 {
            return Err(Refusal::ChunkSize);
        }
        let line = match &window[digits..] {
            [] if rest.len() < SIZE_LINE => return Ok(None),
            _ if digits == 0 => return Err(Refusal::ChunkSize),
            [b'\r', b'\n', ..] => digits + 2,
            [b'\r'] => return Ok(None),
            [b';', extension @ ..] => match extension_end(extension)? {
                Some(end) => digits + 1 + end,
                None if rest.len() < SIZE_LINE => return Ok(None),
                None => return Err(Refusal::ChunkExtension),
            },
            _ => return Err(Refusal::ChunkSize),
        };
        let digits = std::str::from_utf8(&rest[..digits]).map_err(|_| Refusal::ChunkSize)?;
        let size = u64::from_str_radix(digits, 16).map_err(|_| Refusal::ChunkSize)?;
        *self = if size == 0 { Self::Trailer } else { Self::DataEnd };
        Ok(Some(before + line as u64 + size))
    }

    fn trailer(&mut self, rest: &[u8], limits: &Limits) -> Result<Option<u64>, Refusal> {
        let length = match rest {
            [b'\r', b'\n', ..] => 2,
            [] | [b'\r'] => return Ok(None),
            _ => match head::find_end(rest, 0, limits)? {
                Section::Complete(length) => {
                    check_trailer(&rest[..length])?;
                    length
                }
                Section::Partial(_) => return Ok(None),
            },
        };
        *self = Self::Done;
        Ok(Some(length as u64))
    }
}

/// Behind the `;`: where the line ends, if it is there; printable characters up to it.
fn extension_end(extension: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(end) = extension.iter().position(|b| !matches!(b, b'\t' | b' '..=b'~')) else {
        return Ok(None);
    };
    match &extension[end..] {
        [b'\r', b'\n', ..] => Ok(Some(end + 2)),
        [b'\r'] => Ok(None),
        _ => Err(Refusal::ChunkExtension),
    }
}

/// Fields that would change the meaning of the message they trail (RFC 9110 section 6.5.1).
const NOT_IN_TRAILERS: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "upgrade",
    "authorization",
    "content-encoding",
    "trailer",
];

/// Whether a field may stand in a head only, whatever its name's case.
pub(crate) fn belongs_into_head(name: &str) -> bool {
    NOT_IN_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn check_trailer(section: &[u8]) -> Result<(), Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            match fields.iter().any(|field| belongs_into_head(field.name)) {
                true => Err(Refusal::TrailerField),
                false => Ok(()),
            }
        }
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooManyFields),
        Err(httparse::Error::HeaderName) => Err(Refusal::FieldName),
        _ => Err(Refusal::FieldValue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that belong to the body, or the refusal.
    fn body(input: &str) -> Result<u64, Refusal> {
        let (mut state, mut at) = (Chunked::Size, 0);
        loop {
            match state.advance(&input.as_bytes()[at..], &Limits::default())? {
                Progress::Pass(n) => at += usize::try_from(n).unwrap(),
                Progress::Done => return Ok(at as u64),
                Progress::NeedInput => panic!("{input:?} is incomplete at {at}"),
            }
        }
    }

    #[test]
    fn a_body_ends_where_the_rfc_says() {
        assert_eq!(body("5\r\nhello\r\n0\r\n\r\nGET"), Ok(15));
        assert_eq!(body("0\r\n\r\n"), Ok(5));
        assert_eq!(body("A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"), Ok(30));
        assert_eq!(body("1;name=value\r\nx\r\n0\r\n\r\n"), Ok(22));
        assert_eq!(body("00001\r\nx\r\n0\r\n\r\n"), Ok(15));
    }

    #[test]
    fn a_chunk_beyond_the_input_is_passed_whole() {
        let mut state = Chunked::Size;
        let progress = state.advance(b"ffff\r\nabc", &Limits::default());
        assert_eq!(progress, Ok(Progress::Pass(6 + 0xffff)));
        assert_eq!(state, Chunked::DataEnd);
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        for (input, refusal) in [
            ("x\r\n", Refusal::ChunkSize),
            ("-1\r\n", Refusal::ChunkSize),
            ("0x5\r\n", Refusal::ChunkSize),
            ("+5\r\n", Refusal::ChunkSize),
            (" 5\r\n", Refusal::ChunkSize),
            ("5 \r\n", Refusal::ChunkSize),
            ("5\nhello", Refusal::ChunkSize),
            ("5\rx", Refusal::ChunkSize),
            ("\r\n", Refusal::ChunkSize),
            ("ffffffffffffffff0\r\n", Refusal::ChunkSize),
            ("1;a\nb\r\nx", Refusal::ChunkExtension),
            ("1;a\rb\r\nx", Refusal::ChunkExtension),
            ("1\r\nxy\r\n", Refusal::ChunkEnd),
            ("1\r\nx\n", Refusal::ChunkEnd),
            ("0\r\nContent-Length: 5\r\n\r\n", Refusal::TrailerField),
            ("0\r\nX : 5\r\n\r\n", Refusal::FieldName),
            ("0\r\nX: 5\n\r\n", Refusal::BareLineFeed),
        ] {
            assert_eq!(body(input), Err(refusal), "{input:?}");
        }
        let long = format!("1;{}\r\nx", "a".repeat(300));
        assert_eq!(body(&long), Err(Refusal::ChunkExtension));
    }
}
