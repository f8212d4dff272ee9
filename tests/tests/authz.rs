//! `portreeve authz serve`: what passes a real Envoy and a real nginx that ask it.

use std::process::Command;

use portreeve_tests::authz::{Authz, envoy, envoy_asking, envoy_with_tls, nginx_asking};
use portreeve_tests::client::Client;
use portreeve_tests::upstream::{OK, Program, Received, answering};
use portreeve_tests::{Need, eventually, needed, trial};
use rustix::process::Signal;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let (envoy, nginx, curl) = (Need::Envoy, Need::Program("nginx"), Need::Program("curl"));
    let tests = vec![
        trial("envoy_lets_pass_what_policy_allows", &[envoy], envoy_lets_pass),
        trial("envoy_forwards_heads_as_rules_want_them", &[envoy], envoy_forwards_heads),
        trial("envoy_passes_no_path_but_the_judged_one", &[envoy], envoy_passes_no_other_path),
        trial("envoy_tells_grpc_clients_in_their_words", &[envoy, curl], envoy_tells_grpc_clients),
        trial("envoy_denies_while_nobody_answers_it", &[envoy], envoy_denies_unanswered),
        trial("envoy_sees_new_policy_on_the_next_request", &[envoy], envoy_sees_new_policy),
        trial(
            "envoy_names_callers_by_the_certificates_it_has_verified",
            &[envoy, curl, Need::Program("openssl")],
            envoy_names_callers,
        ),
        trial("nginx_lets_pass_what_policy_allows", &[nginx], nginx_lets_pass),
        trial("nginx_believes_its_own_fields_only", &[nginx], nginx_believes_its_own_fields),
        trial("it_starts_and_ends_in_order", &[], it_starts_and_ends_in_order),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}

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
      rules:
        http:
        - {method: GET|HEAD, path: '/public/.*'}
        - {method: GET, path: /token, headers: ['X-Token: 42']}
        - {method: GET, path: /user, headerMatches: [{name: X-User, value: shopper, mismatch: REPLACE}]}
        - {method: GET, path: /bare, headerMatches: [{name: X-Secret, value: none, mismatch: DELETE}]}
";

/// An Envoy that asks, and what its upstream receives.
fn asking(authz: &Authz) -> (Program, Received) {
    let (upstream, received) = answering(OK);
    let envoy = envoy().expect("it is among the needs");
    (envoy_asking(&envoy, authz.grpc, upstream), received)
}

fn get(proxy: &Program, path: &str, fields: &str) -> u16 {
    let mut client = Client::connect(proxy.address);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{fields}\r\n"));
    client.response().status
}

fn envoy_lets_pass() {
    let authz = Authz::start(POLICY, &[]);
    let (envoy, received) = asking(&authz);
    let mut client = Client::connect(envoy.address);
    assert_eq!(client.get("/public/a").status, 200);
    let denied = client.get("/private?secret");
    assert_eq!(denied.status, 403);
    assert_eq!(String::from_utf8_lossy(&denied.body), "Access denied\r\n");
    assert_eq!(client.get("/public/b").status, 200, "the connection stays open");
    assert_eq!(get(&envoy, "/token", ""), 403);
    assert_eq!(get(&envoy, "/token", "X-Token: 42\r\n"), 200);
    // Who asks is who has connected, whatever they say.
    assert_eq!(get(&envoy, "/public/a", "X-Forwarded-For: 192.0.2.1\r\n"), 200);
    assert!(!received.text().contains("/private"), "{}", received.text());
    let log = envoy.folder.path().join("access.log");
    let expected = [
        "/public/a 200 default/shop spec.ingress[0].toPorts[0].rules.http[0] rule_allows",
        "/private?secret 403",
        "no_rule_allows",
    ];
    eventually("Envoy's log to name policy, rule and reason", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        expected.iter().all(|part| log.contains(part)).then_some(())
    });
}

fn envoy_forwards_heads() {
    let authz = Authz::start(POLICY, &[]);
    let (envoy, received) = asking(&authz);
    assert_eq!(get(&envoy, "/user", "X-User: root\r\nX-User: admin\r\n"), 200);
    assert_eq!(get(&envoy, "/bare", "X-Secret: 1\r\n"), 200);
    let text = received.text().to_ascii_lowercase();
    assert!(text.contains("x-user: shopper"), "{text}");
    for forged in ["root", "admin", "x-secret"] {
        assert!(!text.contains(forged), "{text}");
    }
}

