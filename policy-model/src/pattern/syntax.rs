//! RE2's syntax in terms of the Rust one. The two agree but for a few corners; those are rewritten
//! here, so that a policy means what it means to the reference.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;

use super::PatternError;

/// Parses an expression in RE2's syntax, byte by byte: `.` is any byte but a line feed, `\d`, `\w`
/// and `\s` are ASCII.
pub(super) fn parse(text: &str) -> Result<Hir, PatternError> {
    ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .nest_limit(200)
        .build()
        .parse(&translate(text)?)
        .map_err(|error| PatternError::Syntax(sentence(&error)))
}

/// Reads what an expression was printed as.
pub(super) fn reparse(text: &str) -> Option<Hir> {
    ParserBuilder::new().unicode(false).utf8(false).nest_limit(250).build().parse(text).ok()
}

/// The parser's error without the drawing around it.
fn sentence(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "it can't be read".to_owned(),
    }
}

/// Rewrites what RE2 reads differently.
fn translate(text: &str) -> Result<String, PatternError> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\\' => escape(rest, &mut out)?,
            '[' => class(rest, &mut out)?,
            // A brace that begins no repetition is a brace: `/users/{id}`.
            '{' if !is_repetition(rest) => {
                out.push_str("\\{");
                1
            }
            '(' => {
                check_flags(rest)?;
                out.push('(');
                1
            }
            c => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    Ok(out)
}

/// An escape outside of a class; returns how much of `rest` it takes.
fn escape(rest: &str, out: &mut String) -> Result<usize, PatternError> {
    if let Some(quoted) = rest.strip_prefix("\\Q") {
        let (literal, ended) = match quoted.find("\\E") {
            Some(end) => (&quoted[..end], 2),
            None => (quoted, 0),
        };
        out.push_str(&regex_syntax::escape(literal));
        return Ok(2 + literal.len() + ended);
    }
    if rest.starts_with("\\C") {
        out.push_str("(?s-u:.)");
        return Ok(2);
    }
    Ok(escaped(rest, out))
}

/// An escape that means the same inside and outside of a class. `\<` is a bracket to RE2, and the
/// beginning of a word to Rust.
fn escaped(rest: &str, out: &mut String) -> usize {
    match rest[1..].chars().next() {
        Some(c @ ('<' | '>')) => {
            out.push(c);
            2
        }
        Some(c) => {
            out.push('\\');
            out.push(c);
            1 + c.len_utf8()
        }
        None => {
            out.push('\\');
            1
        }
    }
}

/// A bracketed class: Rust's have nesting and set operations, RE2's have not.
fn class(rest: &str, out: &mut String) -> Result<usize, PatternError> {
    let mut at = 1;
    out.push('[');
    if rest[at..].starts_with('^') {
        out.push('^');
        at += 1;
    }
    // A closing bracket in the first place is a literal.
    if rest[at..].starts_with(']') {
        out.push_str("\\]");
        at += 1;
    }
    while let Some(c) = rest[at..].chars().next() {
        let here = &rest[at..];
        match c {
            ']' => {
                out.push(']');
                return Ok(at + 1);
            }
            '[' if here.starts_with("[:") && here.contains(":]") => {
                let end = here.find(":]").map_or(2, |end| end + 2);
                out.push_str(&here[..end]);
                at += end;
            }
            '\\' => at += escaped(here, out),
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
                at += 1;
            }
            // `--` would be a difference; here it is a hyphen at one end of a range.
            '-' if here.starts_with("--") && !out.ends_with(['[', '^']) => {
                out.push_str("-\\-");
                at += 2;
            }
            '-' if here.starts_with("--") => {
                out.push_str("\\-");
                at += 1;
            }
            c => {
                out.push(c);
                at += c.len_utf8();
            }
        }
    }
    Err(PatternError::Syntax("unclosed character class".to_owned()))
}

/// `{2}`, `{2,}`, `{2,3}`.
fn is_repetition(rest: &str) -> bool {
    let Some(end) = rest.find('}') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match rest[1..end].split_once(',') {
        Some((least, most)) => digits(least) && (most.is_empty() || digits(most)),
        None => digits(&rest[1..end]),
    }
}

/// RE2 knows the flags i, m, s and U; Rust's others would change the meaning silently.
fn check_flags(rest: &str) -> Result<(), PatternError> {
    let Some(flags) = rest.strip_prefix("(?") else { return Ok(()) };
    if flags.starts_with(['P', '<']) {
        return Ok(());
    }
    let flags = flags.split([')', ':']).next().unwrap_or_default();
    match flags.chars().find(|c| !"imsU-".contains(*c)) {
        Some(flag) => Err(PatternError::Syntax(format!("unknown flag or look-around `(?{flag}`"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::Pattern;

    #[test]
    fn corners_mean_what_they_mean_to_re2() {
        for (pattern, value, expected) in [
            ("/users/{id}", "/users/{id}", true),
            ("/a{2}", "/aa", true),
            ("/a{,2}", "/a{,2}", true),
            (r"\Qa.b\E.*", "a.bc", true),
            (r"\Qa.b\E.*", "axbc", false),
            (r"\<a\>", "<a>", true),
            ("[a&&b]+", "a&b", true),
            ("[[a]+", "[a", true),
            ("[]a]+", "]a", true),
            ("[^]a]", "]", false),
            ("[+--]", ",", true),
            ("[[:digit:]]+", "12", true),
            (r"\d", "\u{663}", false),
            (r"[\w.-]+", "a.b-c", true),
        ] {
            let compiled = Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(compiled.matches(value.as_bytes()), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in ["*", "(", "[a", "(?x)a", "(?=a)", "(?!a)", r"(a)\1", "a{5,2}"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
