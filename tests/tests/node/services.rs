//! Services on two nodes, as [`nodes`](super::nodes) has them: asked for by workloads, and from outside.

use portreeve_tests::node::NEEDS;
use portreeve_tests::{Need, eventually, trial};
use rustix::process::Signal;

use super::nodes::{CLIENT_IS_READ, Nodes, uplink};

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("a_cluster_address_leads_to_backends_and_requests_are_read", &needs, inside),
        trial("a_node_port_is_answered_on_every_node", &needs, outside),
        trial("with_a_local_traffic_policy_only_nodes_with_a_backend_answer", &needs, local),
        trial("services_are_there_while_the_daemon_is_not", &needs, killed),
        trial("services_that_change_are_in_force_and_shown", &needs, changed),
        trial("a_device_that_is_made_anew_answers_again", &needs, anew),
    ]
}

pub(super) const CLUSTER: [&str; 2] = ["10.96.0.10", "[fd96::10]"];
/// The nodes' addresses, the first's and the second's.
pub(super) const ONE: [&str; 2] = ["10.63.9.1", "[fd63:91::1]"];
pub(super) const TWO: [&str; 2] = ["10.63.9.5", "[fd63:92::1]"];

fn inside() {
    let nodes = Nodes::with(&[("services.yaml", SERVICES)]);
    for (address, client) in CLUSTER.into_iter().zip(["10.63.1.2", "fd63:1::2"]) {
        assert_eq!(nodes.net.status("client", address, 80, "/public/a"), "200", "{address}");
        assert_eq!(nodes.net.status("client", address, 80, "/private"), "403", "{address}");
        assert_eq!(nodes.net.body("client", address, 80, "/public/who"), client);
        assert_eq!(nodes.net.status("client", address, 81, "/any"), "200", "{address}");
        assert_eq!(nodes.net.status("desk", address, 80, "/public/a"), "refused", "{address}");
        assert_eq!(nodes.net.status("client", address, 82, "/"), "refused", "nobody answers");
        // An address of the cluster's own is none outside.
        assert_ne!(nodes.net.status("away", address, 81, "/any"), "200", "{address}");
    }
    // The client's own node reads what goes to the backend, too, and answers as the service.
    nodes.one.write("client.yaml", CLIENT_IS_READ);
    eventually("the new policy", || {
        (nodes.net.status("client", CLUSTER[0], 81, "/any") == "refused").then_some(())
    });
    for address in CLUSTER {
        assert_eq!(nodes.net.status("client", address, 80, "/public/out"), "200", "{address}");
        assert_eq!(nodes.net.status("client", address, 80, "/public/in"), "403", "{address}");
        assert_eq!(nodes.net.status("client", address, 80, "/private/out"), "403", "{address}");
    }
}

fn outside() {
    let nodes = Nodes::with(&[("services.yaml", SERVICES)]);
    for (address, away) in TWO.into_iter().zip(["10.63.9.6", "fd63:92::2"]) {
        assert_eq!(nodes.net.status("away", address, 30_080, "/front/a"), "200", "{address}");
        assert_eq!(nodes.net.status("away", address, 30_080, "/back"), "403", "it is read");
        assert_eq!(nodes.net.body("away", address, 30_080, "/front/who"), away);
        // A workload may ask so, too; policy judges it by what it is.
        assert_eq!(nodes.net.status("client", address, 30_080, "/front/a"), "refused");
    }
    for (address, node) in ONE.into_iter().zip(["10.63.9.1", "fd63:91::1"]) {
        for _ in 0..5 {
            assert_eq!(nodes.net.status("away", address, 30_080, "/front/a"), "200", "{address}");
        }
        assert_eq!(nodes.net.status("away", address, 30_080, "/back"), "403", "{address}");
        // The backend is on the other node, and hears of this one.
        assert_eq!(nodes.net.body("away", address, 30_080, "/front/who"), node);
    }
}

fn local() {
    let services =
        SERVICES.replace("externalTrafficPolicy: Cluster", "externalTrafficPolicy: Local");
    let nodes = Nodes::with(&[("services.yaml", &services)]);
    for (one, two) in ONE.into_iter().zip(TWO) {
        assert_eq!(nodes.net.status("away", one, 30_080, "/front/a"), "refused", "{one}");
        assert_eq!(nodes.net.status("away", two, 30_080, "/front/a"), "200", "{two}");
    }
}

