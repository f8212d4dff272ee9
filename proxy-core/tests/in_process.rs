//! A proxy inside of a program: policy from the program, decisions told to it, its end awaited.
#![expect(clippy::expect_used, reason = "what a test relies on may panic")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use portreeve_core::observer::{Asked, Flow, Observing};
use portreeve_core::{ListenerConfig, LoadError, Proxy, ProxyConfig};
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

type Heard = Arc<Mutex<Vec<String>>>;

async fn start(policy: &str) -> (Proxy, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let upstream = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    stream.write_all(ok).await.expect("sent");
                }
            });
        }
    });
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse().expect("labels"));
    let here = "127.0.0.1:0".parse().expect("an address");
    let listener = ListenerConfig {
        policy_port: Some(80),
        ..ListenerConfig::ingress("inbound", here, upstream)
    };
    let mut config = ProxyConfig::new(endpoint, vec![Source::new("p", policy)], vec![listener]);
    let prefix = "127.0.0.0/8".parse().expect("a prefix");
    config.peers = vec![Peer::new([prefix], "app=client".parse().expect("labels"))];
    let heard = Heard::default();
    let ear = heard.clone();
    config.observer = Observing::by(move |flow: &Flow<'_>| {
        let asked = match flow.asked {
            Asked::Http { path, answer, .. } => {
                let status = answer.map_or(0, |answer| answer.status);
                format!("{} {status}", String::from_utf8_lossy(path))
            }
            Asked::Connection => "connection".to_owned(),
            Asked::Refused { protocol, .. } => protocol.to_owned(),
            _ => "something else".to_owned(),
        };
        let line = format!("{:?} {asked} {} {}", flow.verdict, flow.reason, flow.revision);
        ear.lock().expect("a lock").push(line);
    });
    (Proxy::start(config).expect("it starts"), heard)
}

async fn ask(client: &mut TcpStream, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = [0; 1024];
    let length = client.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]);
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

#[tokio::test]
async fn policy_is_replaced_while_a_connection_is_open_and_every_decision_is_told() {
    let (proxy, heard) = start(POLICY).await;
    let remote = proxy.remote();
    let mut client = connect(proxy.addresses()[0]).await;
    assert_eq!(ask(&mut client, "/public/a").await, 200);
    assert_eq!(ask(&mut client, "/private").await, 403);

    let documents = |text: &str| vec![Source::new("p", text)];
    let opened = remote.update(documents(&POLICY.replace("/public/.*", "/private"))).await;
    assert_eq!(opened.ok(), Some(2));
    assert_eq!(ask(&mut client, "/private").await, 200);
    let broken = remote.update(documents("nonsense: true")).await;
    assert!(matches!(broken, Err(LoadError::Documents(_))));
    assert_eq!(ask(&mut client, "/private").await, 200);
    assert_eq!(ask(&mut client, "/a/..;/b").await, 400);
    drop(client);

    remote.drain();
    proxy.ended().await;
    assert!(matches!(remote.update(documents(POLICY)).await, Err(LoadError::Ended)));
    assert_eq!(
        *heard.lock().expect("a lock"),
        [
            "Allow /public/a 200 rule_allows 1",
            "Deny /private 403 no_rule_allows 1",
            "Allow /private 200 rule_allows 2",
            "Allow /private 200 rule_allows 2",
            "Deny http1 target_parameter 0",
        ]
    );
}

#[tokio::test]
async fn connections_that_are_judged_as_a_whole_are_told_too() {
    let unread = POLICY.replace("rules: {http: [{method: GET, path: /public/.*}]}", "");
    let (proxy, heard) = start(&unread).await;
    let mut client = connect(proxy.addresses()[0]).await;
    assert_eq!(ask(&mut client, "/anything").await, 200);
    drop(client);
    let remote = proxy.remote();
    let closed = remote.update(vec![Source::new("p", unread.replace("app: client", "app: no"))]);
    closed.await.expect("a good policy");
    // The reset may come before the connection is known to be there.
    if let Ok(mut denied) = TcpStream::connect(proxy.addresses()[0]).await {
        let read = denied.read(&mut [0; 16]).await;
        assert!(!matches!(read, Ok(1..)), "not denied: {read:?}");
    }
    remote.stop();
    proxy.ended().await;
    assert_eq!(
        *heard.lock().expect("a lock"),
        ["Allow connection rule_allows 1", "Deny connection no_rule_allows 2"]
    );
}
