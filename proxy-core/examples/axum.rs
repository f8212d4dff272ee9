//! A policy in front of an axum service, judged in the same process.
//!
//! `cargo run -p portreeve-core --features tower --example axum`, then
//! `curl -i http://127.0.0.1:8080/public/a` and `curl -i http://127.0.0.1:8080/private`.
//! With `--once` as its argument it asks itself, and ends.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use portreeve_core::guard::{Guard, GuardConfig};
use portreeve_core::tower::{PeerAddr, PolicyLayer};
use portreeve_policy::{Endpoint, Peer, Source};
use tower::Layer;

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse()?);
    let mut config = GuardConfig::new(endpoint, 8080, vec![Source::new("shop.yaml", POLICY)]);
    config.peers = vec![Peer::new(["127.0.0.0/8".parse()?], "app=client".parse()?)];
    let guard = Guard::new(config)?;

    let routes = Router::new()
        .route("/public/{name}", get(|| async { "anybody may read this\n" }))
        .route("/private", get(|| async { "nobody may\n" }));
    // Around the routes: what is judged is what they are chosen by.
    let layer = PolicyLayer::new(guard.clone()).peer_from(|extensions| {
        Some(PeerAddr(extensions.get::<ConnectInfo<SocketAddr>>()?.0).into())
    });
    let app = Router::new().fallback_service(layer.layer(routes));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();

    if std::env::args().nth(1).as_deref() != Some("--once") {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
        println!("listening on {}", listener.local_addr()?);
        axum::serve(listener, app).await?;
        return Ok(());
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    ask(address, "/public/a").await?;
    ask(address, "/private").await?;
    ask(address, "/public/../private").await?;

    // New policy is in force when this returns; one with errors would change nothing.
    let revision =
        guard.update(vec![Source::new("shop.yaml", POLICY.replace("public", "private"))])?;
    println!("revision {revision}");
    ask(address, "/public/a").await
}

/// A request in its plainest form, and the first line of the answer.
async fn ask(address: SocketAddr, path: &str) -> Result<(), Box<dyn Error>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("GET {path}: {}", answer.lines().next().unwrap_or_default());
    Ok(())
}
