//! Regular expressions as policies write them: RE2's syntax, always matched against the whole
//! value, in time linear in its length.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Pattern`]: one expression, reduced to the simplest thing that decides it |
//! | `shape.rs` | what an expression comes down to |
//! | `syntax.rs` | RE2's syntax in terms of the Rust one |
//! | `example.rs` | a value that an expression matches |
//! | `automaton.rs` | one or many expressions as one table: a look-up a byte |
//! | `trie.rs` | which of many strings does a value begin with? |
//! | `group.rs` | expressions compiled together |
//! | `set.rs` | thousands of expressions at the cost of a few |

mod automaton;
mod example;
mod group;
mod set;
mod shape;
mod syntax;
mod trie;

use std::sync::Arc;

pub(crate) use self::set::PatternSet;
use self::shape::Shape;

/// Why a pattern was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is not a regular expression.
    #[error("{0}")]
    Syntax(String),
    /// Its automaton would be too large: matching must stay cheap whatever the value.
    #[error("it is too complex: its automaton needs more than {} KiB", .0 / 1024)]
    TooComplex(usize),
}

/// One expression. It matches a value only as a whole, as if it stood between `^(?:` and `)$`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Arc<str>,
    pub(crate) shape: Shape,
}

/// Most literals that a pattern is expanded into.
const MAX_LITERALS: usize = 64;

impl Pattern {
    /// Compiles an expression in RE2's syntax.
    ///
    /// # Errors
    /// [`PatternError`] if it isn't one, or needs more memory than any honest one does.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let shape = match Shape::of_plain(text) {
            Some(shape) => shape,
            None => Shape::of(&syntax::parse(text)?)?,
        };
        Ok(Self { text: text.into(), shape })
    }

    /// An expression that may match anywhere in the value, unless it says otherwise itself.
    pub(crate) fn anywhere(text: &str) -> Result<Self, PatternError> {
        // On its own first, so that no parenthesis in it can close ours.
        syntax::parse(text)?;
        Self::new(&format!("(?s:.*)(?:{text})(?s:.*)"))
    }

    /// Bytes held by automata, some of which others may share.
    pub(crate) fn memory(&self) -> usize {
        self.shape.memory()
    }

    /// All values that match, if it names them.
    pub(crate) fn literals(&self) -> Option<impl Iterator<Item = &[u8]>> {
        match &self.shape {
            Shape::Literals(literals) => Some(literals.iter().map(AsRef::as_ref)),
            _ => None,
        }
    }

    /// Whether it is nothing but one value.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(&self.shape, Shape::Literals(literals) if literals.len() == 1)
    }

    /// What every value that matches begins with.
    pub(crate) fn required_prefix(&self) -> &[u8] {
        match &self.shape {
            Shape::Any => b"",
            Shape::Literals(literals) => literals.first().map_or(b"", |literal| literal),
            Shape::Prefix(prefix) | Shape::Regex { prefix, .. } => prefix,
        }
    }

    /// Exactly this value.
    pub(crate) fn literal(value: &str) -> Self {
        let shape = Shape::Literals([value.as_bytes().into()].into());
        Self { text: regex_syntax::escape(value).into(), shape }
    }

    /// Every value that begins so.
    pub(crate) fn prefix(value: &str) -> Self {
        let text = format!("{}.*", regex_syntax::escape(value)).into();
        Self { text, shape: Shape::Prefix(value.as_bytes().into()) }
    }

    /// The text, shared; patterns of the same text are the same.
    pub(crate) fn text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole value matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.shape.matches(value)
    }

    /// Whether the values, joined by commas, match as one.
    pub(crate) fn matches_joined<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match &self.shape {
            Shape::Any => values.all(is_one_line),
            Shape::Literals(literals) => joined_is_any(values, literals),
            Shape::Prefix(prefix) => joined_starts_with(values, prefix),
            Shape::Regex { .. } => {
                joined(values, &mut |value| self.matches(value)).unwrap_or(false)
            }
        }
    }
}

/// Calls `with` with the values joined by commas; `None` if there are none. Few and short ones, as they
/// are but for attacks, cost no allocation.
pub(crate) fn joined<'v, T>(
    mut values: impl Iterator<Item = &'v [u8]>,
    with: &mut dyn FnMut(&[u8]) -> T,
) -> Option<T> {
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(with(first)) };
    let mut room = [0_u8; 256];
    let mut long = Vec::new();
    let mut length = 0;
    let parts = [first, b",", second].into_iter().chain(values.flat_map(|v| [&b","[..], v]));
    for part in parts {
        match room.get_mut(length..length + part.len()).filter(|_| long.is_empty()) {
            Some(place) => place.copy_from_slice(part),
            None => {
                if long.is_empty() {
                    long.extend_from_slice(&room[..length]);
                }
                long.extend_from_slice(part);
            }
        }
        length += part.len();
    }
    Some(if long.is_empty() { with(&room[..length]) } else { with(&long) })
}

