//! What the workload opens: refused at once, let out, or turned to the proxy.

use std::time::Duration;

use portreeve_tests::eventually;
use serde_json::{Value, json};

use crate::{POLICY, shop};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("denied_is_eperm_at_once", denied_is_eperm_at_once),
    ("plain_allow_never_touches_the_proxy", plain_allow_never_touches_the_proxy),
    ("l7_is_turned_to_the_proxy", l7_is_turned_to_the_proxy),
    ("a_mapped_address_is_the_ipv4_address_it_is", a_mapped_address),
    ("any_is_loopback_wherever_the_socket_is_bound", any_is_loopback),
    ("datagrams_are_judged_one_by_one", datagrams),
    ("sockets_no_program_sees_are_not_made", other_sockets),
    ("fast_open_is_no_way_around", fast_open),
    ("who_is_outside_of_the_cgroup_is_not_concerned", outside),
    ("a_reload_is_in_force_at_once_and_never_mixed", reload),
    ("a_broken_policy_leaves_the_old_one_in_force", broken_policy),
    ("denials_are_in_the_access_log_with_rule_and_labels", access_log),
    ("who_is_denied_all_the_time_does_not_keep_the_proxy_from_ending", flood),
    ("nobody_takes_the_place_of_a_proxy_that_is_away", proxy_away),
];

fn denied_is_eperm_at_once() {
    let (host, _sidecar) = shop("deny", "", "");
    for target in
        ["10.50.9.1 80", "10.50.2.1 81", "fd50::9:1 80", "::ffff:10.50.9.1 80", "127.0.0.1 80"]
    {
        let said = host.probe("app", &format!("tcp {target}"));
        assert_eq!(said["error"], "EPERM", "{target}");
        let took = said["microseconds"].as_u64().unwrap_or(u64::MAX);
        assert!(took < 50_000, "{target} took {took} µs: not a time-out");
    }
}

fn plain_allow_never_touches_the_proxy() {
    let (host, sidecar) = shop("plain", "", "");
    for (target, peer) in [("10.50.2.1 80", "10.50.2.1:80"), ("fd50::2:1 80", "[fd50::2:1]:80")] {
        let said = host.probe("app", &format!("tcp {target} /private"));
        assert_eq!((&said["error"], &said["peer"]), (&Value::Null, &json!(peer)), "{target}");
        assert_eq!(said["status"], 200, "{target}");
        // The server saw the application's own socket.
        let body = said["body"].as_str().unwrap_or_default().replace(['[', ']'], "");
        let local = said["local"].as_str().unwrap_or_default().replace(['[', ']'], "");
        assert!(body.ends_with(&local), "{body} is not from {local}");
    }
    assert!(!sidecar.log().contains("/private"), "{}", sidecar.log());
}

fn l7_is_turned_to_the_proxy() {
    let (host, sidecar) = shop("l7", "", "");
    for (target, peer) in [("10.50.3.1 80", "10.50.3.1:80"), ("fd50::3:1 80", "[fd50::3:1]:80")] {
        let said = host.probe("app", &format!("tcp {target} /public/a"));
        assert_eq!(
            (&said["status"], &said["peer"]),
            (&json!(200), &json!(peer)),
            "{target}: {said}"
        );
        let said = host.probe("app", &format!("tcp {target} /private"));
        assert_eq!((&said["status"], &said["body"]), (&json!(403), &json!("Access denied")));
    }
    let log = eventually("the access log", || {
        let log = sidecar.log();
        (log.matches("/private").count() == 2).then_some(log)
    });
    assert!(log.contains("\"destination\":{\"address\":\"10.50.3.1:80\""), "{log}");
    assert!(log.contains("\"destination\":{\"address\":\"[fd50::3:1]:80\""), "{log}");
}

fn a_mapped_address() {
    let (host, _sidecar) = shop("mapped", "", "");
    let status =
        |target: &str| host.probe("app", &format!("tcp ::ffff:{target}"))["status"].clone();
    assert_eq!(status("10.50.3.1 80 /public/a"), 200);
    assert_eq!(status("10.50.3.1 80 /private"), 403);
    assert_eq!(status("10.50.2.1 80 /private"), 200);
    let said = host.probe("app", "tcp ::ffff:10.50.3.1 80 /public/a");
    assert_eq!(said["peer"], "[::ffff:10.50.3.1]:80", "the application sees what it asked for");
}

