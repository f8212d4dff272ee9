//! HTTP/2 through the real binary: streams paired one by one.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method};
use portreeve_tests::http2::{
    self, Frame, RawClient, ask, block_on, connect, connect_with, grpc, kind, request, serve,
    serve_with,
};
use portreeve_tests::sidecar::{POLICY, Setup, Sidecar};
use portreeve_tests::{eventually, free_address};
use rustix::process::Signal;

/// Everything below `/public/`, in every method.
fn policy() -> String {
    POLICY.replace("method: GET|HEAD, ", "")
}

fn start() -> (Sidecar, http2::Seen) {
    let (upstream, seen) = serve();
    (Setup::new(upstream).policy(&policy()).start(), seen)
}

#[test]
fn streams_are_denied_one_by_one_while_their_neighbours_go_on() {
    let (sidecar, seen) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        // A neighbour that is open all the while.
        let (answer, mut body) =
            requests.send_request(request("POST", "/public/echo"), false).unwrap();
        for _ in 0..50 {
            let denied = ask(&mut requests, request("GET", "/private"), b"").await.unwrap();
            assert_eq!((denied.status(), &denied.body[..]), (403, &b"Access denied\r\n"[..]));
            assert_eq!(denied.head.headers()["content-type"], "text/plain");
            let allowed = ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap();
            assert_eq!((allowed.status(), &allowed.body[..]), (200, &b"ok"[..]));
            // What is denied while it still sends is answered all the same.
            let denied = ask(&mut requests, request("POST", "/private"), b"body").await.unwrap();
            assert_eq!(denied.status(), 403);
            body.send_data(Bytes::from_static(b"more "), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "250".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        let answer = http2::read(answer.await.unwrap()).await.unwrap();
        assert_eq!(answer.body.len(), 250);
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers["x-sum"], "250");
        assert_eq!(trailers["x-end"], "yes");
    });
    let what = seen.what();
    assert_eq!(what.connections, 1, "paired one to one");
    assert!(what.requests.iter().all(|request| !request.contains("private")));
}

#[test]
fn a_client_that_is_only_denied_opens_no_upstream_connection() {
    let (sidecar, seen) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let denied = ask(&mut requests, request("GET", "/private"), b"").await.unwrap();
        assert_eq!(denied.status(), 403);
        let denied = ask(&mut requests, request("HEAD", "/private"), b"").await.unwrap();
        assert_eq!((denied.status(), denied.body.len()), (403, 0));
        assert_eq!(denied.head.headers()["content-length"], "15");
    });
    assert_eq!(seen.what().connections, 0);
}

#[test]
fn a_grpc_denial_is_trailers_alone_with_status_7() {
    let (sidecar, _) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let denied = ask(&mut requests, grpc("/shop.v1.Admin/Reset"), b"\0\0\0\0\0").await.unwrap();
        assert_eq!((denied.status(), denied.body.len()), (200, 0));
        assert_eq!(denied.head.headers()["content-type"], "application/grpc");
        assert_eq!(denied.head.headers()["grpc-status"], "7");
        assert_eq!(denied.head.headers()["grpc-message"], "Access denied");
        assert!(denied.trailers.is_none());
        // gRPC-Web is HTTP.
        let mut web = grpc("/shop.v1.Admin/Reset");
        web.headers_mut().insert("content-type", "application/grpc-web".parse().unwrap());
        assert_eq!(ask(&mut requests, web, b"").await.unwrap().status(), 403);
    });
    let line = &sidecar.logged(2)[0];
    assert_eq!((&line["type"], &line["protocol"]), (&"http".into(), &"HTTP/2".into()));
    assert_eq!(line["grpc_service"], "shop.v1.Admin");
    assert_eq!(line["grpc_method"], "Reset");
    assert_eq!(line["grpc_status_name"], "PERMISSION_DENIED");
}

