//! The file as users get it right and wrong.

use std::path::Path;

use portreeve_policy::TrafficDirection;

use super::read::parse;
use super::{EXAMPLE, from_file};
use crate::redirect::ServiceConfig;

fn error(text: &str) -> String {
    match parse("sidecar.yaml", text) {
        Err(error) => error.to_string(),
        Ok(file) => match from_file(&file, Path::new("sidecar.yaml")) {
            Err(failure) => failure.message,
            Ok(_) => panic!("no error in {text}"),
        },
    }
}

#[test]
fn the_example_is_a_valid_file_with_the_defaults_it_claims() {
    let file = parse("example.yaml", EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
    let config = from_file(&file, Path::new("/etc/portreeve/example.yaml"))
        .unwrap_or_else(|failure| panic!("{}", failure.message));
    assert_eq!(config.proxy.limits, portreeve_core::Limits::default());
    assert!(config.redirect.is_none());
    let paths = config.proxy.policy.files().map(|files| files.paths.as_slice());
    assert_eq!(paths, Some(&[Path::new("/etc/portreeve/policies/").to_owned()][..]));
}

const MINIMAL: &str = "workload: {labels: {app: shop}}\npolicy: {paths: [p.yaml]}\n";

#[test]
fn a_minimal_file_is_enough() {
    let text = format!("{MINIMAL}inbound: [{{listen: '127.0.0.1:0', upstream: '127.0.0.1:80'}}]\n");
    let file = parse("sidecar.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
    assert!(from_file(&file, Path::new("sidecar.yaml")).is_ok());
}

#[test]
fn errors_say_where_and_what_is_wrong() {
    for (addition, expected) in [
        ("inbund: []\n", "sidecar.yaml:3:1: unknown field `inbund`"),
        ("limits: {header_timeout: 10}\n", "`10` is not a time"),
        ("limits: {header_timeout: 0s}\n", "a time of zero"),
        (
            "peers: [{addresses: [10.0.0.0/33], labels: {}}]\n",
            "`10.0.0.0/33` is not an address or a prefix",
        ),
        ("inbound: [{listen: '127.0.0.1:1'}]\n", "`inbound[0].upstream`: is missing"),
        ("inbound: [{listen: 'here', upstream: '127.0.0.1:1'}]\n", "sidecar.yaml:3:20: "),
        ("", "nothing to listen on"),
        ("redirect: {mode: ebpf}\n", "`redirect.cgroup`: is missing"),
        ("redirect: {mode: tproxy}\n", "sidecar.yaml:3:18: "),
        ("redirect: {mode: ebpf, cgroup: /c, instance: a/b}\n", "`redirect.instance`: `a/b`"),
        (
            "redirect: {mode: ebpf, cgroup: /c, outbound_listen: ['0.0.0.0:1']}\n",
            "`redirect.outbound_listen`: `0.0.0.0:1`",
        ),
        (
            "redirect: {mode: ebpf, cgroup: /c, inbound_listen: ['127.0.0.1:1', '127.0.0.1:2']}\n",
            "at most one address for each address family",
        ),
        (
            "redirect: {mode: ebpf, cgroup: /c, capacity: {events: 100}}\n",
            "`redirect.capacity.events`: `100` is not a power of two",
        ),
        (
            "services: [{name: a, addresses: [], ports: [{port: 1}]}]\n",
            "`services[0].addresses`: name at least one",
        ),
        (
            "services: [{name: a, addresses: [10.0.0.1], ports: [{port: 1}], backends: [{address: db}]}]\n",
            "`services[0].backends[0].address`: `db` is not an address",
        ),
        (
            "services: [{name: a, addresses: [10.0.0.1], ports: [{port: 1}, {port: 1}]}]\n",
            "both have the frontend `10.0.0.1:1`",
        ),
    ] {
        let shown = error(&format!("{MINIMAL}{addition}"));
        assert!(shown.contains(expected), "{addition}\n{shown}");
    }
}

fn good(addition: &str) -> super::RunConfig {
    let file = parse("sidecar.yaml", &format!("{MINIMAL}{addition}"));
    let file = file.unwrap_or_else(|error| panic!("{error}"));
    from_file(&file, Path::new("sidecar.yaml"))
        .unwrap_or_else(|failure| panic!("{}", failure.message))
}

#[test]
fn a_redirection_brings_its_own_listeners() {
    let run = good("redirect: {mode: ebpf, cgroup: /sys/fs/cgroup/shop}\n");
    let listeners: Vec<_> = run
        .proxy
        .listeners
        .iter()
        .map(|l| (l.name.as_str(), l.listen.to_string(), l.direction))
        .collect();
    let (ingress, egress) = (TrafficDirection::Ingress, TrafficDirection::Egress);
    assert_eq!(
        listeners,
        [
            ("outbound", "127.0.0.1:15001".to_owned(), egress),
            ("outbound-ipv6", "[::1]:15001".to_owned(), egress),
            ("inbound", "127.0.0.1:15006".to_owned(), ingress),
            ("inbound-ipv6", "[::1]:15006".to_owned(), ingress),
        ]
    );
    let redirect = run.redirect.expect("a redirection");
    assert_eq!(redirect.only_with_ipv6, ["outbound-ipv6", "inbound-ipv6"]);
    let settings = redirect.settings;
    assert!(settings.instance.as_str().contains("shop-"), "{}", settings.instance);
    assert!(settings.inbound && !settings.loopback_is_own && !settings.other_sockets);

    let run = good(
        "redirect: {mode: ebpf, cgroup: /c, instance: one, outbound_listen: ['[::1]:9'], inbound: false, \
         loopback: own, other_sockets: allow, events: all, sockmap: on, capacity: {policy: 7}}\n",
    );
    assert_eq!(run.proxy.listeners.len(), 1);
    let redirect = run.redirect.expect("a redirection");
    assert!(redirect.only_with_ipv6.is_empty(), "it was asked for");
    let settings = redirect.settings;
    assert_eq!((settings.instance.as_str(), settings.capacity.policy), ("one", 7));
    assert!(settings.loopback_is_own && settings.other_sockets);
    assert!(settings.tell_redirects && settings.join_sockets && !settings.inbound);
    assert!(!redirect.join_if_possible);

    let run = good("redirect: {mode: ebpf, cgroup: /c, sockmap: auto, capacity: {joined: 4}}\n");
    let redirect = run.redirect.expect("a redirection");
    assert!(redirect.join_if_possible && !redirect.settings.join_sockets, "not before it is tried");
    assert_eq!(redirect.settings.capacity.joined, 4);
}

#[test]
fn services_are_read_with_what_is_usual() {
    let run = good(
        "redirect: {mode: ebpf, cgroup: /c}\n\
         services:\n\
         - name: db\n\
         \x20 labels: {app: db}\n\
         \x20 addresses: [10.96.0.10, 'fd00::10']\n\
         \x20 ports: [{port: 5432}, {port: 53, protocol: UDP, target_port: 5353}]\n\
         \x20 backends: [{address: 10.0.0.5}, {address: '10.0.0.6:99', weight: 3, draining: true}]\n\
         \x20 session_affinity: 3h\n",
    );
    let [tcp, udp] = &run.services[..] else { panic!("{:?}", run.services) };
    assert_eq!(tcp.namespace, "default");
    assert_eq!(tcp.frontends.len(), 2);
    assert_eq!(tcp.affinity, Some(std::time::Duration::from_secs(3 * 3600)));
    let backends = |service: &ServiceConfig| -> Vec<_> {
        let shown = service.backends.iter().map(|b| (b.address.to_string(), b.weight, b.draining));
        shown.collect()
    };
    let drained = ("10.0.0.6:99".to_owned(), 3, true);
    assert_eq!(backends(tcp), [("10.0.0.5:5432".to_owned(), 1, false), drained.clone()]);
    assert_eq!(backends(udp), [("10.0.0.5:5353".to_owned(), 1, false), drained]);
    assert_eq!(run.proxy.services.len(), 1, "policy knows it by one name");
}

/// `docs/configuration.md` carries the example; set `UPDATE_EXPECTED=1` to write it anew.
#[test]
fn the_documentation_carries_the_example() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = format!(
        "# Configuration\n\n\
         `portreeve run --config sidecar.yaml` reads this file; `portreeve config example` prints it, \
         and `portreeve config check sidecar.yaml` checks one together with the policy it names. Every \
         key that has a default may be left out. An unknown key is an error. Relative paths begin at \
         the file's own folder.\n\n\
         `portreeve run --help` lists the flags that do the same without a file.\n\n```yaml\n{EXAMPLE}```\n"
    );
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &expected).unwrap_or_else(|error| panic!("{error}"));
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "run `UPDATE_EXPECTED=1 cargo test -p portreeve`");
}
