//! A request's head as policy sees it, on the types of the `http` crate: brought into the form that all
//! readers share, or refused.
//!
//! What `h2` and `hyper` have checked by then (pseudo-fields in their places, lower-case names, no
//! connection fields, lengths that agree) is not checked again.

use std::borrow::Cow;

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::Limits;
use super::grpc::is_grpc;
use crate::http1::{Normalized, Refusal, belongs_into_head, is_host, normalize};

/// Fields that the trailers of a request may have, as in HTTP/1.1.
const TRAILERS: usize = 32;

/// What became of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// To be judged, as [`Request::of`] shows it.
    Ready,
    /// Its path had escaped slashes: the client is to be sent to this one.
    Redirect(String),
    /// CONNECT: this is no proxy for others.
    Connect,
}

/// A request as policy sees it, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As received, case kept. For a WebSocket over HTTP/2 (RFC 8441) it is `GET`, as it would be in
    /// HTTP/1.1: the same request is under the same rule.
    pub method: &'a str,
    /// Path and query, normalised.
    pub path: &'a str,
    /// `:authority`, or `Host`.
    pub host: &'a str,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// It is a gRPC call.
    pub grpc: bool,
}

impl<'a> Request<'a> {
    /// The view of a head that is [`Prepared::Ready`].
    #[must_use]
    pub fn of(parts: &'a Parts) -> Self {
        let host = parts.uri.authority().map_or_else(
            || parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
            |authority| authority.as_str(),
        );
        Self {
            method: if parts.method == Method::CONNECT { "GET" } else { parts.method.as_str() },
            path: parts.uri.path_and_query().map_or("/", PathAndQuery::as_str),
            host,
            headers: &parts.headers,
            grpc: is_grpc(&parts.headers),
        }
    }

    /// The values of the fields of this name, whatever its case, in order. `Host` is there even where
    /// HTTP/2 says it as `:authority` alone.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = self.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let said = HOST == name && !self.headers.contains_key(HOST);
        fields.chain(said.then_some(self.host.as_bytes()))
    }
}

/// Brings a head into the form that is judged and forwarded. `protocol` is what extended CONNECT (RFC
/// 8441) asks for.
///
/// # Errors
/// Why no two readers would agree on it, or which limit it is over.
pub fn prepare(
    parts: &mut Parts,
    protocol: Option<&str>,
    limits: &Limits,
) -> Result<Prepared, Refusal> {
    check_fields(&parts.headers, limits)?;
    check_host(&parts.uri, &parts.headers)?;
    settle_authority(parts)?;
    fold_cookies(&mut parts.headers);
    match (parts.method == Method::CONNECT, protocol) {
        (false, _) => {}
        (true, Some(protocol)) if protocol.eq_ignore_ascii_case("websocket") => {}
        (true, _) => return Ok(Prepared::Connect),
    }
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if target.len() > limits.target_bytes as usize {
        return Err(Refusal::TargetTooLong);
    }
    if target == "*" {
        return match parts.method == Method::OPTIONS {
            true => Ok(Prepared::Ready),
            false => Err(Refusal::Target),
        };
    }
    match normalize(target)? {
        Normalized::Redirect(clean) => return Ok(Prepared::Redirect(clean)),
        Normalized::Path(Cow::Borrowed(_)) => {}
        Normalized::Path(Cow::Owned(clean)) => {
            let path = clean.parse().map_err(|_| Refusal::TargetCharacter)?;
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            uri.path_and_query = Some(path);
            parts.uri = Uri::from_parts(uri).map_err(|_| Refusal::Target)?;
        }
    }
    Ok(Prepared::Ready)
}

