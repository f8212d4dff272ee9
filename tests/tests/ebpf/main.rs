//! Kernel programs under real traffic: processes in cgroups, in network namespaces of the tests' own.
//!
//! | file | what |
//! | --- | --- |
//! | `outbound.rs` | what the workload opens |
//! | `inbound.rs` | what is opened to it |
//! | `services.rs` | service addresses and their backends |
//! | `sockmap.rs` | sockets that are joined |
//! | `lifecycle.rs` | killed, started again, detached; two of them; what is missing |
//! | `agreement.rs` | random policies: the kernel's answers are the engine's |
//! | `any_proxy.rs` | `portreeve redirect --to`, with a real Envoy |

mod agreement;
mod any_proxy;
mod inbound;
mod lifecycle;
mod outbound;
mod services;
mod sockmap;

use portreeve_tests::workload::{Host, NEEDS, Redirected};
use portreeve_tests::{Need, trial};

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let mut tests = Vec::new();
    let mut suite = |prefix: &str, needs: &[Need], cases: &[(&str, fn())]| {
        let needs = [&NEEDS[..], needs].concat();
        for (name, run) in cases {
            tests.push(trial(&format!("{prefix}::{name}"), &needs, *run));
        }
    };
    suite("outbound", &[], outbound::CASES);
    suite("inbound", &[], inbound::CASES);
    suite("services", &[], services::CASES);
    suite("sockmap", &[], sockmap::CASES);
    suite("lifecycle", &[], lifecycle::CASES);
    suite("agreement", &[], agreement::CASES);
    suite("any_proxy", &[], any_proxy::CASES);
    suite("any_proxy", &[Need::Envoy], any_proxy::ENVOY_CASES);
    // Two processors, and tests that measure how long something takes to be refused.
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}

/// `app=shop` may reach `app=plain` (`10.50.2.0/24`) on TCP 80 and UDP 53, and of `app=api`
/// (`10.50.3.0/24`) `GET /public/.*` on TCP 80. It is reached by `app=client` (`10.50.4.0/24`):
/// `GET /public/.*` on 8080, all of 8081 and UDP 5353.
const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  egress:
  - toEndpoints: [{matchLabels: {app: plain}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}, {port: '53', protocol: UDP}]
  - toEndpoints: [{matchLabels: {app: api}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: '/public/.*'}]}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '8081', protocol: TCP}, {port: '5353', protocol: UDP}]
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: '/public/.*'}]}
";

const PEERS: &str = "
peers:
- {addresses: [10.50.2.0/24, 'fd50::2:0/112'], labels: {app: plain}}
- {addresses: [10.50.3.0/24, 'fd50::3:0/112'], labels: {app: api}}
- {addresses: [10.50.4.0/24, 'fd50::4:0/112'], labels: {app: client}}
";

/// A configuration of the workload in the cgroup `app`; `more` are further keys of the file.
fn config(host: &Host, redirect: &str, more: &str) -> String {
    config_of(host, "app", redirect, more)
}

/// The same of another cgroup, which is the instance's name, too.
fn config_of(host: &Host, cgroup: &str, redirect: &str, more: &str) -> String {
    format!(
        "workload: {{labels: {{app: shop}}}}\n{PEERS}policy: {{paths: [policy.yaml]}}\n\
         redirect: {{mode: ebpf, cgroup: {}, bpffs: {}, instance: {cgroup}, {redirect}}}\n{more}\n",
        host.cgroup(cgroup).display(),
        host.bpffs.display(),
    )
}

/// A host with servers outside of the workload, and a sidecar.
fn shop(name: &str, redirect: &str, more: &str) -> (Host, Redirected) {
    let mut host = Host::new(name);
    host.serve(None, &SERVERS);
    let _ = host.file("policy.yaml", POLICY);
    let config = config(&host, redirect, &format!("admin: {{listen: off}}\n{more}"));
    let sidecar = host.sidecar("sidecar", &config);
    (host, sidecar)
}

const SERVERS: [&str; 8] = [
    "http@10.50.2.1:80",
    "http@[fd50::2:1]:80",
    "http@10.50.3.1:80",
    "http@[fd50::3:1]:80",
    "udp@10.50.2.1:53",
    "udp@[fd50::2:1]:53",
    "http@10.50.9.1:80",
    "udp@10.50.9.1:53",
];
