//! What is opened to the workload: its ports are found by themselves, the client's address stays.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use portreeve_tests::eventually;
use portreeve_tests::workload::Host;
use serde_json::Value;

use crate::{POLICY, config};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("l7_is_steered_to_the_proxy_with_the_clients_address", steered),
    ("denied_is_refused_at_once", denied),
    ("ports_of_others_are_left_alone", others),
    ("a_port_that_is_given_up_is_nobodys", given_up),
    ("a_port_that_nobody_asked_for_is_judged", not_asked_for),
    ("a_port_in_another_namespace_is_another", another_namespace),
    ("ports_bound_again_are_given_up", bound_again),
    ("who_binds_at_the_same_time_is_counted", bound_together),
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

/// The kernel has chosen it, in `listen()` or for a datagram: there was no `bind()` to be seen.
fn not_asked_for() {
    let mut host = Host::new("inauto");
    let _ = host.file("policy.yaml", POLICY);
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    host.serve(Some("app"), &["unbound@0.0.0.0:40001", "udp-unbound@0.0.0.0:40002"]);
    let said = from(&host, "10.50.9.9", "10.50.0.1 40001 /private");
    assert_eq!(said["error"], "ECONNREFUSED", "{said}");
    let said = host.probe("other", "udp-from 10.50.9.9 10.50.0.1 40002 1");
    assert_ne!(said["error"], Value::Null, "{said}");
}

fn another_namespace() {
    let mut host = Host::new("inns");
    let _ = host.file("policy.yaml", POLICY);
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    host.serve(None, &["http@10.50.0.1:9000"]);
    let script = "import socket, sys; s = socket.socket(); s.bind(('0.0.0.0', 9000)); print(flush=True); \
                  sys.stdin.read()";
    let mut workload = host
        .in_cgroup("app", &portreeve_tests::needed("unshare"))
        .args(["-n", "python3", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    wait_for_line(&mut workload);
    assert_eq!(from(&host, "10.50.9.9", "10.50.0.1 9000 /private")["status"], 200);
    drop(workload.stdin.take());
    let _ = workload.wait();
}

fn bound_again() {
    let mut host = Host::new("inagain");
    host.serve(None, &["udp@10.50.2.1:53"]);
    let _ = host.file("policy.yaml", POLICY);
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    assert_eq!(host.probe("app", "rebind 10.50.0.1 50")["error"], Value::Null);
    assert_eq!(ports_held(&host), "0");
}

fn bound_together() {
    let host = Host::new("inboth");
    let _ = host.file("policy.yaml", POLICY);
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    let mut workload = host
        .probing("app", "together 10.50.0.1 900")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    wait_for_line(&mut workload);
    assert_eq!(ports_held(&host), "900", "one of each two who bound a port holds it");
    drop(workload.stdin.take());
    let _ = workload.wait();
    assert_eq!(ports_held(&host), "0");
}

fn wait_for_line(process: &mut Child) {
    let stdout = process.stdout.as_mut().expect("piped");
    let mut line = String::new();
    assert_ne!(BufReader::new(stdout).read_line(&mut line).expect("text"), 0, "it has ended");
}

/// Entries of the map of ports.
fn ports_held(host: &Host) -> String {
    let bpffs = host.bpffs.to_string_lossy();
    let (_, status, _) = host.portreeve(&["redirect", "status", "--bpffs", &bpffs]);
    let ports = status.split("PORTS ").nth(1).unwrap_or_else(|| panic!("{status}"));
    ports.split('/').next().unwrap_or_default().to_owned()
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
