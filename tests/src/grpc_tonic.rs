//! The gRPC suite's client in Rust: tonic, with messages that are bytes. It runs in the test itself and
//! says what the clients in other languages print.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hyper::http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// A channel to one address. Its connection goes on between calls, on a thread of its own.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    chat: Option<Chat>,
}

impl Client {
    /// Connects with the first call.
    ///
    /// # Panics
    /// When there is no runtime.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let entered = runtime.enter();
        let channel = endpoint.connect_lazy();
        drop(entered);
        Self { runtime, channel, chat: None }
    }

    /// Does one thing that it is told, a call or a part of a stream's life: what it came to.
    ///
    /// # Panics
    /// When it is told nonsense.
    pub fn told(&mut self, what: &str) -> String {
        let Self { runtime, channel, chat } = self;
        let did = async {
            match what {
                "call" => text(get(channel, "again").await),
                "open" => match Chat::open(channel, "Orders/Chat").await {
                    Ok(opened) => chat.insert(opened).turn("open").await,
                    Err(status) => refusal(status),
                },
                "turn" => chat.as_mut().expect("a stream").turn("turn").await,
                "end" => chat.take().expect("a stream").end().await,
                "wait" => chat.take().expect("a stream").receive().await,
                _ => panic!("`{what}` is nothing to be told"),
            }
        };
        let came = runtime.block_on(async { tokio::time::timeout(LIMIT, did).await });
        let came = came.expect("it does not hang");
        came.split(' ').next().unwrap_or_default().to_owned()
    }

    /// Every scenario: what it came to, a line each.
    ///
    /// # Panics
    /// When something went wrong for which there is no status.
    #[must_use]
    pub fn calls(&self) -> String {
        self.runtime.block_on(async {
            let called = tokio::time::timeout(LIMIT, calls(&self.channel)).await;
            called.expect("no call hangs")
        })
    }
}

async fn calls(channel: &Channel) -> String {
    let mut lines = String::new();
    let mut tell = |what: &str, told: String| writeln!(lines, "{what}: {told}").expect("a string");
    tell("unary", text(get(channel, "hello").await));
    let size = |bytes: Bytes| format!("0 {} bytes", bytes.len());
    tell("empty", get(channel, "").await.map_or_else(refusal, size));
    tell("denied", text(simple(channel, "Admin/Reset", "x").await));
    tell("next", text(get(channel, "again").await));
    tell("denied method", text(simple(channel, "Orders/Delete", "x").await));
    let sent = ["one", "three", "seventh"].map(Bytes::from);
    let put = upload(channel, "Orders/Put", tokio_stream::iter(sent)).await;
    tell("client streaming", text(put));
    tell("server streaming", all_of(watch(channel, "Orders/Watch", "5").await).await);
    tell("bidi", in_turn(channel).await);
    tell(
        "denied bidi",
        Chat::open(channel, "Admin/Chat").await.map_or_else(refusal, |_| "0".into()),
    );
    tell("beside open streams", beside_open_streams(channel).await);
    tell("denied uploads", denied_uploads(channel).await);
    tell("after them", text(get(channel, "still here").await));
    let mut slow = Request::new("x".into());
    slow.set_timeout(DEADLINE);
    tell("deadline", unary(channel, SLOW, slow).await.map_or_else(late, |_| "0".into()));
    tell("gzip", gzip(channel).await);
    let large = get(channel, vec![b'x'; 1 << 20]).await;
    tell("large", large.map_or_else(refusal, size));
    tell("many messages", many_messages(channel).await);
    tell("error", simple(channel, "Orders/Fail", "0").await.map_or_else(detailed, |_| "0".into()));
    tell("error in a stream", error_in_a_stream(channel).await);
    metadata(channel, &mut tell).await;
    tell("cancel", cancel(channel).await);
    tell("cancel of a flood", cancel_flood(channel).await);
    tell("concurrent", concurrent(channel).await);
    lines
}

async fn beside_open_streams(channel: &Channel) -> String {
    let mut chats = Vec::new();
    for _ in 0..3 {
        let mut chat = Chat::open(channel, "Orders/Chat").await.expect("it opens");
        let told = chat.turn("before").await;
        chats.push((chat, told));
    }
    let mut told = text(simple(channel, "Admin/Reset", "x").await) + ", then";
    for (mut chat, before) in chats {
        let after = chat.turn("after").await;
        let _ = write!(told, " {before} {after} {},", chat.end().await);
    }
    told.trim_end_matches(',').to_owned()
}

async fn denied_uploads(channel: &Channel) -> String {
    let mut outcomes = Vec::new();
    for _ in 0..20 {
        let parts = std::iter::repeat_n(Bytes::from(vec![b'x'; 64 << 10]), 16);
        outcomes.push(text(upload(channel, "Admin/Load", tokio_stream::iter(parts)).await));
    }
    tally(outcomes)
}

