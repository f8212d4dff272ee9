//! Killed and started again, detached, two of them, full maps; and what is said when something is missing.

use std::process::Stdio;

use portreeve_tests::eventually;
use portreeve_tests::workload::{Held, Host};
use rustix::process::Signal;
use serde_json::Value;

use crate::{POLICY, SERVERS, config, config_of, shop};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("killed_and_started_again_under_load_nothing_denied_gets_through", killed),
    ("a_connection_that_was_allowed_outlives_the_proxy", outlives),
    ("a_connection_that_is_no_longer_allowed_is_ended", revoked),
    ("a_workload_whose_cgroup_is_gone_ends_the_proxy", cgroup_gone),
    ("an_orderly_end_stays_closed_and_says_how_to_open", orderly_end),
    ("status_shows_and_detach_removes_everything", status_and_detach),
    ("two_instances_on_two_cgroups_do_not_meet", two),
    ("a_full_map_is_an_error_and_the_old_policy_stays", full),
    ("what_is_missing_is_said_before_anything_is_attached", missing),
    ("two_sidecars_of_one_instance_do_not_fight", same_instance),
];

/// Asks for what is denied, and for what is allowed and needs no proxy, all the time.
fn killed() {
    let (host, sidecar) = shop("kill", "", "");
    let mut loops: Vec<_> = ["10.50.9.1 80", "10.50.2.1 80"]
        .iter()
        .map(|target| {
            let mut probe = host.probing("app", &format!("loop {target} 12"));
            probe.stdout(Stdio::piped()).spawn().expect("a loop")
        })
        .collect();
    let config = config(&host, "", "admin: {listen: off}\n");
    let mut sidecar = Some(sidecar);
    for _ in 0..8 {
        std::thread::sleep(std::time::Duration::from_millis(300));
        sidecar.take().expect("a sidecar").kill();
        sidecar = Some(host.sidecar("sidecar", &config));
    }
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /public/a")["status"], 200, "it is back");
    for (child, outcome) in loops.drain(..).zip(["EPERM", "connected"]) {
        let output = child.wait_with_output().expect("a loop ends");
        let counts: Value = serde_json::from_slice(&output.stdout).expect("counts");
        assert_eq!(
            counts.as_object().map(serde_json::Map::len),
            Some(1),
            "only {outcome}: {counts}"
        );
        assert!(counts[outcome].as_u64() > Some(1000), "{counts}");
    }
}

fn outlives() {
    let (mut host, sidecar) = shop("outlive", "", "");
    host.serve(None, &["echo@10.50.2.7:80"]);
    let mut held = Held::start(&mut host.probing("app", "hold 10.50.2.7 80"));
    assert_eq!(held.echo("before"), "before");
    sidecar.kill();
    assert_eq!(held.echo("while it is away"), "while it is away");
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    assert_eq!(held.echo("after"), "after");
}

/// Connections that never touched the proxy, out and in; policy goes on without the one, then without the
/// other.
fn revoked() {
    let (mut host, sidecar) = shop("revoke", "", "");
    host.serve(None, &["echo@10.50.2.7:80"]);
    host.serve(Some("app"), &["echo@10.50.0.1:8081"]);
    let mut out = Held::start(&mut host.probing("app", "hold 10.50.2.7 80"));
    let mut inward = Held::start(&mut host.probing("other", "hold-from 10.50.4.9 10.50.0.1 8081"));
    let ended = |times: usize| {
        eventually("their end", || {
            (sidecar.messages().matches("connections ended").count() == times).then_some(())
        });
    };
    assert_eq!((out.echo("a"), inward.echo("a")), ("a".into(), "a".into()));
    let _ = host.file("policy.yaml", &POLICY.replace("app: plain", "app: nobody"));
    sidecar.signal(Signal::HUP);
    ended(1);
    assert_eq!((out.echo("b"), inward.echo("b")), (Value::Null, "b".into()));
    let _ = host.file("policy.yaml", &POLICY.replace("app: client", "app: nobody"));
    sidecar.signal(Signal::HUP);
    ended(2);
    assert_eq!(inward.echo("c"), Value::Null);
}

