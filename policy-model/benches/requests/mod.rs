//! Requests for the rule sets of the benches.

use portreeve_policy::HttpRequest;

use crate::rules::Mix;

impl Mix {
    fn request(self, i: usize) -> Request {
        let request = |path: String| Request {
            path: path.into(),
            host: "shop".to_owned().into(),
            token: String::new().into(),
        };
        match (self, i % 4) {
            (Self::Mixed, 0) => request(format!("/svc-{i}/item")),
            (Self::Mixed, 1) => request(format!("/svc-{i}/anything/below")),
            (Self::Mixed, 2) => request(format!("/svc-{i}/abc/item-12")),
            (Self::Mixed, _) => {
                Request { token: format!("t{i}").into(), ..request(format!("/svc-{i}/h/x")) }
            }
            (Self::SharedPrefix, _) => request(format!("/api/v1/orders/item-{i}/x")),
            (Self::Hosts, _) => Request {
                host: format!("svc-{i}.example").into(),
                ..request("/index.html".to_owned())
            },
            (Self::TwoGaps, _) => request(format!("/a/svc-{i}/b/item-{i}")),
        }
    }
}

/// A request, as the engine sees it: small and in one piece, as one that was just received is.
pub(crate) struct Request {
    path: Text,
    host: Text,
    token: Text,
}

/// A short text in place.
struct Text {
    bytes: [u8; 31],
    length: u8,
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = [0; 31];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self { bytes, length: text.len().try_into().unwrap_or(31) }
    }
}

impl Request {
    /// One that no rule allows, and that goes far before it is refused.
    pub(crate) fn miss(mix: Mix) -> Self {
        let request = mix.request(1);
        let path = match mix {
            Mix::Mixed => "/svc-5x/abc/item-12".to_owned(),
            Mix::SharedPrefix => "/api/v1/orders/item-x/x".to_owned(),
            Mix::Hosts => "/index.html".to_owned(),
            Mix::TwoGaps => "/a/svc-5/b/item-6".to_owned(),
        };
        let host = "svc-x.example".to_owned().into();
        Self { path: path.into(), host, token: request.token }
    }
}

impl HttpRequest for Request {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]> {
        let token = name.eq_ignore_ascii_case("x-token") && self.token.length > 0;
        token.then_some(self.token.as_bytes()).into_iter()
    }
}

/// A request for every rule, in an order that no cache likes.
pub(crate) fn requests(mix: Mix, count: usize) -> Vec<Request> {
    let stride = (0..).map(|n| 2 * n + 1).find(|s| *s > count / 3 && gcd(*s, count) == 1);
    let stride = stride.unwrap_or(1);
    let mut order: Vec<usize> = (0..count).map(|n| n * stride % count).collect();
    // The last is the last rule's.
    if let Some(place) = order.iter().position(|i| *i == count - 1) {
        let end = order.len() - 1;
        order.swap(place, end);
    }
    order.into_iter().map(|i| mix.request(i)).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