#[test]
fn informational_answers_pass() {
    let (sidecar, _) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let (mut answer, _) = requests.send_request(request("GET", "/public/hints"), true).unwrap();
        let hints = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        let hints = hints.unwrap().unwrap();
        assert_eq!(hints.status(), 103);
        assert_eq!(hints.headers()["link"], "</a.css>");
        assert_eq!(http2::read(answer.await.unwrap()).await.unwrap().body, b"ok");
    });
}

#[test]
fn resets_pass_with_their_codes_both_ways() {
    let (sidecar, seen) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        for code in [1, 2, 7, 8, 11, 13] {
            for path in ["/public/reset", "/public/late"] {
                let path = format!("{path}/{code}");
                let error = ask(&mut requests, request("GET", &path), b"").await.unwrap_err();
                assert_eq!(error.reason(), Some(Reason::from(code)), "{path}");
            }
        }
        // The server is told the client's codes, before an answer, within it, and within a body.
        for (code, path) in [(8, "/public/hold"), (5, "/public/begin"), (8, "/public/echo")] {
            let ended = path != "/public/echo";
            let (answer, mut stream) = requests
                .clone()
                .ready()
                .await
                .unwrap()
                .send_request(request("POST", path), ended)
                .unwrap();
            if path == "/public/hold" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            } else {
                answer.await.unwrap();
            }
            stream.send_reset(Reason::from(code));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // And goes on.
        assert_eq!(
            ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap().status(),
            200
        );
    });
    eventually("the server to see them", || (seen.what().resets.len() == 3).then_some(()));
    assert_eq!(seen.what().resets, [8, 5, 8]);
}

#[test]
fn an_answer_before_the_end_of_the_request_ends_the_request() {
    let (sidecar, _) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let (answer, mut body) =
            requests.send_request(request("POST", "/public/early"), false).unwrap();
        assert_eq!(http2::read(answer.await.unwrap()).await.unwrap().body, b"ok");
        let reason = std::future::poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
        assert_eq!(reason, Reason::NO_ERROR);
    });
}

#[test]
fn a_server_that_goes_away_sends_the_client_away_and_loses_nothing() {
    let (sidecar, seen) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let (slow, _) = requests.send_request(request("GET", "/public/leave"), true).unwrap();
        let answer = http2::read(slow.await.unwrap()).await.unwrap();
        assert_eq!(answer.body, b"ok", "what was asked is answered");
        eventually_async("the client to be told", async || {
            let request = request("GET", "/public/a");
            ask(&mut requests, request, b"").await.err()
        })
        .await;
        let mut again = connect(sidecar.address).await;
        let answer = ask(&mut again, request("GET", "/public/a"), b"").await.unwrap();
        assert_eq!(answer.status(), 200);
    });
    assert_eq!(seen.what().connections, 2);
}

async fn eventually_async<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {what}");
}

#[test]
fn terminated_it_lets_streams_finish_and_takes_no_more() {
    let (upstream, _) = serve();
    let mut sidecar = Setup::new(upstream).policy(&policy()).start();
    let address = sidecar.address;
    block_on(async {
        let mut requests = connect(address).await;
        let (answer, mut body) =
            requests.send_request(request("POST", "/public/echo"), false).unwrap();
        let answer = answer.await.unwrap();
        sidecar.signal(Signal::TERM);
        eventually_async("the client to be told", async || {
            ask(&mut requests, request("GET", "/public/a"), b"").await.err()
        })
        .await;
        body.send_data(Bytes::from_static(b"the rest"), true).unwrap();
        assert_eq!(http2::read(answer).await.unwrap().body, b"the rest");
    });
    assert_eq!(sidecar.ended().code(), Some(0));
}

