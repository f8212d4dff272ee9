//! A client that sends exactly the frames it is told to, and reads what comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Types of frames (RFC 9113 section 6).
pub mod kind {
    #![expect(missing_docs, reason = "they are called what they are")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Bytes as they are sent.
    ///
    /// # Panics
    /// When the payload is longer than a frame can be.
    #[must_use]
    pub fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The error code of RST_STREAM and GOAWAY.
    #[must_use]
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).and_then(|code| code.try_into().ok());
        u32::from_be_bytes(code.unwrap_or_default())
    }
}

/// Fields as literals that are not indexed (RFC 7541 section 6.2.2), names and values as they are.
///
/// # Panics
/// When a text is longer than 16 KiB.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                bytes.push(u8::try_from(length).expect("less than 127"));
            } else {
                bytes.push(127);
                length -= 127;
                while length >= 128 {
                    bytes.push(u8::try_from(length % 128).expect("less than 128") | 128);
                    length /= 128;
                }
                bytes.push(u8::try_from(length).expect("less than 128"));
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// A client by hand.
pub struct RawClient {
    /// Its connection.
    pub stream: TcpStream,
}

impl RawClient {
    /// Connects and sends the preface with empty SETTINGS.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::begin(TcpStream::connect(address).expect("a connection"))
    }

    /// The same on a connection that is there.
    ///
    /// # Panics
    /// When it is broken.
    #[must_use]
    pub fn begin(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
        stream.set_write_timeout(Some(Duration::from_secs(10))).expect("an option");
        let mut client = Self { stream };
        client.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.frame(kind::SETTINGS, 0, 0, &[]);
        client
    }

    /// The other side: takes a client's preface and sends these SETTINGS.
    ///
    /// # Panics
    /// When the client does not begin with the preface.
    #[must_use]
    pub fn accept(mut stream: TcpStream, settings: &[u8]) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).expect("a preface");
        assert!(preface.starts_with(b"PRI * HTTP/2.0"), "{preface:?}");
        stream.set_nodelay(true).expect("an option");
        let mut server = Self { stream };
        server.frame(kind::SETTINGS, 0, 0, settings);
        server
    }

    /// The next frame that is not SETTINGS; those are acknowledged.
    pub fn said(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            match (frame.kind, frame.flags) {
                (kind::SETTINGS, 0) => self.acknowledge(),
                (kind::SETTINGS, _) => {}
                _ => return Some(frame),
            }
        }
    }

    /// Sends bytes; whether they were taken.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a frame; whether it was taken.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.raw(&Frame::bytes(kind, flags, stream, payload))
    }

    /// Acknowledges the server's SETTINGS.
    pub fn acknowledge(&mut self) {
        self.frame(kind::SETTINGS, 1, 0, &[]);
    }

    /// Sends a head that is complete, the stream ended with it or not.
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) -> bool {
        self.frame(kind::HEADERS, 4 | u8::from(end), stream, &block(fields))
    }

    /// Sends a `GET`.
    pub fn get(&mut self, stream: u32, path: &str) -> bool {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", path)];
        self.head(stream, &fields, true)
    }

    /// The next frame; `None` when the connection has ended.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads on until a frame is the one; `None` when the connection ends before.
    pub fn until(&mut self, mut is_it: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            if is_it(&frame) {
                return Some(frame);
            }
        }
    }

    /// How a stream is answered: the code of its RST_STREAM, or `None` for a head.
    ///
    /// # Panics
    /// When the connection ends before.
    pub fn reset_of(&mut self, stream: u32) -> Option<u32> {
        let frame = self
            .until(|frame| {
                frame.stream == stream && matches!(frame.kind, kind::HEADERS | kind::RST_STREAM)
            })
            .expect("an answer");
        (frame.kind == kind::RST_STREAM).then(|| frame.code())
    }

    /// The code of the GOAWAY that ends the connection, 0 if it was in order; `None`: it ended without
    /// one.
    pub fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.read() {
            if frame.kind == kind::GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}
