//! DNS names and patterns of them: `toFQDNs`, `rules.dns`, `serverNames`.

use std::hash::{Hash, Hasher};

use crate::pattern::Pattern;

/// A name, or a pattern of names, lower case and without the final dot. In a pattern, `*` stands for
/// any part of one label, `**.` at the beginning for one label or more, and `*` alone for every name
/// (Cilium `pkg/fqdn/matchpattern`).
#[derive(Clone, Debug)]
pub(crate) struct NamePattern {
    text: String,
    pattern: Pattern,
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for NamePattern {}

impl Hash for NamePattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// Longest name (Cilium's schema).
const LONGEST: usize = 255;

/// What may stand in for `*`.
#[derive(Clone, Copy)]
enum Star {
    /// Any part of a label, the empty one too.
    Part,
    /// A whole label.
    Label,
}

impl NamePattern {
    /// `matchName`.
    pub(crate) fn name(text: &str) -> Result<Self, String> {
        check(text, false)?;
        Self::compile(text, Star::Part)
    }

    /// `matchPattern`.
    pub(crate) fn pattern(text: &str) -> Result<Self, String> {
        check(text, true)?;
        Self::compile(text, Star::Part)
    }

    /// An item of `serverNames`: here `*` is one whole label.
    pub(crate) fn server_name(text: &str) -> Result<Self, String> {
        check(text, true)?;
        Self::compile(text, Star::Label)
    }

    fn compile(text: &str, star: Star) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let text = text.strip_suffix('.').unwrap_or(&text).to_owned();
        let expression = match (text.as_str(), star) {
            ("*", Star::Part) => ".*".to_owned(),
            (text, star) => expression(text, star),
        };
        let pattern = Pattern::new(&expression).map_err(|error| error.to_string())?;
        Ok(Self { text, pattern })
    }

    /// As it is compared.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the name, or one of the names, in any case, with or without the final dot.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut lower = [0_u8; LONGEST];
        let Some(lower) = lower.get_mut(..name.len()) else { return false };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        self.pattern.matches(lower)
    }
}

fn check(text: &str, pattern: bool) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || (pattern && b == b'*');
    if text.is_empty() {
        return Err("a name can't be empty".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} characters"));
    }
    if !text.bytes().all(good) {
        let stars = if pattern { ", `*`" } else { "" };
        return Err(format!("letters, digits, `-`, `_`, `.`{stars} only"));
    }
    Ok(())
}

fn expression(text: &str, star: Star) -> String {
    const LABEL: &str = "[-a-zA-Z0-9_]";
    let mut out = String::new();
    let mut rest = text;
    if let Some(after) = text.strip_prefix("**.") {
        out.push_str(&format!("({LABEL}+[.])+"));
        rest = after;
    }
    let mut starred = false;
    for c in rest.chars() {
        match (c, star) {
            // A run of stars is one.
            ('*', _) if starred => {}
            ('*', Star::Part) => out.push_str(&format!("{LABEL}*")),
            ('*', Star::Label) => out.push_str(&format!("{LABEL}+")),
            ('.', _) => out.push_str("[.]"),
            (c, _) => out.push(c),
        }
        starred = c == '*';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_cross_a_dot() {
        for (pattern, name, expected) in [
            ("*.cilium.io", "www.cilium.io", true),
            ("*.cilium.io", "a.b.cilium.io", false),
            ("*.cilium.io", "cilium.io", false),
            ("*cilium.io", "cilium.io", true),
            ("*cilium.io", "xcilium.io", true),
            ("*cilium.io", "a.cilium.io", false),
            ("*.cilium.io", "www.ciliumXio", false),
            ("*", "a.b.c", true),
            ("**.cilium.io", "a.b.cilium.io", true),
            ("**.cilium.io", "cilium.io", false),
            ("a**b.example", "axxb.example", true),
            ("WWW.example.", "www.Example", true),
        ] {
            assert_eq!(
                NamePattern::pattern(pattern).unwrap().matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_star_in_a_server_name_is_one_label() {
        let matches =
            |pattern: &str, name: &str| NamePattern::server_name(pattern).unwrap().matches(name);
        assert!(matches("*.example.com", "a.example.com"));
        assert!(!matches("*.example.com", ".example.com"));
        assert!(!matches("*.example.com", "a.b.example.com"));
        assert!(matches("**.example.com", "a.b.example.com"));
        assert!(!matches("example.com", "exampleXcom"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert!(NamePattern::name("a*b").is_err());
        assert!(NamePattern::pattern("a b").is_err());
        assert!(NamePattern::name("").is_err());
        assert!(NamePattern::name(&"a".repeat(256)).is_err());
    }
}
