//! `portreeve redirect --to`: any proxy behind it, which asks for the original destination as it would with
//! nftables.

use portreeve_tests::workload::Host;
use serde_json::Value;

use crate::{POLICY, SERVERS};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("without_a_policy_every_tcp_connection_is_turned", everything),
    ("with_a_policy_only_what_needs_l7_is_turned", with_policy),
];

/// Those that need a real Envoy.
pub(crate) const ENVOY_CASES: &[(&str, fn())] = &[("envoy_learns_the_original_destination", envoy)];

/// A proxy that says what `SO_ORIGINAL_DST` says, for each connection.
const NAMING: &str = "
import socket, struct, sys
six = ':' in sys.argv[1]
l = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind((sys.argv[1], int(sys.argv[2]))); l.listen(128)
print('ready', flush=True)
while True:
    c, _ = l.accept()
    try:
        if six:
            b = c.getsockopt(socket.IPPROTO_IPV6, 80, 28)
            d = socket.inet_ntop(socket.AF_INET6, b[8:24]) + ' ' + str(struct.unpack('!H', b[2:4])[0])
        else:
            b = c.getsockopt(socket.IPPROTO_IP, 80, 16)
            d = socket.inet_ntoa(b[4:8]) + ' ' + str(struct.unpack('!H', b[2:4])[0])
    except OSError as e:
        d = str(e)
    c.recv(4096)
    c.sendall(('HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(d), d)).encode()); c.close()
";

fn naming(host: &mut Host, address: &str, port: &str) {
    let script = host.file("naming.py", NAMING).display().to_string();
    host.start("python3", &[&script, address, port], "ready");
}

fn redirect(host: &Host, more: &[&str]) -> String {
    let (cgroup, bpffs) =
        (host.cgroup("app").display().to_string(), host.bpffs.display().to_string());
    let mut arguments =
        vec!["redirect", "--cgroup", &cgroup, "--bpffs", &bpffs, "--instance", "app"];
    arguments.extend(more);
    let (code, out, err) = host.portreeve(&arguments);
    assert_eq!(code, 0, "{out}{err}");
    out + &err
}

fn everything() {
    let mut host = Host::new("any");
    naming(&mut host, "127.0.0.1", "15001");
    naming(&mut host, "::1", "15001");
    let said = redirect(&host, &["--to", "127.0.0.1:15001", "--to", "[::1]:15001"]);
    assert!(said.contains("redirect detach"), "how to undo it: {said}");
    for (target, destination) in [
        ("10.50.7.7 4711", "10.50.7.7 4711"),
        ("fd50::7:7 4711", "fd50::7:7 4711"),
        ("::ffff:10.50.7.8 80", "10.50.7.8 80"),
    ] {
        let said = host.probe("app", &format!("tcp {target} /"));
        assert_eq!(said["body"], destination, "{target}: {said}");
    }
    assert_eq!(host.probe("other", "tcp 10.50.7.7 4711")["error"], "ECONNREFUSED");
}

fn with_policy() {
    let mut host = Host::new("anypol");
    host.serve(None, &SERVERS);
    naming(&mut host, "127.0.0.1", "15001");
    let policy = host.file("policy.yaml", POLICY).display().to_string();
    let arguments = [
        "--to",
        "127.0.0.1:15001",
        "--policy",
        &policy,
        "--workload-labels",
        "app=shop",
        "--peer",
        "10.50.2.0/24=app=plain",
        "--peer",
        "10.50.3.0/24=app=api",
    ];
    let _ = redirect(&host, &arguments);
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /")["body"], "10.50.3.1 80");
    assert_eq!(host.probe("app", "tcp 10.50.9.1 80")["error"], "EPERM");
    let said = host.probe("app", "tcp 10.50.2.1 80 /");
    assert!(said["body"].to_string().contains("10.50.2.1:80"), "straight: {said}");
    // Again with another policy: it takes the place of the first.
    let _ = host.file("policy.yaml", &POLICY.replace("app: plain", "app: nobody"));
    let _ = redirect(&host, &arguments);
    assert_eq!(host.probe("app", "tcp 10.50.2.1 80")["error"], "EPERM");
    assert_eq!(host.probe("app", "udp 10.50.2.1 53 1")["error"], "EPERM");
}

const ENVOY: &str = "
static_resources:
  listeners:
  - name: outbound
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: outbound
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {prefix: /private}
                direct_response: {status: 403}
              - match: {prefix: /}
                route: {cluster: original}
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 5s
";

fn envoy() {
    let mut host = Host::new("envoy");
    host.serve(None, &SERVERS);
    let config = host.file("envoy.yaml", ENVOY).display().to_string();
    let envoy = portreeve_tests::authz::envoy().expect("among the needs");
    host.start(
        &envoy.display().to_string(),
        &[
            "--config-path",
            &config,
            "--concurrency",
            "1",
            "--base-id",
            &(std::process::id() % 30000 + 1).to_string(),
        ],
        "",
    );
    let _ = redirect(&host, &["--to", "127.0.0.1:15001"]);
    let ready = || {
        let said = host.probe("app", "tcp 10.50.2.1 80 /public");
        (said["status"] == 200).then_some(said)
    };
    let said = portreeve_tests::eventually("Envoy", ready);
    assert_eq!((&said["peer"], &said["error"]), (&Value::from("10.50.2.1:80"), &Value::Null));
    assert!(said["body"].to_string().contains("10.50.2.1:80"), "{said}");
    let said = host.probe("app", "tcp 10.50.3.1 80 /public");
    assert!(said["body"].to_string().contains("10.50.3.1:80"), "{said}");
    assert_eq!(host.probe("app", "tcp 10.50.3.1 80 /private")["status"], 403);
}
