//! Attacks on HTTP/2 by name, through the real binary. After each the proxy serves the next client, and
//! what the server saw of it is nothing, or what it should.

use std::time::Duration;

use portreeve_tests::eventually;
use portreeve_tests::http2::{
    Frame, RawClient, Seen, ask, block, block_on, connect, kind, request, serve,
};
use portreeve_tests::sidecar::{Setup, Sidecar};

const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

struct Victim {
    sidecar: Sidecar,
    seen: Seen,
    memory: u64,
}

impl Victim {
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let (upstream, seen) = serve();
        let sidecar = Setup::new(upstream).more(more).start();
        let victim = Self { memory: 0, sidecar, seen };
        victim.serves();
        Self { memory: victim.sidecar.memory(), ..victim }
    }

    fn client(&self) -> RawClient {
        let mut client = RawClient::connect(self.sidecar.address);
        client.acknowledge();
        client
    }

    /// Whether it serves the next client.
    fn serves(&self) {
        let status = block_on(async {
            let mut requests = connect(self.sidecar.address).await;
            ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap().status()
        });
        assert_eq!(status, 200);
    }

    /// It ended the connection for this reason, kept its memory, and serves the next client.
    fn withstood(&self, reason: &str) {
        self.counted(reason);
        let grown = self.sidecar.memory().saturating_sub(self.memory);
        assert!(grown < 8 * 1024, "{grown} KiB more");
        self.serves();
    }

    fn counted(&self, reason: &str) {
        let series = format!(
            "portreeve_parse_errors_total{{protocol=\"http2\",side=\"client\",reason=\"{reason}\"}}"
        );
        eventually(reason, || self.sidecar.metric(&series).filter(|count| *count > 0.0));
    }
}

/// Sends until the peer takes no more, then reads how it ended.
fn flood(
    client: &mut RawClient,
    frames: usize,
    mut frame: impl FnMut(usize) -> Vec<u8>,
) -> Option<u32> {
    for batch in 0..frames / 100 {
        let bytes: Vec<u8> = (0..100).flat_map(|n| frame(batch * 100 + n)).collect();
        if !client.raw(&bytes) {
            break;
        }
    }
    client.goaway()
}

/// The client learns why, unless its own bytes, still on their way, make a reset of it.
fn calmed(code: Option<u32>) {
    assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
}

#[test]
fn ping_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    calmed(flood(&mut client, 1_000_000, |_| Frame::bytes(kind::PING, 0, 0, &[0; 8])));
    victim.withstood("control_flood");
}

#[test]
fn settings_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    calmed(flood(&mut client, 1_000_000, |_| Frame::bytes(kind::SETTINGS, 0, 0, &[])));
    victim.withstood("control_flood");
}

#[test]
fn priority_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    let priority = |_| Frame::bytes(kind::PRIORITY, 0, 7, &[0, 0, 0, 3, 9]);
    calmed(flood(&mut client, 1_000_000, priority));
    victim.withstood("control_flood");
}

#[test]
fn unknown_frames_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    calmed(flood(&mut client, 1_000_000, |_| Frame::bytes(0xee, 0, 0, &[])));
    victim.withstood("control_flood");
}

#[test]
fn window_update_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    let update = |_| Frame::bytes(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    calmed(flood(&mut client, 1_000_000, update));
    victim.withstood("control_flood");
}

#[test]
fn empty_data_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    let fields =
        [(":method", "PUT"), (":scheme", "http"), (":authority", "shop"), (":path", "/upload")];
    client.head(1, &fields, false);
    let ended = flood(&mut client, 1_000_000, |_| Frame::bytes(kind::DATA, 0, 1, &[]));
    calmed(ended);
    let grown = victim.sidecar.memory().saturating_sub(victim.memory);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    victim.serves();
}

