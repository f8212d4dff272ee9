//! The normal form of a request's path (RFC 3986 section 6.2.2), so that policy and server see the
//! same: escapes of unreserved characters decoded, dot segments resolved, slashes merged. An
//! escaped slash is for some servers a slash and for others not: the client is sent to the clean
//! path instead. The query is left alone.

use std::borrow::Cow;

use super::refusal::Refusal;

/// A path and query in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    /// Judge and forward this.
    Path(Cow<'a, str>),
    /// It had escaped slashes or backslashes: redirect (307) to this.
    Redirect(String),
}

/// Brings an origin-form target (RFC 9112 section 3.2.1) into normal form.
///
/// # Errors
/// [`Refusal::TargetCharacter`], [`Refusal::TargetEscape`] or [`Refusal::TargetParameter`] for what
/// has no normal form that all readers agree on.
pub fn normalize(target: &str) -> Result<Normalized<'_>, Refusal> {
    let end = memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    if !target.starts_with('/') || !target.bytes().all(is_allowed) {
        return Err(Refusal::TargetCharacter);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Normalized::Path(Cow::Borrowed(target)));
    }
    let (decoded, slashes) = decode(path)?;
    let mut clean = merge_slashes(&resolve_dots(&decoded)?);
    clean.push_str(query);
    Ok(match slashes {
        true => Normalized::Redirect(clean),
        false => Normalized::Path(Cow::Owned(clean)),
    })
}

/// RFC 3986 allows fewer; these few more are sent by real clients and read alike by all servers.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b'<' | b'>' | b'"' | b'`')
}

/// Whether nothing in the path needs a second look: no escape, no parameter, no empty segment, no
/// segment that begins with a dot.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let suspicious = match byte {
            b'%' | b';' => true,
            b'/' | b'.' => previous == b'/',
            _ => false,
        };
        if suspicious {
            return false;
        }
        previous = byte;
    }
    true
}

/// Decodes escapes of unreserved characters and of slashes; whether there were any of the latter.
fn decode(path: &str) -> Result<(String, bool), Refusal> {
    let mut out = String::with_capacity(path.len());
    let mut slashes = false;
    let mut rest = path;
    while let Some((literal, after)) = rest.split_once('%') {
        out.push_str(literal);
        let byte = after
            .get(..2)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or(Refusal::TargetEscape)?;
        match byte {
            0 => return Err(Refusal::TargetEscape),
            b'/' | b'\\' => {
                slashes = true;
                out.push('/');
            }
            byte if is_unreserved(byte) => out.push(byte.into()),
            _ => {
                out.push('%');
                out.push_str(&after[..2]);
            }
        }
        rest = &after[2..];
    }
    out.push_str(rest);
    Ok((out, slashes))
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn resolve_dots(path: &str) -> Result<String, Refusal> {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path[1..].split('/') {
        ends_in_slash = true;
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment if matches!(segment.split(';').next(), Some("." | "..")) => {
                return Err(Refusal::TargetParameter);
            }
            segment => {
                segments.push(segment);
                ends_in_slash = false;
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_slash || segments.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> String {
        match normalize(target) {
            Ok(Normalized::Path(path)) => path.into_owned(),
            other => panic!("{target}: {other:?}"),
        }
    }

    #[test]
    fn a_path_is_brought_into_the_form_that_all_readers_share() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?c=d", "/a/b?c=d"),
            ("/%61dmin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/../admin", "/admin"),
            ("/public/./a/.", "/public/a/"),
            ("/../../etc", "/etc"),
            ("/..", "/"),
            ("//admin", "/admin"),
            ("/public//../admin", "/public/admin"),
            ("/a///b", "/a/b"),
            ("/a%20b%zz?".split("%zz").next().unwrap(), "/a%20b"),
            ("/a/%E4%B8%AD", "/a/%E4%B8%AD"),
            ("/%252e%252e/admin", "/%252e%252e/admin"),
            ("/a?x=//y/../z%2f", "/a?x=//y/../z%2f"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(path(target), expected, "{target}");
        }
    }

    #[test]
    fn an_escaped_slash_is_redirected_to_the_clean_path() {
        for (target, expected) in [
            ("/public%2F..%2Fadmin", "/admin"),
            ("/a%5cb?q=%2F", "/a/b?q=%2F"),
            ("/%2Fevil.example", "/evil.example"),
            ("/%5C%5Cevil.example/", "/evil.example/"),
        ] {
            let redirect = Normalized::Redirect(expected.to_owned());
            assert_eq!(normalize(target), Ok(redirect), "{target}");
        }
    }

    #[test]
    fn what_has_no_shared_reading_is_refused() {
        for (target, refusal) in [
            ("/a\\b", Refusal::TargetCharacter),
            ("/a#b", Refusal::TargetCharacter),
            ("/a b", Refusal::TargetCharacter),
            ("/a<b>", Refusal::TargetCharacter),
            ("/a?b=\"c\"", Refusal::TargetCharacter),
            ("/\u{e9}", Refusal::TargetCharacter),
            ("/a%00b", Refusal::TargetEscape),
            ("/a%2", Refusal::TargetEscape),
            ("/a%zz", Refusal::TargetEscape),
            ("/a%+1", Refusal::TargetEscape),
            ("/public/..;/admin", Refusal::TargetParameter),
            ("/public/.;x=1/admin", Refusal::TargetParameter),
            ("/public/%2e%2e;/admin", Refusal::TargetParameter),
        ] {
            assert_eq!(normalize(target), Err(refusal), "{target}");
        }
    }

    #[test]
    fn the_normal_form_is_its_own_normal_form() {
        for target in ["/a//b/../c", "/%61%2e/x", "/a/./b//", "/..//..//x"] {
            let once = path(target);
            assert_eq!(path(&once), once, "{target}");
        }
    }
}
