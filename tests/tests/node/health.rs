//! Backends that are asked whether they are well, and load balancers that ask a node whether it has any, on
//! the nodes of [`services`](super::services).

use portreeve_tests::node::NEEDS;
use portreeve_tests::node::daemon::Daemon;
use portreeve_tests::{Need, eventually, trial};
use rustix::process::Signal;

use super::nodes::Nodes;
use super::services::{ONE, SERVICES, TWO};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("a_backend_that_does_not_answer_gets_nobody", &needs, asked),
        trial("load_balancers_are_told_which_nodes_have_backends", &needs, told),
    ]
}

fn asked() {
    let mut nodes = Nodes::with(&[("asked.yaml", ASKED)]);
    nodes.two.write("one.yaml", NODE_ONE);
    backend(&nodes.one, "10.63.1.4:8081 (unhealthy, here: connection refused)");
    backend(&nodes.one, "10.63.2.3:8081 (ready)");
    for _ in 0..20 {
        assert_eq!(nodes.net.status("client", "10.96.0.12", 80, "/any"), "200");
    }
    let folder = tempfile::tempdir().expect("a folder");
    nodes.net.nginx("desk", folder.path(), &[8081]);
    backend(&nodes.one, "10.63.1.4:8081 (ready, here)");
    // When nobody answers as they are to, the question may be wrong: all of them are used.
    let other = "interval: 1s, portreeve.dev/health-check-port: '9'";
    nodes.one.write("asked.yaml", &ASKED.replace("interval: 1s", other));
    backend(&nodes.one, "10.63.1.4:8081 (unhealthy, here: connection refused)");
    backend(&nodes.one, "10.63.2.3:8081 (unhealthy: connection refused)");
    for _ in 0..20 {
        assert_eq!(nodes.net.status("client", "10.96.0.12", 80, "/any"), "200");
    }
}

/// A backend is what it is to be.
fn backend(node: &Daemon, expected: &str) {
    eventually(expected, || {
        let rows = node.json(&["service", "list"]);
        let backends = rows[0]["backends"].as_array().cloned().unwrap_or_default();
        (backends.iter().any(|backend| backend == expected) && rows[0]["realised"] == true)
            .then_some(())
    });
}

fn told() {
    let local = "externalTrafficPolicy: Local\n  healthCheckNodePort: 32100";
    let services = SERVICES.replace("externalTrafficPolicy: Cluster", local);
    let mut nodes = Nodes::with(&[("services.yaml", &services)]);
    for (one, two) in ONE.into_iter().zip(TWO) {
        assert_eq!(nodes.net.status("away", one, 32_100, "/"), "503", "{one}");
        assert_eq!(nodes.net.status("away", two, 32_100, "/healthz"), "200", "{two}");
    }
    let shown = "\"service\":{\"name\":\"front\",\"namespace\":\"default\"}";
    let body = nodes.net.body("away", TWO[0], 32_100, "/");
    assert!(body.contains("\"localEndpoints\":2") && body.contains(shown), "{body}");
    nodes.two.write("services.yaml", &services.replace("ready: true", "ready: false"));
    eventually("no backend", || {
        (nodes.net.status("away", TWO[0], 32_100, "/") == "503").then_some(())
    });
    nodes.two.signal(Signal::TERM);
    nodes.two.wait();
    assert_eq!(nodes.net.status("away", TWO[0], 32_100, "/"), "refused");
}

/// The shop, and the desk, where nobody serves at first.
const ASKED: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: default
  annotations: {portreeve.dev/health-check: tcp, portreeve.dev/health-check-interval: 1s}
spec: {clusterIP: 10.96.0.12, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8081}]
endpoints:
- {addresses: [10.63.1.4], nodeName: one}
- {addresses: [10.63.2.3], nodeName: two}
";

/// The shop's node lets the other node ask.
const NODE_ONE: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: one, namespace: default, labels: {'reserved:remote-node': ''}}
spec: {addresses: [10.63.9.1]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: asked, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress: [{fromEntities: [remote-node]}]
";