fn killed() {
    let mut nodes = Nodes::with(&[("services.yaml", SERVICES)]);
    for _ in 0..2 {
        nodes.one.signal(Signal::KILL);
        nodes.one.wait();
        for address in CLUSTER {
            assert_eq!(nodes.net.status("client", address, 81, "/any"), "200", "{address}");
        }
        assert_eq!(nodes.net.status("away", ONE[0], 30_080, "/front/a"), "200");
        nodes.one.start(&nodes.net);
        assert_eq!(nodes.net.status("client", CLUSTER[0], 81, "/any"), "200");
        assert_eq!(nodes.net.status("away", ONE[0], 30_080, "/front/a"), "200");
    }
}

fn anew() {
    let nodes = Nodes::with(&[("services.yaml", SERVICES)]);
    assert_eq!(nodes.net.status("away", TWO[0], 30_080, "/front/a"), "200");
    nodes.net.ip("two", "link del eth0\n");
    uplink(&nodes.net, "two", 2);
    for address in TWO {
        eventually("the device that is another by now", || {
            (nodes.net.status("away", address, 30_080, "/front/a") == "200").then_some(())
        });
    }
    // So does one that is named, and comes later; until then it is an error.
    let mut nodes = nodes;
    let config = "node: two\nadmin: 'off'\n";
    nodes.two.signal(Signal::TERM);
    nodes.two.wait();
    nodes.net.ip("two", "link del eth0\n");
    nodes.two.configure_kernel("bpffs: bpf, devices: [eth0], addresses: [10.63.9.5]", config);
    nodes.two.start(&nodes.net);
    assert!(nodes.two.text(&["status"]).contains("there is no device `eth0`"));
    uplink(&nodes.net, "two", 2);
    eventually("the device that was missing", || {
        (nodes.net.status("away", TWO[0], 30_080, "/front/a") == "200").then_some(())
    });
    assert!(!nodes.two.text(&["status"]).contains("there is no device"));
}

fn changed() {
    let nodes = Nodes::with(&[("services.yaml", SERVICES)]);
    let rows = nodes.one.rows("lb");
    let is_shown = rows.iter().any(|row| {
        row[..5] == ["default/shop:http", "inside", "10.96.0.10:80", "TCP", "10.63.2.3:8080"]
    });
    assert!(is_shown, "{rows:#?}");
    let shown = nodes.one.text(&["service", "list"]);
    assert!(shown.contains("default/shop"), "{shown}");
    nodes.one.write("services.yaml", &SERVICES.replace("port: 8081}", "port: 9999}"));
    eventually("another backend", || {
        (nodes.net.status("client", CLUSTER[0], 81, "/any") == "refused").then_some(())
    });
    nodes.one.write("services.yaml", SERVICES);
    eventually("the first again", || {
        (nodes.net.status("client", CLUSTER[0], 81, "/any") == "200").then_some(())
    });
    nodes.one.write("services.yaml", "");
    eventually("none", || nodes.one.rows("lb").is_empty().then_some(()));
    assert_ne!(nodes.net.status("client", CLUSTER[0], 81, "/any"), "200");
}

pub(super) const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  clusterIPs: [10.96.0.10, 'fd96::10']
  ports:
  - {name: http, port: 80, protocol: TCP}
  - {name: any, port: 81, protocol: TCP}
  - {name: nobody, port: 82, protocol: TCP}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: default}
spec:
  type: NodePort
  externalTrafficPolicy: Cluster
  clusterIPs: [10.96.0.11, 'fd96::11']
  ports:
  - {name: front, port: 80, nodePort: 30080, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-4, namespace: default, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports:
- {name: http, protocol: TCP, port: 8080}
- {name: any, protocol: TCP, port: 8081}
endpoints:
- {addresses: [10.63.2.3], nodeName: two, conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-6, namespace: default, labels: {kubernetes.io/service-name: shop}}
addressType: IPv6
ports:
- {name: http, protocol: TCP, port: 8080}
- {name: any, protocol: TCP, port: 8081}
endpoints:
- {addresses: ['fd63:2::3'], nodeName: two, conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: front-4, namespace: default, labels: {kubernetes.io/service-name: front}}
addressType: IPv4
ports:
- {name: front, protocol: TCP, port: 8443}
endpoints:
- {addresses: [10.63.2.3], nodeName: two, conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: front-6, namespace: default, labels: {kubernetes.io/service-name: front}}
addressType: IPv6
ports:
- {name: front, protocol: TCP, port: 8443}
endpoints:
- {addresses: ['fd63:2::3'], nodeName: two, conditions: {ready: true}}
";
