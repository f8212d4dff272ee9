//! Bounds on what the gate reads from the network.

/// Bounds of one Kafka connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request. Over it the connection is closed. Default 100 MiB, as brokers have it
    /// (`socket.request.max.bytes`).
    pub frame_bytes: u32,
    /// Bytes of a request or response that must be seen whole before it can pass: every request but
    /// one that produces to a single topic, and responses that are filtered. Over it the connection
    /// is closed. Default 16 MiB: what clients put into one request that produces to many topics is
    /// 1 MiB by default, and the metadata of 100,000 partitions is 6.
    pub held_bytes: u32,
    /// Requests under way at once on one connection; beyond it reading stops. Default 256: clients
    /// keep 5, or a few dozen. Reading stops, too, while the gate's own answers that wait for their
    /// turn are more than [`Limits::held_bytes`].
    pub in_flight: u16,
    /// Topics, groups or other things that one request may name, and topic ids whose names are kept
    /// for each connection. Over it the connection is closed. Default 16,384: more than a client
    /// follows, and a few MiB at most.
    pub topics: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 100 * 1024 * 1024,
            held_bytes: 16 * 1024 * 1024,
            in_flight: 256,
            topics: 16_384,
        }
    }
}
