//! The routed flavour: each workload has one cable to the node, which routes, and knows neither of policy nor
//! of a proxy.
//!
//! ```text
//!  client 10.60.0.2 fd60::2 ──veth── pcl ┐
//!  shop   10.60.0.3 fd60::3 ──veth── psh ├─ node: portreeve-node
//!  away   10.61.0.9 fd61::9 ──veth── paw ┘  (another host; its cable is not judged)
//! ```

use std::process::{Command, Stdio};
use std::time::Instant;

use portreeve_tests::node::NEEDS;
use portreeve_tests::node::daemon::Daemon;
use portreeve_tests::node::net::{Net, succeed};
use portreeve_tests::sidecar::node_binary;
use portreeve_tests::{Need, eventually, needed, trial};
use rustix::process::Signal;

pub(super) fn trials() -> Vec<libtest_mimic::Trial> {
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    vec![
        trial("workloads_may_do_what_both_their_policies_allow", &needs, allowed),
        trial("who_is_refused_is_told_at_once", &needs, told),
        trial("the_tables_show_what_is_in_force", &needs, tables),
        trial("a_host_that_drops_what_is_led_to_the_proxy_is_said", &needs, strict),
        trial("ways_to_the_proxy_that_somebody_takes_away_are_made_anew", &needs, lost_ways),
        trial("a_policy_that_changes_is_in_force_for_the_next_request", &needs, changed),
        trial("one_who_comes_again_under_the_same_interface_is_judged_again", &needs, comes_again),
        trial(
            "what_changes_while_the_daemon_is_away_is_in_force_for_open_connections",
            &needs,
            away,
        ),
        trial("killed_and_started_again_it_takes_over_and_lets_nothing_in", &needs, killed),
        trial("a_workload_is_found_by_its_network_namespace", &needs, by_namespace),
        trial("two_who_change_places_are_both_attached", &needs, places),
        trial("after_an_orderly_end_what_needs_reading_is_refused", &needs, ended),
        trial("what_is_detached_judges_nothing_and_can_be_set_up_again", &needs, detached),
        trial("detaching_elsewhere_leaves_a_running_daemon_its_device", &needs, elsewhere),
    ]
}

fn allowed() {
    let node = Node::new();
    for shop in ["10.60.0.3", "[fd60::3]"] {
        assert_eq!(node.status("client", shop, 8080, "/public/a"), "200", "{shop}");
        assert_eq!(node.status("client", shop, 8080, "/private"), "403", "{shop}");
        assert_eq!(node.status("client", shop, 8081, "/any"), "200", "{shop}");
        assert_eq!(node.status("away", shop, 8081, "/any"), "refused", "{shop}");
    }
    for (away, client) in [("10.61.0.9", "10.60.0.2"), ("[fd61::9]", "fd60::2")] {
        assert_eq!(node.status("client", away, 8080, "/out/a"), "200", "{away}");
        assert_eq!(node.status("client", away, 8080, "/in/a"), "403", "{away}");
        assert_eq!(node.status("client", away, 8081, "/out/a"), "refused", "{away}");
        // The server sees whom it talks to, past the proxy.
        assert_eq!(node.net.body("client", away, 8080, "/out/who"), client);
    }
    assert_eq!(node.net.body("client", "10.60.0.3", 8080, "/public/who"), "10.60.0.2");
}

fn told() {
    let node = Node::new();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
        assert_eq!(node.status("client", "[fd60::3]", 9999, "/"), "refused");
    }
    // A SYN that nobody answers is sent again after a second.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    let metrics = node.daemon.rows("metrics");
    assert!(metrics.iter().any(|row| row[0] == "policy" && row[1] == "ingress"));
}

