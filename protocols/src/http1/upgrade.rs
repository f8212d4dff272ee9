//! `Upgrade: h2c` (RFC 7540 section 3.2): a first request that asks to go on in HTTP/2, and is then the
//! first stream there. RFC 9113 has given it up, and Java's and curl's clients still ask for it.

use std::mem::MaybeUninit;

use super::head::{self, Fields, Section};
use super::limits::Limits;

/// Fields that are about the connection, or become pseudo-fields.
const LEFT_OUT: [&str; 7] =
    ["connection", "host", "http2-settings", "keep-alive", "proxy-connection", "upgrade", "te"];

/// A request that asks for HTTP/2, as the first stream's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct H2c {
    /// Bytes of the request; what follows is HTTP/2 once the upgrade is granted.
    pub length: usize,
    /// The head as a field block (RFC 7541), all of it literals that are not indexed.
    pub block: Vec<u8>,
}

/// Reads the request at the front of `input`, if it is one that asks for HTTP/2.
#[must_use]
pub fn h2c(input: &[u8], limits: &Limits) -> Option<H2c> {
    let Ok(Section::Complete(length)) = head::find_end(input, 0, limits) else { return None };
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; Limits::MAX_HEADERS as usize];
    let head = head::parse(&input[..length], &mut fields, limits).ok().filter(|head| head.h2c)?;
    let mut block = Vec::with_capacity(length + 64);
    literal(b":method", head.method.as_bytes(), &mut block);
    literal(b":scheme", b"http", &mut block);
    literal(b":authority", head.host.as_bytes(), &mut block);
    literal(b":path", head.target.as_bytes(), &mut block);
    for field in head.fields {
        let name = field.name.to_ascii_lowercase();
        if !LEFT_OUT.contains(&&*name) {
            literal(name.as_bytes(), field.value.trim_ascii(), &mut block);
        }
    }
    Some(H2c { length, block })
}

/// A literal field that is not indexed, with a new name (RFC 7541 section 6.2.2).
fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        integer(text.len(), out);
        out.extend_from_slice(text);
    }
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn integer(mut number: usize, out: &mut Vec<u8>) {
    const MOST: usize = 127;
    if number < MOST {
        out.push(u8::try_from(number).unwrap_or_default());
        return;
    }
    out.push(127);
    number -= MOST;
    while number >= 128 {
        out.push(u8::try_from(number % 128).unwrap_or_default() | 128);
        number /= 128;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: &str = "GET /a HTTP/1.1\r\nHost: shop\r\nX-Token: 42\r\nTE: gzip\r\n\
        Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAA\r\n\r\n";

    fn asks(request: &str) -> Option<H2c> {
        h2c(request.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_request_for_http2_becomes_a_head_without_what_is_the_connections() {
        let expected = "\0\x07:method\x03GET\0\x07:scheme\x04http\0\x0a:authority\x04shop\
                        \0\x05:path\x02/a\0\x07x-token\x0242";
        let h2c = asks(&format!("{ASKS}PRI")).expect("it asks");
        assert_eq!(String::from_utf8(h2c.block).expect("text"), expected);
        assert_eq!(h2c.length, ASKS.len());
    }

    #[test]
    fn other_requests_do_not_ask_for_it() {
        for (what, with) in [
            ("Upgrade: h2c", "Upgrade: websocket"),
            ("Connection: Upgrade", "Connection: close"),
            ("Upgrade, HTTP2-Settings", "Upgrade"),
            ("HTTP2-Settings: AAMA", "X-Settings: AAMA"),
            ("HTTP2-Settings: AAMA", "HTTP2-Settings: AA\r\nHTTP2-Settings: AAMA"),
            ("AAMAAABkAAQCAAAA", "not base64"),
            ("GET /a HTTP/1.1", "GET /a HTTP/1.0"),
            ("X-Token: 42", "Content-Length: 3"),
            ("X-Token: 42", "Transfer-Encoding: chunked"),
            ("X-Token: 42", "Expect: 100-continue"),
        ] {
            let request = ASKS.replace(what, with);
            assert_ne!(request, ASKS, "{what}");
            assert_eq!(asks(&request), None, "{with}");
        }
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let mut out = Vec::new();
        for number in [126, 127, 128, 254, 255, 16_510] {
            integer(number, &mut out);
        }
        assert_eq!(out, [126, 127, 0, 127, 1, 127, 127, 127, 128, 1, 127, 255, 127]);
    }
}