async fn gzip(channel: &Channel) -> String {
    let mut grpc = Grpc::new(channel.clone())
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    grpc.ready().await.expect("a channel");
    let sent = Bytes::from("portreeve ".repeat(6554));
    let path = PathAndQuery::from_static(GET);
    match grpc.unary(Request::new(sent.clone()), path, Raw).await {
        Ok(response) => {
            let compressed = values(response.metadata(), "x-compressed");
            let same = if *response.get_ref() == sent { "the same" } else { "other" };
            format!("0 {same} {} bytes, {compressed} compressed", sent.len())
        }
        Err(status) => refusal(status),
    }
}

async fn in_turn(channel: &Channel) -> String {
    let mut chat = Chat::open(channel, "Orders/Chat").await.expect("it opens");
    let mut told = Vec::new();
    for word in ["one", "two", "three"] {
        told.push(chat.turn(word).await);
    }
    format!("{} {}", chat.end().await, told.join(" "))
}

async fn many_messages(channel: &Channel) -> String {
    let Chat { sender, mut answers } = Chat::open(channel, "Orders/Chat").await.expect("it opens");
    tokio::spawn(async move {
        for n in 0..4000 {
            if sender.send(Bytes::from(n.to_string())).await.is_err() {
                break;
            }
        }
    });
    let mut next = 0;
    loop {
        match answers.message().await {
            Ok(Some(message)) if message == next.to_string() => next += 1,
            Ok(Some(_)) => return format!("out of order after {next}"),
            Ok(None) => return format!("0 {next} in order"),
            Err(status) => return refusal(status),
        }
    }
}

async fn error_in_a_stream(channel: &Channel) -> String {
    let mut stream = watch(channel, "Orders/Fail", "2").await.expect("it opens");
    let mut told = String::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => told += &format!("{} ", String::from_utf8_lossy(&message)),
            Ok(None) => return told + "0",
            Err(status) => return told + &detailed(status),
        }
    }
}

async fn metadata(channel: &Channel, tell: &mut impl FnMut(&str, String)) {
    let mut request = Request::new(Bytes::new());
    let sent = request.metadata_mut();
    sent.insert("x-token", MetadataValue::from_static("42"));
    sent.append("x-multi", MetadataValue::from_static("one"));
    sent.append("x-multi", MetadataValue::from_static("two"));
    sent.insert("x-long", "y".repeat(5000).parse().expect("a value"));
    sent.insert_bin("x-data-bin", MetadataValue::from_bytes(&[0, 255, 16]));
    request.set_timeout(Duration::from_secs(60));
    // As a stream, for else tonic puts both kinds of metadata into one.
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("a channel");
    let path = PathAndQuery::from_static(HEADERS);
    let response = grpc.server_streaming(request, path, Raw).await.expect("an answer");
    let initial = response.metadata().clone();
    let mut stream = response.into_inner();
    let seen = stream.message().await.expect("a message").expect("one");
    let trailing = stream.trailers().await.expect("trailers").expect("some");
    let of = |name| values(&initial, name);
    tell("initial metadata", format!("{} {}", of("x-initial"), of("x-multi")));
    let data = trailing.get_bin("x-data-bin").and_then(|data| data.to_bytes().ok());
    let data = hex(&data.unwrap_or_default());
    tell("trailing metadata", format!("{} {data}", values(&trailing, "x-trailing")));
    tell("the server sees", seen_by_server(&String::from_utf8_lossy(&seen)));
    let mut wrong = Request::new(Bytes::new());
    wrong.metadata_mut().insert("x-token", MetadataValue::from_static("43"));
    tell("wrong token", text(unary(channel, HEADERS, wrong).await));
    tell("no token", text(unary(channel, HEADERS, Request::new(Bytes::new())).await));
}

/// Of what the server says of a request's head, the part that is the same for every client.
fn seen_by_server(listed: &str) -> String {
    let value = |name: &str| {
        let mut lines = listed.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    };
    let timeout = if value("grpc-timeout").is_empty() { "no timeout" } else { "a timeout" };
    let (kind, te) = (value("content-type"), value("te"));
    let (multi, long) = (value("x-multi"), value("x-long").len());
    format!("{kind}, {te}, {timeout}, {multi}, {long} bytes")
}

async fn cancel(channel: &Channel) -> String {
    let mut chat = Chat::open(channel, "Orders/Chat").await.expect("it opens");
    let told = chat.turn("before").await;
    // Whoever drops a call has cancelled it, and asks for no status. The server may see requests end
    // before it sees that.
    drop(chat);
    format!("1 {told}")
}