fn tables() {
    let node = Node::new();
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    let status = node.daemon.json(&["status"]);
    assert_eq!(status["datapath"], "ebpf", "{status}");
    let endpoints = node.daemon.json(&["endpoint", "list"]);
    let endpoints = endpoints.as_array().expect("a list");
    assert_eq!(endpoints.len(), 2, "{endpoints:?}");
    let rows = node.daemon.rows("ct");
    let found = rows.iter().any(|row| row[3] == "10.60.0.3:8081" && row[1] == "ingress");
    assert!(found, "{rows:?}");
    let rows = node.daemon.rows("ipcache");
    assert!(rows.iter().any(|row| row[0] == "10.60.0.2/32"), "{rows:?}");
    // Who may do what, as the kernel's maps have it.
    let of = |name: &str, field: &str| {
        let found = endpoints.iter().find(|endpoint| endpoint["name"] == name);
        found.expect("it is there")[field].as_u64().expect("a number").to_string()
    };
    let listed = |arguments: &[&str]| -> Vec<Vec<String>> {
        let listing = node.daemon.json(&[&["bpf", "policy", "list"], arguments].concat());
        serde_json::from_value(listing["rows"].clone()).expect("rows")
    };
    let rows = listed(&["--endpoint", "shop"]);
    let (shop, client) = (of("default/shop", "id"), of("default/client", "identity"));
    assert!(rows.iter().all(|row| row[0] == shop), "{rows:?}");
    for (port, verdict, rule) in
        [("8080", "inspect", "toPorts[0]"), ("8081", "allow", "toPorts[1]")]
    {
        let is_it = |row: &&Vec<String>| {
            row[1..6] == ["ingress", &client, port, "TCP", verdict] && row[7].ends_with(rule)
        };
        assert_eq!(rows.iter().filter(is_it).count(), 1, "{port} in {rows:?}");
    }
    assert!(listed(&[]).iter().any(|row| row[0] != shop));
    let text = node.daemon.text(&["bpf", "policy", "list", "--limit", "1"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains(" more: `--limit`")), "{text}");
    let ct = node.daemon.json(&["bpf", "ct", "list", "--limit", "1", "--endpoint", "shop"]);
    assert_eq!(ct["rows"].as_array().map(Vec::len), Some(1), "{ct}");
    assert_eq!(ct["rows"][0][0], *shop, "{ct}");
    assert!(node.daemon.text(&["bpf", "lb", "list", "--endpoint", "shop"]).is_empty());
}

fn strict() {
    let node = Node::new();
    let set = |value| node.net.set("node", "net/ipv4/conf/all/rp_filter", value);
    set("1");
    let said = node.daemon.text(&["status"]);
    assert!(said.contains("error: `net.ipv4.conf.all.rp_filter` is 1"), "{said}");
    assert!(said.contains("\n  hint: `sysctl -w net.ipv4.conf.all.rp_filter=2`"), "{said}");
    set("2");
    assert!(!node.daemon.text(&["status"]).contains("rp_filter"));
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
}

fn lost_ways() {
    let node = Node::new();
    let served = || node.status("client", "10.60.0.3", 8080, "/public/a") == "200";
    assert!(served());
    for taken in ["rule del fwmark 0x50520001", "link del portreeve0"] {
        node.net.ip("node", taken);
        eventually("the ways", || served().then_some(()));
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403", "{taken}");
    }
}

fn changed() {
    let node = Node::new();
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    node.daemon.write("shop.yaml", &SHOP.replace("8081", "8082"));
    eventually("the new policy", || {
        (node.status("client", "10.60.0.3", 8081, "/any") == "refused").then_some(())
    });
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    // A broken one changes nothing, and is shown.
    node.daemon
        .write("shop.yaml", "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nspec: {]\n");
    eventually("the error", || node.daemon.text(&["status"]).contains("shop.yaml").then_some(()));
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
}

fn comes_again() {
    let node = Node::new();
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    for _ in 0..2 {
        node.net.ip("node", "link del psh\n");
        eventually("the loss", || {
            node.daemon.text(&["status"]).contains("there is no interface `psh`").then_some(())
        });
        node.net.routed("node", "psh", "shop", "10.60.0.3", "fd60::3");
        eventually("the interface", || node.daemon.is_settled().then_some(()));
        for shop in ["10.60.0.3", "[fd60::3]"] {
            assert_eq!(node.status("client", shop, 8081, "/any"), "200", "{shop}");
            assert_eq!(node.status("client", shop, 8080, "/private"), "403", "{shop}");
            assert_eq!(node.status("away", shop, 8081, "/any"), "refused", "{shop}");
        }
    }
}

