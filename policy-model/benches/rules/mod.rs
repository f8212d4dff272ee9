//! Rule sets and requests for the benches: several ways in which people write many rules.

use std::fmt::Write;

use portreeve_policy::HttpRequest;

/// A way to write many rules.
#[derive(Clone, Copy)]
pub enum Mix {
    /// Exact paths, prefixes, expressions and header conditions, each under a path of its own.
    Mixed,
    /// Expressions that share their beginning.
    SharedPrefix,
    /// The same path for everybody, and a host for each.
    Hosts,
    /// Two gaps in every path.
    TwoGaps,
}

impl Mix {
    pub const ALL: [Self; 4] = [Self::Mixed, Self::SharedPrefix, Self::Hosts, Self::TwoGaps];

    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::SharedPrefix => "shared_prefix",
            Self::Hosts => "hosts",
            Self::TwoGaps => "two_gaps",
        }
    }

    fn rule(self, i: usize) -> String {
        match (self, i % 4) {
            (Self::Mixed, 0) => format!("{{method: GET, path: /svc-{i}/item}}"),
            (Self::Mixed, 1) => format!("{{path: /svc-{i}/.*}}"),
            (Self::Mixed, 2) => format!("{{method: GET|POST, path: '/svc-{i}/[^/]+/item-[0-9]+'}}"),
            (Self::Mixed, _) => format!("{{path: /svc-{i}/h/.*, headers: ['X-Token: t{i}']}}"),
            (Self::SharedPrefix, _) => format!("{{path: '/api/v1/[a-z]+/item-{i}/.*'}}"),
            (Self::Hosts, _) => {
                format!("{{method: GET, path: /index.*, host: 'svc-{i}[.]example'}}")
            }
            (Self::TwoGaps, _) => format!("{{path: '/.*/svc-{i}/.*/item-{i}'}}"),
        }
    }

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
pub struct Request {
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
    pub fn miss(mix: Mix) -> Self {
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

/// A policy of so many rules.
pub fn document(mix: Mix, count: usize) -> String {
    let mut text = String::from(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: bench, namespace: \
         default}\nspec:\n  endpointSelector: {matchLabels: {app: shop}}\n  ingress:\n  - toPorts:\n    \
         - ports: [{port: '80', protocol: TCP}]\n      rules:\n        http:\n",
    );
    for i in 0..count {
        // Writing to a string can't fail.
        let _ = writeln!(text, "        - {}", mix.rule(i));
    }
    text
}

/// A request for every rule, in an order that no cache likes.
pub fn requests(mix: Mix, count: usize) -> Vec<Request> {
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
