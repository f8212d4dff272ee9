//! Policy changes while the proxy runs.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use portreeve_tests::client::Client;
use portreeve_tests::eventually;
use portreeve_tests::sidecar::{POLICY, Setup, Sidecar};
use portreeve_tests::upstream::{OK, answering};
use rustix::process::Signal;

/// [`POLICY`] that allows `/other/.*` instead of `/public/.*`.
fn other() -> String {
    POLICY.replace("/public/", "/other/")
}

fn revision(sidecar: &Sidecar) -> u64 {
    sidecar.policy_status()["revision"].as_u64().unwrap()
}

#[test]
fn a_file_renamed_over_the_policy_is_in_force_without_being_asked_for() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    assert_eq!(client.get("/other/a").status, 403);
    sidecar.replace_policy(&other());
    eventually("the new policy", || (revision(&sidecar) == 2).then_some(()));
    assert_eq!(client.get("/other/a").status, 200, "on the same connection");
    assert_eq!(client.get("/public/a").status, 403);
}

#[test]
fn a_config_map_swapped_by_its_symlink_is_in_force() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    // As the kubelet lays a ConfigMap out: policy.yaml -> ..data/policy.yaml, ..data -> ..v1
    let folder = sidecar.folder.path().join("policies");
    let version = |name: &str, policy: &str| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("policy.yaml"), policy).unwrap();
    };
    version("..v1", POLICY);
    std::os::unix::fs::symlink("..v1", folder.join("..data")).unwrap();
    std::fs::remove_file(folder.join("policy.yaml")).unwrap();
    std::os::unix::fs::symlink("..data/policy.yaml", folder.join("policy.yaml")).unwrap();
    sidecar.reload();
    let before = revision(&sidecar);
    version("..v2", &other());
    std::os::unix::fs::symlink("..v2", folder.join("..new")).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    eventually("the new policy", || (revision(&sidecar) > before).then_some(()));
    assert_eq!(sidecar.connect().get("/other/a").status, 200);
}

#[test]
fn hangup_reads_policy_again() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    sidecar.signal(Signal::HUP);
    eventually("a new revision", || (revision(&sidecar) == 2).then_some(()));
    assert_eq!(sidecar.connect().get("/public/a").status, 200);
}

#[test]
fn a_broken_policy_changes_nothing_and_is_shown() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    assert_eq!(client.get("/public/a").status, 200);
    sidecar.replace_policy(&POLICY.replace("/public/.*", "*").replace("TCP", "TPC"));
    let status = eventually("the error", || {
        let status = sidecar.policy_status();
        status["last_error"].is_object().then_some(status)
    });
    let error = status["last_error"]["error"].as_str().unwrap();
    assert!(error.contains("policy.yaml:10:") && error.contains("is not a protocol"), "{error}");
    assert!(error.contains("is not a regular expression"), "every error at once: {error}");
    assert_eq!(status["revision"], 1);
    assert!(sidecar.metric("portreeve_policy_reload_errors_total").unwrap() >= 1.0);
    assert_eq!(client.get("/public/a").status, 200);
    let (code, _) = sidecar.ask_admin("POST", "/reload");
    assert_eq!(code, 422);
    sidecar.replace_policy(POLICY);
    eventually("recovery", || sidecar.policy_status()["last_error"].is_null().then_some(()));
}

#[test]
fn an_emptied_policy_folder_changes_nothing() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    std::fs::remove_file(sidecar.folder.path().join("policies/policy.yaml")).unwrap();
    eventually("the error", || sidecar.policy_status()["last_error"].is_object().then_some(()));
    assert_eq!(sidecar.connect().get("/private").status, 403);
}

#[test]
fn a_policy_that_selects_nobody_is_warned_of() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).policy(&POLICY.replace("app: shop", "app: shp")).start();
    let status = sidecar.policy_status();
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("no policy speaks of ingress"), "{warning}");
    assert_eq!(status["enforced"]["ingress"], false);
    assert!(sidecar.messages().contains("no policy speaks of ingress"));
}

#[test]
fn a_connection_that_is_no_longer_allowed_is_closed_and_the_others_are_not() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let mut client = sidecar.connect();
    assert_eq!(client.get("/public/a").status, 200);
    sidecar.replace_policy(&POLICY.replace("app: client", "app: somebody"));
    sidecar.reload();
    assert_eq!(client.end(), Some(ErrorKind::ConnectionReset));
    sidecar.replace_policy(POLICY);
    sidecar.reload();
    assert_eq!(sidecar.connect().get("/public/a").status, 200);
}

/// One policy allows `/public` and `/a`, the other `/public` and `/b`: `/public` is never refused,
/// `/never` never passes, however often they are swapped.
#[test]
fn a_thousand_swaps_under_load_fail_no_allowed_request_and_pass_no_denied_one() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).start();
    let sidecar = Arc::new(sidecar);
    let ended = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (sidecar, ended, asked) = (sidecar.clone(), ended.clone(), asked.clone());
            thread::spawn(move || {
                let mut client = Client::connect(sidecar.address);
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/public/a").status, 200);
                    assert_eq!(client.get("/never").status, 403);
                    asked.fetch_add(2, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let add = |path: &str| {
        POLICY.replace("{method: POST|PUT, path: /upload}", &format!("{{path: {path}}}"))
    };
    let policies = [add("/a"), add("/b")];
    let path = sidecar.folder.path().join("policies");
    let mut admin = Client::connect(sidecar.admin);
    for swap in 0..1000 {
        std::fs::write(path.join("new"), &policies[swap % 2]).unwrap();
        std::fs::rename(path.join("new"), path.join("policy.yaml")).unwrap();
        admin.send(format!(
            "POST /reload HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n",
            sidecar.admin
        ));
        let answer = admin.response();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
    thread::sleep(Duration::from_millis(100));
    ended.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no request went wrong");
    }
    assert!(revision(&sidecar) > 1000);
    assert!(asked.load(Ordering::Relaxed) > 1000);
    assert!(!received.text().contains("/never"));
}
