//! The gate, driven by the little relay of [`super::fuzz`].

use super::fuzz::{Connection, Outcome, by_path, http1_gate, http1_path};
use super::{Decision, HeadEdits, Limits, Refusal, Request};
use crate::gate::Close;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const DENIED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 15\r\n\r\nAccess denied\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")
}

fn run(requests: &str, responses: &str) -> Outcome {
    Connection::new(requests.as_bytes(), responses.as_bytes()).run(|| 7, by_path)
}

fn run_to_the_end(requests: &str, responses: &str) -> Outcome {
    let mut connection = Connection::new(requests.as_bytes(), responses.as_bytes());
    connection.ends = true;
    connection.run(|| 7, by_path)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A response without its body, up to the status.
fn status(bytes: &[u8]) -> &str {
    text(bytes).get(9..12).unwrap_or("none")
}

#[test]
fn an_allowed_request_passes_as_it_came() {
    let request = "GET /a?b=c HTTP/1.1\r\nhOsT: shop\r\nX-Case: Kept\r\n\r\n";
    let outcome = run(request, OK);
    assert_eq!(text(&outcome.to_server), request);
    assert_eq!(text(&outcome.to_client), OK);
    assert_eq!(outcome.closed, None);
    let exchange = outcome.finished[0];
    assert_eq!((exchange.status, exchange.local), (200, false));
    assert_eq!(exchange.request_bytes, request.len() as u64);
    assert_eq!(exchange.response_bytes, OK.len() as u64);
}

#[test]
fn denied_request_is_answered_in_its_turn() {
    let requests = [get("/1"), get("/denied"), get("/2"), get("/denied"), get("/denied")].concat();
    let outcome = run(&requests, &[OK, OK].concat());
    assert_eq!(text(&outcome.to_server), [get("/1"), get("/2")].concat());
    assert_eq!(text(&outcome.to_client), [OK, DENIED, OK, DENIED, DENIED].concat());
    let statuses: Vec<u16> = outcome.finished.iter().map(|exchange| exchange.status).collect();
    assert_eq!(statuses, [200, 403, 200, 403, 403]);
}

#[test]
fn a_denied_body_is_drained_and_the_connection_goes_on() {
    let denied = "POST /denied HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
    let outcome = run(&[denied, &get("/a")].concat(), OK);
    assert_eq!(text(&outcome.to_server), get("/a"));
    assert_eq!(text(&outcome.to_client), [DENIED, OK].concat());
    let chunked = "POST /denied HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let outcome = run(&[chunked, &get("/a")].concat(), OK);
    assert_eq!(text(&outcome.to_server), get("/a"));
}

#[test]
fn a_long_denied_body_ends_the_connection_after_the_reply() {
    let body = "x".repeat(70_000);
    for request in [
        format!("POST /denied HTTP/1.1\r\nHost: shop\r\nContent-Length: 70000\r\n\r\n{body}"),
        format!(
            "POST /denied HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n{body}"
        ),
    ] {
        let outcome = run(&request, "");
        assert!(outcome.to_server.is_empty());
        assert_eq!(status(&outcome.to_client), "403");
        assert_eq!(outcome.closed, Some(Close::Graceful));
    }
}

#[test]
fn a_denied_client_that_waits_for_100_is_answered_and_left() {
    let request =
        "POST /denied HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let outcome = run(request, "");
    assert_eq!(status(&outcome.to_client), "403");
    assert!(text(&outcome.to_client).contains("connection: close\r\n"));
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

#[test]
fn interim_responses_pass_before_the_final_one() {
    let request =
        "POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi";
    let responses =
        ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK];
    let outcome = run(request, &responses.concat());
    assert_eq!(text(&outcome.to_client), responses.concat());
    assert_eq!(outcome.finished.len(), 1);
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    let head = "HEAD /a HTTP/1.1\r\nHost: shop\r\n\r\n";
    let requests = [head, &get("/b"), &get("/c"), &get("/d")].concat();
    let responses = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
                     HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\n\
                     Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n";
    let outcome = run(&requests, responses);
    assert_eq!(text(&outcome.to_client), responses);
    let statuses: Vec<u16> = outcome.finished.iter().map(|exchange| exchange.status).collect();
    assert_eq!(statuses, [200, 204, 304, 200]);
}

#[test]
fn a_response_without_length_lasts_until_the_server_ends_it() {
    let response = "HTTP/1.0 200 OK\r\n\r\nall of this";
    let outcome = run_to_the_end("GET /a HTTP/1.0\r\n\r\n", response);
    assert_eq!(text(&outcome.to_client), response);
    assert_eq!(outcome.finished[0].response_bytes, response.len() as u64);
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

#[test]
fn connection_close_ends_it_after_the_response_and_nothing_more_is_read() {
    let request = "GET /a HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let outcome = run(&[request, &get("/b")].concat(), OK);
    assert_eq!(text(&outcome.to_server), request);
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

#[test]
fn http_1_0_is_kept_alive_only_when_it_asks() {
    let keep = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(run(keep, OK).closed, None);
    assert_eq!(run("GET /a HTTP/1.0\r\n\r\n", OK).closed, Some(Close::Graceful));
}

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_websocket_is_judged_once_and_then_a_tunnel() {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let requests = [WEBSOCKET, "\u{1}GET /denied HTTP/1.1\r\n\r\n"].concat();
    let outcome = run(&requests, &[switching, "\u{2}server"].concat());
    assert_eq!(text(&outcome.to_server), requests);
    assert_eq!(text(&outcome.to_client), [switching, "\u{2}server"].concat());
    assert_eq!(outcome.judged.len(), 1);
    assert_eq!(outcome.finished[0].status, 101);
}

#[test]
fn an_upgrade_that_the_server_declines_leaves_http() {
    let outcome = run(&[WEBSOCKET, &get("/denied")].concat(), OK);
    assert_eq!(text(&outcome.to_server), WEBSOCKET);
    assert_eq!(text(&outcome.to_client), [OK, DENIED].concat());
}

#[test]
fn an_upgrade_to_http_2_is_not_passed_on() {
    let request = "GET /a HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings, TE\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nTE: trailers\r\n\r\n";
    // Handed over if it comes first.
    let outcome = run(request, "");
    assert_eq!((text(&outcome.to_server), outcome.closed), ("", Some(Close::Graceful)));
    let outcome = run(&format!("{}{request}", get("/a")), &OK.repeat(2));
    let expected = "GET /a HTTP/1.1\r\nHost: shop\r\nConnection: TE\r\nTE: trailers\r\n\r\n";
    assert_eq!(text(&outcome.to_server), format!("{}{expected}", get("/a")));
}

#[test]
fn a_server_that_switches_protocols_unasked_breaks_the_protocol() {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let outcome = run(&get("/a"), switching);
    assert_eq!(status(&outcome.to_client), "502");
    assert_eq!(outcome.refused, [Refusal::ResponseUpgrade]);
    let other = switching.replace("websocket", "h2c");
    assert_eq!(status(&run(WEBSOCKET, &other).to_client), "502");
}

#[test]
fn connect_is_refused() {
    let outcome = run("CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\nGET /a", "");
    assert!(outcome.to_server.is_empty());
    assert_eq!(status(&outcome.to_client), "405");
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

#[test]
fn a_path_is_judged_and_forwarded_in_normal_form() {
    let outcome = run(&get("/x/../%61//b?q=//"), OK);
    assert_eq!(outcome.judged[0].1, "/a/b?q=//");
    assert_eq!(text(&outcome.to_server), "GET /a/b?q=// HTTP/1.1\r\nHost: shop\r\n\r\n");
}

#[test]
fn a_body_follows_a_rewritten_head() {
    let fields = "HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
    let outcome = run(&format!("POST //a {fields}{}", get("/b")), &[OK, OK].concat());
    assert_eq!(text(&outcome.to_server), format!("POST /a {fields}{}", get("/b")));
    let fields =
        "HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let outcome = run(&format!("POST //a {fields}{}", get("/b")), &[OK, OK].concat());
    assert_eq!(text(&outcome.to_server), format!("POST /a {fields}{}", get("/b")));
}

#[test]
fn absolute_form_is_forwarded_in_origin_form() {
    let outcome = run("GET http://shop/a HTTP/1.1\r\nHost: shop\r\n\r\n", OK);
    assert_eq!(text(&outcome.to_server), get("/a"));
}

#[test]
fn header_edits_rewrite_the_head_and_leave_framing_alone() {
    let edit = |_: &Request<'_>, edits: &mut HeadEdits| {
        edits.replace("X-Old", b"new");
        edits.remove("x-gone");
        edits.add("X-More", b"1");
        edits.replace("Content-Length", b"0");
        edits.remove("Host");
        edits.add("X-Split", b"a\r\nHost: evil");
        Decision::Allow
    };
    let request = "POST /a HTTP/1.1\r\nHost: shop\r\nx-old: 1\r\nX-Old: 2\r\nX-Gone: 3\r\nContent-Length: 2\r\n\r\nhi";
    let outcome = Connection::new(request.as_bytes(), OK.as_bytes()).run(|| 5, edit);
    let expected =
        "POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\nX-Old: new\r\nX-More: 1\r\n\r\nhi";
    assert_eq!(text(&outcome.to_server), expected);
}

#[test]
fn what_goes_over_a_limit_is_answered_and_closed() {
    let long_head = format!("GET /a HTTP/1.1\r\nHost: shop\r\nA: {}\r\n\r\n", "x".repeat(40_000));
    let long_target = get(&format!("/{}", "x".repeat(9_000)));
    let endless_target = format!("GET /{}", "x".repeat(40_000));
    let fields: String = (0..101).map(|i| format!("A{i}: b\r\n")).collect();
    let many_fields = format!("GET /a HTTP/1.1\r\nHost: shop\r\n{fields}\r\n");
    for (request, expected) in
        [(long_head, "431"), (long_target, "414"), (endless_target, "414"), (many_fields, "431")]
    {
        let outcome = run(&request, "");
        assert!(outcome.to_server.is_empty());
        assert_eq!(status(&outcome.to_client), expected);
        assert_eq!(outcome.closed, Some(Close::Graceful));
    }
}

#[test]
fn a_refusal_waits_for_the_responses_before_it() {
    let outcome = run(&[&get("/a"), "BROKEN\r\n\r\n", &get("/b")].concat(), OK);
    assert_eq!(text(&outcome.to_server), get("/a"));
    assert!(text(&outcome.to_client).starts_with(&[OK, "HTTP/1.1 400 "].concat()));
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

#[test]
fn a_full_pipeline_waits() {
    let mut connection = Connection::new(b"", b"");
    let requests = get("/a").repeat(10);
    connection.requests = requests.as_bytes();
    connection.limits = Limits { pipelined: 3, ..Limits::default() };
    let outcome = connection.run(|| 1000, by_path);
    assert_eq!(outcome.judged.len(), 3);
    let responses = OK.repeat(10);
    connection.responses = responses.as_bytes();
    assert_eq!(connection.run(|| OK.len(), by_path).finished.len(), 10);
}

#[test]
fn an_unreachable_server_is_503_and_the_connection_goes_on() {
    let requests = [get("/a"), get("/b")].concat();
    let mut connection = Connection::new(requests.as_bytes(), b"");
    connection.reachable = false;
    let outcome = connection.run(|| 9, by_path);
    let statuses: Vec<u16> = outcome.finished.iter().map(|exchange| exchange.status).collect();
    assert_eq!(statuses, [503, 503]);
    assert_eq!(outcome.closed, None);
}

#[test]
fn a_server_that_breaks_the_protocol_is_502() {
    for response in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    ] {
        let outcome = run(&get("/a"), response);
        assert_eq!(status(&outcome.to_client), "502", "{response}");
        assert_eq!(outcome.closed, Some(Close::Graceful));
        assert!(outcome.refused[0].by_server());
    }
    assert_eq!(status(&run_to_the_end(&get("/a"), "").to_client), "502", "no answer at all");
}

#[test]
fn a_response_to_no_request_never_reaches_the_client() {
    let outcome = run(&get("/a"), &[OK, OK].concat());
    assert_eq!(text(&outcome.to_client), OK);
    assert_eq!(outcome.refused, [Refusal::ResponseUnasked]);
}

#[test]
fn a_message_cut_short_is_cut_short_for_the_other_side_too() {
    let request = "POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nhi";
    assert_eq!(run_to_the_end(request, "").closed, Some(Close::Abort));
    let request =
        "POST /a HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert_eq!(run_to_the_end(request, "").closed, Some(Close::Abort));
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi";
    assert_eq!(run_to_the_end(&get("/a"), response).closed, Some(Close::Abort));
}

#[test]
fn a_broken_chunk_after_an_accepted_head_is_400_if_nothing_was_answered() {
    let request =
        "POST /a HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nX\r\n";
    let outcome = run(request, "");
    assert_eq!(status(&outcome.to_client), "400");
    assert_eq!(outcome.closed, Some(Close::Graceful));
}

/// `testdata/smuggling.json`: what two readers could read in two ways, each by name with the
/// section it rests on.
#[test]
fn smuggling_and_path_confusion_are_refused_or_judged_as_what_they_are() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../testdata/smuggling.json")).unwrap();
    assert!(cases.len() >= 60);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        // Characters stand for bytes.
        let input: Vec<u8> = case["input"]
            .as_str()
            .unwrap()
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect();
        for cut in [1, usize::MAX >> 1] {
            let outcome = Connection::new(&input, b"").run(|| cut, by_path);
            let server = String::from_utf8_lossy(&outcome.to_server).into_owned();
            assert!(!server.contains("smuggled HTTP"), "{name}: {server}");
            if let Some(expected) = case["refused"].as_str() {
                let refused: Vec<_> =
                    outcome.refused.iter().map(|refusal| refusal.name()).collect();
                assert_eq!(refused, [expected], "{name}");
                assert_eq!(outcome.closed, Some(Close::Graceful), "{name}");
                let answered = outcome.refused[0].status().to_string();
                assert_eq!(status(&outcome.to_client), answered, "{name}");
            }
            if let Some(path) = case["judged"].as_str() {
                assert_eq!(outcome.judged[0].1, path, "{name}");
                assert_eq!(server.split(' ').nth(1), Some(path), "{name}");
            }
            if let Some(location) = case["redirected"].as_str() {
                assert_eq!(status(&outcome.to_client), "307", "{name}");
                let client = text(&outcome.to_client);
                assert!(client.contains(&format!("location: {location}\r\n")), "{name}: {client}");
                assert_eq!(server, "", "{name}");
            }
        }
    }
}

#[test]
fn the_preface_of_http2_is_handed_over_when_it_comes_first() {
    let preface = std::str::from_utf8(crate::http2::PREFACE).unwrap();
    for cut in [1, 5, 24] {
        let input = format!("{preface}more");
        let outcome = Connection::new(input.as_bytes(), b"").run(|| cut, by_path);
        assert_eq!(outcome.closed, Some(Close::Graceful), "in pieces of {cut}");
        assert!(outcome.refused.is_empty() && outcome.to_client.is_empty());
    }
    let outcome = run(&preface[..23], "");
    assert_eq!((outcome.closed, text(&outcome.to_client)), (None, ""));
    let outcome = run(&format!("{}{preface}", get("/public/a")), OK);
    assert_eq!(outcome.refused, [Refusal::Version]);
}

#[test]
fn the_gate_is_small() {
    assert!(size_of::<super::Http1>() <= 168, "{}", size_of::<super::Http1>());
}

#[test]
fn fuzz_targets_hold_on_the_table() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../testdata/smuggling.json")).unwrap();
    for case in cases {
        let input = case["input"].as_str().unwrap();
        let data = format!("\u{7}{input}\n----\n{OK}{OK}");
        http1_gate(data.as_bytes());
        http1_path(input.split(' ').nth(1).unwrap_or_default().as_bytes());
    }
}
