//! Kafka's primitive types, read strictly (Kafka protocol guide, "Protocol Primitive Types").
//!
//! A frame may be read while only its beginning has arrived: what lies beyond the frame is a lie, and
//! what lies beyond the bytes that are there is not known yet.

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// More of the frame must arrive.
    Short,
    /// It is not what the protocol says.
    Malformed(Malformed),
    /// Whoever looks on has seen enough.
    Enough,
    /// An answer would be larger than may be held.
    TooLarge,
    /// It names more than may be named.
    TooMany,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A field goes beyond the end of the frame.
    Beyond,
    /// An array has more items than the frame has bytes.
    Count,
    /// A length or a count is below -1.
    Negative,
    /// A field is null that may not be.
    Null,
    /// A varint is longer than it needs to be, or too large.
    Varint,
    /// Tagged fields are out of order, or one has another size than it says.
    Tags,
}

impl From<Malformed> for Halt {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// A place in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    /// As much of the frame as is there.
    bytes: &'a [u8],
    at: usize,
    /// Where the frame ends.
    end: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// At `at` in a frame of `end` bytes, of which `bytes` are there.
    pub(super) fn new(bytes: &'a [u8], at: usize, end: usize, flexible: bool) -> Self {
        Self { bytes: &bytes[..bytes.len().min(end)], at, end, flexible }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[from..to]
    }

    /// Moves on by `n` bytes.
    #[inline]
    pub(super) fn skip(&mut self, n: usize) -> Result<usize, Halt> {
        let from = self.at;
        match from.checked_add(n) {
            Some(to) if to <= self.bytes.len() => {
                self.at = to;
                Ok(from)
            }
            Some(to) if to <= self.end => Err(Halt::Short),
            _ => Err(Malformed::Beyond.into()),
        }
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Halt> {
        let at = self.skip(1)?;
        Ok(self.bytes[at])
    }

    /// Moves on by a byte if that is 0.
    #[inline]
    pub(super) fn skip_zero(&mut self) -> bool {
        let zero = self.bytes.get(self.at) == Some(&0);
        self.at += usize::from(zero);
        zero
    }

    #[inline]
    pub(super) fn int16(&mut self) -> Result<i16, Halt> {
        let at = self.skip(2)?;
        Ok(i16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    #[inline]
    pub(super) fn int32(&mut self) -> Result<i32, Halt> {
        let at = self.skip(4)?;
        let bytes = &self.bytes;
        Ok(i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    }

    /// An unsigned varint of at most 32 bits, in as few bytes as it needs.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, Halt> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(first.into());
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.byte()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            match byte {
                0 => break,
                1..0x80 => return Ok(value),
                _ => {}
            }
        }
        Err(Malformed::Varint.into())
    }

    /// The length of a text, `None` if it is null.
    #[inline]
    pub(super) fn text_length(&mut self) -> Result<Option<usize>, Halt> {
        if self.flexible {
            return self.compact_length();
        }
        match self.int16()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed::Negative.into()),
        }
    }

    /// The length of bytes or the count of an array, `None` if it is null.
    #[inline]
    pub(super) fn length(&mut self) -> Result<Option<usize>, Halt> {
        if self.flexible {
            return self.compact_length();
        }
        match self.int32()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed::Negative.into()),
        }
    }

    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>, Halt> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    /// The number and the size of the next tagged field; `least` is one more than the one before had.
    /// Some readers take a number for a signed one, and some take the last of two that are alike
    /// (KIP-482).
    pub(super) fn tag(&mut self, least: &mut u32) -> Result<(u32, usize), Halt> {
        let tag = self.varint()?;
        if tag < *least || i32::try_from(tag).is_err() {
            return Err(Malformed::Tags.into());
        }
        *least = tag + 1;
        Ok((tag, self.varint()? as usize))
    }

    /// Moves on over tagged fields of which none is known.
    pub(super) fn skip_tags(&mut self) -> Result<(), Halt> {
        let mut least = 0;
        for _ in 0..self.varint()? {
            let (_, size) = self.tag(&mut least)?;
            self.skip(size)?;
        }
        Ok(())
    }

    /// Bytes that are left of the frame, whether they are there or not.
    pub(super) fn left(&self) -> usize {
        self.end - self.at
    }
}

/// Writes an unsigned varint.
pub(super) fn write_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Writes the length of bytes or the count of an array. What came from a frame fits.
pub(super) fn write_length(length: usize, flexible: bool, out: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX - 1);
    if flexible {
        write_varint(length + 1, out);
    } else {
        out.extend_from_slice(&length.to_be_bytes());
    }
}

/// Writes a text, or null.
pub(super) fn write_text(text: Option<&[u8]>, flexible: bool, out: &mut Vec<u8>) {
    match (text, flexible) {
        (None, true) => out.push(0),
        (None, false) => out.extend_from_slice(&(-1_i16).to_be_bytes()),
        (Some(text), true) => {
            write_length(text.len(), true, out);
            out.extend_from_slice(text);
        }
        (Some(text), false) => {
            // Longer than its type allows can only be a text that was compact; it is cut.
            let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&text[..usize::from(length.unsigned_abs())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Result<u32, Halt> {
        Reader::new(bytes, 0, bytes.len(), true).varint()
    }

    #[test]
    fn a_varint_is_read_in_its_shortest_form_only() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut out = Vec::new();
            write_varint(value, &mut out);
            assert_eq!(varint(&out), Ok(value));
        }
        let malformed = Err(Halt::Malformed(Malformed::Varint));
        assert_eq!(varint(&[0x80, 0x00]), malformed);
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x10]), malformed);
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x8f]), malformed);
        assert_eq!(varint(&[0xff, 0xff]), Err(Halt::Malformed(Malformed::Beyond)));
        assert_eq!(Reader::new(&[0xff], 0, 5, true).varint(), Err(Halt::Short));
    }

    #[test]
    fn what_lies_beyond_the_frame_is_told_from_what_has_not_come() {
        let mut reader = Reader::new(&[0, 9, b'a'], 0, 20, false);
        assert_eq!(reader.text_length(), Ok(Some(9)));
        assert_eq!(reader.skip(9), Err(Halt::Short));
        assert_eq!(reader.skip(19), Err(Halt::Malformed(Malformed::Beyond)));
        assert_eq!(reader.skip(usize::MAX), Err(Halt::Malformed(Malformed::Beyond)));
    }
}
