//! The answers that the proxy writes itself: plain text for HTTP, trailers alone for gRPC.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::grpc;
use crate::http1::reply_text;

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    status: StatusCode,
    location: Option<HeaderValue>,
    grpc: bool,
}

impl Reply {
    /// An answer with this HTTP status; to gRPC it is said in gRPC's words.
    #[must_use]
    pub fn new(status: u16, grpc: bool) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, location: None, grpc }
    }

    /// Sends the client to another path; gRPC knows no such thing.
    #[must_use]
    pub fn redirect(path: &str, grpc: bool) -> Self {
        match HeaderValue::from_str(path) {
            Ok(location) if !grpc => Self { location: Some(location), ..Self::new(307, false) },
            _ => Self::new(400, grpc),
        }
    }

    /// The HTTP status as it is logged and, but for gRPC, sent.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The gRPC status, if it is for gRPC.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u8> {
        self.grpc.then(|| grpc::from_http(self.status()))
    }

    /// Head and body. A gRPC answer has no body: its head is its trailers.
    #[must_use]
    pub fn to_response(&self) -> Response<&'static str> {
        let mut headers = HeaderMap::new();
        let (_, text) = reply_text(self.status());
        let (status, body) = if self.grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", u16::from(grpc::from_http(self.status())).into());
            headers.insert("grpc-message", HeaderValue::from_static(text.trim_end()));
            (StatusCode::OK, "")
        } else {
            if let Some(location) = &self.location {
                headers.insert(LOCATION, location.clone());
            }
            if self.status == StatusCode::METHOD_NOT_ALLOWED {
                // RFC 9110 section 15.5.6 asks for a list; which methods pass is policy's affair.
                headers.insert(http::header::ALLOW, HeaderValue::from_static(""));
            }
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            headers.insert(CONTENT_LENGTH, text.len().into());
            (self.status, text)
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_answered_by_trailers_alone() {
        let response = Reply::new(403, true).to_response();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "Access denied");
        assert_eq!(*response.body(), "");
    }

    #[test]
    fn http_is_answered_in_plain_text() {
        let response = Reply::new(403, false).to_response();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[CONTENT_LENGTH], "15");
        assert_eq!(*response.body(), "Access denied\r\n");
        let response = Reply::redirect("/clean", false).to_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[LOCATION]),
            (307, &"/clean".parse().unwrap())
        );
        assert_eq!(Reply::redirect("/clean", true).grpc_status(), Some(13));
    }
}