/// `.` does not match a line feed.
fn is_one_line(value: &[u8]) -> bool {
    memchr::memchr(b'\n', value).is_none()
}

/// Whether the values, joined by commas, are one of `wanted`: at most [`MAX_LITERALS`].
pub(crate) fn joined_is_any<'v, L: AsRef<[u8]>>(
    values: impl Iterator<Item = &'v [u8]>,
    wanted: &[L],
) -> bool {
    debug_assert!(wanted.len() <= MAX_LITERALS);
    // A bit for each that is still possible; all of those agree with the values up to `at`.
    let mut possible = u64::MAX;
    let mut at = 0;
    let mut first = true;
    for value in values {
        let comma: &[u8] = if std::mem::take(&mut first) { b"" } else { b"," };
        for part in [comma, value] {
            for (index, literal) in wanted.iter().enumerate() {
                let rest = literal.as_ref().get(at..);
                if !rest.is_some_and(|rest| rest.starts_with(part)) {
                    possible &= !(1 << index);
                }
            }
            at += part.len();
        }
    }
    let fits = |(index, literal): (usize, &L)| {
        possible & (1 << index) != 0 && literal.as_ref().len() == at
    };
    !first && wanted.iter().enumerate().any(fits)
}

/// Whether the values, joined by commas, begin with `prefix` and go on in one line.
pub(crate) fn joined_starts_with<'v>(
    values: impl Iterator<Item = &'v [u8]>,
    prefix: &[u8],
) -> bool {
    let mut rest = prefix;
    let mut first = true;
    for value in values {
        if !std::mem::take(&mut first) && !rest.is_empty() {
            match rest.split_first() {
                Some((b',', after)) => rest = after,
                _ => return false,
            }
        }
        let shared = rest.len().min(value.len());
        if rest[..shared] != value[..shared] || !is_one_line(&value[shared..]) {
            return false;
        }
        rest = &rest[shared..];
    }
    !first && rest.is_empty()
}

/// Whether the values, joined by commas, end with `suffix`.
pub(crate) fn joined_ends_with<'v>(values: impl Iterator<Item = &'v [u8]>, suffix: &[u8]) -> bool {
    // How much of the suffix the end of what was seen so far may still be, kept as the last bytes.
    let mut last = [0_u8; LONGEST_SUFFIX];
    let Some(last) = last.get_mut(..suffix.len()) else { return false };
    let mut seen = 0;
    let mut first = true;
    for value in values {
        let comma: &[u8] = if std::mem::take(&mut first) { b"" } else { b"," };
        for part in [comma, value] {
            let kept = last.len().saturating_sub(part.len());
            let begin = last.len() - kept;
            last.copy_within(begin.., 0);
            let tail = &part[part.len() - (last.len() - kept)..];
            last[kept..].copy_from_slice(tail);
            seen += part.len();
        }
    }
    !first && seen >= suffix.len() && last == suffix
}

/// Longest suffix that can be asked for.
pub(crate) const LONGEST_SUFFIX: usize = 256;

