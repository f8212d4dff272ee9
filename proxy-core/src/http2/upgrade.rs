//! `Upgrade: h2c` (RFC 7540 section 3.2): a client that begins in HTTP/1.1 and asks to go on in HTTP/2.
//!
//! HTTP/2 stays HTTP/2, so the upgrade is granted only where the server speaks it, too. Whether it does
//! is found out by a connection of its own that asks for nothing, and remembered for a while. The
//! request itself becomes the first stream, and is judged there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use portreeve_protocols::http1::{self, H2c};
use portreeve_protocols::http2::PREFACE;
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::redirection::Target;

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Servers that are remembered.
const SERVERS: usize = 1024;

/// Time that a server gets to say its SETTINGS.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time that a client gets to go on, where heads have no limit.
const LONGEST: Duration = Duration::from_secs(60);

const GRANTED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// Empty SETTINGS.
const SETTINGS: [u8; FRAME_HEADER] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Bytes of a frame's header.
const FRAME_HEADER: usize = 9;

/// The largest frame that a peer takes unless it says otherwise (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16 * 1024;

/// Which servers speak HTTP/2, as far as it was asked.
#[derive(Debug, Default)]
pub(crate) struct KnownServers(Mutex<FxHashMap<SocketAddr, (bool, Instant)>>);

impl KnownServers {
    /// Whether the server at this address speaks HTTP/2 with prior knowledge.
    async fn speaks_http2(&self, target: &Target) -> bool {
        let address = target.address;
        let now = Instant::now();
        let known = {
            let servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            servers
                .get(&address)
                .filter(|(_, at)| now - *at < REMEMBERED)
                .map(|(speaks, _)| *speaks)
        };
        if let Some(speaks) = known {
            return speaks;
        }
        let speaks = timeout(target.limit.min(PATIENCE), probe(target)).await;
        let speaks = matches!(speaks, Ok(Ok(true)));
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() >= SERVERS {
            servers.clear();
        }
        servers.insert(address, (speaks, now));
        speaks
    }
}

/// Says the preface and looks whether SETTINGS come back.
async fn probe(target: &Target) -> io::Result<bool> {
    let mut server = target.open().await?;
    server.write_all(&[PREFACE, &SETTINGS].concat()).await?;
    let mut header = [0; FRAME_HEADER];
    server.read_exact(&mut header).await?;
    let [a, b, c, kind, flags, stream @ ..] = header;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    Ok(kind == SETTINGS[3] && flags == 0 && stream == [0; 4] && length <= FRAME_BYTES)
}

/// Grants the upgrade that `unread` begins with a request for, if it can be, and returns what the
/// client says in HTTP/2 from the preface on, its request among it as the first stream. `None`: it goes
/// on in HTTP/1.1, and nothing has been said.
///
/// # Errors
/// When the client, told to go on in HTTP/2, does not.
pub(crate) async fn grant(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    unread: &[u8],
    servers: &KnownServers,
    upstream: &Target,
    header_timeout: Option<Duration>,
    limits: &http1::Limits,
) -> io::Result<Option<Vec<u8>>> {
    let Some(h2c) = http1::h2c(unread, limits) else { return Ok(None) };
    if !servers.speaks_http2(upstream).await {
        return Ok(None);
    }
    client.write_all(GRANTED).await?;
    let began = begin(client, unread[h2c.length..].to_vec(), &h2c);
    let limit = header_timeout.unwrap_or(LONGEST);
    timeout(limit, began).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Some)
}

/// Reads the preface and the SETTINGS that follow it, and puts the request behind them.
async fn begin(
    client: &mut (impl AsyncRead + Unpin),
    mut said: Vec<u8>,
    h2c: &H2c,
) -> io::Result<Vec<u8>> {
    let settings_end = loop {
        if let Some(end) = end_of_settings(&said)? {
            break end;
        }
        if client.read_buf(&mut said).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let after = said.split_off(settings_end);
    first_stream(&h2c.block, &mut said);
    said.extend_from_slice(&after);
    Ok(said)
}

/// Where the client's first frame ends, once it has come whole.
fn end_of_settings(said: &[u8]) -> io::Result<Option<usize>> {
    let preface = said.len().min(PREFACE.len());
    if said[..preface] != PREFACE[..preface] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some([a, b, c, ..]) = said.get(PREFACE.len()..PREFACE.len() + FRAME_HEADER) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    if length > FRAME_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let end = PREFACE.len() + FRAME_HEADER + length;
    Ok((said.len() >= end).then_some(end))
}

/// Writes a head as the frames of stream 1, which ends with it.
fn first_stream(block: &[u8], out: &mut Vec<u8>) {
    let last = block.len().div_ceil(FRAME_BYTES).saturating_sub(1);
    for (index, piece) in block.chunks(FRAME_BYTES).enumerate() {
        // HEADERS that end the stream, then CONTINUATION; the last one ends the head.
        let (kind, end_stream) = if index == 0 { (1, 1) } else { (9, 0) };
        let end_headers = if index == last { 4 } else { 0 };
        let [_, length @ ..] = u32::try_from(piece.len()).unwrap_or_default().to_be_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&[kind, end_stream | end_headers, 0, 0, 0, 1]);
        out.extend_from_slice(piece);
    }
}