#[test]
fn a_websocket_is_judged_as_the_request_it_is() {
    let (sidecar, seen) = start();
    let tunnel = |path: &str, protocol: &'static str| {
        let mut request = request("CONNECT", path);
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
        request
    };
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(requests.is_extended_connect_protocol_enabled());
        let denied = ask(&mut requests, tunnel("/private", "websocket"), b"").await.unwrap();
        assert_eq!(denied.status(), 403);
        let other = ask(&mut requests, tunnel("/public/echo", "connect-udp"), b"").await.unwrap();
        assert_eq!(other.status(), 501);
        assert_eq!(seen.what().connections, 0);
        let (answer, mut stream) = requests
            .ready()
            .await
            .unwrap()
            .send_request(tunnel("/public/echo", "websocket"), false)
            .unwrap();
        let mut answer = answer.await.unwrap().into_body();
        stream.send_data(Bytes::from_static(b"frame"), false).unwrap();
        assert_eq!(answer.data().await.unwrap().unwrap(), "frame");
    });
    assert_eq!(seen.what().requests, ["CONNECT /public/echo"]);
}

#[test]
fn a_websocket_to_a_server_that_has_none_is_501() {
    // A server of nghttp2's kind that says nothing of extended CONNECT.
    let (upstream, _) = portreeve_tests::upstream::serve(|mut stream, _| {
        use std::io::{Read, Write};
        let mut buffer = [0; 4096];
        let _ = stream.write_all(&Frame::bytes(kind::SETTINGS, 0, 0, &[]));
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    let sidecar = Setup::new(upstream).policy(&policy()).start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut request = request("CONNECT", "/public/echo");
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        assert_eq!(ask(&mut requests, request, b"").await.unwrap().status(), 501);
        let connect = http::Request::connect("shop:80").body(()).unwrap();
        assert_eq!(ask(&mut requests, connect, b"").await.unwrap().status(), 405);
    });
}

#[test]
fn push_is_refused_and_priorities_are_ignored() {
    let (settings, received) = std::sync::mpsc::channel();
    let settings = std::sync::Mutex::new(settings);
    let (upstream, _) = portreeve_tests::upstream::serve(move |mut stream, _| {
        use std::io::Read;
        let mut head = [0; 24 + 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[26])];
        stream.read_exact(&mut payload).unwrap();
        let _ = settings.lock().unwrap().send(payload);
        while let Ok(1..) = stream.read(&mut [0; 1024]) {}
    });
    let sidecar = Setup::new(upstream).policy(&policy()).start();
    let mut client = RawClient::connect(sidecar.address);
    client.frame(kind::PRIORITY, 0, 5, &[0, 0, 0, 3, 200]);
    client.get(1, "/public/a");
    let payload = received.recv_timeout(Duration::from_secs(10)).unwrap();
    // SETTINGS_ENABLE_PUSH (2) is 0 (RFC 9113 section 6.5.2).
    assert!(payload.chunks(6).any(|setting| setting == [0, 2, 0, 0, 0, 0]), "{payload:?}");
}

#[test]
fn a_slow_reader_holds_back_the_server_and_not_the_proxys_memory() {
    let (sidecar, seen) = start();
    block_on(async {
        // A client that opens its windows wide and then reads nothing.
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
        let mut requests = connect_with(sidecar.address, &builder).await;
        let warm = ask(&mut requests, request("GET", "/public/large/1000000"), b"").await.unwrap();
        assert_eq!(warm.body.len(), 1_000_000);
        // And one of whose windows nothing is given back.
        let mut slow = connect(sidecar.address).await;
        seen.what().sent = 0;
        let before = sidecar.memory();
        let (answer, _stream) =
            slow.send_request(request("GET", "/public/large/20000000"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let sent = seen.what().sent;
        assert!(sent < 3_000_000, "{sent} bytes taken from the server");
        assert!(sidecar.memory() < before + 4096, "{} KiB, then {}", before, sidecar.memory());
        // It reads on where it stopped.
        let mut read = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            read += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(read, 20_000_000);
    });
}

#[test]
fn a_new_policy_judges_the_next_stream_of_an_open_connection() {
    let (sidecar, _) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let mut status = async || {
            ask(&mut requests, request("GET", "/public/a"), b"").await.map(|answer| answer.status())
        };
        assert_eq!(status().await.unwrap(), 200);
        sidecar.replace_policy(&policy().replace("/public", "/open"));
        sidecar.reload();
        assert_eq!(status().await.unwrap(), 403);
        // Nobody may connect any more: the connection ends.
        sidecar.replace_policy(&policy().replace("app: client", "app: other"));
        sidecar.reload();
        eventually_async("the connection to end", async || status().await.err()).await;
    });
}

