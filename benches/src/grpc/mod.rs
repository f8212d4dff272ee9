//! gRPC over HTTP/2, as far as a comparison needs it: the calls, and how messages are framed. The
//! upstream and the loads share this, so that neither can be lenient with the other.
//!
//! | module | what |
//! | --- | --- |
//! | [`client`] | one call at a time, every answer checked |
//! | [`contender`] | the proxies' configuration |
//! | [`h2load`] | unary calls as fast as they are answered |
//! | [`even`] | unary calls at an even rate |
//! | [`load`] | streams of messages, idle connections, open streams |

pub mod client;
pub mod contender;
pub mod even;
pub mod h2load;
pub mod load;

use bytes::Bytes;

/// One message there, one of the same size back.
pub const GET: &str = "/shop.v1.Orders/Get";
/// Each message comes back; the call ends when the client ends it.
pub const CHAT: &str = "/shop.v1.Orders/Chat";
/// Response fields at once, then nothing until the client ends the call.
pub const WATCH: &str = "/shop.v1.Orders/Watch";
/// What no proxy lets pass.
pub const FORBIDDEN: &str = "/shop.v1.Refunds/Get";

/// The header that policy looks at, with a value that it allows and one that it does not.
pub const TOKEN: &str = "x-token";
/// Allowed.
pub const GOOD: &str = "42";
/// Denied.
pub const BAD: &str = "none";

/// gRPC's status codes, as far as they are used here.
pub const OK: &str = "0";
/// The upstream got something other than one whole message.
pub const INVALID_ARGUMENT: &str = "3";
/// A denial.
pub const PERMISSION_DENIED: &str = "7";

/// Bytes of a message in most calls, and of its prefix.
pub const SMALL: usize = 32;
/// Bytes of a large message.
pub const LARGE: usize = 1 << 20;
/// A flag and a length stand before each message.
pub const PREFIX: usize = 5;

/// Windows so large that neither upstream nor load is ever waited for.
pub const STREAM_WINDOW: u32 = 16 << 20;
/// The same for a connection.
pub const CONNECTION_WINDOW: u32 = 1 << 30;
/// Streams of one connection, as upstream and proxies announce it.
pub const CONCURRENT_STREAMS: u32 = 128;

/// A message of this size, with its prefix.
pub fn message(size: usize) -> Bytes {
    let length = u32::try_from(size).expect("a size that gRPC allows");
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.resize(PREFIX + size, b'x');
    framed.into()
}

/// Counts messages, however they were cut into frames on their way.
#[derive(Default)]
pub struct Messages {
    /// How many have come in whole.
    pub complete: usize,
    /// Bytes of them and of what has begun.
    pub bytes: usize,
    prefix: [u8; PREFIX],
    /// `0 <= prefix_read < PREFIX`; it is whole exactly while `body_left` counts.
    prefix_read: usize,
    body_left: usize,
}

impl Messages {
    /// Takes bytes as they come.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        while let Some((first, rest)) = bytes.split_first() {
            if self.body_left > 0 {
                let taken = self.body_left.min(bytes.len());
                bytes = &bytes[taken..];
                self.body_left -= taken;
                self.complete += usize::from(self.body_left == 0);
                continue;
            }
            self.prefix[self.prefix_read] = *first;
            self.prefix_read += 1;
            bytes = rest;
            if self.prefix_read == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.prefix_read = 0;
                self.body_left = u32::from_be_bytes(length) as usize;
                self.complete += usize::from(self.body_left == 0);
            }
        }
    }

    /// Whether no message has begun and not ended.
    pub fn is_between(&self) -> bool {
        self.prefix_read == 0 && self.body_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = [message(3), message(0), message(7)].concat();
        for size in 1..=bytes.len() {
            let mut messages = Messages::default();
            for chunk in bytes.chunks(size) {
                messages.feed(chunk);
            }
            assert_eq!((messages.complete, messages.bytes), (3, bytes.len()));
            assert!(messages.is_between());
            messages.feed(&bytes[..6]);
            assert!(!messages.is_between());
        }
    }
}