/// More than anybody buffers: the server is held up when it is told.
async fn cancel_flood(channel: &Channel) -> String {
    let mut stream = watch(channel, "Orders/Watch", "1000000").await.expect("it opens");
    let first = stream.message().await.expect("a message").expect("one");
    drop(stream);
    format!("1 {}", String::from_utf8_lossy(&first))
}

async fn concurrent(channel: &Channel) -> String {
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let channel = channel.clone();
            tokio::spawn(async move {
                match get(&channel, n.to_string()).await {
                    Ok(answer) if answer == n.to_string() => "0".to_owned(),
                    Ok(_) => "somebody else's".to_owned(),
                    Err(status) => refusal(status),
                }
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.expect("no panic"));
    }
    tally(outcomes)
}

/// A stream in both directions.
struct Chat {
    sender: mpsc::Sender<Bytes>,
    answers: Streaming<Bytes>,
}

impl Chat {
    async fn open(channel: &Channel, method: &str) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(unready)?;
        let request = Request::new(ReceiverStream::new(receiver));
        let answers = grpc.streaming(request, path(method), Raw).await?.into_inner();
        Ok(Self { sender, answers })
    }

    /// Sends one message and waits for what comes back.
    async fn turn(&mut self, word: &'static str) -> String {
        let _ = self.sender.send(Bytes::from(word)).await;
        self.receive().await
    }

    async fn receive(&mut self) -> String {
        match self.answers.message().await {
            Ok(Some(message)) => String::from_utf8_lossy(&message).into_owned(),
            Ok(None) => "nothing".to_owned(),
            Err(status) => refusal(status),
        }
    }

    async fn end(self) -> String {
        let Self { sender, mut answers } = self;
        drop(sender);
        match answers.message().await {
            Ok(None) => "0".to_owned(),
            Ok(Some(_)) => "a message too many".to_owned(),
            Err(status) => refusal(status),
        }
    }
}

async fn get(channel: &Channel, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    unary(channel, GET, Request::new(message.into())).await
}

async fn simple(channel: &Channel, method: &str, word: &'static str) -> Result<Bytes, Status> {
    unary(channel, path(method).as_str(), Request::new(Bytes::from(word))).await
}

async fn unary(channel: &Channel, path: &str, request: Request<Bytes>) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(unready)?;
    let path = path.parse().expect("a path");
    grpc.unary(request, path, Raw).await.map(Response::into_inner)
}

async fn upload(
    channel: &Channel,
    method: &str,
    parts: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(unready)?;
    let answer = grpc.client_streaming(Request::new(parts), path(method), Raw).await;
    answer.map(Response::into_inner)
}

async fn watch(
    channel: &Channel,
    method: &str,
    word: &'static str,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(unready)?;
    let request = Request::new(Bytes::from(word));
    grpc.server_streaming(request, path(method), Raw).await.map(Response::into_inner)
}

async fn all_of(stream: Result<Streaming<Bytes>, Status>) -> String {
    let mut told = "0".to_owned();
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(status) => return refusal(status),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => told += &format!(" {}", String::from_utf8_lossy(&message)),
            Ok(None) => return told,
            Err(status) => return refusal(status),
        }
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/shop.v1.{method}").parse().expect("a path")
}

fn unready(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

fn text(outcome: Result<Bytes, Status>) -> String {
    outcome.map_or_else(refusal, |bytes| format!("0 {}", String::from_utf8_lossy(&bytes)))
}

/// DEADLINE_EXCEEDED, which tonic calls CANCELLED when it is its own clock that says so.
fn late(status: Status) -> String {
    match status.message() {
        "Timeout expired" => "4".to_owned(),
        _ => refusal(status),
    }
}

fn refusal(status: Status) -> String {
    format!("{} {}", i32::from(status.code()), status.message())
}

fn detailed(status: Status) -> String {
    let details = hex(status.details());
    refusal(status) + ", details " + &details
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn values(metadata: &MetadataMap, name: &str) -> String {
    let values: Vec<&str> =
        metadata.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// How often each outcome was seen.
fn tally(outcomes: Vec<String>) -> String {
    let mut counted = std::collections::BTreeMap::<String, usize>::new();
    for outcome in outcomes {
        *counted.entry(outcome).or_default() += 1;
    }
    let told: Vec<String> = counted.iter().map(|(what, n)| format!("{n} x {what}")).collect();
    told.join(", ")
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

const GET: &str = "/shop.v1.Orders/Get";
const HEADERS: &str = "/shop.v1.Orders/Headers";
const SLOW: &str = "/shop.v1.Orders/Slow";
/// A client that hangs is to fail its test.
const LIMIT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_millis(500);
