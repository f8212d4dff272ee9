//! Changes that rules ask for to the head of an allowed request, on the types of the `http` crate. The
//! HTTP/1.1 gate has its own, on bytes; both do the same.

use http::{HeaderMap, HeaderName, HeaderValue};
use portreeve_policy::HeaderEdit;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Add a field.
    Add(HeaderName, HeaderValue),
    /// Remove every field of this name.
    Remove(HeaderName),
    /// Remove every field of this name, then add one.
    Replace(HeaderName, HeaderValue),
}

/// Changes in the order in which rules ask for them; none, most of the time, and then nothing is
/// allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits(Vec<Edit>);

/// What frames or routes a message can't be changed, in no version of HTTP.
const FIXED: [HeaderName; 6] = [
    http::header::HOST,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::CONNECTION,
    http::header::UPGRADE,
    http::header::EXPECT,
];

impl Edits {
    /// Takes one down. Names and values were checked when the policy was read.
    pub(crate) fn note(&mut self, edit: HeaderEdit<'_>) {
        let name = |name: &str| {
            HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !FIXED.contains(name))
        };
        let field = |n: &str, v: &str| name(n).zip(HeaderValue::from_bytes(v.as_bytes()).ok());
        self.0.extend(match edit {
            HeaderEdit::Add { name: n, value } => field(n, value).map(|(n, v)| Edit::Add(n, v)),
            HeaderEdit::Remove { name: n } => name(n).map(Edit::Remove),
            HeaderEdit::Replace { name: n, value } => {
                field(n, value).map(|(n, v)| Edit::Replace(n, v))
            }
        });
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Edit> {
        self.0.iter()
    }

    /// Makes them as the HTTP/1.1 gate does: what came with the request is removed first, what rules
    /// add is never removed by another rule.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for edit in &self.0 {
            if let Edit::Remove(name) | Edit::Replace(name, _) = edit {
                headers.remove(name);
            }
        }
        for edit in &self.0 {
            if let Edit::Add(name, value) | Edit::Replace(name, value) = edit {
                headers.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_frame_or_route_a_message_stay_as_they_are() {
        let mut edits = Edits::default();
        edits.note(HeaderEdit::Replace { name: "Host", value: "other" });
        edits.note(HeaderEdit::Remove { name: "content-length" });
        edits.note(HeaderEdit::Add { name: "x", value: "a\nb" });
        assert!(edits.is_empty());
    }

    #[test]
    fn rules_do_not_remove_what_rules_have_added() {
        let mut edits = Edits::default();
        edits.note(HeaderEdit::Add { name: "X-User", value: "a" });
        edits.note(HeaderEdit::Remove { name: "x-user" });
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("forged"));
        edits.apply(&mut headers);
        assert_eq!(headers.get_all("x-user").iter().collect::<Vec<_>>(), ["a"]);
    }
}
