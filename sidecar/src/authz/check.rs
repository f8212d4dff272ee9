//! One check: what Envoy says of a request, judged, and what Envoy is to do.

use std::net::SocketAddr;

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri};
use portreeve_core::guard::{Checked, Edit, Guard, Judged, Peer};
use portreeve_policy::TrafficDirection;
use portreeve_protocols::http2::{Reply, grpc};

use super::proto::{
    self, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpStatus, OVERWRITE_IF_EXISTS_OR_ADD, OkHttpResponse, Status, Struct,
};

/// `google.rpc.Code`.
const PERMISSION_DENIED: i32 = 7;

/// Answers a check. `port` is the one that policy is to see; `None`: the one that Envoy names.
pub(super) fn check(guard: &Guard, port: Option<u16>, request: &CheckRequest) -> CheckResponse {
    match asked(guard, port, request) {
        Ok(asked) => judge(guard, asked),
        // What is not said can't be judged.
        Err(missing) => {
            tracing::warn!("denied: the check does not say {missing}");
            denied(&Reply::new(403, false), &[("reason", missing)])
        }
    }
}

/// What a check is about.
struct Asked<'a> {
    parts: Parts,
    peer: Peer<'a>,
    port: u16,
}

fn asked<'a>(
    guard: &Guard,
    port: Option<u16>,
    request: &'a CheckRequest,
) -> Result<Asked<'a>, &'static str> {
    let attributes = request.attributes.as_ref().ok_or("anything")?;
    let destination = address(attributes.destination.as_ref());
    let port = port.or_else(|| destination.map(|address| address.port()).filter(|port| *port > 0));
    Ok(Asked {
        parts: parts(attributes)?,
        peer: peer(guard, attributes, destination)?,
        port: port.ok_or("destination_port")?,
    })
}

/// Who is on the other side. A principal of the configured trust domains' form comes first: what it
/// says was verified by Envoy, and one that is not believed is nobody, wherever they are.
fn peer<'a>(
    guard: &Guard,
    attributes: &'a AttributeContext,
    destination: Option<SocketAddr>,
) -> Result<Peer<'a>, &'static str> {
    let config = guard.config();
    if config.direction == TrafficDirection::Egress {
        return destination.map(Peer::Address).ok_or("destination_address");
    }
    let principal = attributes.source.as_ref().map_or("", |source| source.principal.as_str());
    match principal.starts_with("spiffe://") && !config.trust_domains.is_empty() {
        true => Ok(Peer::Spiffe(principal)),
        false => address(attributes.source.as_ref()).map(Peer::Address).ok_or("source_address"),
    }
}

fn address(peer: Option<&proto::Peer>) -> Option<SocketAddr> {
    let socket = peer?.address.as_ref()?.socket_address.as_ref()?;
    Some(SocketAddr::new(socket.address.parse().ok()?, u16::try_from(socket.port_value).ok()?))
}

/// The head of the request.
fn parts(attributes: &AttributeContext) -> Result<Parts, &'static str> {
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
    let http = http.ok_or("http_request")?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(http.method.as_bytes()).map_err(|_| "method")?;
    let path: PathAndQuery = http.path.parse().map_err(|_| "path")?;
    parts.uri = Uri::from(path);
    let field = |name: &str, value: &[u8]| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "header_name")?;
        Ok((name, HeaderValue::from_bytes(value).map_err(|_| "header_value")?))
    };
    let raw = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
        let raw = header.raw_value.as_slice();
        (header.key.as_str(), if raw.is_empty() { header.value.as_bytes() } else { raw })
    });
    let joined = http.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in joined.chain(raw).filter(|(name, _)| !name.starts_with(':')) {
        let (name, value) = field(name, value)?;
        parts.headers.append(name, value);
    }
    if !http.host.is_empty() && !parts.headers.contains_key(HOST) {
        let (name, value) = field("host", http.host.as_bytes())?;
        parts.headers.insert(name, value);
    }
    Ok(parts)
}

