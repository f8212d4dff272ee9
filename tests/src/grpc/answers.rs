//! What the server answers, method by method.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request, Response};

use super::wire::{Answer, Answering, Ended, Message, Messages, fields};
use super::{Denials, Shared};

/// A call that counts as cancelled unless it is said to have ended.
pub(super) struct Call {
    shared: Arc<Shared>,
    path: String,
    ended: bool,
}

impl Call {
    fn begin(shared: Arc<Shared>, path: &str, headers: &HeaderMap) -> Self {
        let mut seen = shared.seen();
        *seen.calls.entry(path.to_owned()).or_default() += 1;
        if let Some(timeout) = headers.get("grpc-timeout") {
            seen.timeouts.push((path.to_owned(), text(timeout)));
        }
        drop(seen);
        Self { shared, path: path.to_owned(), ended: false }
    }
}

impl Ended for Call {
    fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            *self.shared.seen().cancelled.entry(self.path.clone()).or_default() += 1;
        }
    }
}

/// Answers one call.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Answer<Option<Call>>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let headers = head.headers;
    if shared.denials == Denials::Here && denied(&path, &headers) {
        return Ok(status_only(fields(&[("grpc-status", "7"), ("grpc-message", "Access denied")])));
    }
    let mut call = Call::begin(shared, &path, &headers);
    let mut messages = Messages::of(body);
    let method = match path.strip_prefix("/shop.v1.") {
        Some("Orders/Get" | "Orders/Chat" | "Orders/Delete" | "Admin/Reset") => Method::Echo,
        Some("Orders/Put" | "Admin/Load") => Method::Count,
        Some("Orders/Watch") => Method::Numbers,
        Some("Orders/Headers") => Method::Headers,
        Some("Orders/Fail") => Method::Fail,
        Some("Orders/Slow") => {
            tokio::time::sleep(SLOW).await;
            Method::Echo
        }
        _ => {
            call.ended();
            return Ok(status_only(fields(&[("grpc-status", "12")])));
        }
    };
    let number = match method {
        Method::Numbers | Method::Fail => number(messages.next().await),
        _ => 0,
    };
    if matches!(method, Method::Fail) && number == 0 {
        call.ended();
        return Ok(status_only(failure()));
    }
    let (answering, answer) = Answer::written(Some(call));
    let mut response = head_of(answer);
    if matches!(method, Method::Headers) {
        response.headers_mut().extend(fields(&[("x-initial", "first"), ("x-multi", "a")]));
        response.headers_mut().append("x-multi", HeaderValue::from_static("b"));
    }
    if let Some(encoding) = headers.get("grpc-encoding") {
        response.headers_mut().insert("grpc-encoding", encoding.clone());
    }
    tokio::spawn(method.run(number, headers, messages, answering));
    Ok(response)
}

/// What the suite's policy forbids.
fn denied(path: &str, headers: &HeaderMap) -> bool {
    let token = headers.get("x-token").is_some_and(|token| token == "42");
    path.starts_with("/shop.v1.Admin/")
        || path == "/shop.v1.Orders/Delete"
        || path == "/shop.v1.Orders/Headers" && !token
}

/// What a method does.
enum Method {
    Echo,
    Count,
    Numbers,
    Headers,
    Fail,
}

impl Method {
    async fn run(
        self,
        number: u32,
        headers: HeaderMap,
        mut messages: Messages,
        answering: Answering,
    ) {
        let mut trailers = fields(&[("grpc-status", "0")]);
        match self {
            Self::Echo => {
                let mut compressed = 0_u32;
                while let Some(message) = messages.next().await {
                    compressed += u32::from(message.compressed);
                    answering.message(&message).await;
                }
                trailers.insert("x-compressed", HeaderValue::from(compressed));
            }
            Self::Count => {
                let (mut count, mut bytes) = (0, 0);
                while let Some(message) = messages.next().await {
                    count += 1;
                    bytes += message.bytes.len();
                }
                let told = format!("{count} messages, {bytes} bytes");
                answering.message(&Message::text(told)).await;
            }
            Self::Numbers => count_to(number, &answering).await,
            Self::Headers => {
                while messages.next().await.is_some() {}
                answering.message(&Message::text(listed(&headers))).await;
                trailers.extend(fields(&[("x-trailing", "last")]));
                if let Some(data) = headers.get("x-data-bin") {
                    trailers.insert("x-data-bin", data.clone());
                }
            }
            Self::Fail => {
                count_to(number, &answering).await;
                trailers = failure();
            }
        }
        answering.trailers(trailers).await;
    }
}

async fn count_to(number: u32, answering: &Answering) {
    for n in 1..=number {
        if !answering.message(&Message::text(n.to_string())).await {
            return;
        }
    }
}

/// The number in a request, 0 if it has none.
fn number(message: Option<Message>) -> u32 {
    let bytes = message.map(|message| message.bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes).parse().unwrap_or_default()
}

/// A line for each name, with its values in the order in which they came.
fn listed(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> = Vec::new();
    for name in headers.keys() {
        let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
        lines.push(format!("{name}: {}", values.join(",")));
    }
    lines.sort();
    lines.join("\n")
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// FAILED_PRECONDITION with a message that needs escaping, and details: a `google.rpc.Status` that says
/// the same.
fn failure() -> HeaderMap {
    fields(&[
        ("grpc-status", "9"),
        ("grpc-message", "out of caf%C3%A9, 100%25"),
        ("grpc-status-details-bin", "CAkSEm91dCBvZiBjYWbDqSwgMTAwJQ"),
    ])
}

fn head_of<G>(answer: Answer<G>) -> Response<Answer<G>> {
    let mut response = Response::new(answer);
    response.headers_mut().extend(fields(&[("content-type", "application/grpc")]));
    response
}

/// An answer without messages: what would be its trailers are its head.
fn status_only(status: HeaderMap) -> Response<Answer<Option<Call>>> {
    let mut response = head_of(Answer::none(None));
    response.headers_mut().extend(status);
    response
}

impl Ended for Option<Call> {
    fn ended(&mut self) {
        if let Some(call) = self {
            call.ended();
        }
    }
}

/// Longer than any client of the suite waits.
const SLOW: Duration = Duration::from_secs(60);
