//! A miniature node: `portreeve-node` in a network namespace, workloads in others, and a host outside. Each
//! workload has one cable to the node, and knows neither of policy nor of a proxy.
//!
//! ```text
//!  client 10.60.0.2 fd60::2 ──veth── pcl ┐
//!  shop   10.60.0.3 fd60::3 ──veth── psh ├─ node: portreeve-node
//!  away   10.61.0.9 fd61::9 ──veth── paw ┘  (another host; its cable is not judged)
//! ```

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portreeve_tests::sidecar::node_binary;
use portreeve_tests::{Need, eventually, needed, trial};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let needs = [
        Need::Root,
        Need::Namespaces,
        Need::KernelPrograms,
        Need::Program("ip"),
        Need::Program("nsenter"),
        Need::Program("curl"),
        Need::Program("nginx"),
    ];
    let tests = vec![
        trial("workloads_may_do_what_both_their_policies_allow", &needs, allowed),
        trial("who_is_refused_is_told_at_once", &needs, told),
        trial("the_tables_show_what_is_in_force", &needs, tables),
        trial("a_policy_that_changes_is_in_force_for_the_next_request", &needs, changed),
        trial("killed_and_started_again_it_takes_over_and_lets_nothing_in", &needs, killed),
        trial("after_an_orderly_end_what_needs_reading_is_refused", &needs, ended),
    ];
    // The addresses are the same in every node.
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
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
        assert_eq!(node.body("client", away, 8080, "/out/who"), client);
    }
    assert_eq!(node.body("client", "10.60.0.3", 8080, "/public/who"), "10.60.0.2");
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
    let metrics = node.rows("metrics");
    assert!(metrics.iter().any(|row| row[0] == "policy_denied" && row[1] == "ingress"));
}

fn tables() {
    let node = Node::new();
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    let status = node.ask(&["status", "--output", "json"]);
    assert_eq!(status["datapath"], "ebpf", "{status}");
    let endpoints = node.ask(&["endpoint", "list", "--output", "json"]);
    let endpoints = endpoints.as_array().expect("a list");
    assert_eq!(endpoints.len(), 2, "{endpoints:?}");
    let rows = node.rows("ct");
    let found = rows.iter().any(|row| row[3] == "10.60.0.3:8081" && row[1] == "ingress");
    assert!(found, "{rows:?}");
    let rows = node.rows("ipcache");
    assert!(rows.iter().any(|row| row[0] == "10.60.0.2/32"), "{rows:?}");
    // The kernel has the revision that the daemon says is in force.
    let in_force = |endpoint: &Value| {
        [&endpoint["id"], &endpoint["realised"]].map(|number| number.as_u64().expect("a number"))
    };
    let in_force: Vec<_> = endpoints.iter().map(in_force).collect();
    let rows = node.rows("policy");
    let shown: Vec<[u64; 2]> =
        rows.iter().map(|row| [0, 1].map(|at: usize| row[at].parse().expect("a number"))).collect();
    assert_eq!(shown, in_force);
}

fn changed() {
    let node = Node::new();
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    node.write("shop.yaml", &SHOP.replace("8081", "8082"));
    eventually("the new policy", || {
        (node.status("client", "10.60.0.3", 8081, "/any") == "refused").then_some(())
    });
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    // A broken one changes nothing, and is shown.
    node.write("shop.yaml", "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nspec: {]\n");
    eventually("the error", || node.text(&["status"]).contains("shop.yaml").then_some(()));
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
}

fn killed() {
    let mut node = Node::new();
    for _ in 0..3 {
        node.signal(Signal::KILL);
        let _ = node.daemon.wait();
        // The kernel goes on by itself; what has to be read waits for who reads it.
        assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
        assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "refused");
        node.start();
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/private"), "403");
        assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "200");
    }
}

fn ended() {
    let mut node = Node::new();
    node.signal(Signal::TERM);
    let ended = node.daemon.wait().expect("it ends");
    assert!(ended.success(), "{ended}: {}", node.messages());
    assert_eq!(node.status("client", "10.60.0.3", 8081, "/any"), "200");
    assert_eq!(node.status("client", "10.60.0.3", 8080, "/public/a"), "refused");
    assert_eq!(node.status("client", "10.60.0.3", 9999, "/"), "refused");
}

/// What there is on the node.
const WORKLOADS: &str = "
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

const SHOP: &str = "
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

/// Says who asks.
const SERVER: &str = "
daemon off; error_log stderr; pid nginx.pid;
events {}
http {
  access_log off;
  server {
    listen 8080; listen [::]:8080; listen 8081; listen [::]:8081; listen 9999; listen [::]:9999;
    location / { return 200 $remote_addr; }
  }
}
";

/// Name, the node's end of its cable, its addresses.
const PLACES: [(&str, &str, &str, &str); 3] = [
    ("client", "pcl", "10.60.0.2", "fd60::2"),
    ("shop", "psh", "10.60.0.3", "fd60::3"),
    ("away", "paw", "10.61.0.9", "fd61::9"),
];

