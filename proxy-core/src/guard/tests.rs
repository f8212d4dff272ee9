//! The guard as a program meets it.

use std::sync::{Arc, Mutex};

use http::HeaderValue;

use super::*;

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
  - fromEndpoints:
    - matchLabels:
        k8s:io.kubernetes.pod.namespace: billing
        k8s:io.cilium.k8s.policy.serviceaccount: ledger
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
";

fn config(policy: &str) -> GuardConfig {
    let labels = "app=shop".parse().expect("labels");
    let endpoint = Endpoint::new("shop", "default", labels);
    let mut config = GuardConfig::new(endpoint, 80, vec![Source::new("shop.yaml", policy)]);
    let client = "app=client".parse().expect("labels");
    let prefix = "10.0.0.0/8".parse().expect("a prefix");
    config.peers = vec![portreeve_policy::Peer::new([prefix], client)];
    config.trust_domains = vec!["cluster.local".to_owned()];
    config
}

fn guard(policy: &str) -> Guard {
    Guard::new(config(policy)).expect("a good policy")
}

fn client() -> Peer<'static> {
    Peer::Address("10.1.2.3:99".parse().expect("an address"))
}

fn parts(path: &str) -> Parts {
    let request = http::Request::get(path).header("host", "shop");
    request.body(()).expect("a request").into_parts().0
}

/// The status of the answer, or 200 where the request goes on.
fn status(guard: &Guard, peer: Peer<'_>, path: &str) -> u16 {
    match guard.check(peer, &mut parts(path), None) {
        Checked::Forward(_) => 200,
        Checked::Deny(_, reply) | Checked::Refuse(_, reply) => reply.status(),
    }
}

#[test]
fn a_peer_is_known_by_address_labels_or_spiffe_id() {
    let guard = guard(POLICY);
    let labels = |text: &str| text.parse::<portreeve_policy::Labels>().expect("labels");
    assert_eq!(status(&guard, client(), "/public/a"), 200);
    assert_eq!(status(&guard, client(), "/private"), 403);
    assert_eq!(status(&guard, Peer::Labels(&labels("app=client")), "/public/a"), 200);
    assert_eq!(status(&guard, Peer::Labels(&labels("app=client,v=2")), "/public/a"), 200);
    assert_eq!(status(&guard, Peer::Labels(&labels("app=other")), "/public/a"), 403);
    let elsewhere = labels("app=client,io.kubernetes.pod.namespace=other");
    assert_eq!(status(&guard, Peer::Labels(&elsewhere), "/public/a"), 403);
    let ledger = Peer::Spiffe("spiffe://cluster.local/ns/billing/sa/ledger");
    // The second time from memory.
    for _ in 0..2 {
        assert_eq!(status(&guard, ledger, "/anything"), 200);
    }
    assert_eq!(guard.revision(), 1, "to meet somebody is no new policy");
}

#[test]
fn who_is_not_known_is_denied() {
    let guard = guard(POLICY);
    for stranger in [
        Peer::Unknown,
        Peer::Address("192.0.2.1:1".parse().expect("an address")),
        Peer::Spiffe("spiffe://cluster.local/ns/billing/sa/other"),
        Peer::Spiffe("spiffe://evil.example/ns/billing/sa/ledger"),
        Peer::Spiffe("spiffe://cluster.local/ns/billing/sa/ledger/"),
        Peer::Spiffe("nonsense"),
    ] {
        assert_eq!(status(&guard, stranger, "/public/a"), 403, "{stranger:?}");
    }
}

#[test]
fn made_up_names_are_held_up_to_a_bound() {
    let guard = guard(POLICY);
    for number in 0..5000 {
        let id = format!("spiffe://cluster.local/ns/made-up/sa/n{number}");
        assert_eq!(status(&guard, Peer::Spiffe(&id), "/public/a"), 403);
    }
    assert!(guard.0.in_force.load().is_full());
    assert_eq!(status(&guard, client(), "/public/a"), 200);
}

