//! Heads of messages: where they end, what stands in them, and that every reader agrees on it.
//! `httparse` splits the lines; what it tolerates and others read differently is refused here.

use std::mem::MaybeUninit;

use super::limits::Limits;
use super::refusal::Refusal;

/// Room for the fields of one head.
pub(super) type Fields<'a> = [MaybeUninit<httparse::Header<'a>>; Limits::MAX_HEADERS as usize];

/// A request's head, well-formed.
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    pub(super) minor_version: u8,
    pub(super) fields: &'a [httparse::Header<'a>],
    pub(super) body: Body,
    /// The client wants the connection to go on.
    pub(super) keep_alive: bool,
    /// The client waits for 100 before it sends the body.
    pub(super) expects_continue: bool,
    /// Asks for a WebSocket.
    pub(super) upgrade: bool,
    /// Asks to go on in HTTP/2, in good form.
    pub(super) h2c: bool,
    /// Asks for an upgrade that is not passed on.
    pub(super) drops_upgrade: bool,
    /// The target was in absolute form.
    pub(super) absolute: bool,
}

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// By the end of the stream: responses only.
    UntilClose,
}

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// It is this long, its empty line included.
    Complete(usize),
    /// It has no end yet; the first so many bytes have been looked at.
    Partial(usize),
}

/// Finds the empty line that ends a head. The first thing wrong with the line ends, by position,
/// decides, so that it does not matter how the input was cut.
pub(super) fn find_end(
    input: &[u8],
    looked_at: usize,
    limits: &Limits,
) -> Result<Section, Refusal> {
    let limit = limits.head_bytes as usize;
    let window = &input[..input.len().min(limit)];
    let mut at = looked_at;
    while let Some(found) = memchr::memchr2(b'\r', b'\n', &window[at..]) {
        let place = at + found;
        match window[place..] {
            [b'\r', b'\n', b'\r', b'\n', ..] => return Ok(Section::Complete(place + 4)),
            [b'\r', b'\n', b'\r', other, ..] if other != b'\n' => {
                return Err(Refusal::BareCarriageReturn);
            }
            // Undecided until more has come.
            [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] if input.len() < limit => {
                return Ok(Section::Partial(place));
            }
            [b'\r', b'\n', b' ' | b'\t', ..] => return Err(Refusal::LineFolding),
            [b'\r', b'\n', ..] => at = place + 2,
            [b'\r', other, ..] if other != b'\n' => return Err(Refusal::BareCarriageReturn),
            [b'\n', ..] => return Err(Refusal::BareLineFeed),
            _ => break,
        }
    }
    if input.len() < limit {
        return Ok(Section::Partial(window.len()));
    }
    // A first line that has no end is too long itself.
    match memchr::memchr(b'\n', window) {
        None => Err(Refusal::TargetTooLong),
        Some(_) => Err(Refusal::HeadTooLong),
    }
}

/// Reads a request's head, which [`find_end`] has found complete.
pub(super) fn parse<'a>(
    head: &'a [u8],
    fields: &'a mut Fields<'a>,
    limits: &Limits,
) -> Result<Head<'a>, Refusal> {
    let count = usize::from(limits.headers.min(Limits::MAX_HEADERS));
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields[..count]) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::RequestLine),
        Err(error) => return Err(refusal(error, head)),
    }
    let (Some(method), Some(target), Some(minor_version)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::RequestLine);
    };
    if target.len() > limits.target_bytes as usize {
        return Err(Refusal::TargetTooLong);
    }
    let fields: &'a [httparse::Header<'a>] = parsed.headers;
    let seen = Seen::of_request(fields)?;
    let (host, target, absolute) = authority(method, target, minor_version, &seen)?;
    let body = seen.request_body(minor_version)?;
    let upgrade_asked = !seen.upgrade.is_empty();
    let upgrade = upgrade_asked
        && seen.upgrade.eq_ignore_ascii_case(b"websocket")
        && seen.options.upgrade
        && minor_version == 1
        && method == "GET";
    if upgrade && body != Body::Length(0) {
        return Err(Refusal::UpgradeWithBody);
    }
    let expects_continue = match seen.expect {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => minor_version == 1,
        Some(_) => return Err(Refusal::Expectation),
    };
    Ok(Head {
        method,
        target,
        host,
        minor_version,
        fields,
        body,
        keep_alive: !seen.options.close && (minor_version == 1 || seen.options.keep_alive),
        expects_continue,
        upgrade,
        h2c: minor_version == 1 && body == Body::Length(0) && !expects_continue && seen.asks_h2c(),
        drops_upgrade: upgrade_asked && !upgrade,
        absolute,
    })
}