fn envoy_passes_no_other_path() {
    let authz = Authz::start(POLICY, &[]);
    let (envoy, received) = asking(&authz);
    for path in [
        "/public/../private",
        "/public/%2e%2e/private",
        "/public%2f..%2fprivate",
        "/public/..%2fprivate",
        "//private",
        "/public/..;/private",
        "/public/..\\private",
    ] {
        let status = get(&envoy, path, "");
        assert!([307, 400, 403].contains(&status), "{path}: {status}");
    }
    assert_eq!(received.text(), "");
    // What is allowed under another spelling is asked for under that.
    let mut client = Client::connect(envoy.address);
    for path in ["/private/../public/a", "//public/a", "/public%2fa"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 307, "{path}");
        let head = answer.head.to_ascii_lowercase();
        assert!(head.contains("location: /public/a\r\n"), "{head}");
    }
    assert_eq!(received.text(), "");
}

fn envoy_tells_grpc_clients() {
    let authz = Authz::start(POLICY, &[]);
    let (envoy, _) = asking(&authz);
    let output = Command::new(needed("curl"))
        .args(["--silent", "--max-time", "10", "--http2-prior-knowledge", "--include"])
        .args(["--request", "POST", "--header", "content-type: application/grpc"])
        .arg(format!("http://{}/shop.v1.Orders/Delete", envoy.address))
        .output()
        .expect("curl runs");
    let head = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
    assert!(head.starts_with("http/2 200"), "{head}");
    assert!(head.contains("grpc-status: 7\r\n"), "{head}");
    assert!(head.contains("grpc-message: access denied\r\n"), "{head}");
}

fn envoy_denies_unanswered() {
    let mut authz = Authz::start(POLICY, &[]);
    let (envoy, received) = asking(&authz);
    assert_eq!(get(&envoy, "/public/a", ""), 200);
    assert_eq!(authz.end().code(), Some(0));
    received.clear();
    assert_eq!(get(&envoy, "/public/a", ""), 403);
    assert_eq!(received.text(), "");
}

fn envoy_sees_new_policy() {
    let authz = Authz::start(POLICY, &[]);
    let (envoy, _) = asking(&authz);
    let mut client = Client::connect(envoy.address);
    assert_eq!(client.get("/open/a").status, 403);
    authz.replace_policy(&POLICY.replace("/public/", "/open/"));
    assert_eq!(client.get("/open/a").status, 200);
    assert_eq!(client.get("/public/a").status, 403);
    authz.replace_policy("kind: Nonsense");
    assert!(authz.messages().contains("policy not reloaded, revision 2 stays in force"));
    assert_eq!(client.get("/open/a").status, 200);
}

fn envoy_names_callers() {
    let pki = tempfile::tempdir().expect("a folder");
    let openssl = |arguments: &str| {
        let run = Command::new(needed("openssl"))
            .args(arguments.split(' '))
            .current_dir(&pki)
            .output()
            .expect("openssl runs");
        assert!(run.status.success(), "{arguments}: {}", String::from_utf8_lossy(&run.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for authority in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority} -days 2"
        ));
    }
    let frontend = "URI:spiffe://cluster.local/ns/web/sa/frontend";
    let certify = |name: &str, authority: &str, san: &str| {
        openssl(&format!(
            "req -x509 {key} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2 \
             -CA {authority}.pem -CAkey {authority}.key -addext basicConstraints=critical,CA:FALSE \
             -addext subjectAltName={san}"
        ));
    };
    certify("server", "ca", "DNS:shop");
    certify("frontend", "ca", frontend);
    certify("billing", "ca", "URI:spiffe://cluster.local/ns/web/sa/billing");
    certify("foreign", "ca", "URI:spiffe://evil.example/ns/web/sa/frontend");
    certify("forged", "other", frontend);

    let policy = POLICY.replace(
        "{app: client}",
        "{'k8s:io.kubernetes.pod.namespace': web, 'k8s:io.cilium.k8s.policy.serviceaccount': frontend}",
    );
    let authz = Authz::start(&policy, &["--trust-domain", "cluster.local"]);
    let (upstream, _) = answering(OK);
    let envoy = envoy().expect("it is among the needs");
    let envoy = envoy_with_tls(&envoy, authz.grpc, upstream, pki.path());
    let ask = |name: &str| {
        let output = Command::new(needed("curl"))
            .args(["--silent", "--insecure", "--max-time", "10", "--output", "/dev/null"])
            .args(["--write-out", "%{http_code}"])
            .args(["--cert", &format!("{name}.pem"), "--key", &format!("{name}.key")])
            .arg(format!("https://{}/public/a", envoy.address))
            .current_dir(&pki)
            .output()
            .expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(ask("frontend"), "200");
    assert_eq!(ask("billing"), "403");
    assert_eq!(ask("foreign"), "403");
    assert_eq!(ask("forged"), "000", "no connection for who is of another authority");
}

