//! What a proxy does with policy beyond HTTP rules: it shows requests without judging them, and refuses
//! what it can't judge.

use std::io::{Read, Write};

use portreeve_tests::sidecar::Setup;
use portreeve_tests::upstream::{OK, answering, serve};

const VISIBILITY: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: seen, namespace: default}
spec:
  endpointSelector: {}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
  visibility: {ingress: [{ports: [{port: '80', protocol: TCP}], protocol: http}]}
";

#[test]
fn visible_requests_are_logged_and_none_is_refused() {
    let (upstream, _) = answering(OK);
    let sidecar = Setup::new(upstream).policy(VISIBILITY).start();
    assert_eq!(sidecar.connect().get("/anything").status, 200);
    let line = &sidecar.logged(1)[0];
    assert_eq!(line["path"], "/anything", "{line}");
    assert_eq!(line["verdict"], "allow", "{line}");
}

#[test]
fn what_is_not_http_passes_where_requests_are_only_to_be_seen() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut hello = [0; 16];
        let _ = stream.read_exact(&mut hello);
        assert_eq!(&hello, b"SSH-2.0-client\r\n");
        let _ = stream.write_all(b"SSH-2.0-server\r\n");
    });
    let sidecar = Setup::new(upstream).policy(VISIBILITY).start();
    let mut client = sidecar.connect();
    client.send("SSH-2.0-client\r\n");
    assert_eq!(client.take(16).expect("an answer"), b"SSH-2.0-server\r\n");
}

#[test]
fn a_first_segment_that_is_too_short_to_tell_is_not_taken_for_http() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut hello = [0; 16];
        let _ = stream.read_exact(&mut hello);
        let _ = stream.write_all(b"SSH-2.0-server\r\n");
    });
    let sidecar = Setup::new(upstream).policy(VISIBILITY).start();
    let mut client = sidecar.connect();
    client.send("S");
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.send("SH-2.0-client\r\n");
    assert_eq!(client.take(16).expect("an answer"), b"SSH-2.0-server\r\n");
}

#[test]
fn a_connection_that_is_no_http_outlives_a_reload_where_requests_are_only_to_be_seen() {
    let (upstream, _) = serve(|mut stream, _| {
        let mut hello = [0; 16];
        while stream.read_exact(&mut hello).is_ok() {
            let _ = stream.write_all(b"SSH-2.0-server\r\n");
        }
    });
    let sidecar = Setup::new(upstream).policy(VISIBILITY).start();
    let mut client = sidecar.connect();
    for _ in 0..2 {
        client.send("SSH-2.0-client\r\n");
        assert_eq!(client.take(16).expect("an answer"), b"SSH-2.0-server\r\n");
        sidecar.replace_policy(&VISIBILITY.replace("name: seen", "name: seen-again"));
        sidecar.reload();
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_where_requests_are_only_to_be_seen() {
    let (upstream, _) = serve(|mut stream, _| {
        let _ = stream.write_all(b"220 mail ready\r\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
    });
    let sidecar = Setup::new(upstream).policy(VISIBILITY).start();
    assert_eq!(sidecar.connect().take(16).expect("a greeting"), b"220 mail ready\r\n");
}

#[test]
fn what_is_not_http_passes_where_http_rules_are_only_audited() {
    let (upstream, _) = serve(|mut stream, _| {
        let _ = stream.write_all(b"220 mail ready\r\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
    });
    let audited = "
apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: audited, namespace: default}
spec:
  mode: audit
  endpointSelector: {}
  ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /a}]}}]}]
";
    let sidecar = Setup::new(upstream).policy(audited).start();
    assert_eq!(sidecar.connect().take(16).expect("a greeting"), b"220 mail ready\r\n");
}

#[test]
fn what_policy_would_audit_and_the_proxy_cannot_read_passes_marked() {
    let unread = "rules: {l7proto: r2d2, l7: [{cmd: READ}]}";
    for rules in [unread, "serverNames: [a.example]"] {
        let (upstream, received) = answering(OK);
        let policy = format!(
            "apiVersion: portreeve.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: \
             default}}\nspec:\n  mode: audit\n  endpointSelector: {{}}\n  ingress: [{{toPorts: \
             [{{ports: [{{port: '80', protocol: TCP}}], {rules}}}]}}]\n"
        );
        let sidecar = Setup::new(upstream).policy(&policy).start();
        assert_eq!(sidecar.connect().get("/anything").status, 200, "{rules}");
        let line = &sidecar.logged(1)[0];
        assert_eq!(line["verdict"], "audit", "{line}");
        assert_eq!(line["reason"], "not_inspectable", "{line}");
        assert_eq!(received.connections(), 1);
    }
}

/// A policy with one entry from the client on the workload's port.
fn policy(more: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: default}}\n\
         spec:\n  endpointSelector: {{}}\n  ingress: [{{fromEndpoints: [{{matchLabels: {{app: \
         client}}}}], {more}}}]\n"
    )
}

#[test]
fn what_is_not_kafka_passes_where_kafka_rules_are_only_audited() {
    let (upstream, received) = answering(OK);
    let policy = "apiVersion: portreeve.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, \
                  namespace: default}\nspec:\n  mode: audit\n  endpointSelector: {}\n  ingress: \
                  [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {kafka: [{topic: t}]}}]}]\n";
    let sidecar = Setup::new(upstream).policy(policy).start();
    assert_eq!(sidecar.connect().get("/anything").status, 200);
    assert_eq!(received.connections(), 1);
}

#[test]
fn what_is_not_kafka_is_closed_where_kafka_rules_are_in_force() {
    let (upstream, received) = answering(OK);
    let rules = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {kafka: [{topic: t}]}}]";
    let sidecar = Setup::new(upstream).policy(&policy(rules)).start();
    let mut client = sidecar.connect();
    client.send("GET /anything HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!(client.end(), None, "closed, not reset: nothing was cut short");
    let line = &sidecar.logged(1)[0];
    assert_eq!(
        (&line["type"], &line["reason"]),
        (&"refused".into(), &"kafka_frame_too_large".into())
    );
    assert_eq!(received.connections(), 0);
}

#[test]
fn a_dead_broker_ends_the_connection_and_is_named() {
    let nobody = portreeve_tests::free_address();
    let rules = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {kafka: [{topic: t}]}}]";
    let sidecar = Setup::new(nobody).policy(&policy(rules)).start();
    let mut client = sidecar.connect();
    // ApiVersions in version 0.
    client.send(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff");
    assert_eq!(client.end(), None, "closed");
    let said = sidecar.messages();
    assert!(
        said.contains("can't reach the upstream") && said.contains(&nobody.to_string()),
        "{said}"
    );
}

#[test]
fn a_protocol_that_is_not_read_here_is_refused_not_passed_unread() {
    let (upstream, received) = answering(OK);
    let rules = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {l7proto: r2d2, \
                 l7: [{cmd: READ}]}}]";
    let sidecar = Setup::new(upstream).policy(&policy(rules)).start();
    assert!(sidecar.connect().end().is_some(), "reset");
    let line = &sidecar.logged(1)[0];
    assert_eq!(line["reason"], "not_inspectable", "{line}");
    assert_eq!(received.connections(), 0);
}

#[test]
fn a_peer_that_would_have_to_prove_itself_is_refused() {
    let (upstream, received) = answering(OK);
    let sidecar = Setup::new(upstream).policy(&policy("authentication: {mode: required}")).start();
    assert!(sidecar.connect().end().is_some(), "reset");
    let line = &sidecar.logged(1)[0];
    assert_eq!(line["reason"], "authentication_required", "{line}");
    assert_eq!(received.connections(), 0);
}