#[test]
fn rapid_reset() {
    let victim = Victim::new();
    let mut client = victim.client();
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "shop"),
        (":path", "/public/hold"),
    ];
    let head = block(&fields);
    let ended = flood(&mut client, 100_000, |n| {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        let mut bytes = Frame::bytes(kind::HEADERS, 5, stream, &head);
        bytes.extend(Frame::bytes(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        bytes
    });
    calmed(ended);
    victim.serves();
    let asked = victim.seen.what().requests.len();
    assert!(asked < 1000, "the server was asked {asked} times");
}

#[test]
fn rapid_reset_one_by_one() {
    let victim = Victim::with("limits: {http2_cancelled_streams: 50}");
    let mut client = victim.client();
    let mut asked = 0;
    for n in 0..1000 {
        let stream = 2 * n + 1;
        if !client.get(stream, "/public/hold") {
            break;
        }
        asked += 1;
        std::thread::sleep(Duration::from_millis(1));
        if !client.frame(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes()) {
            break;
        }
    }
    assert!((50..500).contains(&asked), "{asked}");
    victim.withstood("reset_flood");
}

#[test]
fn continuation_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    client.frame(kind::HEADERS, 1, 1, &block(&[(":method", "GET")]));
    let more = block(&[("x-more", "and more")]);
    calmed(flood(&mut client, 100_000, |_| Frame::bytes(kind::CONTINUATION, 0, 1, &more)));
    victim.withstood("header_flood");
    assert!(victim.seen.what().requests.iter().all(|asked| asked == "GET /public/a"));
}

#[test]
fn continuation_flood_by_a_client_that_never_acknowledges_the_limit() {
    let victim = Victim::new();
    // Not `Victim::client`: its SETTINGS stay unacknowledged, so that the library's bound is 16 MiB.
    let mut client = RawClient::connect(victim.sidecar.address);
    client.frame(kind::HEADERS, 1, 1, &block(&[(":method", "GET")]));
    let more = block(&[("x-more", &"m".repeat(12_000))]);
    calmed(flood(&mut client, 1000, |_| Frame::bytes(kind::CONTINUATION, 0, 1, &more)));
    victim.withstood("header_flood");
}

#[test]
fn empty_continuation_flood() {
    let victim = Victim::new();
    let mut client = victim.client();
    client.frame(kind::HEADERS, 1, 1, &block(&[(":method", "GET")]));
    calmed(flood(&mut client, 100_000, |_| Frame::bytes(kind::CONTINUATION, 0, 1, &[])));
    victim.withstood("header_flood");
}

#[test]
fn hpack_bomb() {
    let victim = Victim::new();
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/public/a")];
    for acknowledges in [true, false] {
        let mut client = match acknowledges {
            true => victim.client(),
            false => RawClient::connect(victim.sidecar.address),
        };
        // An entry of 4 KiB in the dynamic table, and then references of one byte to it.
        let mut head = block(&fields);
        head.push(0x40);
        head.extend_from_slice(&block(&[("x-bomb", &"b".repeat(3900))])[1..]);
        head.resize(head.len() + 12_000, 0x80 | 62);
        client.frame(kind::HEADERS, 5, 1, &head);
        let answer = client.until(|frame| frame.stream == 1 || frame.kind == kind::GOAWAY);
        let answer = answer.expect("an answer");
        // 431, or the stream reset; never the server's answer.
        assert!(matches!(answer.kind, kind::HEADERS | kind::RST_STREAM | kind::GOAWAY));
        let grown = victim.sidecar.memory().saturating_sub(victim.memory);
        assert!(grown < 8 * 1024, "{grown} KiB more");
    }
    victim.serves();
    assert!(victim.seen.what().fields.get("x-bomb").is_none());
    assert_eq!(victim.seen.what().requests.len(), 2, "the two that asked in order");
}

#[test]
fn header_list_limits() {
    let victim = Victim::new();
    block_on(async {
        let mut requests = connect(victim.sidecar.address).await;
        let mut many = request("GET", "/public/a");
        for n in 0..101 {
            let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            many.headers_mut().insert(name, "1".parse().unwrap());
        }
        assert_eq!(ask(&mut requests, many, b"").await.unwrap().status(), 431);
        let mut large = request("GET", "/public/a");
        large.headers_mut().insert("x-large", "l".repeat(40_000).parse().unwrap());
        assert_eq!(ask(&mut requests, large, b"").await.unwrap().status(), 431);
        let long = request("GET", &format!("/public/{}", "p".repeat(9000)));
        assert_eq!(ask(&mut requests, long, b"").await.unwrap().status(), 414);
        // The connection goes on.
        assert_eq!(
            ask(&mut requests, request("GET", "/public/a"), b"").await.unwrap().status(),
            200
        );
    });
    assert_eq!(victim.seen.what().requests.len(), 2);
}

