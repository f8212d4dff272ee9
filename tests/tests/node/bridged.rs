//! The bridged flavour: the workloads' cables end in a bridge of the node, and what they send to each other does
//! not pass its routes.

use std::time::Instant;

use portreeve_tests::node::NEEDS;
use portreeve_tests::{Need, eventually, trial};
use rustix::process::Signal;

use super::routed::Node;

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("on_a_bridge_what_needs_no_reading_is_allowed_or_refused", &needs, straight),
        trial("on_a_bridge_who_is_refused_is_told_at_once", &needs, told),
        trial("on_a_bridge_requests_are_read_where_they_come_to", &needs, read_where_they_come_to),
        trial("on_a_bridge_requests_are_read_that_leave_it", &needs, leaving),
        trial("on_a_bridge_requests_are_read_at_their_source", &needs, read_at_their_source),
        trial("the_node_itself_may_what_policy_allows_the_host", &needs, host),
    ]
}

fn straight() {
    let node = Node::bridged();
    for shop in ["10.60.0.3", "[fd60::3]"] {
        assert_eq!(node.status("client", shop, 8081, "/any"), "200", "{shop}");
        assert_eq!(node.status("client", shop, 9999, "/any"), "refused", "{shop}");
        assert_eq!(node.status("away", shop, 8081, "/any"), "refused", "{shop}");
    }
    for away in ["10.61.0.9", "[fd61::9]"] {
        assert_eq!(node.status("client", away, 8081, "/out/a"), "refused", "{away}");
    }
}

fn told() {
    let node = Node::bridged();
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
        assert_eq!(node.status("client", "[fd60::3]", 9999, "/"), "refused");
    }
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

fn host() {
    let mut node = Node::bridged();
    let shops = ["10.60.0.3", "[fd60::3]"];
    let may = |node: &Node, path: &str| shops.map(|shop| node.status("node", shop, 8080, path));
    assert_eq!(may(&node, "/host/a"), ["refused"; 2]);
    node.daemon.write("host.yaml", HOST);
    eventually("the host's policy", || (may(&node, "/host/a") == ["200"; 2]).then_some(()));
    assert_eq!(may(&node, "/private"), ["403"; 2]);
    node.daemon.write("host.yaml", &HOST.replace("[host]", "[world]"));
    eventually("the world's", || (may(&node, "/host/a") == ["refused"; 2]).then_some(()));
    assert_eq!(shops.map(|shop| node.status("away", shop, 8080, "/host/a")), ["200"; 2]);
    // An address that comes later is the node's as well.
    node.daemon.write("host.yaml", HOST);
    node.net.ip("node", "addr del 10.60.0.1/24 dev br0\naddr add 10.60.0.9/24 dev br0\n");
    eventually("the new address", || (may(&node, "/host/a") == ["200"; 2]).then_some(()));
    // And without policy about it, if the configuration says so.
    node.daemon.write("host.yaml", "");
    node.daemon.signal(Signal::TERM);
    node.daemon.wait();
    node.daemon.configure("policy: {allow_localhost: true}");
    node.daemon.start(&node.net);
    eventually("the configuration", || (may(&node, "/private") == ["200"; 2]).then_some(()));
}

const HOST: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: host, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEntities: [host]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: '/host/.*'}]}
";

fn leaving() {
    let node = Node::bridged();
    for (away, client) in [("10.61.0.9", "10.60.0.2"), ("[fd61::9]", "fd60::2")] {
        assert_eq!(node.status("client", away, 8080, "/out/a"), "200", "{away}");
        assert_eq!(node.status("client", away, 8080, "/in/a"), "403", "{away}");
        assert_eq!(node.net.body("client", away, 8080, "/out/who"), client);
    }
}

/// What the client's own policy wants read, and the shop's allows unread.
pub(super) const READ_AT_ITS_SOURCE: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: shop}}]
    toPorts:
    - ports: [{port: '8081', protocol: TCP}]
      rules: {http: [{method: GET, path: '/out/.*'}]}
";

fn read_at_their_source() {
    let node = Node::bridged();
    node.daemon.write("client.yaml", READ_AT_ITS_SOURCE);
    eventually("the new policy", || {
        (node.status("client", "10.60.0.3", 8080, "/public/a") == "refused").then_some(())
    });
    for (shop, client) in [("10.60.0.3", "10.60.0.2"), ("[fd60::3]", "fd60::2")] {
        assert_eq!(node.status("client", shop, 8081, "/in/a"), "403", "{shop}");
        assert_eq!(node.status("client", shop, 8081, "/out/a"), "200", "{shop}");
        assert_eq!(node.net.body("client", shop, 8081, "/out/who"), client);
    }
}

fn read_where_they_come_to() {
    let node = Node::bridged();
    for (shop, client) in [("10.60.0.3", "10.60.0.2"), ("[fd60::3]", "fd60::2")] {
        assert_eq!(node.status("client", shop, 8080, "/public/a"), "200", "{shop}");
        assert_eq!(node.status("client", shop, 8080, "/private"), "403", "{shop}");
        assert_eq!(node.net.body("client", shop, 8080, "/public/who"), client);
    }
}
