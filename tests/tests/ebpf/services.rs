//! Service addresses: a backend stands for each connection, and the application does not notice.

use portreeve_tests::eventually;
use portreeve_tests::workload::{Held, Host, Redirected};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{config, shop};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("connections_are_shared_by_weight", weights),
    ("the_application_sees_the_service", peer_name),
    ("policy_judges_the_backend", judged),
    ("a_client_comes_back_to_its_backend", affinity),
    ("a_drained_backend_keeps_what_it_has_and_gets_nothing_new", drained),
    ("without_a_backend_connections_are_refused", no_backend),
    ("datagrams_go_there_and_come_back_from_the_service", datagrams),
];

const BACKENDS: [&str; 6] = [
    "http@10.50.2.11:80",
    "http@10.50.2.12:80",
    "http@[fd50::2:11]:80",
    "udp@10.50.2.11:53",
    "udp@10.50.2.12:53",
    "echo@10.50.2.13:80",
];

const PLAIN: &str = "backends: [{address: 10.50.2.11, weight: 3}, {address: 10.50.2.12}]";

fn service(name: &str, address: &str, more: &str) -> String {
    format!(
        "- {{name: {name}, addresses: ['{address}'], ports: [{{port: 80}}, {{port: 53, protocol: UDP}}], {more}}}\n"
    )
}

fn balanced(name: &str, services: &str) -> (Host, Redirected) {
    let (mut host, sidecar) = shop(name, "", &format!("services:\n{services}"));
    host.serve(None, &BACKENDS);
    (host, sidecar)
}

/// Writes the configuration anew, and lets the sidecar read it.
fn reload(host: &Host, sidecar: &Redirected, services: &str) {
    let text = config(host, "", &format!("admin: {{listen: off}}\nservices:\n{services}"));
    let _ = host.file("sidecar.yaml", &text);
    let before = sidecar.messages().matches("reloaded").count();
    sidecar.signal(Signal::HUP);
    eventually("the reload", || {
        (sidecar.messages().matches("reloaded").count() > before).then_some(())
    });
}

fn weights() {
    let (host, _sidecar) = balanced("weights", &service("web", "10.50.100.1", PLAIN));
    let said = host.probe("app", "shares 10.50.100.1 80 2000");
    let [heavy, light] =
        ["10.50.2.11:80", "10.50.2.12:80"].map(|one| said[one].as_u64().unwrap_or(0));
    assert_eq!(heavy + light, 2000, "{said}");
    // Three to one; six standard deviations are 116.
    assert!((1384..=1616).contains(&heavy), "{said}");
}

fn peer_name() {
    let services = service("web", "10.50.100.1", PLAIN)
        + &service("six", "fd50::100:1", "backends: [{address: 'fd50::2:11'}]");
    let (host, _sidecar) = balanced("svcname", &services);
    for (asked, peer) in [
        ("10.50.100.1", "10.50.100.1:80"),
        ("fd50::100:1", "[fd50::100:1]:80"),
        ("::ffff:10.50.100.1", "[::ffff:10.50.100.1]:80"),
    ] {
        let said = host.probe("app", &format!("tcp {asked} 80 /"));
        assert_eq!((&said["status"], &said["peer"]), (&json!(200), &json!(peer)), "{said}");
        assert!(
            said["body"].to_string().contains("2.1") || said["body"].to_string().contains("2:11")
        );
    }
}

fn judged() {
    let services = service("denied", "10.50.100.2", "backends: [{address: 10.50.9.1}]")
        + &service("read", "10.50.100.3", "backends: [{address: 10.50.3.1}]");
    let (host, sidecar) = balanced("svcpol", &services);
    assert_eq!(host.probe("app", "tcp 10.50.100.2 80")["error"], "EPERM");
    let said = host.probe("app", "tcp 10.50.100.3 80 /public/a");
    assert_eq!((&said["status"], &said["peer"]), (&json!(200), &json!("10.50.100.3:80")), "{said}");
    assert!(said["body"].to_string().contains("10.50.3.1:80"), "{said}");
    assert_eq!(host.probe("app", "tcp 10.50.100.3 80 /private")["status"], 403);
    let log =
        eventually("the access log", || Some(sidecar.log()).filter(|log| log.contains("/private")));
    assert!(log.contains("app=api"), "the backend's labels: {log}");
}

fn affinity() {
    let equal = "backends: [{address: 10.50.2.11}, {address: 10.50.2.12}], session_affinity: 2s";
    let (host, sidecar) = balanced("affinity", &service("web", "10.50.100.1", equal));
    let shares = || host.probe("app", "shares 10.50.100.1 80 60");
    let first = shares();
    assert_eq!(first.as_object().map(serde_json::Map::len), Some(1), "{first}");
    assert_eq!(first, shares(), "another process of the same client");
    // Its backend is drained: it goes elsewhere, and stays there.
    let had = first.as_object().and_then(|shares| shares.keys().next().cloned()).expect("one");
    let had = had.trim_end_matches(":80");
    let drained = equal
        .replace(&format!("{{address: {had}}}"), &format!("{{address: {had}, draining: true}}"));
    reload(&host, &sidecar, &service("web", "10.50.100.1", &drained));
    let second = shares();
    assert_eq!(second.as_object().map(serde_json::Map::len), Some(1), "{second}");
    assert_ne!(first, second);
}

fn drained() {
    let only = |backend: &str| service("web", "10.50.100.1", &format!("backends: [{backend}]"));
    let (host, sidecar) = balanced("drain", &only("{address: '10.50.2.13:80'}"));
    let mut held = Held::start(&mut host.probing("app", "hold 10.50.100.1 80"));
    assert_eq!(held.opened["peer"], "10.50.100.1:80");
    for services in [
        only("{address: '10.50.2.13:80', draining: true}, {address: 10.50.2.11}"),
        only("{address: 10.50.2.11}"),
        "[]".to_owned(),
    ] {
        reload(&host, &sidecar, &services);
        assert_eq!(held.echo("still there"), "still there", "with {services}");
        if services != "[]" {
            assert_eq!(host.probe("app", "shares 10.50.100.1 80 20"), json!({"10.50.2.11:80": 20}));
        }
    }
}

fn no_backend() {
    let services = service("none", "10.50.100.4", "backends: []")
        + &service("gone", "10.50.100.5", "backends: [{address: 10.50.2.11, draining: true}]");
    let (host, _sidecar) = balanced("nobackend", &services);
    for address in ["10.50.100.4", "10.50.100.5"] {
        assert_eq!(host.probe("app", &format!("tcp {address} 80"))["error"], "ECONNREFUSED");
        assert_eq!(host.probe("app", &format!("udp {address} 53 1"))["error"], "ECONNREFUSED");
    }
}

fn datagrams() {
    let (host, _sidecar) = balanced("svcudp", &service("dns", "10.50.100.1", PLAIN));
    let said = host.probe("app", "udp 10.50.100.1 53 20");
    assert_eq!(said["error"], Value::Null, "{said}");
    assert_eq!(said["from"], json!(vec!["10.50.100.1:53"; 20]), "answers come from the service");
    let bodies = said["bodies"].as_array().expect("bodies");
    assert!(bodies.iter().all(|body| *body == bodies[0]), "one socket keeps its backend: {said}");
    let said = host.probe("app", "udp-connected 10.50.100.1 53");
    assert_eq!(
        (&said["peer"], &said["from"]),
        (&json!("10.50.100.1:53"), &json!("10.50.100.1:53"))
    );
}