/// RFC 9113 section 8.2.1, and the limits.
fn check_fields(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    if headers.len() > usize::from(limits.headers) {
        return Err(Refusal::TooManyFields);
    }
    let mut bytes = 0;
    let mut underscores = false;
    for (name, value) in headers {
        // As SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 section 6.5.2).
        bytes += name.as_str().len() + value.len() + 32;
        underscores |= memchr::memchr(b'_', name.as_str().as_bytes()).is_some();
        let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if space(value.as_bytes().first()) || space(value.as_bytes().last()) {
            return Err(Refusal::FieldValue);
        }
    }
    if bytes > limits.head_bytes as usize {
        return Err(Refusal::HeadTooLong);
    }
    if underscores { check_underscores(headers) } else { Ok(()) }
}

/// Servers that map `-` to `_` take two such names for one.
fn check_underscores(headers: &HeaderMap) -> Result<(), Refusal> {
    for name in headers.keys().filter(|name| name.as_str().contains('_')) {
        let folds_to = |other: &HeaderName| {
            other != name
                && other.as_str().len() == name.as_str().len()
                && other.as_str().replace('_', "-") == name.as_str().replace('_', "-")
        };
        let framing = [http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING];
        if framing.iter().chain(headers.keys()).any(folds_to) {
            return Err(Refusal::UnderscoreTwin);
        }
    }
    Ok(())
}

/// One host, said once or twice alike (RFC 9113 section 8.3.1).
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::HostRepeated);
    }
    let host = host.map(HeaderValue::to_str).transpose().map_err(|_| Refusal::HostInvalid)?;
    let authority = uri.authority().map(|authority| authority.as_str());
    let one = authority.or(host).ok_or(Refusal::HostMissing)?;
    if !is_host(one) {
        return Err(Refusal::HostInvalid);
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(Refusal::HostMismatch)
        }
        _ => Ok(()),
    }
}

/// HTTP/2 says the host in `:authority`, or in `Host` alone; the server gets it in `:authority` (RFC 9113
/// section 8.3.1), with a scheme that is HTTP's.
fn settle_authority(parts: &mut Parts) -> Result<(), Refusal> {
    match parts.uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(_) => return Err(Refusal::Target),
    }
    if parts.version != Version::HTTP_2 || parts.uri.authority().is_some() {
        return Ok(());
    }
    let Some(host) = parts.headers.get(HOST) else { return Err(Refusal::HostMissing) };
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| Refusal::HostInvalid)?);
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| Refusal::Target)?;
    Ok(())
}

/// Whether trailers of a request hold nothing that belongs into its head, where it would have been
/// judged (RFC 9110 section 6.5.1).
#[must_use]
pub fn are_trailers(fields: &HeaderMap) -> bool {
    fields.len() <= TRAILERS && fields.keys().all(|name| !belongs_into_head(name.as_str()))
}

/// Takes out of an answer's trailers what belongs into its head.
pub fn keep_trailers(fields: &mut HeaderMap) {
    while let Some(name) = fields.keys().find(|name| belongs_into_head(name.as_str())).cloned() {
        fields.remove(name);
    }
}

