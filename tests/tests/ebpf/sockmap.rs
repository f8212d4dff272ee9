//! Sockets of the workload and of the proxy that are joined.

use portreeve_tests::workload::Host;
use serde_json::{Value, json};

use crate::{POLICY, config};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("small_and_large_bodies_come_back_as_they_were", bodies),
    ("large_bodies_are_not_spliced_from_joined_sockets", large_bodies),
    ("off_nothing_is_joined", off),
];

/// A host with a server that sends bodies back, a sidecar, and how many messages were joined while the
/// workload sent so many bodies of a size.
fn joined(name: &str, sockmap: &str, bodies: &[(usize, usize)]) -> Vec<u64> {
    let mut host = Host::new(name);
    host.serve(None, &["again@10.50.3.1:80"]);
    let _ = host.file("policy.yaml", POLICY);
    let admin = "admin: {listen: '10.50.0.1:15000'}";
    let config = config(&host, &format!("sockmap: {sockmap}"), admin);
    let _sidecar = host.sidecar("sidecar", &config);
    let mut before = 0;
    bodies
        .iter()
        .map(|(count, size)| {
            let said = host.probe("app", &format!("again 10.50.3.1 80 /public/a {count} {size}"));
            assert_eq!((&said["error"], &said["same"]), (&Value::Null, &json!(count)), "{size}");
            let count = counted(&host) - before;
            before += count;
            count
        })
        .collect()
}

fn counted(host: &Host) -> u64 {
    let said = host.probe("free", "tcp 10.50.0.1 15000 /metrics");
    let metrics = said["body"].as_str().unwrap_or_default();
    let name = "portreeve_kernel_messages_joined_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name}in {metrics}"))
}

fn bodies() {
    let counts = joined("joined", "on", &[(500, 100), (50, 50_000)]);
    assert!(counts[0] >= 1000, "a question and an answer each: {counts:?}");
    assert!(counts[1] >= 100, "{counts:?}");
}

fn large_bodies() {
    let counts = joined("large", "auto", &[(5, 20_000_000)]);
    assert!(counts[0] > 0, "{counts:?}");
}

fn off() {
    assert_eq!(joined("off", "off", &[(100, 100), (1, 20_000_000)]), [0, 0]);
}
