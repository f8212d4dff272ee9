//! What the gate shows its driver: a request as a borrowed view, and what became of it.

use super::HeadEdits;
use super::refusal::Refusal;

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
    /// Asks for a WebSocket; the rest of the connection may be a tunnel.
    pub upgrade: bool,
    /// The header fields, in order.
    pub headers: Headers<'a>,
}

/// The header fields of a message, in order, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub(super) fields: &'a [httparse::Header<'a>],
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

/// What the gate asks of its driver. For every well-formed request head, in order, exactly one
/// call of [`Handler::decide`] or [`Handler::answered_unasked`]; for each of those, in the same
/// order, one [`Handler::finished`], unless the connection ends before. A message that could not
/// be read is [`Handler::refused`].
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
    /// Bytes of head and body received from the client, as far as they were received when the
    /// response ended.
    pub request_bytes: u64,
    /// Bytes of head and body sent to the client.
    pub response_bytes: u64,
}