/// The node's namespace with its daemon, and the workloads' namespaces.
struct Node {
    prefix: String,
    folder: tempfile::TempDir,
    servers: Vec<Child>,
    daemon: Child,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let prefix = format!("pnode{}", std::process::id());
        let nobody = Command::new("true").spawn().expect("a process");
        let mut node = Self { prefix, folder, servers: Vec::new(), daemon: nobody };
        node.wire();
        node.start_servers();
        for folder in ["objects", "bpf"] {
            std::fs::create_dir(node.path(folder)).expect("a folder");
        }
        succeed(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(node.path("bpf")));
        node.write("workloads.yaml", WORKLOADS);
        node.write("shop.yaml", SHOP);
        node.write("client.yaml", CLIENT);
        let config = "objects: objects/\nstate: state/\nsocket: node.sock\nkernel: {bpffs: bpf}\n\
                      admin: 'off'\n";
        std::fs::write(node.path("node.yaml"), config).expect("a file");
        node.start();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, object: &str, text: &str) {
        let (there, new) = (self.path("objects").join(object), self.path("new"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, there).expect("a file");
    }

    fn wire(&self) {
        let node = self.name("node");
        ip(&format!("netns add {node}"));
        ip(&format!("-n {node} link set lo up"));
        for (place, cable, v4, v6) in PLACES {
            let workload = self.name(place);
            for command in [
                format!("netns add {workload}"),
                format!("-n {workload} link add eth0 type veth peer name {cable} netns {node}"),
                format!("-n {workload} link set lo up"),
                format!("-n {workload} addr add {v4}/32 dev eth0"),
                format!("-n {workload} addr add {v6}/128 dev eth0 nodad"),
                format!("-n {workload} link set eth0 up"),
                format!("-n {node} addr add 169.254.1.1/32 dev {cable}"),
                format!("-n {node} addr add fe80::1/64 dev {cable} nodad"),
                format!("-n {node} link set {cable} up"),
                format!("-n {node} route add {v4}/32 dev {cable}"),
                format!("-n {node} -6 route add {v6}/128 dev {cable}"),
                format!("-n {workload} route add 169.254.1.1 dev eth0"),
                format!("-n {workload} route add default via 169.254.1.1"),
                format!("-n {workload} -6 route add default via fe80::1 dev eth0"),
            ] {
                ip(&command);
            }
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
                       echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        succeed(Command::new(needed("ip")).args(["netns", "exec", &node, "sh", "-c", forward]));
    }

    fn start_servers(&mut self) {
        for place in ["shop", "away"] {
            let folder = self.path(place);
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join("nginx.conf"), SERVER).expect("a file");
            let mut nginx = self.inside(place, &needed("nginx"));
            nginx.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
            self.servers.push(nginx.stderr(Stdio::null()).spawn().expect("nginx runs"));
        }
        for place in ["shop", "away"] {
            eventually("nginx", || {
                (self.status(place, "127.0.0.1", 8080, "/") == "200").then_some(())
            });
        }
    }

    /// Starts the daemon, and waits until everything is in force.
    fn start(&mut self) {
        let messages = std::fs::File::create(self.path("messages")).expect("a file");
        let mut daemon = self.inside("node", node_binary());
        daemon.args(["run", "--config"]).arg(self.path("node.yaml"));
        self.daemon = daemon.stderr(messages).spawn().expect("the daemon runs");
        let began = Instant::now();
        while !self.text(&["status"]).contains("all that is wanted is in force") {
            assert!(began.elapsed().as_secs() < 10, "{}", self.messages());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.daemon);
        kill_process(pid, signal).expect("it runs");
    }

    fn messages(&self) -> String {
        std::fs::read_to_string(self.path("messages")).unwrap_or_default()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(node_binary());
        let output = command.args(arguments).arg("--socket").arg(self.path("node.sock")).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).expect("JSON")
    }

    /// The rows of a table of the kernel.
    fn rows(&self, table: &str) -> Vec<Vec<String>> {
        let listing = self.ask(&["bpf", table, "list", "--output", "json"]);
        serde_json::from_value(listing["rows"].clone()).expect("rows")
    }

    fn name(&self, place: &str) -> String {
        format!("{}{place}", self.prefix)
    }

    /// In a namespace, with the mounts of this process: `ip netns exec` would hide them.
    fn inside(&self, place: &str, program: &Path) -> Command {
        let mut command = Command::new(needed("nsenter"));
        command.arg(format!("--net=/run/netns/{}", self.name(place))).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A status, or `refused`: at once, or where somebody has it already.
    fn status(&self, from: &str, server: &str, port: u16, path: &str) -> String {
        let arguments = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl(from, server, port, path, &arguments)
    }

    fn body(&self, from: &str, server: &str, port: u16, path: &str) -> String {
        self.curl(from, server, port, path, &[])
    }

    fn curl(&self, from: &str, server: &str, port: u16, path: &str, more: &[&str]) -> String {
        let mut curl = self.inside(from, &needed("curl"));
        curl.args(["--silent", "--max-time", "5"]).args(more);
        curl.arg(format!("http://{server}:{port}{path}"));
        let output = curl.stdout(Stdio::piped()).output().expect("curl runs");
        match output.status.code() {
            Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Some(7) => "refused".to_owned(),
            code => format!("curl ended with {code:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for process in self.servers.iter_mut().chain([&mut self.daemon]) {
            let _ = process.kill();
            let _ = process.wait();
        }
        for place in PLACES.iter().map(|place| place.0).chain(["node"]) {
            let _ = Command::new(needed("ip")).args(["netns", "del", &self.name(place)]).status();
        }
        let _ = Command::new("umount").arg("--lazy").arg(self.path("bpf")).status();
    }
}

fn ip(arguments: &str) {
    succeed(Command::new(needed("ip")).args(arguments.split(' ')));
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
