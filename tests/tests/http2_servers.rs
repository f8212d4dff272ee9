//! HTTP/2 servers that are slow, silent, gone, or hostile, behind the real binary.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portreeve_tests::eventually;
use portreeve_tests::http2::{
    Frame, RawClient, ask, block, block_on, connect, kind, request, serve,
};
use portreeve_tests::sidecar::{POLICY, Setup, Sidecar};
use rustix::process::Signal;

/// Everything below `/public/`, in every method.
fn in_front_of(upstream: SocketAddr) -> Setup {
    Setup::new(upstream).policy(&POLICY.replace("method: GET|HEAD, ", ""))
}

/// A server by hand, on a thread for each connection.
fn by_hand(
    settings: &'static [u8],
    serve: impl Fn(&mut RawClient) + Send + Sync + 'static,
) -> SocketAddr {
    let handle = move |stream, _: &dyn Fn(&[u8])| serve(&mut RawClient::accept(stream, settings));
    portreeve_tests::upstream::serve(handle).0
}

fn client(sidecar: &Sidecar) -> RawClient {
    let mut client = RawClient::connect(sidecar.address);
    client.acknowledge();
    client
}

fn open(client: &mut RawClient, stream: u32, method: &str, path: &str) {
    let fields =
        [(":method", method), (":scheme", "http"), (":authority", "shop"), (":path", path)];
    client.head(stream, &fields, false);
}

fn websocket(client: &mut RawClient, stream: u32) {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "shop"),
        (":path", "/public/echo"),
    ];
    client.head(stream, &fields, false);
}

/// Hundredths of a second of CPU time.
fn cpu(sidecar: &Sidecar) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", sidecar.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_websocket_to_a_server_that_is_silent_costs_nothing() {
    let (silent, _) =
        portreeve_tests::upstream::serve(
            |mut stream, _| {
                while let Ok(1..) = stream.read(&mut [0; 1024]) {}
            },
        );
    let sidecar = in_front_of(silent).start();
    let mut client = client(&sidecar);
    websocket(&mut client, 1);
    std::thread::sleep(Duration::from_millis(300));
    let before = cpu(&sidecar);
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu(&sidecar) - before;
    assert!(used < 20, "{used} hundredths of a second");
}