fn judge(guard: &Guard, Asked { mut parts, peer, port }: Asked<'_>) -> CheckResponse {
    let forwarded = parts.uri.clone();
    let is_grpc = grpc::is_grpc(&parts.headers);
    match guard.check_at(peer, port, &mut parts, None) {
        // Envoy forwards the path that it has, not the one that was judged. Rewriting it from here
        // would come after the route was chosen, and is ignored without a word where mutation rules
        // forbid it: the client is to ask for the clean path by itself.
        Checked::Forward(_) if parts.uri != forwarded => {
            let clean = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
            denied(&Reply::redirect(clean, is_grpc), &[("reason", "path_not_normalized")])
        }
        Checked::Forward(judged) => allowed(&judged, &parts),
        Checked::Deny(judged, reply) => denied(&reply, &described(&judged)),
        Checked::Refuse(reason, reply) => denied(&reply, &[("reason", reason)]),
    }
}

/// What Envoy's access log can show as `%DYNAMIC_METADATA(envoy.filters.http.ext_authz:rule)%`.
fn described(judged: &Judged) -> [(&'static str, &str); 4] {
    let verdict = match judged.outcome {
        portreeve_policy::Outcome::Allow => "allow",
        portreeve_policy::Outcome::Deny => "deny",
        portreeve_policy::Outcome::Audit => "audit",
    };
    [
        ("verdict", verdict),
        ("policy", judged.policy()),
        ("rule", judged.rule()),
        ("reason", judged.reason.as_str()),
    ]
}

fn metadata(fields: &[(&str, &str)]) -> Option<Struct> {
    let value = |text: &str| proto::Value { string_value: Some(text.to_owned()) };
    let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), value(text)));
    Some(Struct { fields: fields.collect() })
}

/// The head as it is to be is in `parts`; what differs is said.
fn allowed(judged: &Judged, parts: &Parts) -> CheckResponse {
    let mut answer = OkHttpResponse::default();
    for edit in judged.edits.iter() {
        let (Edit::Add(name, _) | Edit::Remove(name) | Edit::Replace(name, _)) = edit;
        let values: Vec<&[u8]> =
            parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        match values.as_slice() {
            [] => answer.headers_to_remove.push(name.to_string()),
            values => answer.headers.push(overwrite(name, &values.join(&b","[..]))),
        }
    }
    CheckResponse {
        status: Some(Status::default()),
        ok_response: Some(answer),
        denied_response: None,
        dynamic_metadata: metadata(&described(judged)),
    }
}

/// To gRPC, Envoy says it in gRPC's words itself.
fn denied(reply: &Reply, fields: &[(&str, &str)]) -> CheckResponse {
    let plain = match reply.grpc_status() {
        Some(_) => Reply::new(reply.status(), false).to_response().map(str::trim_end),
        None => reply.to_response(),
    };
    let headers = plain.headers().iter().filter(|(name, _)| *name != CONTENT_LENGTH);
    CheckResponse {
        status: Some(Status { code: PERMISSION_DENIED, message: String::new() }),
        denied_response: Some(DeniedHttpResponse {
            status: Some(HttpStatus { code: plain.status().as_u16().into() }),
            headers: headers.map(|(name, value)| overwrite(name, value.as_bytes())).collect(),
            body: (*plain.body()).to_owned(),
        }),
        ok_response: None,
        dynamic_metadata: metadata(fields),
    }
}

fn overwrite(name: &HeaderName, value: &[u8]) -> HeaderValueOption {
    let value = match std::str::from_utf8(value) {
        Ok(value) => proto::HeaderValue { value: value.to_owned(), ..Default::default() },
        Err(_) => proto::HeaderValue { raw_value: value.to_owned(), ..Default::default() },
    };
    let header = proto::HeaderValue { key: name.to_string(), ..value };
    HeaderValueOption { header: Some(header), append_action: OVERWRITE_IF_EXISTS_OR_ADD }
}