#[cfg(test)]
mod tests {
    use super::shape::Rest;
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(value.as_bytes())
    }

    #[test]
    fn a_pattern_matches_the_whole_value_or_not_at_all() {
        for (pattern, value, expected) in [
            ("/public", "/public", true),
            ("/public", "/public/x", false),
            ("/public", "/x/public", false),
            ("/public/.*", "/public/", true),
            ("/public/.*", "/public", false),
            ("^/public/.*$", "/public/a", true),
            ("GET|POST", "POST", true),
            ("GET|POST", "POSTS", false),
            ("^GET|POST$", "GETS", false),
            ("[0-9]+", "12", true),
            ("[0-9]+", "12a", false),
            (".*", "", true),
            ("", "", true),
            ("", "x", false),
            ("/a/[^/]+/b", "/a/x/b", true),
            ("/a/[^/]+/b", "/a/x/y/b", false),
            ("(?i)get", "GeT", true),
            ("/a(/.*)?", "/a", true),
            ("/a(/.*)?", "/ab", false),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn plain_text_means_the_same_without_the_parser() {
        for text in ["/a", "/a/.*", "^/a$", "^/a/.*$", "", ".*", "^$", "GET", "/a b~%41"] {
            let parsed = Shape::of(&syntax::parse(text).unwrap()).unwrap();
            let plain = Shape::of_plain(text).unwrap();
            assert_eq!(format!("{plain:?}"), format!("{parsed:?}"), "{text}");
        }
        for text in ["/a.b", "/a|b", "/.*/a", "a*", r"\Q", "[a]", "a$b", "/a{1}"] {
            assert!(Shape::of_plain(text).is_none(), "{text}");
        }
    }

    #[test]
    fn simple_patterns_need_no_automaton() {
        let shape = |pattern: &str| Pattern::new(pattern).unwrap().shape;
        assert!(matches!(shape(".*"), Shape::Any));
        assert!(matches!(shape("/a/.*"), Shape::Prefix(_)));
        assert!(matches!(shape("^/a/.*$"), Shape::Prefix(_)));
        assert!(matches!(shape("/a|/b"), Shape::Literals(_)));
        assert!(matches!(shape("/a/(b|c)/d"), Shape::Literals(_)));
        let Shape::Regex { prefix, .. } = shape("/a/[0-9]+") else { panic!() };
        assert_eq!(&*prefix, b"/a/");
    }

    #[test]
    fn gaps_between_slashes_share_their_automata() {
        let gap = |pattern: &str| match Pattern::new(pattern).unwrap().shape {
            Shape::Regex { rest, .. } => match &*rest {
                Rest::Gap { gap, .. } => gap.clone(),
                _ => panic!("{pattern}"),
            },
            _ => panic!("{pattern}"),
        };
        assert!(Arc::ptr_eq(&gap("/a/[0-9]+/x"), &gap("/b/[0-9]+/y/.*")));
        for (pattern, value, expected) in [
            ("/a/[0-9]+/x", "/a/12/x", true),
            ("/a/[0-9]+/x", "/a/12/xy", false),
            ("/a/[0-9]+/x", "/a//x", false),
            ("/a/[0-9]+/x", "/a/12", false),
            ("/a/v[0-9]*/x/[a-z]+/.*", "/a/v/x/b/", true),
            ("/a/v[0-9]*/x/[a-z]+/.*", "/a/v1/x/b", false),
            ("/a/(b|c)?/[0-9]+", "/a//1", true),
            ("/a/(b/c|d)/[0-9]+", "/a/b/c/1", true),
            ("/a/[^/]+$/b", "/a/x/b", false),
            (r"/a/\bx[0-9]+/y", "/a/x1/y", true),
            ("/.*/a/.*/b", "/x/a/y/b", true),
            ("/.*/a/.*/b", "/x/a/b", false),
            ("/.*/a/.*", "//a/", true),
            ("/.*/a/.*", "/a/", false),
            (".*aba.*aba", "ababa", false),
            (".*aba.*aba", "abaaba", true),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn an_exploding_pattern_is_refused() {
        let error = Pattern::new(".*x.{24}y.*x.{24}").unwrap_err();
        assert!(matches!(error, PatternError::TooComplex(_)), "{error}");
    }

    #[test]
    fn several_fields_are_one_value_joined_by_commas() {
        let joined = |pattern: &str, values: &[&str]| {
            let pattern = Pattern::new(pattern).unwrap();
            pattern.matches_joined(values.iter().map(|value| value.as_bytes()))
        };
        assert!(joined("1,2", &["1", "2"]));
        assert!(!joined("1", &["1", "2"]));
        assert!(joined("[0-9]+", &["12"]));
        assert!(!joined("[0-9]+", &["1", "2"]));
        assert!(joined("[0-9,]+", &["1", "2"]));
        assert!(joined("a.*", &["a", "b"]));
        assert!(joined("a,b.*", &["a", "bc"]));
        assert!(!joined("a,b.*", &["a", "c"]));
        assert!(joined("a,b|c", &["a", "b"]));
        assert!(joined("a,b|c", &["c"]));
        assert!(!joined("a,b|c", &["a"]));
        assert!(!joined("a,b|a,c", &["a", "b", "c"]));
        assert!(!joined("a", &[]));
        let ends = |suffix: &str, values: &[&str]| {
            joined_ends_with(values.iter().map(|value| value.as_bytes()), suffix.as_bytes())
        };
        assert!(ends("c", &["abc"]));
        assert!(ends("abc", &["abc"]));
        assert!(!ends("abcd", &["abc"]));
        assert!(ends("b,c", &["ab", "c"]));
        assert!(!ends("b", &["ab", "c"]));
        assert!(ends("", &["x"]));
        assert!(!ends("", &[]));
    }
}
