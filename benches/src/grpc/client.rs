//! A client that makes one call at a time and believes nothing: every answer is checked for its
//! status, its gRPC status and its messages.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::net::TcpStream;

use super::{CONNECTION_WINDOW, GET, Messages, OK, PERMISSION_DENIED, STREAM_WINDOW, TOKEN};
use crate::Failure;

/// Runs a client on this thread; an error if it takes longer.
pub fn run<T>(
    at_most: Duration,
    client: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match tokio::time::timeout(at_most, client).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no end after {} s", at_most.as_secs()).into()),
        }
    })
}

/// A connection, open as long as this lives.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
}

/// What is called, and how.
#[derive(Clone)]
pub struct Call<'a> {
    /// POST, unless policy is to deny it.
    pub method: Method,
    /// The method of the service.
    pub path: &'a str,
    /// The value of the header that policy looks at.
    pub token: &'a str,
}

impl<'a> Call<'a> {
    /// A call as gRPC makes it.
    pub fn new(path: &'a str, token: &'a str) -> Self {
        Self { method: Method::POST, path, token }
    }
}

/// What came back.
#[derive(Default)]
pub struct Answer {
    status: u16,
    grpc_status: Option<String>,
    messages: Messages,
}

impl Answer {
    /// An error unless the upstream answered with so many messages.
    pub fn allowed(&self, messages: usize) -> Result<(), Failure> {
        let whole = self.messages.complete == messages && self.messages.is_between();
        if self.status == 200 && self.grpc_status.as_deref() == Some(OK) && whole {
            return Ok(());
        }
        Err(self.unexpected("an answer"))
    }

    /// An error unless a proxy denied it: 403, or gRPC's status in a response without messages.
    pub fn denied(&self) -> Result<(), Failure> {
        let in_grpc = self.status == 200
            && self.grpc_status.as_deref() == Some(PERMISSION_DENIED)
            && self.messages.bytes == 0;
        if self.status == 403 || in_grpc {
            return Ok(());
        }
        Err(self.unexpected("a denial"))
    }

    fn unexpected(&self, expected: &str) -> Failure {
        format!(
            "expected {expected}, got status {}, grpc-status {}, {} messages in {} bytes",
            self.status,
            self.grpc_status.as_deref().unwrap_or("missing"),
            self.messages.complete,
            self.messages.bytes,
        )
        .into()
    }

    fn note(&mut self, fields: &HeaderMap) {
        if let Some(status) = fields.get("grpc-status") {
            self.grpc_status = Some(String::from_utf8_lossy(status.as_bytes()).into_owned());
        }
    }
}

/// A call that goes on: both directions are open.
pub struct Open {
    send: SendStream<Bytes>,
    receive: RecvStream,
    answer: Answer,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await?;
        // What ends a connection is an error of the calls on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests })
    }

    async fn send(&self, call: Call<'_>) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
        let request = Request::builder()
            .method(call.method)
            .uri(format!("http://shop{}", call.path))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header(TOKEN, call.token)
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        Ok(requests.send_request(request, false)?)
    }

    /// One message there, the whole answer back.
    pub async fn unary(&self, call: Call<'_>, message: Bytes) -> Result<Answer, Failure> {
        let (response, mut send) = self.send(call).await?;
        send.send_data(message, true)?;
        Open::begin(response, send).await?.rest().await
    }

    /// Opens a call and waits for the response's fields.
    pub async fn call(&self, call: Call<'_>) -> Result<Open, Failure> {
        let (response, send) = self.send(call).await?;
        Open::begin(response, send).await
    }
}

impl Open {
    async fn begin(response: ResponseFuture, send: SendStream<Bytes>) -> Result<Self, Failure> {
        let (head, receive) = response.await?.into_parts();
        let mut answer = Answer { status: head.status.as_u16(), ..Answer::default() };
        answer.note(&head.headers);
        Ok(Self { send, receive, answer })
    }

    /// Sends a message.
    pub fn say(&mut self, message: Bytes) -> Result<(), Failure> {
        Ok(self.send.send_data(message, false)?)
    }

    /// How many messages have come so far, once there are more than before; an error at the end.
    pub async fn hear(&mut self) -> Result<usize, Failure> {
        let before = self.answer.messages.complete;
        while self.answer.messages.complete == before {
            if !self.chunk().await? {
                return Err(self.answer.unexpected("another message"));
            }
        }
        Ok(self.answer.messages.complete)
    }

    /// Ends the call from this side and waits for the other.
    pub async fn end(mut self) -> Result<Answer, Failure> {
        self.send.send_data(Bytes::new(), true)?;
        self.rest().await
    }

    async fn rest(mut self) -> Result<Answer, Failure> {
        while self.chunk().await? {}
        if let Some(trailers) = poll_fn(|cx| self.receive.poll_trailers(cx)).await? {
            self.answer.note(&trailers);
        }
        Ok(self.answer)
    }

    /// Takes what has come; false at the end.
    async fn chunk(&mut self) -> Result<bool, Failure> {
        let Some(bytes) = self.receive.data().await else { return Ok(false) };
        let bytes = bytes?;
        self.receive.flow_control().release_capacity(bytes.len())?;
        self.answer.messages.feed(&bytes);
        Ok(true)
    }
}

/// Whether what listens there answers an allowed call.
pub fn answers(address: SocketAddr) -> Result<(), Failure> {
    run(Duration::from_secs(1), async {
        let connection = Connection::open(address).await?;
        let call = Call::new(GET, super::GOOD);
        connection.unary(call, super::message(super::SMALL)).await?.allowed(1)
    })
}

/// Whether what listens there denies a wrong header, a wrong path and a wrong method.
pub fn denies(address: SocketAddr) -> Result<(), Failure> {
    let good = Call::new(GET, super::GOOD);
    let calls = [
        Call { token: super::BAD, ..good.clone() },
        Call { path: super::FORBIDDEN, ..good.clone() },
        Call { method: Method::PUT, ..good },
    ];
    run(Duration::from_secs(3), async {
        let connection = Connection::open(address).await?;
        for call in calls {
            connection.unary(call, super::message(super::SMALL)).await?.denied()?;
        }
        Ok(())
    })
}
