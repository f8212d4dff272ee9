//! Workloads of one node under one proxy, each in a network namespace of its own, and none of them knows
//! of the proxy: TPROXY leads their connections to it, and servers see the clients' own addresses.
//!
//! ```text
//!  alice 10.88.1.2 fd88:1::2 ──veth── lxa ┐
//!  bob   10.88.2.2 fd88:2::2 ──veth── lxb │
//!  stray 10.88.3.2 fd88:3::2 ──veth── lxc ├─ node: proxy on 15001 (egress), 15006 (ingress)
//!  shop  10.88.4.2 fd88:4::2 ──veth── lxs │
//!  away  10.88.9.2 fd88:9::2 ──veth── lxo ┘  (another host)
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{
    EndpointConfig, EndpointLimits, Endpoints, ListenerConfig, NodeConfig, NodeProxy, Transparent,
    UpstreamConfig, UpstreamSource,
};
use portreeve_policy::{
    Directory, Endpoint, EndpointPolicy, Options, Repository, Source, TrafficDirection,
};
use portreeve_tests::{Need, eventually, needed, trial};

/// Set for the process that this test starts as the node's proxy: where its log goes.
const SERVE: &str = "PORTREEVE_NODE_TENANTS_LOG";

/// Of upstream connections.
const MARK: u32 = 2;