/// What `httparse` objects to.
fn refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::HeaderValue => Refusal::FieldValue,
        httparse::Error::Version => {
            let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
            let last = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
            // `GET /a b HTTP/1.1` is no version, it is a target with a space in it.
            let words = line.split(|b| *b == b' ').count();
            if words == 3 && last.starts_with(b"HTTP/") {
                Refusal::Version
            } else {
                Refusal::RequestLine
            }
        }
        _ => Refusal::RequestLine,
    }
}

/// The fields that the gate itself acts on.
#[derive(Default)]
pub(super) struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    pub(super) upgrade: &'a [u8],
    /// `HTTP2-Settings`, of which there must be one.
    settings: &'a [u8],
    pub(super) options: Options,
}

/// The connection options that matter here.
#[derive(Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) settings: bool,
}

impl<'a> Seen<'a> {
    /// Those of a request: nothing in it may be taken for something else by the next reader.
    fn of_request(fields: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut seen = Self::default();
        for field in fields {
            if memchr::memchr(b'_', field.name.as_bytes()).is_some() {
                check_underscores(field.name, fields)?;
            }
            seen.note(field, fields)?;
        }
        Ok(seen)
    }

    /// Those of a response.
    pub(super) fn of_response(fields: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut seen = Self::default();
        for field in fields {
            seen.note(field, &[])?;
        }
        Ok(seen)
    }

    fn note(
        &mut self,
        field: &httparse::Header<'a>,
        fields: &[httparse::Header<'a>],
    ) -> Result<(), Refusal> {
        let name = field.name;
        // Names of other lengths are none of those looked for.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                once(&mut self.host, field.value, Refusal::HostRepeated)
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                once(&mut self.expect, field.value, Refusal::Expectation)
            }
            7 if name.eq_ignore_ascii_case("upgrade") => {
                // Two of them are as good as one that is unknown.
                self.upgrade = if self.upgrade.is_empty() { field.value } else { b"," };
                Ok(())
            }
            10 if name.eq_ignore_ascii_case("connection") => self.options.note(field.value, fields),
            14 if name.eq_ignore_ascii_case("content-length") => {
                once(&mut self.length, field.value, Refusal::LengthRepeated)
            }
            14 if name.eq_ignore_ascii_case("http2-settings") => {
                self.settings = if self.settings.is_empty() { field.value } else { b"," };
                Ok(())
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                once(&mut self.encoding, field.value, Refusal::EncodingRepeated)
            }
            _ => Ok(()),
        }
    }

    /// RFC 7540 section 3.2: in good form, or not at all.
    fn asks_h2c(&self) -> bool {
        let base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        self.upgrade.eq_ignore_ascii_case(b"h2c")
            && self.options.upgrade
            && self.options.settings
            && !self.settings.is_empty()
            && self.settings.iter().all(base64url)
    }

    /// RFC 9112 section 6.3, for requests.
    fn request_body(&self, minor_version: u8) -> Result<Body, Refusal> {
        match (self.length, self.encoding) {
            (Some(_), Some(_)) => Err(Refusal::LengthAndEncoding),
            (None, Some(_)) if minor_version == 0 => Err(Refusal::EncodingInOld),
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Body::Chunked)
            }
            (None, Some(_)) => Err(Refusal::EncodingUnknown),
            (Some(length), None) => content_length(length).map(Body::Length),
            (None, None) => Ok(Body::Length(0)),
        }
    }

    /// RFC 9112 section 6.3, for responses that have a body.
    pub(super) fn response_body(&self) -> Result<Body, Refusal> {
        match (self.length, self.encoding) {
            (Some(_), Some(_)) => Err(Refusal::ResponseFraming),
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Body::Chunked)
            }
            (None, Some(_)) => Err(Refusal::ResponseFraming),
            (Some(length), None) => {
                content_length(length).map(Body::Length).map_err(|_| Refusal::ResponseFraming)
            }
            (None, None) => Ok(Body::UntilClose),
        }
    }
}