/// A client may cut `Cookie` into pieces (RFC 9113 section 8.2.3); rules are about the whole.
fn fold_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn prepared(uri: &str, fields: &[(&str, &str)]) -> Result<String, Refusal> {
        let mut parts = parts(uri, fields);
        match prepare(&mut parts, None, &Limits::default())? {
            Prepared::Ready => Ok(Request::of(&parts).path.to_owned()),
            other => Ok(format!("{other:?}")),
        }
    }

    #[test]
    fn a_path_is_judged_in_normal_form_and_forwarded_so() {
        for (path, expected) in [
            ("/a/b?c=d", "/a/b?c=d"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("//admin?x=//", "/admin?x=//"),
            ("/%61dmin", "/admin"),
            ("/public%2F..%2Fadmin", "Redirect(\"/admin\")"),
        ] {
            assert_eq!(prepared(&format!("http://shop{path}"), &[]).as_deref(), Ok(expected));
        }
        let refused = prepared("http://shop/public/..;/admin", &[]);
        assert_eq!(refused, Err(Refusal::TargetParameter));
        let long = format!("http://shop/{}", "a".repeat(9000));
        assert_eq!(prepared(&long, &[]), Err(Refusal::TargetTooLong));
    }

    #[test]
    fn authority_and_host_must_agree() {
        for (uri, host, expected) in [
            ("http://shop/", None, Ok("/")),
            ("http://shop/", Some("SHOP"), Ok("/")),
            ("/", Some("shop:80"), Ok("/")),
            ("http://shop/", Some("other"), Err(Refusal::HostMismatch)),
            ("http://user@shop/", None, Err(Refusal::HostInvalid)),
            ("http://shop:x/", None, Err(Refusal::HostInvalid)),
            ("/", None, Err(Refusal::HostMissing)),
            ("/", Some("a b"), Err(Refusal::HostInvalid)),
        ] {
            let Ok(uri) = uri.parse::<Uri>() else {
                assert!(expected.is_err(), "{uri}");
                continue;
            };
            let fields: Vec<_> = host.iter().map(|host| ("host", *host)).collect();
            let got = prepared(&uri.to_string(), &fields);
            assert_eq!(got.as_deref().map_err(|e| *e), expected, "{uri} {host:?}");
        }
        let twice = prepared("/", &[("host", "a"), ("host", "a")]);
        assert_eq!(twice, Err(Refusal::HostRepeated));
    }

    #[test]
    fn fields_that_readers_take_for_one_another_are_refused() {
        for (fields, expected) in [
            (vec![("x-token", "1"), ("x_token", "2")], Refusal::UnderscoreTwin),
            (vec![("content_length", "1")], Refusal::UnderscoreTwin),
            (vec![("x-token", " 1")], Refusal::FieldValue),
            (vec![("x-token", "1\t")], Refusal::FieldValue),
            (vec![("x", "1"); 101], Refusal::TooManyFields),
        ] {
            assert_eq!(prepared("http://shop/", &fields), Err(expected), "{fields:?}");
        }
        let long = "a".repeat(33_000);
        let refused = prepared("http://shop/", &[("x", &long)]);
        assert_eq!(refused, Err(Refusal::HeadTooLong));
        assert!(prepared("http://shop/", &[("x_token", "2")]).is_ok());
    }

    #[test]
    fn a_host_that_is_said_in_http2s_way_is_there_for_rules_too() {
        let mut parts = parts("http://shop/", &[]);
        parts.version = Version::HTTP_2;
        prepare(&mut parts, None, &Limits::default()).expect("a good request");
        assert_eq!(Request::of(&parts).values("Host").collect::<Vec<_>>(), [b"shop"]);
        let mut parts = super::tests::parts("/a", &[("host", "shop:81")]);
        parts.version = Version::HTTP_2;
        prepare(&mut parts, None, &Limits::default()).expect("a good request");
        assert_eq!(parts.uri.to_string(), "http://shop:81/a");
        assert_eq!(Request::of(&parts).values("host").collect::<Vec<_>>(), [b"shop:81"]);
    }

    #[test]
    fn schemes_are_https_and_http() {
        assert_eq!(prepared("https://shop/a", &[]).as_deref(), Ok("/a"));
        assert_eq!(prepared("ftp://shop/a", &[]), Err(Refusal::Target));
    }

    #[test]
    fn a_cookie_in_pieces_is_judged_whole() {
        let mut parts = parts("http://shop/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        prepare(&mut parts, None, &Limits::default()).expect("a good request");
        let values: Vec<_> = Request::of(&parts).values("Cookie").collect();
        assert_eq!(values, [b"a=1; b=2"]);
    }

    #[test]
    fn connect_is_for_websockets_alone() {
        for (protocol, expected) in [
            (None, Prepared::Connect),
            (Some("connect-udp"), Prepared::Connect),
            (Some("websocket"), Prepared::Ready),
        ] {
            let mut parts = parts("http://shop/chat", &[]);
            parts.method = Method::CONNECT;
            assert_eq!(prepare(&mut parts, protocol, &Limits::default()), Ok(expected));
            assert_eq!(Request::of(&parts).method, "GET");
        }
    }
}
