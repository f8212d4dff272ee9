//! `limits`: each within what makes sense, what is not said as it is by default.

use portreeve_core::Limits;

use super::file;
use super::resolve::{Wrong, wrong};

/// From the file's section.
pub(super) fn resolve(file: &file::Limits) -> Result<Limits, Wrong> {
    let mut limits = times(file)?;
    limits.connections = file.connections.map_or(limits.connections, Into::into);
    let http = &mut limits.http1;
    set(&mut http.head_bytes, "head_bytes", file.head_bytes, 256, 1 << 20)?;
    set(&mut http.headers, "headers", file.headers, 1, 256)?;
    http.target_bytes = file.target_bytes.unwrap_or(http.target_bytes);
    set(&mut http.pipelined, "pipelined", file.pipelined, 1, u16::MAX)?;
    http.drained_bytes = file.drained_bytes.unwrap_or(http.drained_bytes);
    let http2 = &mut limits.http2;
    // A request that passes in one version must not fail in the other.
    http2.head_bytes = http.head_bytes;
    http2.headers = http.headers;
    http2.target_bytes = http.target_bytes;
    set(&mut http2.streams, "http2_streams", file.http2_streams, 1, 4096)?;
    let window = file.http2_stream_window;
    set(&mut http2.stream_window, "http2_stream_window", window, 65_535, 1 << 30)?;
    let window = file.http2_connection_window;
    set(&mut http2.connection_window, "http2_connection_window", window, 65_535, 1 << 30)?;
    set(&mut http2.send_buffer, "http2_send_buffer", file.http2_send_buffer, 16_384, 1 << 30)?;
    let frames = file.http2_control_frames;
    set(&mut http2.control_frames, "http2_control_frames", frames, 100, 1 << 30)?;
    let cancelled = file.http2_cancelled_streams;
    set(&mut http2.cancelled_streams, "http2_cancelled_streams", cancelled, 1, 1 << 30)?;
    let kafka = &mut limits.kafka;
    set(&mut kafka.frame_bytes, "kafka_frame_bytes", file.kafka_frame_bytes, 4096, 1 << 30)?;
    set(&mut kafka.held_bytes, "kafka_held_bytes", file.kafka_held_bytes, 4096, 1 << 30)?;
    set(&mut kafka.in_flight, "kafka_in_flight", file.kafka_in_flight, 1, u16::MAX)?;
    set(&mut kafka.topics, "kafka_topics", file.kafka_topics, 1, 1 << 20)?;
    Ok(limits)
}

/// A number within its range, if it is said.
fn set<N: Copy + PartialOrd + std::fmt::Display>(
    limit: &mut N,
    key: &str,
    configured: Option<N>,
    least: N,
    most: N,
) -> Result<(), Wrong> {
    let Some(configured) = configured else { return Ok(()) };
    if configured < least || configured > most {
        return Err(wrong(format!("limits.{key}"), format!("must be from {least} to {most}")));
    }
    *limit = configured;
    Ok(())
}

fn times(file: &file::Limits) -> Result<Limits, Wrong> {
    let mut limits = Limits::default();
    for (limit, configured) in [
        (&mut limits.header_timeout, file.header_timeout),
        (&mut limits.body_timeout, file.body_timeout),
        (&mut limits.idle_timeout, file.idle_timeout),
        (&mut limits.tunnel_timeout, file.tunnel_timeout),
        (&mut limits.http2_stall_timeout, file.http2_stall_timeout),
    ] {
        if let Some(configured) = configured {
            *limit = configured.0;
        }
    }
    for (key, limit, configured) in [
        ("limits.connect_timeout", &mut limits.connect_timeout, file.connect_timeout),
        ("limits.drain_timeout", &mut limits.drain_timeout, file.drain_timeout),
    ] {
        match configured {
            None => {}
            Some(file::Timeout(Some(configured))) => *limit = configured,
            Some(file::Timeout(None)) => return Err(wrong(key, "can't be off")),
        }
    }
    Ok(limits)
}
