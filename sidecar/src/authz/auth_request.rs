//! nginx's `auth_request`: a subrequest without a body, whose header fields say what was asked. 200 lets
//! the request pass, 403 does not.
//!
//! nginx passes on what the client sent, beside the fields that its configuration sets. So whatever is
//! believed here must be set there, and what is said twice is not believed.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use portreeve_core::guard::{Checked, Guard, Judged, Peer};
use portreeve_policy::TrafficDirection;

const METHOD: HeaderName = HeaderName::from_static("x-original-method");
/// Path and query: nginx's documentation.
const URI: HeaderName = HeaderName::from_static("x-original-uri");
/// The same with scheme and host: ingress-nginx.
const URL: HeaderName = HeaderName::from_static("x-original-url");
/// Where the connection comes from.
const PEER: HeaderName = HeaderName::from_static("x-real-ip");

/// What is about the subrequest, and nothing that the client has asked.
const NOT_ASKED: [HeaderName; 7] =
    [METHOD, URI, URL, PEER, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// Answers one subrequest.
pub(super) fn answer(guard: &Guard, subrequest: &Parts) -> Response<Full<Bytes>> {
    match verdict(guard, subrequest) {
        Ok(judged) => {
            let status = if judged.is_allowed() { StatusCode::OK } else { StatusCode::FORBIDDEN };
            respond(status, judged.reason.as_str(), &judged)
        }
        Err((reason, judged)) => {
            tracing::debug!("denied: {reason}");
            match judged {
                Some(judged) => respond(StatusCode::FORBIDDEN, reason, &judged),
                None => plain(StatusCode::FORBIDDEN, reason),
            }
        }
    }
}

/// Why a request does not pass whatever policy says, and what policy says, if it was asked.
type Refused = (&'static str, Option<Judged>);

fn verdict(guard: &Guard, subrequest: &Parts) -> Result<Judged, Refused> {
    let (mut parts, address) = asked(subrequest).map_err(|reason| (reason, None))?;
    let peer = match guard.config().direction {
        TrafficDirection::Ingress => Peer::Address(SocketAddr::new(address, 0)),
        // nginx does not say where the workload wants to go.
        TrafficDirection::Egress => Peer::Unknown,
    };
    let forwarded = parts.uri.clone();
    match guard.check(peer, &mut parts, None) {
        // nginx can't be told to forward anything but what it has.
        Checked::Forward(judged) if parts.uri != forwarded => {
            Err(("path_not_normalized", Some(judged)))
        }
        Checked::Forward(judged) if !judged.edits.is_empty() => {
            Err(("header_edits_not_possible", Some(judged)))
        }
        Checked::Forward(judged) | Checked::Deny(judged, _) => Ok(judged),
        Checked::Refuse(reason, _) => Err((reason, None)),
    }
}

/// The head of the request that the subrequest is about, and where it comes from.
fn asked(subrequest: &Parts) -> Result<(Parts, IpAddr), &'static str> {
    let headers = &subrequest.headers;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    let method = only(headers, &METHOD)?.ok_or("x_original_method_missing")?;
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| "x_original_method")?;
    let host;
    (parts.uri, host) = match (only(headers, &URI)?, only(headers, &URL)?) {
        (Some(uri), None) => (origin(uri)?, only(headers, &HOST)?.map(str::to_owned)),
        (None, Some(url)) => {
            let url: Uri = url.parse().map_err(|_| "x_original_url")?;
            let path = url.path_and_query().ok_or("x_original_url")?.as_str();
            (origin(path)?, url.authority().map(ToString::to_string))
        }
        (None, None) => return Err("x_original_uri_missing"),
        // nginx sets one of them; the other is the client's.
        (Some(_), Some(_)) => return Err("x_original_uri_and_url"),
    };
    let address = only(headers, &PEER)?.ok_or("x_real_ip_missing")?;
    let address = address.parse().map_err(|_| "x_real_ip")?;
    parts.headers = headers.clone();
    for name in NOT_ASKED {
        parts.headers.remove(name);
    }
    let host = HeaderValue::try_from(host.ok_or("host_missing")?).map_err(|_| "host")?;
    parts.headers.insert(HOST, host);
    Ok((parts, address))
}

fn origin(target: &str) -> Result<Uri, &'static str> {
    target.parse::<PathAndQuery>().map(Uri::from).map_err(|_| "x_original_uri")
}

/// The one value of a field; that it is there twice is an error.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(HeaderValue::to_str).transpose().map_err(|_| "not_text")?;
    match values.next() {
        Some(_) => Err("said_twice"),
        None => Ok(value),
    }
}

/// The answer, with fields for `auth_request_set`.
fn respond(status: StatusCode, reason: &'static str, judged: &Judged) -> Response<Full<Bytes>> {
    let mut response = plain(status, reason);
    for (name, text) in
        [("x-portreeve-policy", judged.policy()), ("x-portreeve-rule", judged.rule())]
    {
        if let Ok(value) = HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn plain(status: StatusCode, reason: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response.headers_mut().insert("x-portreeve-reason", HeaderValue::from_static(reason));
    response
}
