//! A policy in front of a tonic service: gRPC calls judged by service and method.
//!
//! `cargo run -p portreeve-core --features tower --example tonic`. It serves the standard health
//! service, asks itself, and shows what a gRPC client sees.

use std::error::Error;

use portreeve_core::guard::{Guard, GuardConfig};
use portreeve_core::tower::{PeerAddr, PolicyLayer};
use portreeve_policy::{Endpoint, Peer, Source};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming};
use tonic::transport::{Channel, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const POLICY: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '50051', protocol: TCP}]
      rules: {grpc: [{service: grpc.health.v1.Health, method: Check}]}
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse()?);
    let mut config = GuardConfig::new(endpoint, 50051, vec![Source::new("shop.yaml", POLICY)]);
    config.peers = vec![Peer::new(["127.0.0.0/8".parse()?], "app=client".parse()?)];
    let layer = PolicyLayer::new(Guard::new(config)?).peer_from(|extensions| {
        Some(PeerAddr(extensions.get::<TcpConnectInfo>()?.remote_addr()?).into())
    });

    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = incoming.local_addr()?;
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming));

    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    let mut client = HealthClient::new(channel);
    let request = || HealthCheckRequest { service: String::new() };
    match client.check(request()).await {
        Ok(answer) => println!("Check: {:?}", answer.into_inner().status()),
        Err(status) => println!("Check: {:?} {}", status.code(), status.message()),
    }
    match client.watch(request()).await {
        Ok(_) => println!("Watch: a stream"),
        Err(status) => println!("Watch: {:?} {}", status.code(), status.message()),
    }
    Ok(())
}
