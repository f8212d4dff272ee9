//! Why a message was not accepted: everything that two readers could read in two ways, and what
//! goes over a limit.

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:expr, $text:literal;)+) => {
        /// Why a message was not accepted. One variant a reason, with the section of RFC 9112 (or
        /// another) that it rests on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $variant,)+
        }

        impl Refusal {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The status of the answer to the client: 400, 408, 414, …; 502 where the server is
            /// at fault.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// A stable short name for metrics and logs: `bare_line_feed`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

refusals! {
    /// RFC 9112 section 2.2: a recipient may take a lone LF for a line end, and others don't.
    BareLineFeed = "bare_line_feed", 400, "a line ends in a bare line feed";
    /// RFC 9112 section 2.2: a lone CR must be refused or replaced.
    BareCarriageReturn = "bare_carriage_return", 400, "a carriage return without a line feed";
    /// RFC 9112 section 2.2: one empty line before a request is ignored, no more.
    EmptyLines = "empty_lines", 400, "more than one empty line before a request";
    /// RFC 9112 section 3: method, target and version, one space between each.
    RequestLine = "request_line", 400, "the request line is malformed";
    /// RFC 9112 section 2.3.
    Version = "version", 505, "not HTTP/1.0 or HTTP/1.1";
    /// RFC 9110 section 5.6.2: a field name is a token, directly followed by a colon.
    FieldName = "field_name", 400, "a header field's name is malformed";
    /// RFC 9110 section 5.5: no control characters.
    FieldValue = "field_value", 400, "a header field's value has a control character in it";
    /// RFC 9112 section 5.2.
    LineFolding = "line_folding", 400, "a header field is folded over several lines";
    /// Servers that map `-` to `_` (CGI, WSGI) take the two for one field.
    UnderscoreTwin = "underscore_twin", 400,
        "two header fields differ only in `_` and `-`, which some servers take for one";
    /// RFC 9112 section 3.2.
    HostMissing = "host_missing", 400, "HTTP/1.1 without Host";
    /// RFC 9112 section 3.2.
    HostRepeated = "host_repeated", 400, "more than one Host";
    /// RFC 9112 section 3.2, RFC 3986 section 3.2.
    HostInvalid = "host_invalid", 400, "Host is not a host with an optional port";
    /// RFC 9112 section 3.2.2: the target's authority takes precedence, and some read Host.
    HostMismatch = "host_mismatch", 400, "Host differs from the authority of the target";
    /// RFC 9112 section 3.2.
    Target = "target", 400, "the target has no form that its method may have";
    /// RFC 3986 section 2: control characters, spaces, backslashes, fragments, non-ASCII.
    TargetCharacter = "target_character", 400, "the target has a character that must be escaped";
    /// RFC 3986 section 2.1.
    TargetEscape = "target_escape", 400, "the target has a malformed or forbidden escape";
    /// Servers with path parameters read `..;` as `..`.
    TargetParameter = "target_parameter", 400,
        "the target has a dot segment with a parameter, which some servers take for a dot segment";
    /// RFC 9112 section 6.3, item 3.
    LengthAndEncoding = "length_and_encoding", 400,
        "both Content-Length and Transfer-Encoding";
    /// RFC 9112 section 6.3, item 5.
    LengthRepeated = "length_repeated", 400, "more than one Content-Length";
    /// RFC 9110 section 8.6: digits, nothing else.
    LengthInvalid = "length_invalid", 400, "Content-Length is not a number";
    /// RFC 9112 section 6.1.
    EncodingRepeated = "encoding_repeated", 400, "more than one Transfer-Encoding";
    /// RFC 9112 section 6.1: not understood, or chunked not last.
    EncodingUnknown = "encoding_unknown", 501, "a Transfer-Encoding other than chunked";
    /// RFC 9112 section 6.1: faulty framing by a sender that doesn't know it.
    EncodingInOld = "encoding_in_http_1_0", 400, "Transfer-Encoding in HTTP/1.0";
    /// RFC 9112 section 7.1.
    ChunkSize = "chunk_size", 400, "a chunk's size is malformed";
    /// RFC 9112 section 7.1.1.
    ChunkExtension = "chunk_extension", 400, "a chunk's extension is malformed or too long";
    /// RFC 9112 section 7.1.
    ChunkEnd = "chunk_end", 400, "a chunk's data is not followed by a line end";
    /// RFC 9110 section 6.5.1: framing and routing are not for trailers.
    TrailerField = "trailer_field", 400, "a trailer has a field that belongs into the head";
    /// RFC 9110 section 7.6.1: such an option makes the next hop drop the field.
    ConnectionOption = "connection_option", 400,
        "Connection names a header field that is meant for the server";
    /// RFC 9110 section 10.1.1.
    Expectation = "expectation", 417, "an expectation other than 100-continue";
    /// RFC 9110 section 7.8: what follows is a tunnel for one, and a body for the other.
    UpgradeWithBody = "upgrade_with_body", 400, "a request for an upgrade with a body";
    /// The client ended the stream within a message.
    Incomplete = "incomplete", 400, "the client ended the stream within a message";
    /// RFC 6585 section 5.
    HeadTooLong = "head_too_long", 431, "the message head is too long";
    /// RFC 6585 section 5.
    TooManyFields = "too_many_fields", 431, "too many header fields";
    /// RFC 9110 section 15.5.15.
    TargetTooLong = "target_too_long", 414, "the target is too long";
    /// RFC 9110 section 15.5.9.
    HeadTimeout = "head_timeout", 408, "the message head did not arrive in time";
    /// RFC 9110 section 15.5.9.
    BodyTimeout = "body_timeout", 408, "the body did not arrive in time";
    /// The server's head could not be read.
    ResponseHead = "response_head", 502, "the server's response is malformed";
    /// RFC 9112 section 6.3: as for requests.
    ResponseFraming = "response_framing", 502, "the server's response is framed in two ways";
    /// RFC 9112 section 7.1: as for requests.
    ResponseChunk = "response_chunk", 502, "the server's chunked response is malformed";
    /// RFC 9110 section 15.2.2: not asked for, or to another protocol.
    ResponseUpgrade = "response_upgrade", 502, "the server changed the protocol unasked";
    /// RFC 9112 section 9.2: bytes that answer no request.
    ResponseUnasked = "response_unasked", 502, "the server sent a response to no request";
    /// The server ended the stream before it answered.
    ResponseMissing = "response_missing", 502, "the server ended the stream before it answered";
    /// The server ended the stream within a response.
    ResponseIncomplete = "response_incomplete", 502, "the server ended the stream within a response";
}

impl Refusal {
    /// Whether the server, not the client, is at fault.
    #[must_use]
    pub fn by_server(self) -> bool {
        self.status() == 502
    }
}
