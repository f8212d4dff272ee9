//! gRPC as it looks on HTTP/2 (the protocol's document "gRPC over HTTP2"): names, statuses, and where
//! one message ends and the next begins.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Names of the statuses, by their numbers.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How many statuses have names.
pub const STATUS_NAMES: usize = STATUSES.len();

/// The name of a status: `PERMISSION_DENIED` for 7.
#[must_use]
pub fn status_name(code: u8) -> &'static str {
    STATUSES.get(usize::from(code)).copied().unwrap_or("(unknown)")
}

/// Whether the message is gRPC's: `application/grpc`, alone or with a `+format` or parameters.
/// gRPC-Web (`application/grpc-web`) is HTTP.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let Some((kind, rest)) = value.as_bytes().split_at_checked(16) else { return false };
    kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest, [] | [b'+' | b';' | b' ', ..])
}

/// Service and method of a path: `/shop.v1.Orders/Get` is `shop.v1.Orders` and `Get`.
#[must_use]
pub fn names(path: &str) -> Option<(&str, &str)> {
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    (!service.is_empty() && !method.is_empty()).then_some((service, method))
}

/// The status that trailers (or the head of an answer without a body) carry.
#[must_use]
pub fn status(fields: &HeaderMap) -> Option<u8> {
    let value = fields.get("grpc-status")?.to_str().ok()?;
    value.parse().ok()
}

/// The status that stands for an HTTP status, as gRPC clients map them ("HTTP to gRPC Status Code
/// Mapping").
#[must_use]
pub fn from_http(status: u16) -> u8 {
    match status {
        400 | 307 | 405 | 408 | 414 | 417 | 431 => 13,
        401 => 16,
        403 => 7,
        404 | 501 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// Counts the messages of one direction: each is a flag, four bytes of length, and so many bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Messages {
    /// Those that have begun.
    count: u64,
    /// Bytes of the prefix that have come.
    prefix: u8,
    length: u32,
    /// Bytes of the message that are to come.
    left: u32,
}

impl Messages {
    /// Bytes before each message.
    const PREFIX: u8 = 5;

    /// Looks at the next bytes of the body.
    pub fn look(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = bytes.len().min(self.left as usize);
                // n <= left, which is a u32.
                self.left -= u32::try_from(n).unwrap_or(self.left);
                bytes = &bytes[n..];
                continue;
            }
            if self.prefix > 0 {
                self.length = self.length << 8 | u32::from(bytes[0]);
            }
            self.prefix += 1;
            bytes = &bytes[1..];
            if self.prefix == Self::PREFIX {
                self.count += 1;
                self.left = self.length;
                (self.prefix, self.length) = (0, 0);
            }
        }
    }

    /// Messages whose prefix has come.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_path_names_service_and_method() {
        assert_eq!(names("/shop.v1.Orders/Get"), Some(("shop.v1.Orders", "Get")));
        assert_eq!(names("/prefix/shop.v1.Orders/Get"), Some(("prefix/shop.v1.Orders", "Get")));
        for other in ["/", "/a", "//", "/a/", "*", "/?a/b"] {
            assert_eq!(names(other), None, "{other}");
        }
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut body = Vec::new();
        for length in [0_u32, 1, 300, 0, 70_000] {
            body.push(0);
            body.extend_from_slice(&length.to_be_bytes());
            body.resize(body.len() + length as usize, 7);
        }
        for piece in [1, 2, 3, 5, 7, 1000, body.len()] {
            let mut messages = Messages::default();
            body.chunks(piece).for_each(|chunk| messages.look(chunk));
            assert_eq!(messages.count(), 5, "in pieces of {piece}");
        }
    }
}