fn away() {
    let mut node = Node::new();
    let mut curl = node.net.inside("client", &needed("curl"));
    // Two requests on one connection, the second one after the daemon has come back.
    curl.args(["--silent", "--max-time", "20", "--rate", "12/m", "--output", "/dev/null"]);
    curl.args(["--write-out", "%{http_code} %{num_connects}\n"]);
    curl.args(["http://10.60.0.3:8081/a", "--output", "/dev/null", "http://10.60.0.3:8081/b"]);
    let curl = curl.stdout(Stdio::piped()).spawn().expect("curl runs");
    eventually("the first request", || {
        node.daemon.rows("ct").iter().any(|row| row[3] == "10.60.0.3:8081").then_some(())
    });
    node.daemon.signal(Signal::KILL);
    node.daemon.wait();
    node.daemon.write("shop.yaml", &SHOP.replace("8081", "8082"));
    node.daemon.start(&node.net);
    let said = curl.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("200 1\n000"), "{said}");
}

fn killed() {
    let mut node = Node::new();
    for _ in 0..3 {
        node.daemon.signal(Signal::KILL);
        node.daemon.wait();
        // The kernel goes on by itself; what has to be read waits for who reads it.
        assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
        assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "refused");
        node.daemon.start(&node.net);
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    }
}

fn by_namespace() {
    let node = Node::new();
    let place = node.net.path("shop");
    let shop = format!("netns: {}", place.display());
    node.daemon.write("workloads.yaml", &WORKLOADS.replace("interface: psh", &shop));
    eventually("it is attached by that", || {
        let shown = node.daemon.text(&["endpoint", "list"]);
        (shown.contains("netns:") && node.daemon.is_settled()).then_some(())
    });
    for shop in ["10.60.0.3", "[fd60::3]"] {
        assert_eq!(node.status("client", shop, 8080, "/public/a"), "200", "{shop}");
        assert_eq!(node.status("client", shop, 8080, "/private"), "403", "{shop}");
        assert_eq!(node.status("client", shop, 9999, "/"), "refused", "{shop}");
    }
}

fn places() {
    let node = Node::new();
    let attached = |pairs: &[(&str, &str)]| {
        let rows = node.daemon.json(&["endpoint", "list"]);
        let is_at = |(name, at): &(&str, &str)| {
            let mut rows = rows.as_array().expect("a list").iter();
            rows.any(|row| {
                row["name"] == *name && row["attachment"] == *at && row["error"].is_null()
            })
        };
        (node.daemon.is_settled() && pairs.iter().all(is_at)).then_some(())
    };
    let swapped = WORKLOADS.replace("psh", "third").replace("pcl", "psh").replace("third", "pcl");
    node.daemon.write("workloads.yaml", &swapped);
    eventually("the other way round", || {
        attached(&[("default/client", "psh"), ("default/shop", "pcl")])
    });
    // Neither has the addresses of the other.
    assert_ne!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    node.daemon.write("workloads.yaml", WORKLOADS);
    eventually("as it was", || attached(&[("default/client", "pcl"), ("default/shop", "psh")]));
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    assert_eq!(node.status("away", "10.60.0.3", 8081, "/any"), "refused");
    // One of them is named twice, by other words.
    let shop = node.net.path("shop");
    let also = format!(
        "---\napiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {{name: also}}\nspec: \
         {{addresses: [10.60.0.9], netns: {}}}\n",
        shop.display()
    );
    node.daemon.write("also.yaml", &also);
    eventually("the conflict", || {
        node.daemon.text(&["status"]).contains("and so is").then_some(())
    });
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    assert_eq!(node.status("away", "10.60.0.3", 8081, "/any"), "refused");
}

fn ended() {
    let mut node = Node::new();
    node.daemon.signal(Signal::TERM);
    let ended = node.daemon.wait();
    assert!(ended.success(), "{ended}: {}", node.daemon.messages());
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "refused");
    assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
}

/// What `portreeve-node detach` ends with, and says.
pub(super) fn detach_from(node: &Node, bpffs: &str, instance: &str) -> (Option<i32>, String) {
    let mut detach = node.net.inside("node", node_binary());
    detach.args(["detach", "--instance", instance, "--bpffs"]).arg(node.daemon.path(bpffs));
    let output = detach.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.expect("it runs");
    let [said, error] = [output.stdout, output.stderr].map(String::from_utf8);
    (output.status.code(), said.expect("text") + &error.expect("text"))
}

