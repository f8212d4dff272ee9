//! Start, stop, signals, exit codes, and what an operator sees.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use portreeve_tests::client::Client;
use portreeve_tests::sidecar::{Setup, portreeve};
use portreeve_tests::upstream::{OK, answering, serve};
use portreeve_tests::{eventually, free_address, is_root};
use rustix::process::Signal;

#[test]
fn terminated_it_finishes_what_is_under_way_and_leaves_with_0() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut head = [0; 1024];
        while let Ok(1..) = stream.read(&mut head) {
            thread::sleep(Duration::from_millis(700));
            let _ = stream.write_all(OK);
        }
    });
    let mut sidecar = Setup::new(upstream).start();
    let mut idle = sidecar.connect();
    assert_eq!(idle.get("/public/a").status, 200);
    let mut busy = sidecar.connect();
    busy.send("GET /public/a HTTP/1.1\r\nHost: shop\r\n\r\n");
    thread::sleep(Duration::from_millis(100));
    sidecar.signal(Signal::TERM);
    assert_eq!(idle.end(), None, "an idle connection is ended at once");
    eventually("not ready", || (sidecar.ask_admin("GET", "/ready").0 == 503).then_some(()));
    eventually("nobody to listen", || std::net::TcpStream::connect(sidecar.address).err());
    assert_eq!(busy.response().status, 200);
    assert_eq!(sidecar.ended().code(), Some(0));
}

#[test]
fn what_does_not_end_is_cut_when_the_drain_time_is_up() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        thread::sleep(Duration::from_secs(60));
    });
    let mut sidecar = Setup::new(upstream).more("limits: {drain_timeout: 500ms}").start();
    let mut client = sidecar.connect();
    client.send("GET /public/a HTTP/1.1\r\nHost: shop\r\n\r\n");
    thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().code(), Some(0));
    assert!(begin.elapsed() >= Duration::from_millis(400));
    assert!(client.try_response().is_err());
}

#[test]
fn a_drained_proxy_leaves_with_0() {
    let (upstream, _) = answering(OK);
    let mut sidecar = Setup::new(upstream).start();
    assert_eq!(sidecar.ask_admin("POST", "/drain").0, 202);
    assert_eq!(sidecar.ended().code(), Some(0));
}

#[test]
fn usage_errors_are_2_and_configuration_errors_78() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    let path = file.display().to_string();
    assert_eq!(portreeve(&["run"]).0, 2);
    assert_eq!(portreeve(&["nonsense"]).0, 2);
    std::fs::write(&file, "workload:\n  lables: {app: shop}\n").unwrap();
    let (code, _, error) = portreeve(&["run", "--config", &path]);
    assert_eq!(code, 78);
    assert!(error.contains(&format!("{path}:2:3: unknown field `lables`")), "{error}");
    let free = free_address().to_string();
    let flags = ["--workload-labels", "app=shop", "--listen", &free, "--upstream", "127.0.0.1:1"];
    let (code, _, error) =
        portreeve(&[&["run", "--policy", "/nonexistent/policy.yaml"], &flags[..]].concat());
    assert_eq!(code, 78);
    assert!(error.contains("can't read policy `/nonexistent/policy.yaml`"), "{error}");
    let (code, _, error) = portreeve(&[&["run", "--policy", &path], &flags[..]].concat());
    assert_eq!(code, 78);
    assert!(error.contains("`kind` is missing"), "{error}");
}

#[test]
fn an_address_in_use_is_1_and_names_the_address() {
    let (taken, _) = answering(OK);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, portreeve_tests::sidecar::POLICY).unwrap();
    let (code, _, error) = portreeve(&[
        "run",
        "--policy",
        &file.display().to_string(),
        "--workload-labels",
        "app=shop",
        "--listen",
        &taken.to_string(),
        "--upstream",
        "127.0.0.1:1",
        "--admin",
        "off",
    ]);
    assert_eq!(code, 1);
    assert!(error.contains(&format!("can't listen on {taken}")), "{error}");
    assert!(error.contains("hint: somebody listens there already"), "{error}");
}

#[test]
fn the_example_configuration_checks() {
    let folder = tempfile::tempdir().unwrap();
    let (code, example, _) = portreeve(&["config", "example"]);
    assert_eq!(code, 0);
    std::fs::write(folder.path().join("sidecar.yaml"), example).unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    let path = folder.path().join("sidecar.yaml").display().to_string();
    let (code, _, error) = portreeve(&["config", "check", &path]);
    assert_eq!(code, 78, "an empty folder is no policy: {error}");
    std::fs::write(folder.path().join("policies/p.yaml"), portreeve_tests::sidecar::POLICY)
        .unwrap();
    assert_eq!(portreeve(&["config", "check", &path]).0, 0);
    let nobody = portreeve_tests::sidecar::POLICY.replace("app: shop", "app: shp");
    std::fs::write(folder.path().join("policies/p.yaml"), nobody).unwrap();
    let (code, _, error) = portreeve(&["config", "check", &path]);
    assert_eq!(code, 0);
    assert!(error.contains("warning: no policy speaks of ingress"), "{error}");
}