#[test]
fn a_server_that_is_gone_or_speaks_no_http2_is_said_to_be() {
    let gone = Setup::new(free_address()).policy(&policy()).start();
    let (old, _) = portreeve_tests::upstream::answering(portreeve_tests::upstream::OK);
    let old = Setup::new(old).policy(&policy()).start();
    block_on(async {
        for (sidecar, status, grpc_status) in [(&gone, 503, "14"), (&old, 502, "14")] {
            // Each on a connection of its own: one that lost its server ends.
            let mut requests = connect(sidecar.address).await;
            let answer = ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap();
            assert_eq!(answer.status(), status);
            let mut requests = connect(sidecar.address).await;
            let answer = ask(&mut requests, grpc("/public/a"), b"").await.unwrap();
            assert_eq!(answer.head.headers()["grpc-status"], grpc_status);
        }
    });
    assert!(gone.messages().contains("can't reach the upstream"), "{}", gone.messages());
    let refused = "portreeve_parse_errors_total{protocol=\"http2\",side=\"upstream\",reason=\"response_protocol_error\"}";
    assert_eq!(old.metric(refused), Some(2.0));
}

#[test]
fn more_streams_than_the_server_allows_wait_for_their_turn() {
    let (upstream, seen) = serve_with(|server| {
        server.max_concurrent_streams(3);
    });
    let sidecar = Setup::new(upstream).policy(&policy()).start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let _ = ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap();
        let asked: Vec<_> = (0..40)
            .map(|_| {
                let mut requests = requests.clone();
                tokio::spawn(async move {
                    ask(&mut requests, request("GET", "/public/hints"), b"").await
                })
            })
            .collect();
        for answer in asked {
            assert_eq!(answer.await.unwrap().unwrap().status(), 200);
        }
    });
    assert_eq!(seen.what().requests.len(), 41);
}

#[test]
fn head_fields_that_rules_add_and_remove_are_added_and_removed() {
    let policy = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http:
        - path: /public/.*
          headerMatches:
          - {name: X-From, value: proxy, mismatch: REPLACE}
          - {name: X-Seen, value: 'yes', mismatch: ADD}
          - {name: X-Secret, value: none, mismatch: DELETE}
";
    let (upstream, seen) = serve();
    let sidecar = Setup::new(upstream).policy(policy).start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let mut asked = request("GET", "/public/a");
        asked.headers_mut().insert("x-from", "client".parse().unwrap());
        asked.headers_mut().insert("x-secret", "42".parse().unwrap());
        assert_eq!(*asked.method(), Method::GET);
        assert_eq!(ask(&mut requests, asked, b"").await.unwrap().status(), 200);
    });
    let what = seen.what();
    assert_eq!(what.fields["x-from"], "proxy");
    assert_eq!(what.fields["x-seen"], "yes");
    assert!(!what.fields.contains_key("x-secret"));
}

