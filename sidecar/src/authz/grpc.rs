//! `Authorization/Check` over gRPC: one unary method, so HTTP/2 from hyper, five bytes before the
//! message and a trailer after it are all that is needed.

use std::convert::Infallible;
use std::future::{Ready, ready};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::WithTrailers;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use portreeve_core::guard::Guard;
use prost::Message;

use super::check::check;
use super::proto::CheckRequest;

/// The service that Envoy calls.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Largest check: a head is within 60 KiB by Envoy's default, and a body is of no use here.
const MESSAGE_BYTES: usize = 1024 * 1024;

/// Bytes before a message: a flag and its length.
const PREFIX: usize = 5;

/// The body of an answer.
pub(super) type Body = WithTrailers<Full<Bytes>, Ready<Option<Result<HeaderMap, Infallible>>>>;

/// Statuses (`google.rpc.Code`) that are said in case of trouble; Envoy takes each for a failure.
enum Trouble {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unimplemented = 12,
}

/// Answers one call.
pub(super) async fn answer(
    guard: Guard,
    port: Option<u16>,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.uri().path() != CHECK {
        return trouble(Trouble::Unimplemented, "this service is envoy.service.auth.v3");
    }
    let Ok(body) = Limited::new(request.into_body(), MESSAGE_BYTES).collect().await else {
        return trouble(Trouble::ResourceExhausted, "the check is too large, or cut short");
    };
    match unframed(&body.to_bytes()).map(CheckRequest::decode) {
        Ok(Ok(request)) => message(&check(&guard, port, &request)),
        Ok(Err(_)) => trouble(Trouble::InvalidArgument, "the check is malformed"),
        Err((code, what)) => trouble(code, what),
    }
}

/// The one message of a call's body.
fn unframed(body: &[u8]) -> Result<&[u8], (Trouble, &'static str)> {
    const MALFORMED: (Trouble, &str) =
        (Trouble::InvalidArgument, "the check is not framed as gRPC");
    let (prefix, message) = body.split_first_chunk::<PREFIX>().ok_or(MALFORMED)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err((Trouble::Unimplemented, "messages are not to be compressed"));
    }
    match u32::from_be_bytes(length) as usize == message.len() {
        true => Ok(message),
        false => Err(MALFORMED),
    }
}

fn message(message: &impl Message) -> Response<Body> {
    let length = message.encoded_len();
    let mut body = Vec::with_capacity(PREFIX + length);
    body.push(0);
    body.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector grows as it must.
    let _ = message.encode(&mut body);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    respond(body.into(), Some(Ok(trailers)))
}

fn trouble(code: Trouble, what: &'static str) -> Response<Body> {
    tracing::warn!("a check can't be answered: {what}");
    let mut response = respond(Bytes::new(), None);
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(code as u16));
    headers.insert("grpc-message", HeaderValue::from_static(what));
    response
}

fn respond(body: Bytes, trailers: Option<Result<HeaderMap, Infallible>>) -> Response<Body> {
    let mut response = Response::new(Full::new(body).with_trailers(ready(trailers)));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    response
}