fn nginx_lets_pass() {
    let authz = Authz::start(POLICY, &[]);
    let (upstream, received) = answering(OK);
    let nginx = nginx_asking(&needed("nginx"), authz.http, upstream);
    assert_eq!(get(&nginx, "/public/a", ""), 200);
    assert_eq!(get(&nginx, "/private", ""), 403);
    assert_eq!(get(&nginx, "/token", ""), 403);
    assert_eq!(get(&nginx, "/token", "X-Token: 42\r\n"), 200);
    received.clear();
    for path in
        ["/public/../private", "/public%2f..%2fprivate", "//private", "/private/../public/a"]
    {
        assert_eq!(get(&nginx, path, ""), 403, "{path}");
    }
    // nginx can't be told to change the head: what rules want changed does not pass.
    assert_eq!(get(&nginx, "/user", "X-User: root\r\n"), 403);
    assert_eq!(get(&nginx, "/user", "X-User: shopper\r\n"), 200);
    assert!(!received.text().contains("private"), "{}", received.text());
    authz.replace_policy(&POLICY.replace("/public/", "/open/"));
    assert_eq!(get(&nginx, "/open/a", ""), 200);
}

fn nginx_believes_its_own_fields() {
    let authz = Authz::start(
        &POLICY.replace("app: client", "app: other"),
        &["--peer", "192.0.2.1/32=app=other"],
    );
    let (upstream, received) = answering(OK);
    let nginx = nginx_asking(&needed("nginx"), authz.http, upstream);
    assert_eq!(get(&nginx, "/public/a", ""), 403);
    for forged in [
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-For: 192.0.2.1",
        "X-Original-URL: http://shop/public/a",
        "X-Original-URI: /public/a",
    ] {
        assert_eq!(get(&nginx, "/private", &format!("{forged}\r\n")), 403, "{forged}");
    }
    assert_eq!(received.text(), "");
    // Who reaches the port itself is believed: only the proxy may.
    let ask = |fields: &str| {
        let mut client = Client::connect(authz.http);
        client.send(format!("GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n"));
        client.response()
    };
    let whole = "X-Original-Method: GET\r\nX-Original-URI: /public/a\r\nX-Real-IP: 192.0.2.1\r\n";
    let answer = ask(whole);
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("x-portreeve-policy: default/shop"), "{}", answer.head);
    for (fields, reason) in [
        (String::new(), "x_original_method_missing"),
        (whole.replace("X-Real-IP", "X-Other"), "x_real_ip_missing"),
        (whole.replace("X-Original-URI", "X-Other"), "x_original_uri_missing"),
        (format!("{whole}X-Original-URL: http://shop/public/a\r\n"), "x_original_uri_and_url"),
        (format!("{whole}X-Real-IP: 192.0.2.1\r\n"), "said_twice"),
    ] {
        let answer = ask(&fields);
        assert_eq!(answer.status, 403, "{fields}");
        assert!(
            answer.head.contains(&format!("x-portreeve-reason: {reason}\r\n")),
            "{}",
            answer.head
        );
    }
}

fn it_starts_and_ends_in_order() {
    let mut authz = Authz::start(POLICY, &[]);
    let messages = authz.messages();
    assert!(messages.contains(&format!("ext_authz listens on {}", authz.grpc)), "{messages}");
    assert!(messages.contains(&format!("auth_request listens on {}", authz.http)), "{messages}");
    authz.signal(Signal::HUP);
    eventually("policy to be read again", || {
        authz.messages().contains("policy reloaded revision=2").then_some(())
    });
    assert_eq!(authz.end().code(), Some(0));
    let run = |arguments: &[&str]| {
        portreeve_tests::sidecar::portreeve(&[&["authz", "serve"], arguments].concat())
    };
    assert_eq!(run(&[]).0, 2);
    let flags = ["--policy", "/nonexistent", "--workload-labels", "app=shop"];
    assert_eq!(run(&[&flags[..], &["--http-listen", "127.0.0.1:0"]].concat()).0, 2, "no port");
    let (code, _, error) = run(&[&flags[..], &["--listen", "127.0.0.1:0"]].concat());
    assert_eq!(code, 78, "{error}");
    assert!(error.contains("can't read policy `/nonexistent`"), "{error}");
    // A sidecar's file does as well.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sidecar.yaml");
    let config = "workload: {labels: {app: shop}}\n\
                  inbound: [{listen: '127.0.0.1:0', upstream: '127.0.0.1:80'}]\n\
                  policy: {paths: [missing.yaml]}\n";
    std::fs::write(&file, config).expect("a file");
    let (code, _, error) =
        run(&["--config", &file.display().to_string(), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, 78, "{error}");
    assert!(error.contains("missing.yaml"), "{error}");
}
