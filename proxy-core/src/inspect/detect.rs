//! What a connection speaks, by its first bytes. Asked only where policy wants to see requests and
//! refuses none: a wrong guess costs visibility, never a connection.

use std::time::Duration;

use portreeve_protocols::kafka::api_name;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Servers of some protocols speak first; their clients are waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for more of a first segment that is too short to tell.
const PAUSE: Duration = Duration::from_millis(2);

/// Longest method that is known as one.
const LONGEST_METHOD: usize = 16;

/// Bytes that are looked at.
const LOOKED_AT: usize = LONGEST_METHOD + 2;

/// Whether the client begins with an HTTP/1 request line.
pub(super) async fn speaks_http(client: &TcpStream) -> bool {
    timeout(PATIENCE, first_bytes(client, is_request_line)).await.unwrap_or(false)
}

/// Whether the client begins with a Kafka request.
pub(super) async fn speaks_kafka(client: &TcpStream) -> bool {
    timeout(PATIENCE, first_bytes(client, is_kafka_request)).await.unwrap_or(false)
}

/// Asks `is_it` about the first bytes until it has an answer.
async fn first_bytes(client: &TcpStream, is_it: fn(&[u8]) -> Option<bool>) -> bool {
    let mut first = [0; LOOKED_AT];
    let mut seen = 0;
    loop {
        match client.peek(&mut first).await {
            Ok(length) if length > seen => match is_it(&first[..length]) {
                Some(answer) => return answer,
                None => seen = length,
            },
            // What is there does not become more while it is only looked at, so there is nothing to
            // be woken by.
            Ok(length) if length > 0 => sleep(PAUSE).await,
            Ok(_) | Err(_) => return false,
        }
    }
}

/// A length that a first request may have, an API that clients use, and a version that is not far from
/// what there is (Kafka protocol guide, "Protocol Requests"). `None`: it may become one.
fn is_kafka_request(bytes: &[u8]) -> Option<bool> {
    let [a, b, c, d, rest @ ..] = bytes else { return None };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    if !(8..1 << 20).contains(&length) {
        return Some(false);
    }
    let [a, b, c, d, ..] = rest else { return None };
    let (key, version) = (i16::from_be_bytes([*a, *b]), i16::from_be_bytes([*c, *d]));
    Some(api_name(key).is_some() && (0..64).contains(&version))
}

/// A method, a space, and what begins a target (RFC 9112 section 3); `None`: it may become one.
fn is_request_line(bytes: &[u8]) -> Option<bool> {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    // HTTP/2 begins like a request of HTTP/1, and is none (RFC 9113 section 3.4).
    let good = method <= LONGEST_METHOD && &bytes[..method] != b"PRI";
    match &bytes[method..] {
        [] | [b' '] if good || bytes == b"PRI" => None,
        [b' ', target, ..] if good && method > 0 => {
            Some(*target == b'/' || *target == b'*' || *target == b'h')
        }
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kafka_request_is_told_from_other_protocols() {
        for (bytes, expected) in [
            (&b"\0\0\0\x10\0\x12\0\x04\0\0\0\x01"[..], Some(true)),
            (b"\0\0\0\x10\0\x12\0", None),
            (b"\0\0", None),
            (b"", None),
            (b"GET / HTTP/1.1", Some(false)),
            (b"\0\0\0\x10\x03\xe7\0\0", Some(false)),
            (b"\0\0\0\x07\0\x12\0\0", Some(false)),
            (b"\0\0\0\x10\0\x12\x7f\0", Some(false)),
        ] {
            assert_eq!(is_kafka_request(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_request_line_is_told_from_other_protocols() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1"[..], Some(true)),
            (b"OPTIONS * HTTP", Some(true)),
            (b"GET http://a/", Some(true)),
            (b"GE", None),
            (b"GET ", None),
            (b"S", None),
            (b"", None),
            (b"\x16\x03\x01\x02\x00", Some(false)),
            (b"SSH-2.0-x", Some(false)),
            (b"PRI * HTTP/2.0", Some(false)),
            (b"PRI", None),
            (b"PRINT /", Some(true)),
            (b" /", Some(false)),
            (b"EHLO mail", Some(false)),
            (b"AVERYLONGMETHODINDEED", Some(false)),
            (b"\x00\x00\x00\x20", Some(false)),
        ] {
            assert_eq!(is_request_line(bytes), expected, "{bytes:?}");
        }
    }
}
