//! A whole proxy in a program of one's own: its policy comes from the program and is replaced while
//! connections are open, and every decision is told to the program.
//!
//! `cargo run -p portreeve-core --example in_process`

use std::error::Error;
use std::net::SocketAddr;

use portreeve_core::observer::{Asked, Flow, Observing};
use portreeve_core::{ListenerConfig, Proxy, ProxyConfig};
use portreeve_policy::{Endpoint, Peer, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let upstream = upstream().await?;
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse()?);
    let listener = ListenerConfig {
        policy_port: Some(80),
        ..ListenerConfig::ingress("inbound", "127.0.0.1:0".parse()?, upstream)
    };
    let policy = vec![Source::new("shop.yaml", POLICY)];
    let mut config = ProxyConfig::new(endpoint, policy, vec![listener]);
    config.peers = vec![Peer::new(["127.0.0.0/8".parse()?], "app=client".parse()?)];
    // A channel takes decisions off the proxy's threads.
    let (heard, mut decisions) = tokio::sync::mpsc::unbounded_channel();
    config.observer = Observing::by(move |flow: &Flow<'_>| {
        if let Asked::Http { method, path, answer, .. } = flow.asked {
            let (method, path) = (String::from_utf8_lossy(method), String::from_utf8_lossy(path));
            let status = answer.map_or(0, |answer| answer.status);
            let line = format!("{method} {path}: {status} by `{}` ({})", flow.rule, flow.reason);
            let _ = heard.send(line);
        }
    });

    // Connections are accepted when this returns, on threads of the proxy's own.
    let proxy = Proxy::start(config)?;
    let (address, remote) = (proxy.addresses()[0], proxy.remote());
    let mut client = TcpStream::connect(address).await?;
    get(&mut client, "/public/a").await?;
    get(&mut client, "/private").await?;

    let opened = POLICY.replace("/public/.*", "/private");
    let revision = remote.update(vec![Source::new("shop.yaml", opened)]).await?;
    println!("revision {revision}, on the same connection:");
    get(&mut client, "/private").await?;
    if let Err(error) = remote.update(vec![Source::new("shop.yaml", "nonsense: true")]).await {
        println!("refused, the old policy stays:\n{error}");
    }

    drop(client);
    remote.drain();
    proxy.ended().await;
    // Whoever could still steer the proxy keeps its observer, and with it the channel.
    drop(remote);
    println!("decisions:");
    while let Some(line) = decisions.recv().await {
        println!("  {line}");
    }
    Ok(())
}

/// Sends a request and prints the first line of the answer.
async fn get(client: &mut TcpStream, path: &str) -> Result<(), Box<dyn Error>> {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let length = client.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    println!("GET {path}: {}", answer.lines().next().unwrap_or_default());
    Ok(())
}

/// A server that answers everything with 200.
async fn upstream() -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer).await {
                let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(ok).await.is_err() {
                    break;
                }
            }
        }
    });
    Ok(address)
}