/// To the kernel, "any" is the address that the socket is bound to.
fn any_is_loopback() {
    let (host, _sidecar) = shop("any", "loopback: own", "");
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
    let said = host.probe("app", "tcp-from 10.50.9.1 0.0.0.0 80 /private");
    assert_eq!(said["error"], "ECONNREFUSED", "nobody listens on loopback: {said}");
}

fn datagrams() {
    let (host, _sidecar) = shop("udp", "", "");
    for target in ["10.50.2.1", "fd50::2:1"] {
        let said = host.probe("app", &format!("udp {target} 53 3"));
        assert_eq!(said["error"], Value::Null, "{target}");
        assert_eq!(said["from"], json!(vec![format!("{target}:53"); 3]));
        assert_eq!(host.probe("app", &format!("udp-connected {target} 53"))["error"], Value::Null);
    }
    for (target, port) in [("10.50.9.1", 53), ("10.50.2.1", 54), ("::ffff:10.50.9.1", 53)] {
        assert_eq!(host.probe("app", &format!("udp {target} {port} 1"))["error"], "EPERM");
        assert_eq!(host.probe("app", &format!("udp-connected {target} {port}"))["error"], "EPERM");
    }
}

/// Raw, SCTP, MPTCP, ping: what they send passes by every program of the socket layer.
fn other_sockets() {
    const MPTCP: &str = "2 1 262";
    const RAW_TCP: &str = "2 3 6";
    const RAW_V6: &str = "10 3 6";
    const PING: &str = "2 2 1";
    let (host, _sidecar) = shop("raw", "", "");
    for kind in [MPTCP, RAW_TCP, RAW_V6, PING] {
        let said = host.probe("app", &format!("socket {kind}"));
        assert!(
            ["EPERM", "EPROTONOSUPPORT", "EACCES"].iter().any(|e| said["error"] == *e),
            "{kind}: {said}"
        );
    }
    assert_eq!(host.probe("app", &format!("socket {RAW_TCP}"))["error"], "EPERM");
    for kind in ["2 1 6", "10 1 0", "2 2 17", "10 2 0", "1 1 0"] {
        assert_eq!(host.probe("app", &format!("socket {kind}"))["error"], Value::Null, "{kind}");
    }
    drop(host);
    let (host, _sidecar) = shop("rawok", "other_sockets: allow", "");
    assert_eq!(host.probe("app", &format!("socket {RAW_TCP}"))["error"], Value::Null);
}

fn fast_open() {
    let (host, _sidecar) = shop("tfo", "", "");
    assert_eq!(host.probe("app", "fast-open 10.50.9.1 80")["error"], "EPERM");
    let said = host.probe("app", "fast-open 10.50.3.1 80");
    assert_eq!(said["answer"], "HTTP/1.1 200 OK", "{said}");
}

fn outside() {
    let (host, sidecar) = shop("outside", "", "");
    let said = host.probe("other", "tcp 10.50.9.1 80 /private");
    assert_eq!(said["status"], 200, "{said}");
    // Who connects to the proxy's port without having been turned there gets nothing.
    let said = host.probe("other", "tcp 127.0.0.1 15001 /public/a");
    assert_ne!(said["status"], 200, "{said}");
    let messages = eventually("a message", || {
        Some(sidecar.messages()).filter(|said| said.contains("not turned here"))
    });
    assert!(messages.contains("127.0.0.1"), "{messages}");
}

fn flood() {
    let (host, mut sidecar) = shop("flood", "", "");
    let mut workload = host
        .probing("app", "flood 10.50.9.1 9 8")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a flood");
    std::thread::sleep(Duration::from_secs(2));
    let began = std::time::Instant::now();
    sidecar.signal(rustix::process::Signal::TERM);
    let _ = sidecar.wait();
    let took = began.elapsed();
    let _ = workload.wait();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}

