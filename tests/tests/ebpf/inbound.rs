//! What is opened to the workload: its ports are found by themselves, the client's address stays.

use portreeve_tests::eventually;
use portreeve_tests::workload::Host;
use serde_json::Value;

use crate::{POLICY, config};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("l7_is_steered_to_the_proxy_with_the_clients_address", steered),
    ("denied_is_refused_at_once", denied),
    ("ports_of_others_are_left_alone", others),
    ("a_port_that_is_given_up_is_nobodys", given_up),
    ("datagrams_are_judged_and_replies_pass", datagrams),
    ("without_the_proxy_what_needs_it_is_refused", away),
];

/// Listens on 8080 (L7), 8081 (plain), 8082 (denied) before the sidecar starts; on 8083 after.
fn listening(name: &str) -> (Host, portreeve_tests::workload::Redirected) {
    let mut host = Host::new(name);
    host.serve(
        Some("app"),
        &[
            "http@10.50.0.1:8080",
            "http@[::]:8081",
            "http@0.0.0.0:8082",
            "http@[fd50::1]:8080",
            "udp@10.50.0.1:5353",
            "udp@10.50.0.1:5354",
        ],
    );
    let _ = host.file("policy.yaml", POLICY);
    let sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    (host, sidecar)
}

/// A client at an address of `app=client`; the namespace has all of them.
fn from(host: &Host, source: &str, target: &str) -> Value {
    host.probe("other", &format!("tcp-from {source} {target}"))
}

fn steered() {
    let (host, sidecar) = listening("in");
    for (client, target) in [("10.50.4.9", "10.50.0.1 8080"), ("fd50::4:9", "fd50::1 8080")] {
        assert_eq!(from(&host, client, &format!("{target} /public/a"))["status"], 200, "{client}");
        assert_eq!(from(&host, client, &format!("{target} /private"))["status"], 403, "{client}");
    }
    let log = eventually("the access log", || {
        let log = sidecar.log();
        (log.matches("/private").count() == 2).then_some(log)
    });
    assert!(log.contains("\"source\":{\"address\":\"10.50.4.9:"), "{log}");
    assert!(log.contains("\"source\":{\"address\":\"[fd50::4:9]:"), "{log}");
    // Plain: straight to the application, which sees the client itself.
    let said = from(&host, "10.50.4.9", "10.50.0.1 8081 /private");
    assert_eq!(said["status"], 200, "{said}");
    assert!(said["body"].to_string().contains("10.50.4.9:"), "{said}");
}

fn denied() {
    let (mut host, _sidecar) = listening("indeny");
    host.serve(Some("app"), &["http@10.50.0.1:8083"]);
    for target in ["10.50.0.1 8082 /public/a", "10.50.0.1 8083 /public/a"] {
        let said = from(&host, "10.50.4.9", target);
        assert_eq!(said["error"], "ECONNREFUSED", "{target}: {said}");
    }
    for target in ["10.50.0.1 8080 /public/a", "10.50.0.1 8081 /public/a"] {
        let said = from(&host, "10.50.9.9", target);
        assert_eq!(said["error"], "ECONNREFUSED", "a stranger: {said}");
    }
}

fn others() {
    let (mut host, _sidecar) = listening("inother");
    host.serve(None, &["http@10.50.0.1:9000", "http@10.50.0.2:8080"]);
    for target in ["10.50.0.1 9000 /private", "10.50.0.2 8080 /private"] {
        assert_eq!(from(&host, "10.50.9.9", target)["status"], 200, "{target}");
    }
}

fn given_up() {
    let mut host = Host::new("inup");
    let _ = host.file("policy.yaml", POLICY);
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    // The probe binds the port and ends.
    assert_eq!(host.probe("app", "bind 10.50.0.1 8090")["error"], Value::Null);
    host.serve(None, &["http@10.50.0.1:8090"]);
    assert_eq!(from(&host, "10.50.9.9", "10.50.0.1 8090 /private")["status"], 200);
}

fn datagrams() {
    let (mut host, _sidecar) = listening("inudp");
    host.serve(None, &["udp@10.50.2.1:53"]);
    let ask = |source: &str, port: u16| {
        host.probe("other", &format!("udp-from {source} 10.50.0.1 {port} 1"))
    };
    assert_eq!(ask("10.50.4.9", 5353)["error"], Value::Null);
    assert_ne!(ask("10.50.4.9", 5354)["error"], Value::Null, "no rule for the port");
    assert_ne!(ask("10.50.9.9", 5353)["error"], Value::Null, "a stranger");
    // A socket bound to a port of its own asks a server, whose answer opens nothing.
    let said = host.probe("app", "udp-from 10.50.0.1 10.50.2.1 53 2");
    assert_eq!(said["error"], Value::Null, "{said}");
}

fn away() {
    let (host, sidecar) = listening("inaway");
    sidecar.kill();
    assert_eq!(from(&host, "10.50.4.9", "10.50.0.1 8080 /public/a")["error"], "ECONNREFUSED");
    assert_eq!(from(&host, "10.50.4.9", "10.50.0.1 8081 /public/a")["status"], 200);
    assert_eq!(from(&host, "10.50.9.9", "10.50.0.1 8081 /public/a")["error"], "ECONNREFUSED");
}
