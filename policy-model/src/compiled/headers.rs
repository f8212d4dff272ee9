//! Conditions on header fields, and what happens when they are not met.

use super::http::{HeaderEdit, HttpRequest};
use crate::pattern::{joined_is_any, joined_starts_with};
use crate::rule::{HeaderMatch, HeaderValue, Mismatch};

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

    fn is_met(&self, request: &impl HttpRequest) -> bool {
        match self.name.as_str() {
            // HTTP/2's names for the parts of the request line, as the reference knows them.
            ":method" => self.value.holds(std::iter::once(request.method())),
            ":path" => self.value.holds(std::iter::once(request.path())),
            ":authority" => self.value.holds(std::iter::once(request.host())),
            name => self.value.holds(request.header_values(name)),
        }
    }
}

impl HeaderValue {
    fn holds<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Exact(wanted) => joined_is_any(values, &[wanted]),
            Self::Prefix(prefix) => joined_starts_with(values, prefix.as_bytes()),
            Self::Matches(pattern) => pattern.matches_joined(values),
            Self::Unknown => false,
        }
    }
}
