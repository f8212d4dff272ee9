//! The answers that the gate writes itself.

/// An answer of the gate's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Where a redirect leads.
    pub(super) location: Option<Box<str>>,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self { status, location: None }
    }

    pub(super) fn redirect(location: String) -> Self {
        Self { status: 307, location: Some(location.into()) }
    }

    /// Writes the answer. To HEAD it is the same without the body (RFC 9110 section 9.3.2).
    pub(super) fn write(&self, to_head: bool, closes: bool, out: &mut Vec<u8>) {
        let (reason, body) = text(self.status);
        out.extend_from_slice(b"HTTP/1.1 ");
        write_number(u64::from(self.status), out);
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(location) = &self.location {
            out.extend_from_slice(b"location: ");
            out.extend_from_slice(location.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.status == 405 {
            // RFC 9110 section 15.5.6 asks for a list; which methods pass is policy's affair.
            out.extend_from_slice(b"allow: \r\n");
        }
        out.extend_from_slice(b"content-type: text/plain\r\ncontent-length: ");
        write_number(body.len() as u64, out);
        out.extend_from_slice(b"\r\n");
        if closes {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !to_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

/// Reason phrase and body.
pub(crate) fn text(status: u16) -> (&'static str, &'static str) {
    match status {
        307 => ("Temporary Redirect", "The path has escaped slashes; use the clean path\r\n"),
        400 => ("Bad Request", "Bad request\r\n"),
        403 => ("Forbidden", "Access denied\r\n"),
        405 => ("Method Not Allowed", "Method not allowed\r\n"),
        408 => ("Request Timeout", "Request timeout\r\n"),
        414 => ("URI Too Long", "Target too long\r\n"),
        417 => ("Expectation Failed", "Expectation failed\r\n"),
        431 => ("Request Header Fields Too Large", "Header fields too large\r\n"),
        501 => ("Not Implemented", "Not implemented\r\n"),
        502 => ("Bad Gateway", "The upstream broke the protocol\r\n"),
        503 => ("Service Unavailable", "The upstream can't be reached\r\n"),
        505 => ("HTTP Version Not Supported", "HTTP version not supported\r\n"),
        _ => ("Error", "Error\r\n"),
    }
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    if number >= 10 {
        write_number(number / 10, out);
    }
    out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_says_so_in_plain_text() {
        let mut out = Vec::new();
        Reply::new(403).write(false, false, &mut out);
        let expected = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\n\
                        content-length: 15\r\n\r\nAccess denied\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn head_gets_the_same_head_and_no_body() {
        let mut out = Vec::new();
        Reply::new(503).write(true, true, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("content-length: 31\r\n") && text.ends_with("connection: close\r\n\r\n")
        );
    }
}
