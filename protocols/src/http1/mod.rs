//! HTTP/1.1 (RFC 9112): the gate and what it asks of its driver.

/// A request whose head has been read and found well-formed, borrowed from the input.
#[derive(Debug)]
pub struct Request<'a> {
    /// As received, case kept.
    pub method: &'a str,
    /// Path and query as policy sees them and as they are forwarded: normalised.
    pub path: &'a str,
    /// `Host`, or the authority of an absolute-form target; empty for HTTP/1.0 without `Host`.
    pub host: &'a str,
    /// Minor version: 0 or 1.
    pub minor_version: u8,
    /// Asks for a change of protocol (`Upgrade`); the rest of the connection may be a tunnel.
    pub upgrade: bool,
    /// The header fields, in order.
    pub headers: Headers<'a>,
}

/// The header fields of a message, in order, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    fields: &'a [httparse::Header<'a>],
}

impl<'a> Headers<'a> {
    /// Name (case as received) and value (surrounding white space removed) of every field.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The values of the fields of this name, whatever its case, in order.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What the driver answers when asked about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forward it, with the edits made while deciding.
    Allow,
    /// Answer 403 in its turn; not a byte of it is forwarded.
    Deny,
}

/// Changes to the head of an allowed request, collected by the handler while it decides.
#[derive(Debug, Default)]
pub struct HeadEdits {}

impl HeadEdits {
    /// Adds a field at the end.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        let _ = (name, value);
    }
    /// Removes every field of this name, whatever its case.
    pub fn remove(&mut self, name: &str) {
        let _ = name;
    }
    /// Removes every field of this name, then adds one.
    pub fn replace(&mut self, name: &str, value: &[u8]) {
        let _ = (name, value);
    }
}

/// What the gate asks of its driver. For every well-formed request head, in order, exactly one
/// call of [`Handler::decide`] or [`Handler::answered_unasked`]; for each of those, in the same
/// order, one [`Handler::finished`]. A message that could not be read is [`Handler::refused`].
pub trait Handler {
    /// The verdict on a request.
    fn decide(&mut self, request: &Request<'_>, edits: &mut HeadEdits) -> Decision;
    /// The gate answers this one itself, with `status`, whatever policy says (307 to the clean
    /// path, CONNECT).
    fn answered_unasked(&mut self, request: &Request<'_>, status: u16);
    /// The final response's status line has been read (or a local reply is due): time to first
    /// byte.
    fn responded(&mut self, status: u16);
    /// The exchange is over.
    fn finished(&mut self, exchange: &Exchange);
    /// The client or the server broke the protocol or a limit; the connection ends.
    fn refused(&mut self, refusal: Refusal);
}

/// One request and its response, when both have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Final status sent to the client; 0 if the connection ended before there was one.
    pub status: u16,
    /// Whether the gate wrote the response itself (denial, redirect, 502, 503, 408).
    pub local: bool,
    /// Bytes of head and body received from the client.
    pub request_bytes: u64,
    /// Bytes of head and body sent to the client.
    pub response_bytes: u64,
}

/// Why a message was not accepted. One variant a reason, each with a sentence and the status that
/// the client is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// RFC 9112 section 2.2.
    #[error("a line ends in a bare line feed")]
    BareLineFeed,
}

impl Refusal {
    /// The status of the answer: 400, 408, 414, 431, 501, 502, 505; `None` where the connection
    /// is closed without one.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        Some(400)
    }
    /// A stable short name for metrics and logs: `bare_line_feed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        "bare_line_feed"
    }
    /// Whether the server, not the client, is at fault.
    #[must_use]
    pub fn by_server(self) -> bool {
        false
    }
}

/// Bounds on what is read from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message head, request line included. Over it: 431.
    pub head_bytes: u32,
    /// Number of header fields. Over it: 431.
    pub headers: u16,
    /// Bytes of the request target. Over it: 414.
    pub target_bytes: u32,
    /// Requests under way at once on one connection; beyond it reading stops.
    pub pipelined: u16,
    /// Body bytes of a denied request that are read and thrown away so that the connection can go
    /// on; over it the connection is closed after the reply.
    pub drained_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 * 1024,
            headers: 100,
            target_bytes: 8 * 1024,
            pipelined: 32,
            drained_bytes: 64 * 1024,
        }
    }
}
