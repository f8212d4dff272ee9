//! The layer in front of real axum and tonic services, asked by real clients.
#![expect(clippy::expect_used, reason = "what a test relies on may panic")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use portreeve_core::guard::{Guard, GuardConfig};
use portreeve_core::tower::{Peer, PeerAddr, PolicyLayer, PolicyService, SpiffeId};
use portreeve_policy::{Endpoint, Source};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, Service, ServiceExt};

const POLICY: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: client}
    - matchLabels:
        k8s:io.kubernetes.pod.namespace: web
        k8s:io.cilium.k8s.policy.serviceaccount: frontend
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http:
        - {method: GET, path: /public/.*, headerMatches: [{name: X-User, value: someone, mismatch: REPLACE}]}
        - {method: POST, path: /grpc.health.v1.Health/Check}
";

fn policy(text: &str) -> Vec<Source> {
    vec![Source::new("shop.yaml", text)]
}

fn guard() -> Guard {
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse().expect("labels"));
    let mut config = GuardConfig::new(endpoint, 80, policy(POLICY));
    let client = "app=client".parse().expect("labels");
    config.peers =
        vec![portreeve_policy::Peer::new(["127.0.0.1/32".parse().expect("a prefix")], client)];
    config.trust_domains = vec!["cluster.local".to_owned()];
    Guard::new(config).expect("a good policy")
}

/// Says what it was asked, as it sees it.
fn routes() -> Router {
    let seen = |request: axum::extract::Request| async move {
        let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
        format!("{} {}", request.uri().path(), user.unwrap_or("nobody"))
    };
    Router::new().route("/public/{*rest}", any(seen)).route("/private", any(seen))
}

fn by_connection(guard: &Guard) -> PolicyLayer {
    PolicyLayer::new(guard.clone()).peer_from(|extensions| {
        Some(PeerAddr(extensions.get::<ConnectInfo<SocketAddr>>()?.0).into())
    })
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "shop").body(Body::empty()).expect("a request")
}

async fn asked<S, R>(service: S, request: Request<Body>) -> (StatusCode, String)
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    let answer = service.oneshot(request).await.expect("infallible");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn axum_answers_what_policy_allows_and_its_clients_see_403_otherwise() {
    let guard = guard();
    let app = Router::new().fallback_service(by_connection(&guard).layer(routes()));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let ask = async |path: &str| {
        let uri = format!("http://{address}{path}").parse().expect("a URI");
        let answer = client.get(uri).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(ask("/public/a").await, (200, "/public/a someone".to_owned()));
    assert_eq!(ask("/private").await, (403, "Access denied\r\n".to_owned()));
    assert_eq!(ask("/public/../private").await.0, 403);
    assert_eq!(ask("/private/../public/a").await, (200, "/public/a someone".to_owned()));
    assert_eq!(ask("/public/%2e%2e/private").await.0, 403);
    assert_eq!(ask("//private").await.0, 403);
    assert_eq!(ask("/public%2f..%2fprivate").await.0, 307);

    // On the same connection, new policy is in force for the next request.
    guard.update(policy(&POLICY.replace("/public/.*", "/private"))).expect("a good policy");
    assert_eq!(ask("/public/a").await.0, 403);
    assert_eq!(ask("/private").await.0, 200);
    guard.update(policy("no policy")).expect_err("no policy");
    assert_eq!(ask("/private").await.0, 200);
}

#[tokio::test]
async fn labels_come_before_a_spiffe_id_and_that_before_an_address() {
    let service = PolicyLayer::new(guard()).layer(routes());
    let with = |labels: Option<&str>, spiffe: Option<&str>, address: Option<&str>| {
        let mut request = get("/public/a");
        let labels = labels.map(|text| Peer(Arc::new(text.parse().expect("labels"))));
        let spiffe = spiffe.map(|id| SpiffeId(id.into()));
        let address = address.map(|text| PeerAddr(text.parse().expect("an address")));
        let extensions = request.extensions_mut();
        labels.map(|labels| extensions.insert(labels));
        spiffe.map(|spiffe| extensions.insert(spiffe));
        address.map(|address| extensions.insert(address));
        asked(service.clone(), request)
    };
    let frontend = Some("spiffe://cluster.local/ns/web/sa/frontend");
    let stranger = Some("spiffe://cluster.local/ns/web/sa/stranger");
    let (here, there) = (Some("127.0.0.1:1"), Some("192.0.2.1:1"));
    for (labels, spiffe, address, expected) in [
        (None, None, None, 403),
        (None, None, here, 200),
        (None, None, there, 403),
        (None, frontend, there, 200),
        (None, stranger, here, 403),
        (None, Some("spiffe://cluster.local/frontend"), here, 403),
        (Some("app=client"), stranger, there, 200),
        (Some("app=other"), frontend, here, 403),
    ] {
        let (status, _) = with(labels, spiffe, address).await;
        assert_eq!(status, expected, "{labels:?} {spiffe:?} {address:?}");
    }
}

#[tokio::test]
async fn headers_say_nothing_about_who_asks() {
    let mut request = get("/public/a");
    for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        request.headers_mut().insert(name, "127.0.0.1".parse().expect("a value"));
    }
    let (status, _) = asked(PolicyLayer::new(guard()).layer(routes()), request).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn heads_that_readers_could_read_in_two_ways_are_refused() {
    let from_here = Extension(PeerAddr("127.0.0.1:1".parse().expect("an address")));
    let service = from_here.layer(PolicyLayer::new(guard()).layer(routes()));
    let mut two_hosts = get("/public/a");
    two_hosts.headers_mut().append("host", "other".parse().expect("a value"));
    assert_eq!(asked(service.clone(), two_hosts).await.0, 400);
    assert_eq!(asked(service.clone(), get("/public/..;/private")).await.0, 400);
    let long = format!("/public/{}", "a".repeat(9000));
    assert_eq!(asked(service.clone(), get(&long)).await.0, 414);
    let mut connect = get("/public/a");
    *connect.method_mut() = http::Method::CONNECT;
    assert_eq!(asked(service, connect).await.0, 405);
}

#[tokio::test]
async fn behind_a_router_a_path_that_would_be_rewritten_is_refused() {
    let from_here = Extension(PeerAddr("127.0.0.1:1".parse().expect("an address")));
    let layer = PolicyLayer::new(guard()).after_routing();
    let service: PolicyService<Router> = layer.layer(routes());
    let service = from_here.layer(service);
    assert_eq!(asked(service.clone(), get("/public/a")).await.0, 200);
    assert_eq!(asked(service.clone(), get("/private/../public/a")).await.0, 400);
}

#[tokio::test]
async fn a_grpc_client_sees_permission_denied() {
    let guard = guard();
    let layer = PolicyLayer::new(guard.clone()).peer_from(|extensions| {
        Some(PeerAddr(extensions.get::<TcpConnectInfo>()?.remote_addr()?).into())
    });
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = incoming.local_addr().expect("an address");
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming));
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URI");
    let mut client = HealthClient::new(channel.connect().await.expect("a connection"));
    let request = || HealthCheckRequest { service: String::new() };

    let answer = client.check(request()).await.expect("an answer");
    assert_eq!(answer.into_inner().status().as_str_name(), "SERVING");
    let denied = client.watch(request()).await.expect_err("policy does not allow it");
    assert_eq!((denied.code(), denied.message()), (tonic::Code::PermissionDenied, "Access denied"));

    guard.update(policy(&POLICY.replace("Health/Check", "Health/Watch"))).expect("a good policy");
    let denied = client.check(request()).await.expect_err("policy does not allow it any more");
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    client.watch(request()).await.expect("policy allows it now");
}