#[test]
fn a_websocket_to_a_server_of_http1_is_answered_once() {
    let (old, received) = portreeve_tests::upstream::serve(|mut stream, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    let sidecar = in_front_of(old).start();
    let mut client = client(&sidecar);
    websocket(&mut client, 1);
    assert_eq!(client.reset_of(1), None, "a head: 502");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(received.connections(), 1);
}

#[test]
fn a_reset_after_the_end_of_a_request_that_the_server_does_not_take_reaches_it() {
    let resets = Arc::<AtomicUsize>::default();
    let seen = resets.clone();
    // SETTINGS_INITIAL_WINDOW_SIZE 0, and never a WINDOW_UPDATE.
    let upstream = by_hand(&[0, 4, 0, 0, 0, 0], move |server| {
        while let Some(frame) = server.said() {
            seen.fetch_add(usize::from(frame.kind == kind::RST_STREAM), Ordering::SeqCst);
        }
    });
    let sidecar = in_front_of(upstream).start();
    let mut client = client(&sidecar);
    client.get(1, "/public/warm");
    std::thread::sleep(Duration::from_millis(200));
    open(&mut client, 3, "POST", "/public/a");
    client.frame(kind::DATA, 1, 3, b"hello");
    std::thread::sleep(Duration::from_millis(200));
    client.frame(kind::RST_STREAM, 0, 3, &8_u32.to_be_bytes());
    eventually("the server to see it", || (resets.load(Ordering::SeqCst) == 1).then_some(()));
}

#[test]
fn informational_answers_without_end_are_ended() {
    let upstream = by_hand(&[], |server| {
        let _ = server.said();
        for n in 0..20_000 {
            let hint = format!("{n:08}{}", "x".repeat(1000));
            let fields = block(&[(":status", "103"), ("link", &hint)]);
            if !server.frame(kind::HEADERS, 4, 1, &fields) {
                return;
            }
        }
        while server.said().is_some() {}
    });
    let sidecar = in_front_of(upstream).start();
    let before = sidecar.memory();
    let mut client = client(&sidecar);
    client.get(1, "/public/a");
    std::thread::sleep(Duration::from_secs(1));
    let grown = sidecar.memory().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more");
    let reset = client.until(|frame| frame.kind == kind::RST_STREAM).expect("a reset");
    assert_eq!(reset.stream, 1);
}

/// Windows as wide as they go, a socket that is never read, and a server that sends bytes one by one:
/// what waits must not cost more than what it says.
#[test]
fn tiny_frames_for_a_client_that_does_not_read_hold_little() {
    let upstream = by_hand(&[], |server| {
        let mut streams = Vec::new();
        while streams.len() < 50 {
            match server.said() {
                Some(frame) if frame.kind == kind::HEADERS => streams.push(frame.stream),
                Some(_) => {}
                None => return,
            }
        }
        let mut writer = server.stream.try_clone().unwrap();
        writer.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        for stream in &streams {
            server.frame(kind::HEADERS, 4, *stream, &block(&[(":status", "200")]));
        }
        for _ in 0..20 {
            for stream in &streams {
                let frames = Frame::bytes(kind::DATA, 0, *stream, b"x").repeat(1000);
                if writer.write_all(&frames).is_err() {
                    return;
                }
            }
        }
        std::thread::sleep(Duration::from_secs(10));
    });
    let sidecar = in_front_of(upstream).more("workers: 1").start();
    let before = sidecar.memory();
    let mut client = client(&sidecar);
    client.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    for n in 0..50 {
        client.get(2 * n + 1, "/public/a");
    }
    std::thread::sleep(Duration::from_secs(4));
    let grown = sidecar.memory().saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB more");
}

/// Sends a body of this size and returns the answer's status.
fn upload(sidecar: &Sidecar, size: usize) -> Result<u16, h2::Error> {
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let (answer, mut body) =
            requests.send_request(request("POST", "/public/a"), false).unwrap();
        let mut left = size;
        while left > 0 {
            body.reserve_capacity(left.min(16 * 1024));
            let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
            let Some(Ok(room)) = room else { break };
            let n = room.min(left);
            left -= n;
            if body.send_data(Bytes::from(vec![0; n]), left == 0).is_err() {
                break;
            }
        }
        Ok(answer.await?.status().as_u16())
    })
}