fn elsewhere() {
    let node = Node::new();
    let other = node.daemon.path("other");
    std::fs::create_dir(&other).expect("a folder");
    succeed(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&other));
    let (code, said) = detach_from(&node, "other", "node");
    let _ = Command::new("umount").arg("--lazy").arg(&other).status();
    assert!(code == Some(0) && said.starts_with("nothing is set up"), "{said}");
    let stays = "`portreeve0` stays: an instance that is pinned elsewhere uses it";
    assert!(said.contains(stays), "{said}");
    // What needs the device is still led to the proxy.
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
}

fn detached() {
    let mut node = Node::new();
    let detach = |node: &Node| detach_from(node, "bpf", "node");
    let (code, said) = detach(&node);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("process {}", node.daemon.pid())), "{said}");
    // A second daemon is told what to change.
    let mut second = node.net.inside("node", node_binary());
    std::fs::create_dir(node.daemon.path("second")).expect("a folder");
    let config =
        "objects: ../objects/\nstate: state/\nsocket: node.sock\nkernel: {bpffs: ../bpf}\n";
    let file = node.daemon.path("second/node.yaml");
    std::fs::write(&file, config).expect("a file");
    second.args(["run", "--config"]).arg(&file);
    let output = second.stderr(Stdio::piped()).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("instance `node` is in use by process"), "{error}");
    assert!(error.contains("`kernel.instance`"), "{error}");

    node.daemon.signal(Signal::TERM);
    node.daemon.wait();
    assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
    let (code, said) = detach(&node);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("node: ") && said.contains("`portreeve0`"), "{said}");
    assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "200");
    let (code, said) = detach(&node);
    assert!(code == Some(0) && said.starts_with("nothing is set up"), "{said}");
    node.daemon.start(&node.net);
    assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
}

/// What there is on the node.
pub(super) const WORKLOADS: &str = "
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: client, namespace: default, labels: {app: client}}
spec: {addresses: [10.60.0.2, 'fd60::2'], interface: pcl}
---
apiVersion: portreeve.dev/v1alpha1
kind: Workload
metadata: {name: shop, namespace: default, labels: {app: shop}}
spec: {addresses: [10.60.0.3, 'fd60::3'], interface: psh}
";

pub(super) const SHOP: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: '/public/.*'}]}
    - ports: [{port: '8081', protocol: TCP}]
";

const CLIENT: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: shop}}]
  - toCIDR: [10.61.0.0/16, 'fd61::/16']
    toPorts:
    - ports: [{port: '8080', protocol: TCP}]
      rules: {http: [{method: GET, path: '/out/.*'}]}
";

/// The node's namespace with its daemon, and the workloads' namespaces.
pub(super) struct Node {
    pub(super) daemon: Daemon,
    pub(super) net: Net,
}

impl Node {
    /// Each workload has a cable to the node, which routes.
    pub(super) fn new() -> Self {
        let net = Net::new(&["node", "client", "shop", "away"]);
        net.routed("node", "pcl", "client", "10.60.0.2", "fd60::2");
        net.routed("node", "psh", "shop", "10.60.0.3", "fd60::3");
        Self::with(net)
    }

    /// The workloads' cables end in a bridge of the node.
    pub(super) fn bridged() -> Self {
        let net = Net::new(&["node", "client", "shop", "away"]);
        net.bridge("node", "10.60.0", "fd60:");
        net.bridged("node", "pcl", "client", ("10.60.0", "fd60:"), 2);
        net.bridged("node", "psh", "shop", ("10.60.0", "fd60:"), 3);
        Self::with(net)
    }

    /// With a host elsewhere, servers, and a daemon.
    fn with(mut net: Net) -> Self {
        net.forward("node");
        net.routed("node", "paw", "away", "10.61.0.9", "fd61::9");
        let mut daemon = Daemon::new("node", "");
        for place in ["shop", "away"] {
            net.nginx(place, daemon.folder(), &[8080, 8081, 9999]);
        }
        daemon.write("workloads.yaml", WORKLOADS);
        daemon.write("shop.yaml", SHOP);
        daemon.write("client.yaml", CLIENT);
        daemon.start(&net);
        Self { daemon, net }
    }

    pub(super) fn status(&self, from: &str, server: &str, port: u16, path: &str) -> String {
        self.net.status(from, server, port, path)
    }
}
