//! Changes to a request's head that rules ask for, made once it is judged.

use http::{HeaderMap, HeaderName, HeaderValue};
use portreeve_policy::HeaderEdit;

/// Changes in the order in which rules ask for them.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<Edit>);

#[derive(Debug)]
enum Edit {
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
    Replace(HeaderName, HeaderValue),
}

impl Edits {
    /// Takes one down. Names and values were checked when the policy was read.
    pub(crate) fn note(&mut self, edit: HeaderEdit<'_>) {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).ok();
        let edit = match edit {
            HeaderEdit::Add { name: n, value: v } => {
                name(n).zip(value(v)).map(|(n, v)| Edit::Add(n, v))
            }
            HeaderEdit::Remove { name: n } => name(n).map(Edit::Remove),
            HeaderEdit::Replace { name: n, value: v } => {
                name(n).zip(value(v)).map(|(n, v)| Edit::Replace(n, v))
            }
        };
        self.0.extend(edit);
    }

    /// Makes them.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        for edit in self.0 {
            match edit {
                Edit::Add(name, value) => {
                    headers.append(name, value);
                }
                Edit::Remove(name) => {
                    headers.remove(name);
                }
                Edit::Replace(name, value) => {
                    headers.insert(name, value);
                }
            }
        }
    }
}
