//! Bounds on what the gate reads from the network.

/// Bounds of one HTTP/1.1 connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message head, request line included, and of a trailer section. Over it: 431.
    /// Default 32 KiB: what browsers with many cookies need, twice over.
    pub head_bytes: u32,
    /// Number of header fields, at most [`Limits::MAX_HEADERS`]. Over it: 431. Default 100, as
    /// most servers have it.
    pub headers: u16,
    /// Bytes of the request target. Over it: 414. Default 8,000 octets, what RFC 9112 section 3
    /// asks to support at least, rounded up.
    pub target_bytes: u32,
    /// Requests under way at once on one connection; beyond it reading stops. Default 32: no
    /// client pipelines deeper.
    pub pipelined: u16,
    /// Body bytes of a denied request that are read and thrown away so that the connection can go
    /// on; over it the connection is closed after the reply. Default 64 KiB.
    pub drained_bytes: u64,
}

impl Limits {
    /// The most header fields that [`Limits::headers`] may allow.
    pub const MAX_HEADERS: u16 = 256;
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
