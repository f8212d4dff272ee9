//! A service as gRPC has it, for the comparison: `upstream_h2 LISTEN`.
//!
//! It answers in three frames (fields, message, trailers), announces windows that nobody has to wait
//! for, and accepts only whole messages: what a proxy has damaged on the way becomes an error here.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use portreeve_benches::Failure;
use portreeve_benches::grpc::{
    CHAT, CONCURRENT_STREAMS, CONNECTION_WINDOW, GET, INVALID_ARGUMENT, LARGE, Messages, OK,
    PREFIX, SMALL, STREAM_WINDOW, WATCH, message,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const UNIMPLEMENTED: &str = "12";
const BACKLOG: u32 = 4096;

fn main() -> Result<(), Failure> {
    let listen = std::env::args().nth(1).ok_or("usage: upstream_h2 LISTEN")?;
    let listen: SocketAddr = listen.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        serve(socket.listen(BACKLOG)?).await
    })
}

async fn serve(listener: TcpListener) -> Result<(), Failure> {
    let replies = Replies { small: message(SMALL), large: message(LARGE) };
    loop {
        let (stream, _) = listener.accept().await?;
        let replies = replies.clone();
        tokio::spawn(async move {
            // A connection that ends badly is an error of the load.
            drop(connection(stream, replies).await);
        });
    }
}

/// Made once, so that answering is cheap.
#[derive(Clone)]
struct Replies {
    small: Bytes,
    large: Bytes,
}

async fn connection(stream: TcpStream, replies: Replies) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut connection = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .handshake(stream)
        .await?;
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let replies = replies.clone();
        tokio::spawn(async move { drop(answer(request, respond, replies).await) });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    replies: Replies,
) -> Result<(), Failure> {
    let (head, mut body) = request.into_parts();
    let response = Response::builder().header("content-type", "application/grpc").body(())?;
    match head.uri.path() {
        GET => {
            let reply = one_message(&mut body, &replies).await?;
            let mut send = respond.send_response(response, false)?;
            let Some(reply) = reply else { return end(&mut send, INVALID_ARGUMENT) };
            send_all(&mut send, reply).await?;
            end(&mut send, OK)
        }
        CHAT | WATCH => {
            let mut send = respond.send_response(response, false)?;
            let whole = echo(&mut body, &mut send, &replies).await?;
            end(&mut send, if whole { OK } else { INVALID_ARGUMENT })
        }
        _ => end(&mut respond.send_response(response, false)?, UNIMPLEMENTED),
    }
}

/// What answers a request of one whole message of either size.
async fn one_message(body: &mut RecvStream, replies: &Replies) -> Result<Option<Bytes>, Failure> {
    let mut messages = Messages::default();
    while let Some(bytes) = next(body).await? {
        messages.feed(&bytes);
    }
    let whole = messages.complete == 1 && messages.is_between();
    Ok(match messages.bytes.checked_sub(PREFIX) {
        Some(SMALL) if whole => Some(replies.small.clone()),
        Some(LARGE) if whole => Some(replies.large.clone()),
        _ => None,
    })
}

/// Sends a message for each that comes, one a frame. Returns whether the last was whole.
async fn echo(
    body: &mut RecvStream,
    send: &mut SendStream<Bytes>,
    replies: &Replies,
) -> Result<bool, Failure> {
    let mut messages = Messages::default();
    while let Some(bytes) = next(body).await? {
        let before = messages.complete;
        messages.feed(&bytes);
        for _ in before..messages.complete {
            send.send_data(replies.small.clone(), false)?;
        }
    }
    Ok(messages.is_between())
}

async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Failure> {
    let Some(bytes) = body.data().await else { return Ok(None) };
    let bytes = bytes?;
    body.flow_control().release_capacity(bytes.len())?;
    Ok(Some(bytes))
}

/// Sends as the other side's windows allow.
async fn send_all(send: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Failure> {
    if bytes.len() <= SMALL + PREFIX {
        return Ok(send.send_data(bytes, false)?);
    }
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| send.poll_capacity(cx)).await else {
            return Err("the stream is gone".into());
        };
        let room = room?.min(bytes.len());
        send.send_data(bytes.split_to(room), false)?;
    }
    Ok(())
}

fn end(send: &mut SendStream<Bytes>, status: &'static str) -> Result<(), Failure> {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(status),
    )]);
    Ok(send.send_trailers(trailers)?)
}