/// Before: `10.50.2.1:80` straight, `10.50.3.1:80` read. After: the other way round.
fn reload() {
    let (host, sidecar) = shop("reload", "", "");
    let mut looping = host
        .probing("app", "loop 10.50.2.1 80 3")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a loop");
    let swapped = POLICY
        .replace("app: plain", "app: X")
        .replace("app: api", "app: plain")
        .replace("app: X", "app: api");
    for round in 0..20 {
        let policy = if round % 2 == 0 { &swapped } else { POLICY };
        let _ = host.file("policy.yaml", policy);
        sidecar.signal(rustix::process::Signal::HUP);
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = looping.wait_with_output_of();
    let counts: Value = serde_json::from_str(&output).expect("counts");
    // Both policies allow it, each in its way: nothing in between denies it. What was opened straight and
    // has to be read now is ended, which is no denial.
    let connected = counts["connected"].as_u64().unwrap_or(0);
    assert!(connected > 1000, "{counts}");
    let ended = |how: &str| counts[how].as_u64().unwrap_or(0);
    let ended = ended("ECONNABORTED") + ended("ECONNRESET") + ended("ENOTCONN");
    assert!(ended < connected / 500, "{counts}");
    let others: u64 =
        counts.as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
    assert_eq!(others - connected - ended, 0, "{counts}: {}", sidecar.messages());
    let _ = host.file("policy.yaml", &swapped);
    sidecar.signal(rustix::process::Signal::HUP);
    eventually("the new policy", || {
        let private = host.probe("app", "tcp 10.50.2.1 80 /private")["status"].clone();
        (private == 403).then_some(())
    });
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /private")["status"], 200);
}

trait Output {
    fn wait_with_output_of(&mut self) -> String;
}

impl Output for std::process::Child {
    fn wait_with_output_of(&mut self) -> String {
        let mut said = String::new();
        let mut stdout = self.stdout.take().expect("piped");
        std::io::Read::read_to_string(&mut stdout, &mut said).expect("text");
        let _ = self.wait();
        said
    }
}

fn broken_policy() {
    let (host, sidecar) = shop("broken", "", "");
    let _ = host.file("policy.yaml", "kind: CiliumNetworkPolicy\nspec: {egres: []}\n");
    sidecar.signal(rustix::process::Signal::HUP);
    eventually("the error", || sidecar.messages().contains("not reloaded").then_some(()));
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /public/a")["status"], 200);
    assert_eq!(host.probe("app", "tcp 10.50.2.1 80 /")["status"], 200);
}

fn access_log() {
    let (host, sidecar) = shop("log", "", "");
    let _ = host.probe("app", "tcp 10.50.2.1 81");
    let _ = host.probe("app", "udp 10.50.9.1 53 1");
    let log = eventually("the access log", || {
        let log = sidecar.log();
        (log.matches("\"verdict\":\"deny\"").count() >= 2).then_some(log)
    });
    let line = |what: &str| -> Value {
        let line = log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{log}"));
        serde_json::from_str(line).expect("JSON")
    };
    let tcp = line("10.50.2.1:81");
    assert_eq!(tcp["direction"], "egress");
    assert_eq!(tcp["reason"], "no_rule_allows");
    assert!(tcp["destination"]["labels"].to_string().contains("app=plain"), "{tcp}");
    assert!(tcp["source"]["labels"].to_string().contains("app=shop"), "{tcp}");
    let udp = line("10.50.9.1:53");
    assert!(udp["destination"]["labels"].to_string().contains("world"), "{udp}");
}

fn proxy_away() {
    let (mut host, sidecar) = shop("away", "", "");
    sidecar.kill();
    let said = host.probe("app", "tcp 10.50.3.1 80 /public/a");
    assert_eq!(said["error"], "EPERM", "closed while the proxy is away: {said}");
    // Somebody who takes its port gets nothing of the workload.
    host.serve(None, &["http@127.0.0.1:15001"]);
    let said = host.probe("app", "tcp 10.50.3.1 80 /public/a");
    assert_eq!(said["error"], "EPERM", "{said}");
    // What needs no proxy goes on, what is denied stays denied.
    assert_eq!(host.probe("app", "tcp 10.50.2.1 80 /")["status"], 200);
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
}