fn cgroup_gone() {
    let (host, mut sidecar) = shop("gone", "", "");
    let cgroup = host.cgroup("app");
    std::fs::remove_dir(&cgroup).expect("nobody is in it");
    std::fs::create_dir(&cgroup).expect("another one");
    assert_eq!(sidecar.wait().code(), Some(1), "{}", sidecar.messages());
    assert!(sidecar.messages().contains("was removed"), "{}", sidecar.messages());
    // Started again it judges the new one.
    let _sidecar = host.sidecar("sidecar", &config(&host, "", "admin: {listen: off}\n"));
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
}

fn orderly_end() {
    let (host, mut sidecar) = shop("end", "", "");
    sidecar.signal(Signal::TERM);
    assert!(sidecar.wait().success());
    let said = sidecar.messages();
    assert!(said.contains("redirect detach"), "{said}");
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /public/a")["error"], "EPERM");
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
}

fn bpffs(host: &Host) -> String {
    host.bpffs.display().to_string()
}

fn status_and_detach() {
    let (host, sidecar) = shop("status", "", "");
    let _ = host.probe("app", "tcp 10.50.9.1 80");
    let bpffs = bpffs(&host);
    let status = |expected: i32| {
        let (code, out, err) =
            host.portreeve(&["redirect", "status", "--bpffs", &bpffs, "--output", "json"]);
        assert_eq!(code, expected, "{err}");
        serde_json::from_str::<Value>(&out).unwrap_or_else(|_| panic!("{out}"))
    };
    let now = status(0);
    assert_eq!(now["instance"], "app", "{now}");
    assert_eq!(now["condition"], "in_force", "{now}");
    assert!(now["counters"]["egress_denied"].as_u64() >= Some(1), "{now}");
    sidecar.kill();
    assert_eq!(status(3)["condition"], "no_proxy", "{now}");
    let (_, text, _) = host.portreeve(&["redirect", "status", "--bpffs", &bpffs]);
    assert!(text.contains("closed"), "{text}");

    let (code, out, err) =
        host.portreeve(&["redirect", "detach", "--bpffs", &bpffs, "--instance", "app"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80 /private")["status"], 200, "nothing is left");
    let left: Vec<_> = walk(&host.bpffs.join("portreeve"));
    assert!(left.is_empty(), "{left:?}");
    let (code, _, err) =
        host.portreeve(&["redirect", "detach", "--bpffs", &bpffs, "--instance", "app"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("app"), "{err}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let inner = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    inner.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn two() {
    let mut host = Host::new("two");
    host.serve(None, &SERVERS);
    let _ = host.file("policy.yaml", POLICY);
    let mut sidecars = Vec::new();
    for (number, cgroup) in ["one", "two"].into_iter().enumerate() {
        let ports = format!(
            "outbound_listen: ['127.0.0.1:{}'], inbound_listen: ['127.0.0.1:{}']",
            15001 + 100 * number,
            15006 + 100 * number
        );
        let labels = if number == 0 { "app: shop" } else { "app: nobody" };
        let config = config_of(&host, cgroup, &ports, "admin: {listen: off}\n")
            .replace("labels: {app: shop}", &format!("labels: {{{labels}}}"));
        sidecars.push(host.sidecar(cgroup, &config));
    }
    // No policy speaks of the second: it is open. The first is judged.
    for (cgroup, error) in [("one", Value::from("EPERM")), ("two", Value::Null)] {
        assert_eq!(host.probe(cgroup, "tcp 10.50.9.1 80")["error"], error, "{cgroup}");
    }
    assert_eq!(host.probe("one", "tcp 10.50.3.1 80 /private")["status"], 403);
    assert_eq!(host.probe("two", "tcp 10.50.3.1 80 /private")["status"], 200);
    // The ports of the one are not the other's.
    host.serve(Some("one"), &["http@10.50.0.1:8080"]);
    host.serve(Some("two"), &["http@10.50.0.2:8080"]);
    let ask = |to: &str| host.probe("other", &format!("tcp-from 10.50.9.9 {to} 8080 /private"));
    assert_eq!(ask("10.50.0.1")["error"], "ECONNREFUSED");
    assert_eq!(ask("10.50.0.2")["status"], 200);
    let bpffs = bpffs(&host);
    let (code, _, err) =
        host.portreeve(&["redirect", "detach", "--bpffs", &bpffs, "--instance", "two"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(host.probe("one", "tcp 10.50.9.1 80")["error"], "EPERM", "the other one stays");
}

fn full() {
    let (host, sidecar) = shop("full", "capacity: {policy: 64}", "");
    let many: String = (0..100)
        .map(|number| format!("  - toCIDR: [192.0.2.{number}/32]\n    toPorts: [{{ports: [{{port: '{}', protocol: TCP}}]}}]\n", 1000 + number))
        .collect();
    let _ = host.file("policy.yaml", &POLICY.replace("  egress:\n", &format!("  egress:\n{many}")));
    sidecar.signal(Signal::HUP);
    let said = eventually("the error", || {
        Some(sidecar.messages()).filter(|said| said.contains("not reloaded"))
    });
    assert!(said.contains("64"), "how many fit: {said}");
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /private")["status"], 403);
    assert_eq!(host.probe("app", "tcp 10.50.2.1 80 /private")["status"], 200);
}

fn missing() {
    let host = Host::new("missing");
    let _ = host.file("policy.yaml", POLICY);
    let run = |redirect: &str| {
        let config = format!(
            "workload: {{labels: {{app: shop}}}}\npolicy: {{paths: [policy.yaml]}}\nadmin: {{listen: off}}\n\
             redirect: {{mode: ebpf, instance: app, {redirect}}}\n"
        );
        let config = host.file("missing.yaml", &config);
        let (code, _, err) = host.portreeve(&["run", "--config", &config.display().to_string()]);
        assert_eq!(code, 1, "{err}");
        err
    };
    let (cgroup, bpffs) = (host.cgroup("app").display().to_string(), bpffs(&host));
    let said = run(&format!("cgroup: /nowhere, bpffs: {bpffs}"));
    assert!(said.contains("/nowhere"), "{said}");
    let said = run(&format!("cgroup: /tmp, bpffs: {bpffs}"));
    assert!(said.contains("cgroup v2") && said.contains("give a directory below"), "{said}");
    let said = run(&format!("cgroup: {cgroup}, bpffs: /tmp"));
    assert!(said.contains("mount -t bpf"), "{said}");
    // In its own cgroup the proxy would be turned to itself.
    let config = config(&host, "", "admin: {listen: off}\n");
    let config = host.file("inside.yaml", &config);
    let output = host
        .in_cgroup("app", portreeve_tests::sidecar::binary())
        .args(["run", "--config"])
        .arg(config)
        .output();
    let said = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    assert!(said.contains("outside"), "{said}");
    // Without the right to it.
    let config = host.folder.path().join("inside.yaml").display().to_string();
    let output = host
        .inside(std::path::Path::new("/usr/bin/setpriv"))
        .args(["--bounding-set", "-all", "--inh-caps", "-all"])
        .arg(portreeve_tests::sidecar::binary())
        .args(["run", "--config", &config])
        .output();
    let said = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    assert!(said.contains("CAP_BPF"), "{said}");
    assert!(walk(&host.bpffs.join("portreeve")).is_empty(), "nothing is attached");
}

fn same_instance() {
    let (host, _sidecar) = shop("same", "", "");
    let config = host.file("second.yaml", &config(&host, "", "admin: {listen: off}\n"));
    let (code, _, err) = host.portreeve(&["run", "--config", &config.display().to_string()]);
    assert_eq!(code, 1, "{err}");
    assert_eq!(
        host.probe("app", "tcp 10.50.3.1 80 /private")["status"],
        403,
        "the first is unharmed"
    );
}