#[test]
fn window_zero_and_slow_readers_are_ended_when_their_time_is_up() {
    let victim = Victim::with("limits: {http2_stall_timeout: 300ms}");
    // A window that is closed from the start (SETTINGS_INITIAL_WINDOW_SIZE 0), and never opened.
    let mut client = RawClient::connect(victim.sidecar.address);
    client.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.acknowledge();
    client.get(1, "/public/large/1000000");
    let reset = client.until(|frame| frame.kind == kind::RST_STREAM).expect("a reset");
    assert_eq!((reset.stream, reset.code()), (1, CANCEL));
    // The connection goes on.
    client.get(3, "/private");
    assert_eq!(client.reset_of(3), None);
    victim.withstood("stalled");
    eventually("the server to be told", || {
        victim.seen.what().resets.contains(&CANCEL).then_some(())
    });
}

#[test]
fn many_slow_readers_hold_little() {
    let victim = Victim::new();
    let mut clients = Vec::new();
    for _ in 0..10 {
        // Windows as wide as they go, and a socket that is never read.
        let mut client = RawClient::connect(victim.sidecar.address);
        client.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        client.frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
        client.acknowledge();
        for n in 0..20 {
            client.get(2 * n + 1, "/public/large/100000000");
        }
        clients.push(client);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = victim.sidecar.memory().saturating_sub(victim.memory);
    // 20 streams of 64 KiB each and the windows of a connection.
    assert!(grown < 10 * 4 * 1024, "{grown} KiB more");
    victim.serves();
}

#[test]
fn pseudo_header_abuse() {
    let victim = Victim::new();
    let good =
        [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/public/a")];
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let without = |name: &str| -> Vec<_> {
        good.iter().copied().filter(|(other, _)| *other != name).collect()
    };
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("a second path", with(&[(":path", "/private")])),
        ("a second method", with(&[(":method", "POST")])),
        ("a second authority", with(&[(":authority", "other")])),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("an empty path", [&without(":path")[..], &[(":path", "")]].concat()),
        ("one after a field", with(&[("x", "1"), (":path", "/private")])),
        ("one of answers", with(&[(":status", "200")])),
        ("an unknown one", with(&[(":secret", "1")])),
        (":protocol without CONNECT", with(&[(":protocol", "websocket")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "1")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te beside trailers", with(&[("te", "gzip")])),
        ("a line feed in a value", with(&[("x", "1\nx-token: 2")])),
        ("a carriage return in a value", with(&[("x", "1\r\n\r\nGET /private HTTP/1.1")])),
        ("a zero in a value", with(&[("x", "1\x002")])),
        ("a space in a name", with(&[("x y", "1")])),
        ("a colon in a name", with(&[("x:y", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("a line feed in the path", [&without(":path")[..], &[(":path", "/public/a\nb")]].concat()),
        ("a space in the path", [&without(":path")[..], &[(":path", "/public/a b")]].concat()),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "5")])),
        ("a length that is none", with(&[("content-length", "+0")])),
        ("a length without a body", with(&[("content-length", "5")])),
    ];
    let mut client = victim.client();
    for (n, (name, fields)) in cases.iter().enumerate() {
        // Some break the stream, some the connection; none reaches the server.
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        if !client.head(stream, fields, true) {
            client = victim.client();
        }
        let answer = client.until(|frame| {
            (frame.stream == stream && matches!(frame.kind, kind::HEADERS | kind::RST_STREAM))
                || frame.kind == kind::GOAWAY
        });
        match answer {
            Some(frame) if frame.kind == kind::HEADERS => {
                // Indexed `:status 400` or a literal of it.
                assert!(
                    frame.payload[0] == 0x80 | 12 || frame.payload.windows(3).any(|w| w == b"400"),
                    "{name}: {frame:?}"
                );
            }
            Some(frame) => assert_eq!(frame.code(), PROTOCOL_ERROR, "{name}"),
            None => panic!("{name}: no answer"),
        }
        if frame_ended(&mut client) {
            client = victim.client();
        }
        let what = victim.seen.what();
        assert_eq!(what.requests.len(), 1, "{name}: {:?}", what.requests);
    }
    victim.serves();
}

/// Whether the connection has ended.
fn frame_ended(client: &mut RawClient) -> bool {
    if !client.frame(kind::PING, 0, 0, &[7; 8]) {
        return true;
    }
    client.until(|frame| frame.kind == kind::PING && frame.flags == 1).is_none()
}

#[test]
fn upper_case_header_names() {
    let victim = Victim::new();
    let mut client = victim.client();
    for (n, name) in ["X-Token", "x-Token", "Host", "Cookie", ":Path"].into_iter().enumerate() {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "shop"),
            (":path", "/public/a"),
            (name, "1"),
        ];
        client.head(stream, &fields, true);
        let answer = client
            .until(|f| (f.stream == stream && f.kind == kind::RST_STREAM) || f.kind == kind::GOAWAY)
            .expect("a stream error");
        assert_eq!(answer.code(), PROTOCOL_ERROR, "{name}");
        if frame_ended(&mut client) {
            client = victim.client();
        }
    }
    assert_eq!(victim.seen.what().requests.len(), 1, "none of them");
    victim.serves();
}

#[test]
fn authority_against_host() {
    let victim = Victim::new();
    let mut client = victim.client();
    for (n, (authority, host)) in
        [("shop", "other"), ("shop", "shop:81"), ("user@shop", ""), ("shop:x", "")]
            .iter()
            .enumerate()
    {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        let mut fields = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", *authority),
            (":path", "/public/a"),
        ];
        if !host.is_empty() {
            fields.push(("host", host));
        }
        client.head(stream, &fields, true);
        let answer = client
            .until(|f| f.stream == stream && matches!(f.kind, kind::HEADERS | kind::RST_STREAM))
            .expect("an answer");
        if answer.kind == kind::HEADERS {
            assert_eq!(answer.payload[0], 0x80 | 12, "400: {authority} {host}");
        }
    }
    assert_eq!(victim.seen.what().requests.len(), 1);
    victim.serves();
}

