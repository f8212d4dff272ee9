//! A Kafka client in one workload, and a broker in another.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use portreeve_tests::kafka::Broker;
use portreeve_tests::node::NEEDS;
use portreeve_tests::{Need, eventually, needed, peers, trial};

use super::routed::Node;

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let kafka = [
        Need::Program("java"),
        Need::Program("python3"),
        Need::Program("ss"),
        Need::Program("nginx"),
        Need::Fetched("kafka", "broker"),
        Need::Fetched("kafka", "python"),
    ];
    let needs = [&NEEDS[..], &kafka].concat();
    vec![
        trial("a_kafka_client_may_use_its_topics_and_is_told_of_others", &needs, || {
            topics("10.60.0.3", "10.60.0.2");
        }),
        trial("a_kafka_client_may_use_its_topics_over_ipv6", &needs, || {
            topics("fd60::3", "fd60::2")
        }),
    ]
}

const SHOP: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '9092', protocol: TCP}]
      rules: {kafka: [{role: produce, topic: rd}, {role: consume, topic: rd}]}
";

fn topics(shop: &str, client_address: &str) {
    let node = Node::new();
    let address: IpAddr = shop.parse().expect("an address");
    let broker = Broker::start_in(&node.net, "shop", address);
    node.daemon.write("shop.yaml", SHOP);
    eventually("the new policy", || {
        (node.status("client", "10.60.0.3", 8081, "/any") == "refused").then_some(())
    });
    let mut client = node.net.inside("client", &needed("python3"));
    client.env("PYTHONPATH", peers::fetched("kafka").join("python"));
    client.arg(peers::sources("kafka").join("clients.py"));
    client.args(["librdkafka", &broker.address.to_string(), "rd", "secret"]);
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        // It is told what it is told through a sidecar.
        let client = scope.spawn(|| peers::assert_printed("kafka", "librdkafka", &mut client));
        while !client.is_finished() {
            seen.extend(clients(&node, broker.address.port()));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(seen, BTreeSet::from([client_address.to_owned()]), "the broker's clients");
}

/// Whom the broker sees.
fn clients(node: &Node, port: u16) -> Vec<String> {
    let mut ss = node.net.inside("shop", &needed("ss"));
    ss.args(["--no-header", "--tcp", "--numeric", "state", "established"]);
    ss.arg(format!("sport = :{port}")).stdout(Stdio::piped());
    let output = ss.output().expect("ss runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let peer = |line: &str| {
        let end = line.split_whitespace().last()?;
        let (address, _) = end.rsplit_once(':')?;
        Some(address.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_owned())
    };
    text.lines().filter_map(peer).collect()
}