impl Options {
    /// Notes the options of a `Connection` field. One that names a field of this very message would
    /// make the next hop drop it, after it was judged.
    fn note(&mut self, value: &[u8], fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
        for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            match option {
                o if o.eq_ignore_ascii_case(b"close") => self.close = true,
                o if o.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                o if o.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                o if o.eq_ignore_ascii_case(b"http2-settings") => self.settings = true,
                o => {
                    let hop_by_hop = [&b"te"[..], b"proxy-connection", b"trailer"];
                    let known = hop_by_hop.iter().any(|name| o.eq_ignore_ascii_case(name));
                    let present = fields.iter().any(|f| f.name.as_bytes().eq_ignore_ascii_case(o));
                    if present && !known {
                        return Err(Refusal::ConnectionOption);
                    }
                }
            }
        }
        Ok(())
    }
}

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], twice: Refusal) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice),
    }
}

/// RFC 9110 section 8.6: digits. Eighteen of them fit, and no body is longer.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::LengthInvalid);
    }
    Ok(value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// A name with `_` must not be the twin of another field, nor of one that frames the message.
fn check_underscores(name: &str, fields: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let same = |a: u8, b: u8| {
        let fold = |c: u8| if c == b'_' { b'-' } else { c.to_ascii_lowercase() };
        fold(a) == fold(b)
    };
    let twin = |other: &str| {
        other.len() == name.len()
            && !other.eq_ignore_ascii_case(name)
            && other.bytes().zip(name.bytes()).all(|(a, b)| same(a, b))
    };
    let framing = ["content-length", "transfer-encoding"];
    if framing.iter().any(|other| twin(other)) || fields.iter().any(|field| twin(field.name)) {
        return Err(Refusal::UnderscoreTwin);
    }
    Ok(())
}

/// Host, origin-form target, and whether the target was absolute (RFC 9112 section 3.2).
fn authority<'a>(
    method: &str,
    target: &'a str,
    minor_version: u8,
    seen: &Seen<'a>,
) -> Result<(&'a str, &'a str, bool), Refusal> {
    let host = match seen.host {
        None if minor_version == 1 => return Err(Refusal::HostMissing),
        None => "",
        Some(host) => std::str::from_utf8(host).map_err(|_| Refusal::HostInvalid)?,
    };
    if !host.is_empty() && !is_host(host) {
        return Err(Refusal::HostInvalid);
    }
    if method == "CONNECT" {
        return if is_host(target) { Ok((host, target, false)) } else { Err(Refusal::Target) };
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((host, target, false));
    }
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if scheme.is_none() {
        return Err(Refusal::Target);
    }
    let rest = &target[7..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_host(authority) {
        return Err(Refusal::Target);
    }
    // Forwarded in origin form, it would reach the server without the host it was judged by.
    if seen.host.is_none() {
        return Err(Refusal::HostMissing);
    }
    if !host.eq_ignore_ascii_case(authority) {
        return Err(Refusal::HostMismatch);
    }
    match path {
        "" => Ok((authority, "/", true)),
        path if path.starts_with('/') => Ok((authority, path, true)),
        // `http://a?q` has an empty path; some read it as `/?q`, some refuse it.
        _ => Err(Refusal::Target),
    }
}

/// `host[:port]` (RFC 3986 section 3.2.2), without user information.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let Some((address, after)) = literal.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => ("v6", port),
                None if after.is_empty() => ("v6", ""),
                None => return false,
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&b);
    !host.is_empty()
        && host.bytes().all(name)
        && port.len() <= 5
        && port.bytes().all(|b| b.is_ascii_digit())
}
