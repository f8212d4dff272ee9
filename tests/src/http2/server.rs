//! A server of the `h2` crate that does what the path says:
//!
//! | path | what |
//! | --- | --- |
//! | `/public/echo` | the body, back, and trailers `x-end: yes` |
//! | `/public/hints` | 103 before the answer |
//! | `/public/hold` | nothing, ever |
//! | `/public/begin` | a head and some bytes, and nothing after |
//! | `/public/reset/N` | a reset with code N |
//! | `/public/late/N` | a head and bytes, then a reset with code N |
//! | `/public/leave` | GOAWAY, then the answer |
//! | `/public/large/N` | N bytes |
//! | `/public/early` | the whole answer before the request's body |
//! | others | 200, `ok` |

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// What a server has seen.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<What>>);

/// What a server has seen.
#[derive(Default)]
pub struct What {
    /// Connections.
    pub connections: usize,
    /// Method and path of every request.
    pub requests: Vec<String>,
    /// Fields of the last one.
    pub fields: HeaderMap,
    /// Codes of the resets that clients sent.
    pub resets: Vec<u32>,
    /// Bytes of `/public/large` that were taken.
    pub sent: usize,
}

impl Seen {
    /// All of it.
    pub fn what(&self) -> MutexGuard<'_, What> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts one on a thread.
///
/// # Panics
/// When there is no free port.
#[must_use]
pub fn serve() -> (SocketAddr, Seen) {
    serve_with(|_| {})
}

/// The same with settings of the test's own.
///
/// # Panics
/// When there is no free port.
#[must_use]
pub fn serve_with(settings: fn(&mut h2::server::Builder)) -> (SocketAddr, Seen) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("an option");
    let address = listener.local_addr().expect("its address");
    let seen = Seen::default();
    let shared = seen.clone();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a loop");
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                shared.what().connections += 1;
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(stream, shared.clone(), settings));
            }
        });
    });
    (address, seen)
}

async fn connection(stream: TcpStream, seen: Seen, settings: fn(&mut h2::server::Builder)) {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    settings(&mut builder);
    let Ok(mut connection): Result<Connection<_, Bytes>, _> = builder.handshake(stream).await
    else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let uri = request.uri();
        seen.what().requests.push(format!("{} {}", request.method(), uri.path()));
        seen.what().fields = request.headers().clone();
        if uri.path() == "/public/leave" {
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(request, respond, seen.clone()));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Seen) {
    let path = request.uri().path().to_owned();
    let number = path.rsplit('/').next().and_then(|n| n.parse::<u32>().ok());
    let what = path.strip_prefix("/public/").unwrap_or_default().split('/').next();
    let head = Response::new(());
    let body = request.into_body();
    let done = match what.unwrap_or_default() {
        "echo" => echo(body, respond, &seen).await,
        "hints" => {
            let mut hints = Response::new(());
            *hints.status_mut() = http::StatusCode::EARLY_HINTS;
            hints.headers_mut().insert("link", "</a.css>".parse().expect("a value"));
            let _ = respond.send_informational(hints);
            tokio::time::sleep(Duration::from_millis(20)).await;
            finish(respond.send_response(head, false), b"ok")
        }
        "hold" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            note(&seen, reason.ok());
            Ok(())
        }
        "begin" => {
            if let Ok(mut stream) = respond.send_response(head, false) {
                let _ = stream.send_data(Bytes::from_static(b"beginning"), false);
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
                note(&seen, reason.ok());
            }
            Ok(())
        }
        "reset" => {
            respond.send_reset(Reason::from(number.unwrap_or_default()));
            Ok(())
        }
        "late" => {
            if let Ok(mut stream) = respond.send_response(head, false) {
                let _ = stream.send_data(Bytes::from_static(b"beginning"), false);
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.send_reset(Reason::from(number.unwrap_or_default()));
            }
            Ok(())
        }
        "leave" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            finish(respond.send_response(head, false), b"ok")
        }
        "large" => large(respond, number.unwrap_or_default() as usize, &seen).await,
        // The body is not read; dropping it resets the stream with NO_ERROR.
        "early" => finish(respond.send_response(head, false), b"ok"),
        _ => finish(respond.send_response(head, false), b"ok"),
    };
    let _: Result<(), h2::Error> = done;
}

fn finish(
    stream: Result<h2::SendStream<Bytes>, h2::Error>,
    body: &'static [u8],
) -> Result<(), h2::Error> {
    stream?.send_data(Bytes::from_static(body), true)
}

fn note(seen: &Seen, reason: Option<Reason>) {
    seen.what().resets.extend(reason.map(u32::from));
}

async fn echo(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    seen: &Seen,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(Response::new(()), false)?;
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => {
                note(seen, error.reason());
                return Err(error);
            }
        };
        body.flow_control().release_capacity(data.len())?;
        stream.send_data(data, false)?;
    }
    let mut trailers = body.trailers().await?.unwrap_or_default();
    trailers.insert("x-end", "yes".parse().expect("a value"));
    stream.send_trailers(trailers)
}

async fn large(
    mut respond: SendResponse<Bytes>,
    size: usize,
    seen: &Seen,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(Response::new(()), false)?;
    let mut left = size;
    while left > 0 {
        stream.reserve_capacity(left.min(64 * 1024));
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else {
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            note(seen, reason.ok());
            return Ok(());
        };
        let n = room.min(left);
        left -= n;
        stream.send_data(Bytes::from(vec![b'x'; n]), left == 0)?;
        seen.what().sent += n;
    }
    Ok(())
}