#[test]
fn the_kafka_demo_shows_every_verdict_beside_what_was_asked() {
    let (code, table, error) = portreeve(&["demo", "kafka", "--once"]);
    assert_eq!(code, 0, "{table}{error}");
    for (asked, answer, decided) in [
        (
            "service1: produce to topic1",
            "NONE",
            "demo/kafka spec.ingress[0].toPorts[0].rules.kafka[0]",
        ),
        ("service1: produce to topic2", "TOPIC_AUTHORIZATION_FAILED", "no rule allows it"),
        ("service1: which topics are there?", "topic1", "shown what may be seen"),
        (
            "service1: a list of 2 billion topics, in 26 bytes",
            "closed",
            "malformed: kafka_array_count",
        ),
        ("somebody from 127.0.0.3", "reset", "no rule allows it"),
    ] {
        let row = table.lines().find(|row| row.starts_with(asked)).unwrap_or_default();
        assert!(row.contains(answer) && row.ends_with(decided), "{row}");
    }
}

#[test]
fn the_demo_shows_every_verdict_and_ends() {
    let (code, table, error) = portreeve(&["demo", "--once"]);
    assert_eq!(code, 0, "{error}");
    for expected in
        ["200", "403", "307", "400", "reset", "spec.ingress[0].toPorts[0].rules.http[0]"]
    {
        assert!(table.contains(expected), "{expected} is missing in\n{table}");
    }
    assert!(table.lines().count() >= 15, "{table}");
}

#[test]
fn a_user_without_privileges_can_run_it() {
    if !is_root() {
        // Then every other test of this file has shown it.
        return;
    }
    let (upstream, _) = answering(OK);
    let mut sidecar = Setup::new(upstream).user(65_534).start();
    assert_eq!(sidecar.connect().get("/public/a").status, 200);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().code(), Some(0));
}

#[test]
fn every_request_has_a_line_in_the_access_log() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    client.send("GET /public/a?token=secret HTTP/1.1\r\nHost: shop:80\r\nX-Request-Id: mine\r\nAuthorization: hidden\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("/private").status, 403);
    let lines = sidecar.logged(2);
    let line = &lines[0];
    for (field, expected) in [
        ("type", "http"),
        ("direction", "ingress"),
        ("verdict", "allow"),
        ("method", "GET"),
        ("host", "shop:80"),
        ("path", "/public/a?"),
        ("protocol", "HTTP/1.1"),
        ("request_id", "mine"),
        ("policy", "default/shop"),
        ("rule", "spec.ingress[0].toPorts[0].rules.http[0]"),
        ("reason", "rule_allows"),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(
        line["source"]["labels"].as_str().unwrap().split(',').next(),
        Some("k8s:app=client")
    );
    assert!(line["destination"]["labels"].as_str().unwrap().contains("k8s:app=shop"));
    assert_eq!(line["response_bytes"], u64::try_from(OK.len()).unwrap());
    assert!(!line.to_string().contains("secret") && !line.to_string().contains("hidden"));
    assert_eq!(
        (lines[1]["verdict"].as_str(), lines[1]["local"].as_bool()),
        (Some("deny"), Some(true))
    );
}

#[test]
fn the_access_log_can_be_switched_and_rotated() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut admin = Client::connect(sidecar.admin);
    admin.send(format!(
        "POST /logging HTTP/1.1\r\nHost: {}\r\nContent-Length: 6\r\n\r\ndenied",
        sidecar.admin
    ));
    assert_eq!(admin.response().status, 200);
    let mut client = sidecar.connect();
    assert_eq!(client.get("/public/a").status, 200);
    assert_eq!(client.get("/private").status, 403);
    assert_eq!(sidecar.logged(1)[0]["path"], "/private");
    let log = sidecar.folder.path().join("access.log");
    std::fs::rename(&log, log.with_extension("old")).unwrap();
    sidecar.signal(Signal::USR1);
    eventually("a new log", || log.exists().then_some(()));
    assert_eq!(client.get("/private/2").status, 403);
    assert_eq!(sidecar.logged(1)[0]["path"], "/private/2");
}

#[test]
fn metrics_count_what_happened() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    client.get("/public/a");
    client.get("/private");
    client.send("BROKEN\r\n\r\n");
    assert_eq!(client.response().status, 400);
    let metric = |series: &str| sidecar.metric(series);
    let requests = "portreeve_http_requests_total{direction=\"ingress\",verdict=";
    assert_eq!(metric(&format!("{requests}\"allow\",method=\"GET\",status=\"2xx\"}}")), Some(1.0));
    assert_eq!(metric(&format!("{requests}\"deny\",method=\"GET\",status=\"4xx\"}}")), Some(1.0));
    assert_eq!(
        metric(
            "portreeve_parse_errors_total{protocol=\"http1\",side=\"client\",reason=\"request_line\"}"
        ),
        Some(1.0)
    );
    assert_eq!(metric("portreeve_policy_revision"), Some(1.0));
    assert_eq!(metric("portreeve_policy_reloads_total"), Some(0.0));
    let count =
        "portreeve_http_request_duration_seconds_count{direction=\"ingress\",verdict=\"allow\"}";
    assert_eq!(metric(count), Some(1.0));
}

#[test]
fn the_admin_server_answers_nobody_who_comes_from_a_web_page() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    assert_eq!(sidecar.ask_admin("GET", "/live").0, 200);
    assert_eq!(sidecar.ask_admin("GET", "/drain").0, 405);
    assert_eq!(sidecar.ask_admin("GET", "/nothing").0, 404);
    let ask = |head: &str| {
        let mut client = Client::connect(sidecar.admin);
        client.send(format!("POST /drain HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n"));
        client.response().status
    };
    assert_eq!(ask("Host: rebound.example\r\n"), 403);
    assert_eq!(ask("Host: localhost\r\nOrigin: http://evil.example\r\n"), 403);
    let (status, dump) = sidecar.ask_admin("GET", "/config_dump");
    assert_eq!(status, 200);
    assert!(dump.contains("\"header_timeout_seconds\": 10.0"), "{dump}");
}
