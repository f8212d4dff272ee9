//! What a connection speaks, by its first bytes. Asked only where policy wants to see requests and
//! refuses none: a wrong guess costs visibility, never a connection.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// Servers of some protocols speak first; their clients are waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest method that is known as one.
const LONGEST_METHOD: usize = 16;

/// Whether the client begins with an HTTP/1 request line.
pub(super) async fn speaks_http(client: &TcpStream) -> bool {
    let mut first = [0; LONGEST_METHOD + 2];
    match timeout(PATIENCE, client.peek(&mut first)).await {
        Ok(Ok(length)) => is_request_line(&first[..length]),
        _ => false,
    }
}

/// A method, a space, and what begins a target (RFC 9112 section 3), as far as it has come.
fn is_request_line(bytes: &[u8]) -> bool {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    // HTTP/2 begins like a request of HTTP/1, and is none (RFC 9113 section 3.4).
    let good = (1..=LONGEST_METHOD).contains(&method) && &bytes[..method] != b"PRI";
    match &bytes[method..] {
        [] => good,
        [b' '] => good,
        [b' ', target, ..] => good && (*target == b'/' || *target == b'*' || *target == b'h'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_told_from_other_protocols() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1"[..], true),
            (b"OPTIONS * HTTP", true),
            (b"GET http://a/", true),
            (b"GE", true),
            (b"", false),
            (b"\x16\x03\x01\x02\x00", false),
            (b"SSH-2.0-x", false),
            (b"PRI * HTTP/2.0", false),
            (b"EHLO mail", false),
            (b"\x00\x00\x00\x20", false),
        ] {
            assert_eq!(is_request_line(bytes), expected, "{bytes:?}");
        }
    }
}