#[test]
fn smuggling_by_downgrade_finds_no_downgrade() {
    let victim = Victim::new();
    let mut client = victim.client();
    // A length that is shorter than the body: what follows would be a request of its own in HTTP/1.1.
    let fields = [
        (":method", "PUT"),
        (":scheme", "http"),
        (":authority", "shop"),
        (":path", "/upload"),
        ("content-length", "3"),
    ];
    client.head(1, &fields, false);
    client.frame(kind::DATA, 1, 1, b"abcGET /private HTTP/1.1\r\nHost: shop\r\n\r\n");
    let answer = client
        .until(|f| (f.stream == 1 && f.kind == kind::RST_STREAM) || f.kind == kind::GOAWAY)
        .expect("an answer");
    assert_eq!(answer.code(), PROTOCOL_ERROR);
    victim.serves();
    assert!(victim.seen.what().requests.iter().all(|asked| !asked.contains("private")));
}

#[test]
fn path_confusion() {
    let victim = Victim::new();
    block_on(async {
        let mut requests = connect(victim.sidecar.address).await;
        for (path, status) in [
            ("/public/../private", 403),
            ("/public/%2e%2e/private", 403),
            ("/public/.%2e/private", 403),
            ("//private", 403),
            ("/public//../../private", 403),
            ("/public%2f..%2fprivate", 307),
            ("/public/..%5cprivate", 307),
            ("/public/..;/private", 400),
            ("/public/%00", 400),
            ("/public/%zz", 400),
            ("/public/./a", 200),
        ] {
            let answer = ask(&mut requests, request("GET", path), b"").await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
        }
    });
    assert_eq!(victim.seen.what().requests, ["GET /public/a", "GET /public/a"]);
}

#[test]
fn frames_that_lie_about_their_length_end_the_connection() {
    let victim = Victim::new();
    for bytes in [
        Frame::bytes(kind::PING, 0, 0, &[0; 7]),
        Frame::bytes(kind::SETTINGS, 0, 0, &[0; 5]),
        Frame::bytes(kind::RST_STREAM, 0, 1, &[0; 3]),
        Frame::bytes(kind::WINDOW_UPDATE, 0, 0, &[0; 5]),
        Frame::bytes(kind::DATA, 0, 1, &vec![0; 20_000]),
        Frame::bytes(kind::HEADERS, 4, 2, &block(&[(":method", "GET")])),
        vec![0xff; 1000],
    ] {
        let mut client = victim.client();
        client.raw(&bytes);
        let code = client.goaway();
        assert!(code.is_none_or(|code| code != 0), "{code:?}: {:?}", &bytes[..9]);
    }
    victim.withstood("protocol_error");
}
