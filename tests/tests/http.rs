//! HTTP/1.1 through the real binary.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use portreeve_tests::client::Client;
use portreeve_tests::free_address;
use portreeve_tests::sidecar::Setup;
use portreeve_tests::upstream::{OK, answering, serve};

#[test]
fn an_allowed_request_passes_and_a_denied_one_is_403_on_the_same_connection() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/public/a").body, b"ok");
        let denied = client.get("/private");
        assert_eq!((denied.status, &denied.body[..]), (403, &b"Access denied\r\n"[..]));
    }
    assert!(!received.text().contains("private"));
    assert_eq!(received.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    let paths = ["/public/1", "/private", "/public/2", "/private", "/private", "/public/3"];
    let all: String =
        paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")).concat();
    client.send(all);
    let statuses = paths.map(|_| client.response().status);
    assert_eq!(statuses, [200, 403, 200, 403, 403, 200]);
    assert!(!received.text().contains("private"));
}

#[test]
fn a_client_that_is_only_denied_opens_no_upstream_connection() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    assert_eq!(sidecar.connect().get("/private").status, 403);
    assert_eq!(received.connections(), 0);
}

#[test]
fn an_unknown_peer_is_reset() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.2:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&sidecar.address.into()).unwrap();
    let mut client = Client::of(socket.into());
    // Who it says it is does not matter.
    let request = "GET /public/a HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 127.0.0.1\r\n\
                   Forwarded: for=127.0.0.1\r\n\r\n";
    // The reset comes before the request or after it; whoever comes first sees it.
    let written = client.stream.write_all(request.as_bytes()).err().map(|error| error.kind());
    assert_eq!(written.or_else(|| client.end()), Some(ErrorKind::ConnectionReset));
    assert_eq!(received.connections(), 0);
    let line = &sidecar.logged(1)[0];
    assert_eq!(line["type"], "connection");
    assert_eq!(line["source"]["labels"], "reserved:world-ipv4");
}

/// Every case of `protocols/testdata/smuggling.json` against an upstream that answers whatever
/// looks like the end of a head: it must never see a request that was not judged.
#[test]
fn smuggling_never_reaches_the_upstream_as_anything_other_than_what_was_judged() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../protocols/testdata/smuggling.json")).unwrap();
    assert!(cases.len() >= 60);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let input: Vec<u8> =
            case["input"].as_str().unwrap().chars().map(|c| c as u32 as u8).collect();
        received.clear();
        let mut client = sidecar.connect();
        client.send(&input);
        let answer = client.try_response().unwrap_or_else(|error| panic!("{name}: {error}"));
        let seen = received.text();
        assert!(!seen.contains("smuggled"), "{name}: {seen}");
        if let Some(reason) = case["refused"].as_str() {
            assert!((400..=505).contains(&answer.status), "{name}: {}", answer.head);
            assert_eq!(client.end(), None, "{name} goes on after {reason}");
        }
        if let Some(path) = case["judged"].as_str() {
            let allowed = path.starts_with("/public/") || path == "*";
            assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{name}: {seen}");
            assert_eq!(seen.split(' ').nth(1), allowed.then_some(path), "{name}: {seen}");
        }
        if let Some(location) = case["redirected"].as_str() {
            assert_eq!(answer.status, 307, "{name}");
            assert!(answer.head.contains(&format!("location: {location}\r\n")), "{name}");
            assert_eq!(seen, "", "{name}");
        }
    }
}

#[test]
fn an_upstream_that_is_down_is_503_and_the_connection_goes_on() {
    let sidecar = Setup::new(free_address()).start();
    let mut client = sidecar.connect();
    assert_eq!(client.get("/public/a").status, 503);
    assert_eq!(client.get("/private").status, 403);
    assert_eq!(client.get("/public/a").status, 503);
    assert_eq!(sidecar.metric("portreeve_upstream_connects_total{outcome=\"refused\"}"), Some(2.0));
}

#[test]
fn an_upstream_that_breaks_the_protocol_is_502() {
    let (upstream, _) = answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let sidecar = Setup::new(upstream).start();
    assert_eq!(sidecar.connect().get("/public/a").status, 502);
    let (upstream, _) = serve(|mut stream, _| {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
    });
    let sidecar = Setup::new(upstream).start();
    assert_eq!(sidecar.connect().get("/public/a").status, 502, "it ended without an answer");
}

#[test]
fn a_response_cut_short_is_cut_short_for_the_client() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    client.send("GET /public/a HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!(client.try_response().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_head_that_comes_too_slowly_is_408() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).more("limits: {header_timeout: 300ms}").start();
    let mut client = sidecar.connect();
    let begin = Instant::now();
    // A byte at a time does not buy more time.
    let _ = client.stream.write_all(b"GET /public/a HTTP/1.1\r\n");
    for byte in b"Host: sho" {
        std::thread::sleep(Duration::from_millis(50));
        if client.stream.write_all(&[*byte]).is_err() {
            break;
        }
    }
    let answer = client.response();
    assert_eq!(answer.status, 408);
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(received.connections(), 0);
}