#[test]
fn new_policy_is_in_force_for_the_next_request_and_broken_policy_never() {
    let guard = guard(POLICY);
    let ledger = Peer::Spiffe("spiffe://cluster.local/ns/billing/sa/ledger");
    assert_eq!(status(&guard, ledger, "/private"), 200);
    let documents = |text: String| vec![Source::new("shop.yaml", text)];
    let revision = guard.update(documents(POLICY.replace("/public/", "/open/")));
    assert_eq!(revision.ok(), Some(2));
    assert_eq!(status(&guard, client(), "/public/a"), 403);
    assert_eq!(status(&guard, client(), "/open/a"), 200);
    assert_eq!(status(&guard, ledger, "/private"), 200, "who was known stays known");

    let broken = guard.update(documents(POLICY.replace("endpointSelector", "endpointSelektor")));
    assert!(matches!(broken, Err(LoadError::Documents(_))));
    assert_eq!(guard.revision(), 2);
    assert!(guard.last_error().is_some_and(|(_, error)| error.contains("endpointSelektor")));
    assert_eq!(status(&guard, client(), "/open/a"), 200);
    assert_eq!(guard.reload().ok(), Some(3));
    assert!(guard.last_error().is_none());
}

#[test]
fn policy_files_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, POLICY).expect("a file");
    let files = crate::PolicyFiles { paths: vec![folder.path().to_owned()], watch: true };
    let guard = Guard::new(GuardConfig { policy: files.into(), ..config("") }).expect("policy");
    assert_eq!(status(&guard, client(), "/open/a"), 403);
    assert!(matches!(guard.update(Vec::new()), Err(LoadError::ReadFromFiles)));
    std::fs::write(&file, POLICY.replace("/public/", "/open/")).expect("a file");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while guard.revision() == 1 {
        assert!(std::time::Instant::now() < deadline, "waited in vain for the new policy");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(status(&guard, client(), "/open/a"), 200);
}

#[test]
fn what_is_judged_is_what_goes_on() {
    let guard = guard(POLICY);
    let mut tricked = parts("/private/../public/a");
    assert!(matches!(guard.check(client(), &mut tricked, None), Checked::Forward(_)));
    assert_eq!(tricked.uri.path(), "/public/a");
    assert_eq!(status(&guard, client(), "/public/../private"), 403);
    assert_eq!(status(&guard, client(), "/public%2f..%2fprivate"), 307);
    assert_eq!(status(&guard, client(), "/public/..;/private"), 400);
    let mut two = parts("/public/a");
    two.headers.append("host", HeaderValue::from_static("other"));
    assert!(matches!(guard.check(client(), &mut two, None), Checked::Refuse("host_repeated", _)));
}

#[test]
fn rules_change_the_head() {
    let guard = guard(&POLICY.replace(
        "path: /public/.*",
        "path: /public/.*, headerMatches: [{name: X-User, value: shopper, mismatch: REPLACE}]",
    ));
    let mut forged = parts("/public/a");
    forged.headers.insert("x-user", HeaderValue::from_static("root"));
    assert!(matches!(guard.check(client(), &mut forged, None), Checked::Forward(_)));
    assert_eq!(forged.headers["x-user"], "shopper");
}

#[test]
fn a_protocol_that_is_not_http_is_refused_not_passed_unread() {
    let guard =
        guard(&POLICY.replace("{http: [{method: GET, path: /public/.*}]}", "{kafka: [{}]}"));
    match guard.check(client(), &mut parts("/public/a"), None) {
        Checked::Deny(judged, _) => assert_eq!(judged.reason, Reason::NotInspectable),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_observer_hears_of_every_decision_and_rules_count() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    let mut config = config(POLICY);
    config.observer = Observing::by(move |flow: &Flow<'_>| {
        let line =
            format!("{:?} {} {} {}", flow.verdict, flow.source.labels, flow.rule, flow.reason);
        ear.lock().expect("a lock").push(line);
    });
    let guard = Guard::new(config).expect("a good policy");
    for path in ["/public/a", "/private", "/public/..;/private"] {
        let _ = status(&guard, client(), path);
    }
    let labels = "k8s:app=client,k8s:io.cilium.k8s.policy.cluster=default,\
                  k8s:io.kubernetes.pod.namespace=default";
    assert_eq!(
        *heard.lock().expect("a lock"),
        [
            format!("Allow {labels} spec.ingress[0].toPorts[0].rules.http[0] rule_allows"),
            format!("Deny {labels}  no_rule_allows"),
            format!("Deny {labels}  target_parameter"),
        ]
    );
    assert_eq!(guard.snapshot().hits().sum::<u64>(), 1);
}
