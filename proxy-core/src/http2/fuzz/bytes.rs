//! Any bytes from either side, cut in any way.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake};

use portreeve_protocols::http2::{Limits, PREFACE};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Given, Recorder, registration};
use crate::http2::pair::Pair;

/// Empty SETTINGS.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A frame of HEADERS, as its type byte says.
const HEADERS: u8 = 1;

/// `choice` and the first byte cut; `----` parts what the client says from what the server says.
pub(super) fn run(choice: u8, data: &[u8]) {
    let at = data.windows(4).position(|window| window == b"----").unwrap_or(data.len());
    let server = data.get(at + 4..).unwrap_or_default();
    let cut = usize::from(choice) % 32 + 1;
    let client = Script::new([PREFACE, SETTINGS, &data[..at]].concat(), cut);
    let server = Script::new([SETTINGS, server].concat(), cut + 3);
    let to_server = server.written.clone();
    let (judge, record) = Recorder::new();
    let limits = Arc::new(Limits { streams: 8, control_frames: 100, ..Limits::default() });
    let connect = Given(vec![server]);
    let mut pair = Pair::new(client, Vec::new(), connect, judge, registration(), limits, None);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = woken.clone().into();
    let mut over = false;
    for _ in 0..10_000 {
        if !woken.0.swap(false, Ordering::Relaxed) {
            break;
        }
        if Pin::new(&mut pair).poll(&mut Context::from_waker(&waker)).is_ready() {
            over = true;
            break;
        }
    }
    drop(pair);
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    if over {
        assert_eq!((record.open, record.closed), (0, 1), "requests that are never over");
    }
    let written = to_server.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = heads(&written);
    assert!(asked <= record.allowed, "{asked} were asked, {} were allowed", record.allowed);
}

/// How many heads of requests stand in what was sent to the server.
fn heads(written: &[u8]) -> usize {
    let mut rest = written.strip_prefix(PREFACE).unwrap_or_default();
    let mut streams = std::collections::BTreeSet::new();
    while let [a, b, c, kind, _, stream @ ..] = rest
        && let Some((stream, _)) = stream.split_first_chunk::<4>()
    {
        if *kind == HEADERS {
            streams.insert(*stream);
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    streams.len()
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A peer that says what it has to say, in pieces, and takes whatever it is told.
struct Script {
    input: Vec<u8>,
    at: usize,
    cut: usize,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Script {
    fn new(input: Vec<u8>, cut: usize) -> Self {
        Self { input, at: 0, cut, written: Arc::default() }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let script = self.get_mut();
        let n = script.cut.min(script.input.len() - script.at).min(buffer.remaining());
        buffer.put_slice(&script.input[script.at..script.at + n]);
        script.at += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
