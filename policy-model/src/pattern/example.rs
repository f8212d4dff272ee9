//! A value that an expression matches, for questions that policies suggest.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::{Pattern, syntax};

impl Pattern {
    /// Some value that the pattern matches; a short one.
    pub(crate) fn example(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Ok(hir) = syntax::parse(self.as_str()) {
            write(&hir, &mut out);
        }
        // What looks at its surroundings may be missed; then there is none to give.
        if self.matches(&out) { out } else { Vec::new() }
    }
}

fn write(hir: &Hir, out: &mut Vec<u8>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.extend_from_slice(&literal.0),
        HirKind::Class(class) => out.extend(readable(class)),
        HirKind::Capture(capture) => write(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, out)),
        HirKind::Alternation(parts) => {
            if let Some(first) = parts.first() {
                write(first, out);
            }
        }
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                write(&repetition.sub, out);
            }
        }
    }
}

/// A member of a class that a person can read, if it has one.
fn readable(class: &Class) -> Option<u8> {
    let class = match class {
        Class::Bytes(class) => class.clone(),
        Class::Unicode(class) => class.to_byte_class()?,
    };
    let member = |byte: &u8| class.ranges().iter().any(|r| (r.start()..=r.end()).contains(byte));
    let liked = b"x1a0A-_/.".iter().copied().chain(b'!'..=b'~').chain(0..=u8::MAX);
    liked.clone().find(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_matches() {
        for (text, example) in [
            ("/public/.*", "/public/"),
            ("GET|POST", "GET"),
            ("[0-9]+", "1"),
            ("/a/[^/]{2}/(b|c)$", "/a/xx/b"),
            ("(?i)get", "get"),
        ] {
            let pattern = Pattern::new(text).unwrap();
            let found = pattern.example();
            assert!(pattern.matches(&found), "{text}");
            if text != "(?i)get" {
                assert_eq!(String::from_utf8_lossy(&found), example, "{text}");
            }
        }
    }
}