#[test]
fn messages_and_statuses_of_grpc_are_counted() {
    let (sidecar, _) = start();
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let three = b"\0\0\0\0\x02ab\0\0\0\0\0\x01\0\0\0\x01c";
        let answer = ask(&mut requests, grpc("/public/echo"), three).await.unwrap();
        assert_eq!(answer.body, three);
    });
    let line = &sidecar.logged(1)[0];
    assert_eq!((&line["request_messages"], &line["response_messages"]), (&3.into(), &3.into()));
    assert_eq!(line["grpc_status"], serde_json::Value::Null);
    let labels = "direction=\"ingress\",service=\"public\",method=\"echo\"";
    let metric = |name: &str, more: &str| sidecar.metric(&format!("{name}{{{labels},{more}}}"));
    let requests = metric("portreeve_grpc_requests_total", "verdict=\"allow\",status=\"(none)\"");
    assert_eq!(requests, Some(1.0));
    assert_eq!(metric("portreeve_grpc_messages_total", "sender=\"client\""), Some(3.0));
}

#[test]
fn an_idle_connection_ends_and_one_that_never_begins_too() {
    let (upstream, _) = serve();
    let limits = "limits: {idle_timeout: 300ms, header_timeout: 300ms}";
    let sidecar = Setup::new(upstream).policy(&policy()).more(limits).start();
    let mut client = RawClient::connect(sidecar.address);
    client.get(1, "/public/a");
    assert_eq!(client.goaway(), Some(0));
    let mut begun = sidecar.connect();
    begun.send("PRI * HTTP/2.0\r\n\r\nS");
    assert_eq!(begun.response().status, 408);
    assert!(sidecar.metric("portreeve_timeouts_total{phase=\"idle\"}") >= Some(1.0));
}

/// A request that asks to go on in HTTP/2.
fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
}

#[test]
fn an_upgrade_to_http2_is_granted_where_the_server_speaks_it() {
    let (sidecar, seen) = start();
    for (path, status) in [("/public/a", 0x80 | 8), ("/private", 0)] {
        let mut client = sidecar.connect();
        client.send(upgrade(path));
        let mut granted = vec![0; 71];
        std::io::Read::read_exact(&mut client.stream, &mut granted).unwrap();
        assert!(granted.starts_with(b"HTTP/1.1 101 ") && granted.ends_with(b"\r\n\r\n"));
        let mut client = RawClient::begin(client.stream);
        let answer = client.until(|f| f.stream == 1 && f.kind == kind::HEADERS).unwrap();
        match status {
            0 => {
                assert!(answer.payload.windows(3).any(|w| w == b"403") || answer.payload[0] != 0x88)
            }
            indexed => assert_eq!(answer.payload[0], indexed),
        }
        client.get(3, "/private");
        assert_eq!(client.reset_of(3), None);
    }
    let what = seen.what();
    assert_eq!(what.requests, ["GET /public/a"], "what is denied reaches nobody");
    assert!(!what.fields.contains_key("http2-settings") && !what.fields.contains_key("upgrade"));
    assert_eq!(sidecar.logged(4)[0]["protocol"], "HTTP/2");
}

#[test]
fn an_upgrade_to_http2_is_passed_over_where_the_server_does_not_speak_it() {
    let (old, received) = portreeve_tests::upstream::answering(portreeve_tests::upstream::OK);
    let sidecar = Setup::new(old).policy(&policy()).start();
    for _ in 0..3 {
        let mut client = sidecar.connect();
        client.send(upgrade("/public/a"));
        assert_eq!(client.response().status, 200);
        assert_eq!(client.get("/private").status, 403);
    }
    assert!(!received.text().contains("h2c"), "{}", received.text());
    // One for each client, and one that asked whether it speaks HTTP/2.
    assert_eq!(received.connections(), 4);
}

#[test]
fn what_follows_an_upgrade_and_is_not_http2_reaches_nobody() {
    let (sidecar, seen) = start();
    let mut client = sidecar.connect();
    client.send(format!("{}GET /private HTTP/1.1\r\nHost: shop\r\n\r\n", upgrade("/public/a")));
    assert!(
        client.try_response().is_err() || client.end().is_some() || client.try_response().is_err()
    );
    std::thread::sleep(Duration::from_millis(100));
    assert!(seen.what().requests.is_empty(), "{:?}", seen.what().requests);
}
