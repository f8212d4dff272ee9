//! HTTP/2 by hand: a client that sends exactly the frames it is told to, a client of the `h2` crate for
//! everything in order, and a server that does what the path says.

mod frames;
mod server;

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

pub use self::frames::{Frame, RawClient, block, kind};
pub use self::server::{Seen, What, serve, serve_with};

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its head.
    pub head: Response<()>,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }
}

/// Runs a test's future on a thread of its own making.
///
/// # Panics
/// When there is no event loop to be had, or the future takes longer than half a minute.
pub fn block_on<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("an event loop");
    runtime.block_on(async {
        tokio::time::timeout(std::time::Duration::from_secs(30), future)
            .await
            .expect("it takes too long")
    })
}

/// Opens a connection with prior knowledge.
///
/// # Panics
/// When that fails.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    connect_with(address, &h2::client::Builder::new()).await
}

/// The same with settings of the test's own.
///
/// # Panics
/// When that fails.
pub async fn connect_with(
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let (requests, connection) = builder.handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    requests.ready().await.expect("ready")
}

/// A request's head.
///
/// # Panics
/// When the path can't be one.
#[must_use]
pub fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://shop{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a request")
}

/// The head of a gRPC call.
///
/// # Panics
/// When the path can't be one.
#[must_use]
pub fn grpc(path: &str) -> Request<()> {
    let mut request = request("POST", path);
    let headers = request.headers_mut();
    headers.insert("content-type", "application/grpc".parse().expect("a value"));
    headers.insert("te", "trailers".parse().expect("a value"));
    request
}

/// Asks and reads the answer to its end.
///
/// # Errors
/// When the stream or the connection ends before.
pub async fn ask(
    requests: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: &'static [u8],
) -> Result<Answer, h2::Error> {
    let mut ready = requests.clone().ready().await?;
    let (answer, mut stream) = ready.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(Bytes::from_static(body), true)?;
    }
    read(answer.await?).await
}

/// Reads an answer to its end.
///
/// # Errors
/// When the stream or the connection ends before.
pub async fn read(response: Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { head: Response::from_parts(parts, ()), body, trailers })
}