fn main() {
    if let Some(log) = std::env::var_os(SERVE) {
        serve(Path::new(&log));
        return;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let needs = [
        Need::Root,
        Need::Namespaces,
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("curl"),
        Need::Program("nginx"),
    ];
    let tests = vec![
        trial("each_workload_is_judged_by_its_own_policy", &needs, each_by_its_own),
        trial("servers_see_the_clients_own_address", &needs, own_addresses),
        trial("a_policy_is_replaced_and_an_endpoint_removed_alone", &needs, alone),
        trial("between_workloads_of_the_node_both_policies_judge", &needs, both),
    ];
    // Namespaces are few, and their names the same.
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}

const ANY: &str = "/.*";

fn each_by_its_own() {
    let mut node = Node::new();
    node.tell("upsert alice 10.88.1.2,fd88:1::2 egress /a.*");
    node.tell("upsert bob 10.88.2.2,fd88:2::2 egress /b.*");
    for away in ["10.88.9.2", "[fd88:9::2]"] {
        assert_eq!(node.status("alice", away, "/a"), "200", "{away}");
        assert_eq!(node.status("alice", away, "/b"), "403", "{away}");
        assert_eq!(node.status("bob", away, "/a"), "403", "{away}");
        assert_eq!(node.status("bob", away, "/b"), "200", "{away}");
        // Led to the proxy, and nobody that it knows.
        assert_eq!(node.status("stray", away, "/a"), "reset", "{away}");
    }
    let log = node.log("\"endpoint\":\"bob\",\"direction\":\"egress\",\"verdict\":\"deny\"");
    assert!(log.contains("\"endpoint\":\"alice\",\"direction\":\"egress\",\"verdict\":\"allow\""));
    assert!(!log.contains("10.88.3.2"), "{log}");
}

fn own_addresses() {
    let mut node = Node::new();
    node.tell(&format!("upsert alice 10.88.1.2,fd88:1::2 egress {ANY}"));
    node.tell(&format!("upsert shop 10.88.4.2,fd88:4::2 ingress {ANY}"));
    for (client, server, seen) in [
        ("alice", "10.88.9.2", "10.88.1.2"),
        ("alice", "[fd88:9::2]", "fd88:1::2"),
        ("alice", "10.88.4.2", "10.88.1.2"),
        ("alice", "[fd88:4::2]", "fd88:1::2"),
        ("away", "10.88.4.2", "10.88.9.2"),
        ("away", "[fd88:4::2]", "fd88:9::2"),
    ] {
        assert_eq!(node.body(client, server, "/who"), seen, "{client} to {server}");
    }
}

fn alone() {
    let mut node = Node::new();
    node.tell("upsert alice 10.88.1.2 egress /a.*");
    node.tell("upsert bob 10.88.2.2 egress /b.*");
    node.tell("policy alice egress /new");
    assert_eq!(node.status("alice", "10.88.9.2", "/a"), "403");
    assert_eq!(node.status("alice", "10.88.9.2", "/new"), "200");
    assert_eq!(node.status("bob", "10.88.9.2", "/b"), "200");
    node.tell("remove alice");
    assert_eq!(node.status("alice", "10.88.9.2", "/new"), "reset");
    assert_eq!(node.status("bob", "10.88.9.2", "/b"), "200");
    // Another workload gets the address.
    node.tell("upsert carol 10.88.1.2 egress /c");
    assert_eq!(node.status("alice", "10.88.9.2", "/c"), "200");
    assert_eq!(node.status("alice", "10.88.9.2", "/new"), "403");
}

fn both() {
    let mut node = Node::new();
    node.tell("upsert alice 10.88.1.2,fd88:1::2 egress /a.*");
    node.tell("upsert shop 10.88.4.2,fd88:4::2 ingress /.*z");
    for shop in ["10.88.4.2", "[fd88:4::2]"] {
        assert_eq!(node.status("alice", shop, "/az"), "200", "{shop}");
        assert_eq!(node.status("alice", shop, "/ab"), "403", "{shop}");
        assert_eq!(node.status("alice", shop, "/bz"), "403", "{shop}");
        assert_eq!(node.status("away", shop, "/bz"), "200", "{shop}");
        assert_eq!(node.status("away", shop, "/ab"), "403", "{shop}");
    }
    let log = node.log("\"endpoint\":\"shop\",\"direction\":\"ingress\",\"verdict\":\"deny\"");
    for (path, endpoint, verdict) in [
        ("/az", "alice", "allow"),
        ("/az", "shop", "allow"),
        ("/ab", "alice", "allow"),
        ("/ab", "shop", "deny"),
        ("/bz", "alice", "deny"),
    ] {
        let told = log.lines().any(|line| {
            line.contains(&format!("\"endpoint\":\"{endpoint}\""))
                && line.contains(&format!("\"verdict\":\"{verdict}\""))
                && line.contains(&format!("\"path\":\"{path}\""))
        });
        assert!(told, "{endpoint} {verdict} {path} is not in\n{log}");
    }
}

/// The node's namespace with its proxy, and the workloads' namespaces.
struct Node {
    prefix: String,
    processes: Vec<Child>,
    to_proxy: Option<ChildStdin>,
    from_proxy: Option<BufReader<ChildStdout>>,
    folder: tempfile::TempDir,
}

/// Namespaces with the node's end of their cable and what tells their addresses apart.
const PLACES: [(&str, &str, u8); 5] = [
    ("alice", "lxa", 1),
    ("bob", "lxb", 2),
    ("stray", "lxc", 3),
    ("shop", "lxs", 4),
    ("away", "lxo", 9),
];

/// What a workload sends to a web server goes to the proxy, and so does what comes to the shop from
/// elsewhere; so do answers to connections that the proxy has opened in somebody's name. It may open none
/// without its mark.
const RULES: &str = "
table inet portreeve {
  chain in {
    type filter hook prerouting priority mangle;
    meta l4proto tcp socket transparent 1 meta mark set 1 accept;
    iifname { lxa, lxb, lxc } tcp dport 8080 meta mark set 1 tproxy to :15001 accept;
    iifname lxo tcp dport 8080 meta mark set 1 tproxy to :15006 accept;
  }
  chain out {
    type filter hook output priority 0;
    tcp dport 8080 meta mark != 2 reject;
  }
}
";

/// Says who asks.
const SERVER: &str = "
daemon off; error_log stderr; pid nginx.pid;
events {}
http {
  access_log off;
  server { listen 8080; listen [::]:8080; location / { return 200 $remote_addr; } }
}
";

impl Node {
    fn new() -> Self {
        let prefix = format!("prn{}", std::process::id());
        let folder = tempfile::tempdir().expect("a folder");
        let processes = Vec::new();
        let mut node = Self { prefix, processes, to_proxy: None, from_proxy: None, folder };
        node.wire();
        node.start_servers();
        node.start_proxy();
        node
    }

    fn name(&self, place: &str) -> String {
        format!("{}{place}", self.prefix)
    }

    fn wire(&self) {
        let node = self.name("node");
        ip(&format!("netns add {node}"));
        ip(&format!("-n {node} link set lo up"));
        for (place, link, net) in PLACES {
            let workload = self.name(place);
            for command in [
                format!("netns add {workload}"),
                format!("-n {workload} link add v0 type veth peer name {link} netns {node}"),
                format!("-n {workload} addr add 10.88.{net}.2/24 dev v0"),
                format!("-n {workload} addr add fd88:{net}::2/64 dev v0 nodad"),
                format!("-n {node} addr add 10.88.{net}.1/24 dev {link}"),
                format!("-n {node} addr add fd88:{net}::1/64 dev {link} nodad"),
                format!("-n {workload} link set lo up"),
                format!("-n {workload} link set v0 up"),
                format!("-n {node} link set {link} up"),
                format!("-n {workload} route add default via 10.88.{net}.1"),
                format!("-n {workload} -6 route add default via fd88:{net}::1"),
            ] {
                ip(&command);
            }
        }
        for command in [
            "rule add fwmark 1 lookup 100",
            "route add local 0.0.0.0/0 dev lo table 100",
            "-6 rule add fwmark 1 lookup 100",
            "-6 route add local ::/0 dev lo table 100",
        ] {
            ip(&format!("-n {node} {command}"));
        }
        let rules = self.folder.path().join("rules");
        std::fs::write(&rules, RULES).expect("a file");
        succeed(self.inside("node", &needed("nft")).arg("-f").arg(&rules));
        // Without forwarding the kernel answers nobody but for itself.
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
                       echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        succeed(self.inside("node", Path::new("/bin/sh")).args(["-c", forward]));
    }

    fn start_servers(&mut self) {
        for place in ["shop", "away"] {
            let folder = self.folder.path().join(place);
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join("nginx.conf"), SERVER).expect("a file");
            let mut nginx = self.inside(place, &needed("nginx"));
            nginx.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
            self.processes.push(nginx.stderr(Stdio::null()).spawn().expect("nginx runs"));
        }
        for place in ["shop", "away"] {
            eventually("nginx", || {
                (self.curl(place, "127.0.0.1", "/", &[]) == Ok("127.0.0.1".into())).then_some(())
            });
        }
    }

    fn start_proxy(&mut self) {
        let this = std::env::current_exe().expect("a path");
        let mut proxy = self.inside("node", &this);
        proxy.env(SERVE, self.folder.path().join("log"));
        let mut proxy =
            proxy.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the proxy runs");
        self.to_proxy = proxy.stdin.take();
        self.from_proxy = proxy.stdout.take().map(BufReader::new);
        self.processes.push(proxy);
        self.expect_done();
    }

    /// Has the proxy's program do something, and waits until it has.
    fn tell(&mut self, command: &str) {
        let to_proxy = self.to_proxy.as_mut().expect("it runs");
        writeln!(to_proxy, "{command}").expect("it listens");
        self.expect_done();
    }

    fn expect_done(&mut self) {
        let mut said = String::new();
        let read = self.from_proxy.as_mut().expect("it runs").read_line(&mut said);
        assert!(read.is_ok() && said == "done\n", "the proxy said {said:?}");
    }

    /// The access log, when it says this.
    fn log(&self, what: &str) -> String {
        eventually("the access log", || {
            let log = std::fs::read_to_string(self.folder.path().join("log")).ok()?;
            log.contains(what).then_some(log)
        })
    }

    fn inside(&self, place: &str, program: &Path) -> Command {
        let mut command = Command::new(needed("ip"));
        command.args(["netns", "exec", &self.name(place)]).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A status, or `reset`.
    fn status(&self, from: &str, server: &str, path: &str) -> String {
        let arguments = ["--output", "/dev/null", "--write-out", "%{http_code}"];
        self.curl(from, server, path, &arguments).unwrap_or_else(|ended| ended)
    }

    fn body(&self, from: &str, server: &str, path: &str) -> String {
        self.curl(from, server, path, &[]).unwrap_or_else(|ended| ended)
    }

    fn curl(&self, from: &str, server: &str, path: &str, more: &[&str]) -> Result<String, String> {
        let mut curl = self.inside(from, &needed("curl"));
        curl.args(["--silent", "--max-time", "5"]).args(more);
        let url = format!("http://{server}:8080{path}");
        let output = curl.arg(url).stdout(Stdio::piped()).output().expect("curl runs");
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            // A reset may come while curl still connects.
            Some(7 | 52 | 56) => Err("reset".to_owned()),
            code => Err(format!("curl ended with {code:?}")),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.to_proxy = None;
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for place in PLACES.iter().map(|place| place.0).chain(["node"]) {
            let _ = Command::new(needed("ip")).args(["netns", "del", &self.name(place)]).status();
        }
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

/// The node's proxy, steered by lines on its standard input until that ends.
fn serve(log: &Path) {
    let listener = |name: &str, direction, port| ListenerConfig {
        direction,
        upstream: UpstreamConfig::OriginalDestination(Transparent::Tproxy),
        ..ListenerConfig::ingress(name, ([0; 16], port).into(), ([0; 16], port).into())
    };
    let config = NodeConfig {
        access_log: AccessLogConfig {
            mode: AccessLogMode::All,
            sink: Sink::File(log.to_owned()),
            query: false,
        },
        upstream_source: UpstreamSource { client_address: true, mark: Some(MARK) },
        ..NodeConfig::new(vec![
            listener("egress", TrafficDirection::Egress, 15001),
            listener("ingress", TrafficDirection::Ingress, 15006),
        ])
    };
    let endpoints = Arc::<Endpoints>::default();
    let proxy = NodeProxy::start(config, endpoints.clone()).expect("it starts");
    println!("done");
    for line in std::io::stdin().lines() {
        obey(&endpoints, &line.expect("text"));
        println!("done");
    }
    proxy.remote().stop();
    proxy.join();
}

fn obey(endpoints: &Endpoints, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["upsert", name, addresses, direction, paths] => {
            let addresses = addresses.split(',').map(|one| one.parse().expect("an address"));
            let config = EndpointConfig {
                name: name.to_owned(),
                addresses: addresses.collect(),
                limits: EndpointLimits::default(),
            };
            let upserted = endpoints.upsert(config, policy(name, direction, paths));
            assert_eq!(upserted.refused, [], "each address is one endpoint's");
        }
        ["policy", name, direction, paths] => {
            endpoints.set_policy(name, policy(name, direction, paths)).expect("it is there");
        }
        ["remove", name] => assert!(endpoints.remove(name), "it is there"),
        _ => panic!("what is `{line}`?"),
    }
}

/// Allows these paths, from or to anybody.
fn policy(name: &str, direction: &str, paths: &str) -> EndpointPolicy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: {name}, namespace: default}}\n\
         spec:\n  endpointSelector: {{matchLabels: {{app: {name}}}}}\n  {direction}:\n  - toPorts:\n    \
         - {{ports: [{{port: '8080', protocol: TCP}}], rules: {{http: [{{path: '{paths}'}}]}}}}\n"
    );
    let repository = Repository::parse([Source::new("p.yaml", text)]).expect("a policy");
    let labels = format!("app={name}").parse().expect("labels");
    let endpoint = Endpoint::new(name, "default", labels);
    let (nobody, options) = (Directory::default(), Options::default());
    EndpointPolicy::resolve(&repository, &endpoint, &nobody, &options).expect("a policy")
}