#[test]
fn a_body_that_stops_coming_is_408() {
    let (upstream, _) = serve(|mut stream, received| {
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            received(&buffer[..n]);
        }
    });
    let sidecar = Setup::new(upstream).more("limits: {body_timeout: 300ms}").start();
    let mut client = sidecar.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.response().status, 408);
}

#[test]
fn an_idle_connection_ends_in_order_when_its_time_is_up() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).more("limits: {idle_timeout: 300ms}").start();
    let mut client = sidecar.connect();
    assert_eq!(client.get("/public/a").status, 200);
    assert_eq!(client.end(), None);
}

#[test]
fn too_many_connections_are_reset_and_the_others_go_on() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).more("limits: {connections: 2}\nworkers: 1").start();
    let mut first = sidecar.connect();
    assert_eq!(first.get("/public/a").status, 200);
    let mut second = sidecar.connect();
    assert_eq!(second.get("/public/a").status, 200);
    let mut third = sidecar.connect();
    assert_eq!(third.end(), Some(ErrorKind::ConnectionReset));
    assert_eq!(first.get("/public/a").status, 200);
    drop(second);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(sidecar.connect().get("/public/a").status, 200);
}

#[test]
fn a_websocket_session_passes_both_ways() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer);
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello");
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..n]);
        }
    });
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    client.send("GET /public/ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response().status, 101);
    assert_eq!(client.take(7).unwrap(), b"\x81\x05hello");
    for size in [3, 70_000, 1] {
        let frame: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        client.send(&frame);
        assert_eq!(client.take(size).unwrap(), frame);
    }
    let mut denied = sidecar.connect();
    denied.send("GET /private/ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(denied.response().status, 403);
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    client.send("GET /public/a HTTP/1.1\r\nHost: shop\r\n\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.response().body, b"late");
}

#[test]
fn audit_mode_lets_pass_and_says_so() {
    let (upstream, _) = answering(OK);
    let policy = portreeve_tests::sidecar::POLICY
        .replace("cilium.io/v2", "portreeve.dev/v1alpha1")
        .replace("CiliumNetworkPolicy", "TrafficPolicy")
        .replace("spec:\n", "spec:\n  mode: audit\n");
    let sidecar = Setup::new(upstream).policy(&policy).start();
    assert_eq!(sidecar.connect().get("/private").status, 200);
    let line = &sidecar.logged(1)[0];
    assert_eq!((line["verdict"].as_str(), line["status"].as_u64()), (Some("audit"), Some(200)));
}

#[test]
fn an_outbound_listener_judges_by_whom_the_workload_talks_to() {
    let (upstream, received) = answering(OK);
    let outbound = free_address();
    let egress = "
  egress:
  - toEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '5432', protocol: TCP}]
      rules: {http: [{path: /orders, method: GET, headerMatches: [{name: X-Caller, value: shop, mismatch: REPLACE}]}]}
";
    let policy = format!("{}{egress}", portreeve_tests::sidecar::POLICY.trim_end());
    let listener =
        format!("outbound: [{{listen: '{outbound}', upstream: '{upstream}', policy_port: 5432}}]");
    let sidecar = Setup::new(free_address()).policy(&policy).more(&listener).start();
    let mut client = Client::connect(outbound);
    client.send("GET /orders HTTP/1.1\r\nHost: db\r\nX-Caller: somebody\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert!(received.text().ends_with("Host: db\r\nX-Caller: shop\r\n\r\n"), "{}", received.text());
    assert_eq!(client.get("/public/a").status, 403, "that is for ingress");
    let line = &sidecar.logged(1)[0];
    assert_eq!(line["direction"], "egress");
    assert!(line["destination"]["labels"].as_str().unwrap().contains("k8s:app=client"));
    assert!(line["source"]["labels"].as_str().unwrap().contains("k8s:app=shop"));
}

#[test]
fn what_hyper_reads_is_what_was_judged() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../protocols/testdata/smuggling.json")).unwrap();
    for case in &cases {
        let input: Vec<u8> =
            case["input"].as_str().unwrap().chars().map(|c| c as u32 as u8).collect();
        portreeve_tests::hyper_oracle::http1_hyper(&input);
    }
    let mixed = "POST /public/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n\
                 GET /denied HTTP/1.1\r\nHost: a\r\n\r\nPUT /x//y HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    portreeve_tests::hyper_oracle::http1_hyper(mixed.as_bytes());
}
