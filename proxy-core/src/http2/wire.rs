//! A socket whose incoming frames are metered before the `h2` crate sees them, and which begins with
//! what was read already.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use portreeve_protocols::http2::{Meter, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a connection that is about to end that are read and thrown away.
const DRAINED: usize = 256 * 1024;

/// What the pair and the socket (which the `h2` crate owns) tell each other.
#[derive(Debug, Default)]
pub(super) struct Tally {
    written: AtomicU64,
    /// Frames with something in them that were sent since the last read.
    sent: AtomicU32,
    /// The first frame, a peer's SETTINGS, has come.
    settled: AtomicBool,
    /// A head has begun and is not complete.
    in_head: AtomicBool,
    /// The socket takes nothing.
    choked: AtomicBool,
    /// 1 + the index of a [`Refusal`]; 0: none.
    fault: AtomicU8,
}

impl Tally {
    /// Bytes written to the socket.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// So many frames with something in them are on their way.
    pub(super) fn sent(&self, frames: u32) {
        let before = self.sent.load(Ordering::Relaxed);
        self.sent.store(before.saturating_add(frames), Ordering::Relaxed);
    }

    /// Whether the peer's SETTINGS have come.
    pub(super) fn settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }

    /// Whether the socket takes nothing.
    pub(super) fn choked(&self) -> bool {
        self.choked.load(Ordering::Relaxed)
    }

    /// Why nothing more is read.
    pub(super) fn fault(&self) -> Option<Refusal> {
        let index = self.fault.load(Ordering::Relaxed).checked_sub(1)?;
        Refusal::ALL.get(usize::from(index)).copied()
    }

    fn fail(&self, refusal: Refusal) {
        let index = Refusal::ALL.iter().position(|other| *other == refusal).unwrap_or_default();
        self.fault.store(u8::try_from(index + 1).unwrap_or(u8::MAX), Ordering::Relaxed);
    }
}

/// A metered socket.
pub(super) struct Wire<T> {
    io: T,
    /// Read before this was made, to be read first.
    unread: Vec<u8>,
    meter: Meter,
    metered_at: Instant,
    tally: Arc<Tally>,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, unread: Vec<u8>, meter: Meter, tally: Arc<Tally>) -> Self {
        Self { io, unread, meter, metered_at: Instant::now(), tally }
    }

    /// Looks at what has just been read; `false` when it is not to be read at all.
    fn look(&mut self, bytes: &[u8]) -> bool {
        let millis = u64::try_from(self.metered_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Less than this is less than one frame's worth.
        if millis >= 20 {
            self.meter.earn_by_time(millis);
            self.metered_at = Instant::now();
        }
        self.meter.earn(self.tally.sent.swap(0, Ordering::Relaxed));
        match self.meter.look(bytes) {
            Ok(()) => {
                self.tally.in_head.store(self.meter.in_head(), Ordering::Relaxed);
                if self.meter.has_settings() {
                    self.tally.settled.store(true, Ordering::Relaxed);
                }
                true
            }
            Err(refusal) => {
                self.tally.fail(refusal);
                false
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.tally.fault().is_some() {
            // The pair sees the fault and ends.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if wire.unread.is_empty() {
            match Pin::new(&mut wire.io).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        } else {
            let n = wire.unread.len().min(buffer.remaining());
            buffer.put_slice(&wire.unread[..n]);
            wire.unread.drain(..n);
            wire.unread.shrink_to_fit();
        }
        if !wire.look(&buffer.filled()[before..]) {
            buffer.set_filled(before);
            wire.drain(cx, buffer);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let polled = Pin::new(&mut wire.io).poll_write(cx, bytes);
        wire.count(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let polled = Pin::new(&mut wire.io).poll_write_vectored(cx, slices);
        wire.count(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> Wire<T> {
    /// Swallows what is there: closed with bytes unread, a socket is reset, and the last frame sent on
    /// it lost.
    fn drain(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) {
        let before = buffer.filled().len();
        let mut drained = 0;
        while drained < DRAINED
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.io).poll_read(cx, buffer)
            && buffer.filled().len() > before
        {
            drained += buffer.filled().len() - before;
            buffer.set_filled(before);
        }
    }
}

impl<T> Wire<T> {
    fn count(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.tally.choked.store(polled.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(n)) = polled {
            let before = self.tally.written.load(Ordering::Relaxed);
            self.tally.written.store(before + n as u64, Ordering::Relaxed);
        }
        polled
    }
}
