//! Bounds on what a peer of an HTTP/2 connection may make the proxy hold or do.

use crate::http1;

/// Bounds of one HTTP/2 connection. Those on heads are HTTP/1.1's: a request must not pass in one
/// version and fail in the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, as RFC 9113 section 10.5.1 counts them (32 more for each field). Over it:
    /// 431. Default 32 KiB.
    pub head_bytes: u32,
    /// Number of header fields. Over it: 431. Default 100.
    pub headers: u16,
    /// Bytes of path and query. Over it: 414. Default 8,000 octets, rounded up.
    pub target_bytes: u32,
    /// Requests under way at once on one connection, told to the client. Default 128: RFC 9113 section
    /// 6.5.2 recommends no less than 100.
    pub streams: u32,
    /// Bytes that a peer may send on one stream before the other side has taken them. Default 256
    /// KiB: a gigabit at a round trip of two milliseconds.
    pub stream_window: u32,
    /// The same for all streams of a connection together, which bounds what the proxy holds when a
    /// side is slow. Default 1 MiB.
    pub connection_window: u32,
    /// Bytes of one stream that wait for the socket. Default 64 KiB: a peer may open its window as
    /// wide as it likes, and then not read.
    pub send_buffer: u32,
    /// Frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, …) beyond what
    /// requests and answers give reason for. Over it the connection ends. Default 2,000, and 50 more
    /// every second.
    pub control_frames: u32,
    /// Requests taken back before they were answered, beyond those that were answered. Over it the
    /// connection ends. Default 200, and 20 more every second.
    pub cancelled_streams: u32,
}

impl Limits {
    /// Bytes that a pair of connections makes the proxy hold at the most, with so many streams of which a
    /// receiver takes nothing: what the sender may send meanwhile, and what waits for the socket.
    #[must_use]
    pub fn most_held(&self, blocked: usize) -> usize {
        let stream = self.stream_window as usize + self.send_buffer as usize;
        blocked.saturating_mul(stream).min(2 * self.connection_window as usize)
    }
}

impl Default for Limits {
    fn default() -> Self {
        let http1::Limits { head_bytes, headers, target_bytes, .. } = http1::Limits::default();
        Self {
            head_bytes,
            headers,
            target_bytes,
            streams: 128,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            send_buffer: 64 * 1024,
            control_frames: 2000,
            cancelled_streams: 200,
        }
    }
}
