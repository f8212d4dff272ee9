//! A request's head, on the types of the `http` crate, as the policy engine sees it.

use portreeve_policy::HttpRequest;
use portreeve_protocols::http2::Request;

/// A prepared head, borrowed.
pub(crate) struct View<'a>(pub(crate) &'a Request<'a>);

impl HttpRequest for View<'_> {
    fn method(&self) -> &[u8] {
        self.0.method.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.0.path.as_bytes()
    }

    fn host(&self) -> &[u8] {
        self.0.host.as_bytes()
    }

    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]> {
        self.0.values(name)
    }
}