/// Takes a body, with `updates` window updates for each frame, on the stream and on the connection.
fn take_body(server: &mut RawClient, updates: u32, goes_away: bool) {
    let mut gone = !goes_away;
    while let Some(frame) = server.said() {
        match frame.kind {
            kind::HEADERS if !gone => {
                gone = true;
                server.frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            }
            kind::DATA => {
                let n = u32::try_from(frame.payload.len()).unwrap();
                for part in (0..updates).filter(|_| n >= updates) {
                    let size = n / updates + if part == 0 { n % updates } else { 0 };
                    for stream in [0, 1] {
                        server.frame(kind::WINDOW_UPDATE, 0, stream, &size.to_be_bytes());
                    }
                }
                if frame.flags & 1 == 1 {
                    server.frame(kind::HEADERS, 5, 1, &block(&[(":status", "200")]));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn window_updates_for_a_large_body_are_no_flood() {
    let upstream = by_hand(&[], |server| take_body(server, 1, false));
    let sidecar = in_front_of(upstream).more("limits: {http2_control_frames: 200}").start();
    assert_eq!(upload(&sidecar, 40_000_000).ok(), Some(200));
}

#[test]
fn a_body_goes_on_after_the_server_has_gone_away() {
    let upstream = by_hand(&[], |server| take_body(server, 2, true));
    let sidecar = in_front_of(upstream).more("limits: {http2_control_frames: 200}").start();
    assert_eq!(upload(&sidecar, 10_000_000).ok(), Some(200));
}

/// As gRPC's C core does it: streams and their windows opened by a client that may have been told to go.
#[test]
fn a_stream_goes_on_while_others_are_opened_after_the_server_went_away() {
    let (upstream, seen) = serve();
    let sidecar = in_front_of(upstream).start();
    let mut client = client(&sidecar);
    open(&mut client, 1, "POST", "/public/echo");
    // As every client does, it answers the PING by which a server finds out that it has been heard.
    let answer = |client: &mut RawClient, stream: u32| {
        while let Some(frame) = client.read() {
            match (frame.kind, frame.flags & 1) {
                (kind::PING, 0) => drop(client.frame(kind::PING, 1, 0, &frame.payload)),
                (_, 1) if frame.stream == stream => return true,
                _ => {}
            }
        }
        false
    };
    client.until(|frame| frame.stream == 1 && frame.kind == kind::HEADERS).expect("a head");
    client.get(3, "/public/leave");
    assert!(answer(&mut client, 3));
    for stream in [5, 7, 9] {
        std::thread::sleep(Duration::from_millis(50));
        client.get(stream, "/public/a");
        client.frame(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0]);
        assert!(answer(&mut client, stream), "{stream}");
    }
    client.frame(kind::DATA, 1, 1, b"the rest");
    let data = client.until(|frame| frame.stream == 1 && frame.kind == kind::DATA).expect("data");
    assert_eq!(data.payload, b"the rest");
    assert_eq!(client.goaway(), Some(0), "and then the client is told");
    assert_eq!(seen.what().connections, 2);
}

/// Whoever neither ends its head nor reads is not waited for twice.
#[test]
fn a_head_that_does_not_end_has_one_time_out() {
    let (upstream, _) = serve();
    let sidecar = in_front_of(upstream).more("limits: {header_timeout: 300ms}").start();
    let mut client = client(&sidecar);
    client.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    client.frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    // Enough on its way that the socket takes no GOAWAY.
    client.get(1, "/public/large/100000000");
    std::thread::sleep(Duration::from_millis(500));
    client.frame(kind::HEADERS, 0, 3, &block(&[(":method", "GET")]));
    let active = "portreeve_connections_active{direction=\"ingress\"}";
    eventually("the connection to end", || (sidecar.metric(active) == Some(0.0)).then_some(()));
    assert_eq!(sidecar.metric("portreeve_timeouts_total{phase=\"head\"}"), Some(1.0));
}

#[test]
fn an_idle_client_that_does_not_heed_goaway_is_left_soon() {
    let (upstream, _) = serve();
    let limits = "limits: {header_timeout: 300ms, idle_timeout: 20s}";
    let sidecar = in_front_of(upstream).more(limits).start();
    let mut client = client(&sidecar);
    client.get(1, "/public/a");
    client.until(|frame| frame.stream == 1 && frame.flags & 1 == 1).expect("an answer");
    sidecar.signal(Signal::TERM);
    let begin = Instant::now();
    client.goaway();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn a_head_that_does_not_end_ends_the_connection() {
    let (upstream, _) = serve();
    let sidecar = in_front_of(upstream).more("limits: {header_timeout: 300ms}").start();
    let mut client = client(&sidecar);
    // Beside a stream that is open.
    open(&mut client, 1, "POST", "/public/echo");
    client.frame(kind::HEADERS, 0, 3, &block(&[(":method", "GET")]));
    let begin = Instant::now();
    assert_ne!(client.goaway(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(sidecar.metric("portreeve_timeouts_total{phase=\"head\"}"), Some(1.0));
}

#[test]
fn trailers_that_belong_into_the_head_end_the_stream() {
    let (upstream, seen) = serve();
    let sidecar = in_front_of(upstream).start();
    let mut client = client(&sidecar);
    for (n, field) in ["host", "authorization", "content-length"].into_iter().enumerate() {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        open(&mut client, stream, "POST", "/public/echo");
        client.head(stream, &[(field, "7")], true);
        let reset = client.until(|f| f.stream == stream && f.kind == kind::RST_STREAM).unwrap();
        assert_eq!(reset.code(), 1, "{field}");
    }
    block_on(async {
        let mut requests = connect(sidecar.address).await;
        let answer = ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap();
        assert_eq!(answer.status(), 200);
    });
    assert!(seen.what().fields.get("authorization").is_none());
}

#[test]
fn schemes_other_than_http_and_https_are_refused() {
    let (upstream, seen) = serve();
    let sidecar = in_front_of(upstream).start();
    let mut client = client(&sidecar);
    for (n, scheme) in ["ftp", "javascript"].into_iter().enumerate() {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        let fields = [
            (":method", "GET"),
            (":scheme", scheme),
            (":authority", "shop"),
            (":path", "/public/a"),
        ];
        client.head(stream, &fields, true);
        assert_eq!(client.reset_of(stream), None, "a head: 400");
    }
    assert!(seen.what().requests.is_empty());
}
