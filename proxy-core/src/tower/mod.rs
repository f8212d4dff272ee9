//! A policy in front of any `tower` HTTP service: hyper's, axum's, tonic's.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`PolicyLayer`], [`PolicyService`]: each request judged by the policy in force now |
//! | `peer.rs` | who asks: extensions that whoever accepts the connection sets |
//! | `body.rs` | [`PolicyBody`]: the service's body, or an answer of the policy's own |
//!
//! # Where it belongs
//!
//! **Outermost, before anything that looks at the path.** A path is brought into normal form before it
//! is judged (`/public/../private` is `/private`), and the service behind sees that form. A router that
//! has chosen its route by then has chosen it by another path than the one that was judged. With axum
//! that means around the [`Router`]; its own method `layer` runs after routing:
//!
//! ```
//! # use {axum::Router, portreeve_core::{guard::Guard, tower::PolicyLayer}, tower::Layer};
//! # fn app(guard: Guard, routes: Router) -> Router {
//! Router::new().fallback_service(PolicyLayer::new(guard).layer(routes))
//! # }
//! ```
//!
//! Where that is not to be had, [`PolicyLayer::after_routing`] refuses paths that are not in normal
//! form instead of rewriting them.
//!
//! # Who asks
//!
//! The first of these that a request carries as an extension: [`Peer`] (labels), [`SpiffeId`],
//! [`PeerAddr`]; or what the closure given to [`PolicyLayer::peer_from`] says. A request that carries
//! none of them comes from nobody known, and is denied wherever policy says anything at all. Header
//! fields such as `X-Forwarded-For` say nothing about who asks.
//!
//! ```
//! # use std::net::SocketAddr;
//! # use axum::extract::ConnectInfo;
//! # use portreeve_core::tower::{PeerAddr, PolicyLayer};
//! # use tonic::transport::server::TcpConnectInfo;
//! # fn layers(layer: PolicyLayer) -> [PolicyLayer; 2] {
//! // axum, with `into_make_service_with_connect_info::<SocketAddr>()`:
//! let for_axum = layer.clone().peer_from(|extensions| {
//!     Some(PeerAddr(extensions.get::<ConnectInfo<SocketAddr>>()?.0).into())
//! });
//! let for_tonic = layer.peer_from(|extensions| {
//!     Some(PeerAddr(extensions.get::<TcpConnectInfo>()?.remote_addr()?).into())
//! });
//! # [for_axum, for_tonic]
//! # }
//! ```
//!
//! [`Router`]: https://docs.rs/axum/latest/axum/struct.Router.html

mod body;
mod peer;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Extensions, Request, Response};
use http_body::Body;
use portreeve_protocols::http2::{Reply, grpc};
use tower_layer::Layer;
use tower_service::Service;

pub use self::body::PolicyBody;
pub use self::peer::{Known, Peer, PeerAddr, SpiffeId};
use crate::guard::{Checked, Guard};

/// How a peer is found among a request's extensions.
type PeerFrom = dyn Fn(&Extensions) -> Option<Known> + Send + Sync;

/// Puts a policy in front of a service.
#[derive(Clone)]
pub struct PolicyLayer {
    guard: Guard,
    peer_from: Option<Arc<PeerFrom>>,
    after_routing: bool,
}

impl PolicyLayer {
    /// The guard's policy; keep a clone of it to update the policy.
    #[must_use]
    pub fn new(guard: Guard) -> Self {
        Self { guard, peer_from: None, after_routing: false }
    }

    /// Asks `find` who a request is from if it carries no extension of ours.
    #[must_use]
    pub fn peer_from(
        mut self,
        find: impl Fn(&Extensions) -> Option<Known> + Send + Sync + 'static,
    ) -> Self {
        self.peer_from = Some(Arc::new(find));
        self
    }

    /// The route was chosen before: a path that is not in normal form is refused (400), since it can't
    /// be rewritten any more.
    #[must_use]
    pub fn after_routing(mut self) -> Self {
        self.after_routing = true;
        self
    }
}

impl std::fmt::Debug for PolicyLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyLayer").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for PolicyLayer {
    type Service = PolicyService<S>;

    fn layer(&self, inner: S) -> PolicyService<S> {
        PolicyService { inner, layer: self.clone() }
    }
}

/// A service behind a policy.
#[derive(Clone, Debug)]
pub struct PolicyService<S> {
    inner: S,
    layer: PolicyLayer,
}

impl<S> PolicyService<S> {
    /// Judges a request by the policy in force now: what policy says of a connection may change while
    /// it is open. `Err` is the answer to one that does not pass.
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Reply> {
        let PolicyLayer { guard, peer_from, after_routing } = &self.layer;
        let (mut parts, body) = request.into_parts();
        let known = Known::of(&parts.extensions)
            .or_else(|| peer_from.as_ref().and_then(|find| find(&parts.extensions)));
        let raw = after_routing.then(|| parts.uri.clone());
        let protocol = parts.extensions.get::<hyper::ext::Protocol>().cloned();
        let protocol = protocol.as_ref().map(hyper::ext::Protocol::as_str);
        match guard.check(known.as_ref().into(), &mut parts, protocol) {
            Checked::Forward(_) if raw.is_some_and(|raw| raw != parts.uri) => {
                Err(Reply::new(400, grpc::is_grpc(&parts.headers)))
            }
            Checked::Forward(_) => Ok(Request::from_parts(parts, body)),
            Checked::Deny(_, reply) | Checked::Refuse(_, reply) => Err(reply),
        }
    }
}

impl<S, B, R> Service<Request<B>> for PolicyService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
    R::Data: From<&'static str>,
{
    type Response = Response<PolicyBody<R>>;
    type Error = S::Error;
    type Future = PolicyFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = match self.check(request) {
            Ok(request) => Answer::Forwarded { answer: self.inner.call(request) },
            Err(reply) => Answer::Own { reply },
        };
        PolicyFuture { answer }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a service behind a policy.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct PolicyFuture<F> {
        #[pin]
        answer: Answer<F>,
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Answer<F> {
        Forwarded { #[pin] answer: F },
        Own { reply: Reply },
    }
}

impl<F, R, E> Future for PolicyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
    R::Data: From<&'static str>,
{
    type Output = Result<Response<PolicyBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().answer.project() {
            Projected::Forwarded { answer } => {
                ready!(answer.poll(context)).map(|answer| answer.map(PolicyBody::forwarded))
            }
            Projected::Own { reply } => Ok(reply.to_response().map(PolicyBody::own)),
        })
    }
}
