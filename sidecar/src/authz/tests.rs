//! Checks as Envoy makes them, without Envoy.

use portreeve_core::guard::{Guard, GuardConfig};
use portreeve_policy::{Endpoint, Source};

use super::check::check;
use super::proto::{
    Address, AttributeContext, CheckRequest, CheckResponse, HeaderMap, HeaderValue, HttpRequest,
    Peer, Request, SocketAddress,
};

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: client}
    - matchLabels:
        k8s:io.kubernetes.pod.namespace: web
        k8s:io.cilium.k8s.policy.serviceaccount: frontend
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: /public/.*}]}
";

fn guard(trust_domains: &[&str]) -> Guard {
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse().expect("labels"));
    let mut config = GuardConfig::new(endpoint, 0, vec![Source::new("shop.yaml", POLICY)]);
    let client = "app=client".parse().expect("labels");
    config.peers =
        vec![portreeve_policy::Peer::new(["10.0.0.0/8".parse().expect("a prefix")], client)];
    config.trust_domains = trust_domains.iter().map(|domain| (*domain).to_owned()).collect();
    Guard::new(config).expect("a good policy")
}

fn at(address: &str, port: u32) -> Option<Peer> {
    let socket_address = SocketAddress { address: address.to_owned(), port_value: port };
    let address = Some(Address { socket_address: Some(socket_address) });
    Some(Peer { address, ..Peer::default() })
}

fn asking(path: &str) -> CheckRequest {
    let http = HttpRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        host: "shop".to_owned(),
        headers: [(":path".to_owned(), path.to_owned())].into(),
        header_map: None,
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: at("10.1.2.3", 999),
            destination: at("10.0.0.1", 80),
            request: Some(Request { http: Some(http) }),
        }),
    }
}

/// The status that Envoy answers with; 200: none, the request goes on.
fn status(answer: &CheckResponse) -> i32 {
    let denied = answer.denied_response.as_ref().and_then(|denied| denied.status.as_ref());
    let code = answer.status.as_ref().map_or(-1, |status| status.code);
    match (code, denied, &answer.ok_response) {
        (0, None, Some(_)) => 200,
        (7, Some(denied), None) => denied.code,
        other => panic!("neither allowed nor denied: {other:?}"),
    }
}

fn attributes(request: &mut CheckRequest) -> &mut AttributeContext {
    request.attributes.get_or_insert_default()
}

#[test]
fn what_a_check_does_not_say_is_denied() {
    let guard = guard(&[]);
    assert_eq!(status(&check(&guard, None, &asking("/public/a"))), 200);
    let broken: [fn(&mut CheckRequest); 8] = [
        |request| request.attributes = None,
        |request| attributes(request).source = None,
        |request| attributes(request).source = at("pipe", 0),
        |request| attributes(request).destination = None,
        |request| attributes(request).destination = at("10.0.0.1", 0),
        |request| attributes(request).request = None,
        |request| attributes(request).request = Some(Request::default()),
        |request| attributes(request).source = at("10.1.2.3", 70_000),
    ];
    for (index, break_it) in broken.iter().enumerate() {
        let mut request = asking("/public/a");
        break_it(&mut request);
        assert_eq!(status(&check(&guard, None, &request)), 403, "{index}");
    }
}

#[test]
fn the_port_is_envoys_unless_one_is_given() {
    let guard = guard(&[]);
    let mut request = asking("/public/a");
    attributes(&mut request).destination = at("10.0.0.1", 15_006);
    assert_eq!(status(&check(&guard, None, &request)), 403);
    assert_eq!(status(&check(&guard, Some(80), &request)), 200);
}

#[test]
fn a_verified_principal_says_who_asks_if_its_trust_domain_is_trusted() {
    let frontend = "spiffe://cluster.local/ns/web/sa/frontend";
    for (trusted, principal, address, expected) in [
        (&["cluster.local"][..], frontend, "192.0.2.1", 200),
        // Nobody is taken for somebody else by where they are.
        (&["cluster.local"], "spiffe://cluster.local/ns/web/sa/other", "10.1.2.3", 403),
        (&["cluster.local"], "spiffe://evil.example/ns/web/sa/frontend", "10.1.2.3", 403),
        (&["cluster.local"], "spiffe://cluster.local/frontend", "10.1.2.3", 403),
        (&["cluster.local"], "CN=frontend", "10.1.2.3", 200),
        (&[], frontend, "192.0.2.1", 403),
        (&[], frontend, "10.1.2.3", 200),
    ] {
        let mut request = asking("/public/a");
        let mut source = at(address, 1).unwrap_or_default();
        principal.clone_into(&mut source.principal);
        attributes(&mut request).source = Some(source);
        let answer = check(&guard(trusted), None, &request);
        assert_eq!(status(&answer), expected, "{trusted:?} {principal} {address}");
    }
}

#[test]
fn an_answer_names_policy_rule_and_reason() {
    let guard = guard(&[]);
    let fields = |path: &str| {
        let metadata = check(&guard, None, &asking(path)).dynamic_metadata.unwrap_or_default();
        ["verdict", "policy", "rule", "reason"].map(|name| {
            let value = metadata.fields.get(name).and_then(|value| value.string_value.clone());
            value.unwrap_or_default()
        })
    };
    let rule = "spec.ingress[0].toPorts[0].rules.http[0]";
    assert_eq!(fields("/public/a"), ["allow", "default/shop", rule, "rule_allows"]);
    assert_eq!(fields("/private"), ["deny", "", "", "no_rule_allows"]);
}

#[test]
fn raw_headers_are_read_where_envoy_sends_them() {
    let guard = guard(&[]);
    let mut request = asking("/public/a");
    let header = |key: &str, raw: &[u8]| HeaderValue {
        key: key.to_owned(),
        value: String::new(),
        raw_value: raw.to_vec(),
    };
    let http = attributes(&mut request).request.as_mut().and_then(|request| request.http.as_mut());
    let http = http.expect("a request");
    http.headers.clear();
    // One field said in two spellings that servers may take for one.
    http.header_map = Some(HeaderMap {
        headers: vec![header(":authority", b"shop"), header("x-a", b"\xff"), header("x_a", b"2")],
    });
    assert_eq!(status(&check(&guard, None, &request)), 400);
}
