//! Any calls between a client and a server that keep the rules, over connections of any width: every
//! one ends, and a body arrives as it was sent. A wake-up that is lost shows as a call that does not
//! end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use portreeve_protocols::http2::Limits;
use tokio::io::{DuplexStream, duplex};
use tokio::task::{LocalSet, yield_now};

use super::{Given, Recorder, registration};
use crate::http2::pair::Pair;

/// Calls of one input.
const CALLS: usize = 24;

/// How often each task may be asked before a call counts as stuck.
const PATIENCE: usize = 20_000;

/// Small frames are no reason for these peers to end a connection.
const UNBOUNDED: usize = 1 << 30;

/// What a call is to be: `/kind/…` decides what the server does.
#[derive(Clone, Debug)]
struct Call {
    kind: Kind,
    body: usize,
    piece: usize,
    end: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Denied,
    Echo,
    Early,
    Reset,
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Body,
    Trailers,
    Reset,
    Drop,
}

impl Call {
    fn read([a, b, c]: [u8; 3]) -> Self {
        let kind = match a % 8 {
            0 | 1 => Kind::Denied,
            2..=4 => Kind::Echo,
            5 => Kind::Early,
            6 => Kind::Reset,
            _ => Kind::Leave,
        };
        let end = match c % 8 {
            0..=3 => Ending::Body,
            4 | 5 => Ending::Trailers,
            6 => Ending::Reset,
            _ => Ending::Drop,
        };
        let body = usize::from(b) * usize::from(a / 8);
        Self { kind, body, piece: usize::from(c) * 16 + 1, end }
    }

    fn path(&self) -> &'static str {
        match self.kind {
            Kind::Denied => "/denied/",
            Kind::Echo => "/echo/",
            Kind::Early => "/early/",
            Kind::Reset => "/reset/",
            Kind::Leave => "/leave/",
        }
    }
}

/// Every three bytes are a call.
pub(super) fn run(choice: u8, data: &[u8]) {
    let calls = data.chunks_exact(3).take(CALLS);
    let calls: Vec<Call> = calls.map(|c| Call::read([c[0], c[1], c[2]])).collect();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    LocalSet::new().block_on(&runtime, converse(choice, calls));
}

async fn converse(choice: u8, calls: Vec<Call>) {
    let width = 64 << (choice % 11);
    let (client, front) = duplex(width);
    let (backs, servers): (Vec<_>, Vec<_>) = (0..4).map(|_| duplex(width)).unzip();
    let leaves = calls.iter().any(|call| call.kind == Kind::Leave);
    let asked = Rc::<RefCell<Vec<String>>>::default();
    for server in servers {
        tokio::task::spawn_local(serve(server, asked.clone()));
    }
    let (judge, record) = Recorder::new();
    let limits = Limits { streams: 16, cancelled_streams: 1000, ..Limits::default() };
    let pair =
        Pair::new(front, Vec::new(), Given(backs), judge, registration(), Arc::new(limits), None);
    let pair = tokio::task::spawn_local(pair);
    let client = tokio::task::spawn_local(ask_all(client, calls, leaves));
    for _ in 0..PATIENCE {
        if client.is_finished() && pair.is_finished() {
            break;
        }
        yield_now().await;
    }
    assert!(client.is_finished(), "a call does not end");
    assert!(pair.is_finished(), "the pair does not end");
    for task in [client, pair] {
        if let Err(error) = task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    assert!(asked.borrow().iter().all(|path| !path.starts_with("/denied")));
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!((record.open, record.closed), (0, 1), "requests that are never over");
}

async fn ask_all(stream: DuplexStream, calls: Vec<Call>, leaves: bool) {
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(UNBOUNDED);
    let Ok((requests, connection)) = builder.handshake(stream).await else { return };
    let connection = tokio::task::spawn_local(connection);
    let mut tasks = Vec::new();
    for call in calls {
        let Ok(requests) = requests.clone().ready().await else { break };
        tasks.push(tokio::task::spawn_local(ask(requests, call, leaves)));
        yield_now().await;
    }
    drop(requests);
    for task in tasks {
        if let Err(error) = task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let _ = connection.await;
}

async fn ask(mut requests: SendRequest<Bytes>, call: Call, leaves: bool) {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    let uri = http::Uri::builder().scheme("http").authority("shop").path_and_query(call.path());
    let Ok(uri) = uri.build() else { return };
    *request.uri_mut() = uri;
    let Ok((answer, body)) = requests.send_request(request, false) else { return };
    let sender = tokio::task::spawn_local(send(body, call.clone()));
    if call.end == Ending::Drop {
        // Nobody waits for the answer: the stream is reset.
        drop(answer);
        let _ = sender.await;
        return;
    }
    let answered = match answer.await {
        Ok(answer) => read(answer).await,
        Err(error) => Err(error),
    };
    let whole = matches!(call.end, Ending::Body | Ending::Trailers);
    match answered {
        Ok((status, _)) if call.kind == Kind::Denied => assert_eq!(status, 403),
        // Servers that leave use up the connections there are to be had.
        Ok((503, _)) if leaves => {}
        Ok((status, body)) if call.kind == Kind::Echo && whole => {
            assert_eq!((status, body), (200, call.body), "{call:?}");
        }
        Ok(_) => {}
        // Who keeps to the rules and goes nowhere is answered.
        Err(error) => {
            let excused = leaves || call.end == Ending::Reset || call.kind == Kind::Reset;
            assert!(excused || !whole, "{call:?}: {error}");
        }
    }
    sender.abort();
}

/// Sends a body in pieces, as the receiver takes it.
async fn send(mut stream: h2::SendStream<Bytes>, call: Call) {
    let mut left = call.body;
    while left > 0 {
        stream.reserve_capacity(call.piece.min(left));
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return };
        let n = room.min(left).min(call.piece);
        if stream.send_data(vec![7; n].into(), false).is_err() {
            return;
        }
        left -= n;
    }
    let _ = match call.end {
        Ending::Body => stream.send_data(Bytes::new(), true),
        Ending::Trailers => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", HeaderValue::from_static("1"));
            stream.send_trailers(trailers)
        }
        Ending::Reset => {
            stream.send_reset(Reason::CANCEL);
            Ok(())
        }
        Ending::Drop => Ok(()),
    };
}

/// Status and length of an answer.
async fn read(answer: Response<RecvStream>) -> Result<(u16, usize), h2::Error> {
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    body.trailers().await?;
    Ok((status, length))
}

async fn serve(stream: DuplexStream, asked: Rc<RefCell<Vec<String>>>) {
    let mut builder = h2::server::Builder::new();
    builder.data_frame_budget(UNBOUNDED);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        if path == "/leave/" {
            connection.graceful_shutdown();
        }
        asked.borrow_mut().push(path.clone());
        tokio::task::spawn_local(answer(path, request.into_body(), respond));
    }
}

async fn answer(path: String, mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    if path == "/reset/" {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return;
    }
    let early = path == "/early/";
    let Ok(mut stream) = respond.send_response(Response::new(()), early) else { return };
    if early {
        return;
    }
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if stream.send_data(data, false).is_err() {
            return;
        }
    }
    let Ok(trailers) = body.trailers().await else {
        stream.send_reset(Reason::CANCEL);
        return;
    };
    let _ = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
}
