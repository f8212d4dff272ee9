//! Conditions on header fields and query parameters, and what happens when a header's is not met.

use std::net::IpAddr;

use ipnet::IpNet;

use super::http::{HeaderEdit, HttpRequest};
use crate::pattern::{joined_ends_with, joined_is_any, joined_starts_with};
use crate::rule::{HeaderMatch, Mismatch, QueryMatch, ValueMatch};

impl HeaderMatch {
    /// Whether the rule that this is part of still matches: the condition is met, or is one whose
    /// failing has another consequence.
    pub(super) fn lets_pass(&self, request: &impl HttpRequest) -> bool {
        self.mismatch != Mismatch::Fail || self.is_met(request)
    }

    /// Applies the consequence of a condition that is not met.
    pub(super) fn amend(&self, request: &impl HttpRequest, edit: &mut impl FnMut(HeaderEdit<'_>)) {
        if matches!(self.mismatch, Mismatch::Fail | Mismatch::Log) || self.is_met(request) {
            return;
        }
        let name = self.name.as_str();
        match &self.mismatch {
            Mismatch::Fail | Mismatch::Log => {}
            Mismatch::Add(value) => edit(HeaderEdit::Add { name, value }),
            Mismatch::Delete => edit(HeaderEdit::Remove { name }),
            Mismatch::Replace(value) => edit(HeaderEdit::Replace { name, value }),
        }
    }

    pub(super) fn is_met(&self, request: &impl HttpRequest) -> bool {
        match self.name.as_str() {
            // HTTP/2's names for the parts of the request line, as the reference knows them.
            ":method" => self.value.holds(std::iter::once(request.method())),
            ":path" => self.value.holds(std::iter::once(request.path())),
            ":authority" => self.value.holds(std::iter::once(request.host())),
            name => self.value.holds(request.header_values(name)),
        }
    }
}

impl ValueMatch {
    fn holds<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Exact(wanted) => joined_is_any(values, &[wanted]),
            Self::Prefix(prefix) => joined_starts_with(values, prefix.as_bytes()),
            Self::Suffix(suffix) => joined_ends_with(values, suffix.as_bytes()),
            Self::Matches(pattern) => pattern.matches_joined(values),
            Self::Inside(prefixes) => is_inside(values, prefixes),
            Self::Unknown => false,
        }
    }
}

/// One address, and only one: which of several is meant can't be known.
fn is_inside<'v>(mut values: impl Iterator<Item = &'v [u8]>, prefixes: &[IpNet]) -> bool {
    let (Some(only), None) = (values.next(), values.next()) else { return false };
    let text = std::str::from_utf8(only.trim_ascii()).unwrap_or_default();
    match text.parse::<IpAddr>() {
        Ok(address) => prefixes.iter().any(|prefix| prefix.contains(&address)),
        Err(_) => false,
    }
}

/// Longest name or value with escapes of a query parameter that a condition looks at.
const LONGEST: usize = 1024;

impl QueryMatch {
    /// Whether every parameter of this name fulfils the condition, and there is one.
    pub(super) fn is_met(&self, path: &[u8]) -> bool {
        let query = match memchr::memchr(b'?', path) {
            Some(mark) => &path[mark + 1..],
            None => b"",
        };
        let mut found = false;
        let (mut name_room, mut value_room) = ([0; LONGEST], [0; LONGEST]);
        for pair in query.split(|byte| *byte == b'&') {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) =
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            // What is too long to be looked at might be it.
            let Some(name) = decode(name, &mut name_room) else { return false };
            if name != self.name.as_bytes() {
                continue;
            }
            found = true;
            let Some(value) = decode(value, &mut value_room) else { return false };
            if !self.value.holds(std::iter::once(value)) {
                return false;
            }
        }
        match self.value {
            ValueMatch::Absent => !found,
            _ => found,
        }
    }
}

/// Percent-decoding, with `+` as a space, as forms and their readers have it (WHATWG URL,
/// `application/x-www-form-urlencoded`).
fn decode<'r>(text: &'r [u8], room: &'r mut [u8; LONGEST]) -> Option<&'r [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Some(text);
    }
    if text.len() > LONGEST {
        return None;
    }
    let (mut at, mut length) = (0, 0);
    while let Some(&byte) = text.get(at) {
        let hex = |offset: usize| text.get(at + offset).and_then(|b| (*b as char).to_digit(16));
        let (decoded, taken) = match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => (u8::try_from(high * 16 + low).unwrap_or(byte), 3),
            (b'+', ..) => (b' ', 1),
            (byte, ..) => (byte, 1),
        };
        room[length] = decoded;
        length += 1;
        at += taken;
    }
    Some(&room[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(value: ValueMatch, path: &str) -> bool {
        QueryMatch { name: "id".to_owned(), value }.is_met(path.as_bytes())
    }

    #[test]
    fn every_parameter_of_the_name_must_fulfil_the_condition() {
        let exact = || ValueMatch::Exact("a b".to_owned());
        assert!(met(exact(), "/x?id=a+b"));
        assert!(met(exact(), "/x?y=1&id=a%20b"));
        assert!(met(exact(), "/x?%69d=a%20b"));
        assert!(!met(exact(), "/x?id=a+b&id=c"));
        assert!(!met(exact(), "/x"));
        assert!(met(ValueMatch::Absent, "/x?idx=1"));
        assert!(!met(ValueMatch::Absent, "/x?id"));
        assert!(met(ValueMatch::Present, "/x?id"));
        assert!(!met(ValueMatch::Present, &format!("/x?{}", "y".repeat(2000))));
    }

    #[test]
    fn an_address_in_a_header_is_one_address() {
        let prefixes = ["10.0.0.0/8".parse().unwrap()];
        let inside = |values: &[&str]| is_inside(values.iter().map(|v| v.as_bytes()), &prefixes);
        assert!(inside(&["10.1.2.3"]));
        assert!(!inside(&["11.1.2.3"]));
        assert!(!inside(&["10.1.2.3, 11.0.0.1"]));
        assert!(!inside(&["10.1.2.3", "10.1.2.4"]));
    }
}
