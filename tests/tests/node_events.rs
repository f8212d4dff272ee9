//! What the kernel tells of a node's packets: in `monitor`, in the access log and in the metrics, by the
//! names of workloads.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use portreeve_tests::node::NEEDS;
use portreeve_tests::node::daemon::Daemon;
use portreeve_tests::node::net::Net;
use portreeve_tests::{Need, eventually, trial};
use rustix::process::Signal;
use serde_json::Value;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let needs = [&NEEDS[..], &[Need::Program("curl"), Need::Program("nginx")]].concat();
    let tests = vec![
        trial("a_denied_connection_is_told_of_by_the_names_of_both_ends", &needs, named),
        trial("monitor_shows_what_was_asked_for", &needs, asked),
        trial("what_the_proxy_judges_is_in_monitor", &needs, judged),
        trial("the_log_has_a_line_for_what_the_kernel_refuses", &needs, logged),
        trial("a_log_file_that_was_moved_away_is_opened_again", &needs, rotated),
        trial("who_asks_the_admin_server_to_drain_switches_nothing_off", &needs, drained),
        trial("a_daemon_that_ends_says_what_it_waits_for_and_what_it_cuts", &needs, ended),
        trial("a_policy_in_audit_mode_is_heard_of_where_the_kernel_judges", &needs, audited),
        trial("a_flood_of_denials_writes_few_lines_and_says_how_many_it_left_out", &needs, flood),
        trial("denials_are_counted_for_each_endpoint", &needs, counted),
        trial("events_that_do_not_fit_the_ring_are_counted", &needs, lost),
        trial("who_has_nothing_to_read_sleeps", &needs, idle),
        trial("a_workloads_object_limits_what_it_uses_of_the_proxy", &needs, limited),
    ];
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}

fn named() {
    let node = Node::new();
    let monitor = node.monitor(&[]);
    for (client, shop) in [("10.60.0.2", "10.60.0.3"), ("[fd60::2]", "[fd60::3]")] {
        assert_eq!(node.net.status("client", shop, 9999, "/"), "refused");
        let told = monitor.next("dropped");
        assert_eq!(told["endpoint"], "default/shop", "{told}");
        assert_eq!(told["direction"], "ingress", "{told}");
        assert_eq!((&told["protocol"], &told["verdict"]), (&"TCP".into(), &"deny".into()));
        assert_eq!(told["reason"], "no_rule_allows", "{told}");
        let source = &told["source"];
        assert!(source["address"].as_str().is_some_and(|at| at.starts_with(client)), "{told}");
        assert!(labels(source).contains("app=client"), "{told}");
        assert_eq!(told["destination"]["address"], format!("{shop}:9999"), "{told}");
        assert!(labels(&told["destination"]).contains("app=shop"), "{told}");
    }
    // A rule that denies is named.
    assert_eq!(node.net.status("client", "10.60.0.3", 7777, "/"), "refused");
    let told = monitor.next("dropped");
    assert_eq!(
        (&told["endpoint"], &told["direction"]),
        (&"default/client".into(), &"egress".into())
    );
    assert_eq!(told["reason"], "rule_denies", "{told}");
    assert!(told["policy"].as_str().is_some_and(|name| name.contains("client")), "{told}");
    assert!(told["rule"].as_str().is_some_and(|rule| rule.contains("egressDeny")), "{told}");
}

fn asked() {
    let node = Node::new();
    let opened = node.monitor(&["--type", "open", "--endpoint", "shop"]);
    let client = node.monitor(&["--type", "drop", "--endpoint", "default/client"]);
    let table = node.child(&["monitor"]);
    let table = Told::of(table);
    assert_eq!(node.net.status("client", "10.60.0.3", 9999, "/"), "refused");
    assert_eq!(node.net.status("client", "10.60.0.3", 7777, "/"), "refused");
    assert_eq!(node.net.status("client", "10.60.0.3", 8081, "/"), "200");
    let told = opened.next("opened");
    assert_eq!(told["endpoint"], "default/shop", "{told}");
    assert_eq!(told["destination"]["address"], "10.60.0.3:8081", "{told}");
    assert_eq!(told["reason"], "rule_allows", "{told}");
    let told = client.next("dropped");
    assert_eq!(told["destination"]["address"], "10.60.0.3:7777", "what came first is the shop's");
    let line = table.line(|line| line.contains(" dropped default/shop ingress: TCP 10.60.0.2:"));
    assert!(line.ends_with("-> 10.60.0.3:9999 (default/app=shop): no_rule_allows"), "{line}");
    let line = table.line(|line| line.contains(" dropped default/client egress: TCP "));
    assert!(line.contains(": rule_denies by ") && line.contains("egressDeny"), "{line}");
}

fn judged() {
    let node = Node::new();
    let http = SHOP.replace(
        "protocol: TCP}]",
        "protocol: TCP}]\n      rules: {http: [{method: GET, path: /public/.*}]}",
    );
    node.daemon.write("shop.yaml", &http);
    eventually("the new policy", || {
        (node.daemon.text(&["policy", "get", "shop"]).contains("inspect http")).then_some(())
    });
    let monitor = node.monitor(&["--type", "l7", "--endpoint", "shop"]);
    let clients = node.monitor(&["--type", "l7", "--endpoint", "client"]);
    let table = Told::of(node.child(&["monitor", "--type", "l7"]));
    assert_eq!(node.net.status("client", "10.60.0.3", 8081, "/private?token=x"), "403");
    let told = monitor.next("judged");
    let expected = [
        ("type", "http"),
        ("endpoint", "default/shop"),
        ("direction", "ingress"),
        ("verdict", "deny"),
        ("method", "GET"),
        ("path", "/private"),
        ("reason", "no_rule_allows"),
    ];
    for (field, value) in expected {
        assert_eq!(told[field], value, "{field} of {told}");
    }
    assert_eq!(told["status"], 403, "{told}");
    assert!(labels(&told["source"]).contains("app=client"), "{told}");
    let line = table.line(|line| line.contains(" denied default/shop ingress: HTTP GET "));
    assert!(line.contains("/private (403) 10.60.0.2:"), "{line}");
    // What the kernel refuses is told of apart.
    assert_eq!(node.net.status("client", "10.60.0.3", 9999, "/"), "refused");
    assert_ne!(node.net.status("client", "10.60.0.3", 8081, "/public/a"), "403");
    let told = monitor.next("judged");
    assert_eq!((&told["verdict"], &told["path"]), (&"allow".into(), &"/public/a".into()), "{told}");
    assert!(told["rule"].as_str().is_some_and(|rule| rule.contains("http[0]")), "{told}");
    // Both ends want to read it, and not as the same.
    let kafka = "  egress:\n  - toEndpoints: [{matchLabels: {app: shop}}]\n    toPorts:\n    - ports: \
                 [{port: '8081', protocol: TCP}]\n      rules: {kafka: [{topic: t}]}\n  egressDeny:";
    let whole = "  egress:\n  - toEndpoints: [{matchLabels: {app: shop}}]\n  egressDeny:";
    assert!(CLIENT.contains(whole));
    node.daemon.write("client.yaml", &CLIENT.replace(whole, kafka));
    eventually("the new policy", || {
        (node.daemon.text(&["policy", "get", "client"]).contains("inspect kafka")).then_some(())
    });
    assert_ne!(node.net.status("client", "10.60.0.3", 8081, "/public/a"), "200");
    let told = monitor.next("judged");
    assert_eq!((&told["type"], &told["verdict"]), (&"connection".into(), &"deny".into()), "{told}");
    assert_eq!(told["reason"], "protocols_differ", "{told}");
    node.daemon.write("client.yaml", CLIENT);
    allow_the_client_nothing(&node);
    assert_ne!(node.net.status("client", "10.60.0.3", 8081, "/public/a"), "200");
    let told = eventually("the limit", || {
        let told = clients.next("judged");
        (told["type"] == "limit").then_some(told)
    });
    assert_eq!((&told["reason"], &told["verdict"]), (&"connections".into(), &"deny".into()));
    assert_eq!(told["destination"]["address"], "10.60.0.3:8081", "{told}");
}

fn logged() {
    let node = Node::new();
    assert_eq!(node.net.status("client", "10.60.0.3", 9999, "/"), "refused");
    let line = eventually("the line", || node.kernel_lines().into_iter().next());
    let expected = [
        ("type", "connection"),
        ("endpoint", "default/shop"),
        ("direction", "ingress"),
        ("verdict", "deny"),
        ("decided_by", "kernel"),
        ("protocol", "TCP"),
        ("reason", "no_rule_allows"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert!(labels(&line["source"]).contains("app=client"), "{line}");
    assert_eq!(line["destination"]["address"], "10.60.0.3:9999", "{line}");
    // What the daemon hears of only after a restart is named, too.
    let mut node = node;
    node.daemon.signal(Signal::KILL);
    node.daemon.wait();
    assert_eq!(node.net.status("client", "10.60.0.3", 9998, "/"), "refused");
    node.daemon.start(&node.net);
    let line = eventually("the line of the time between", || {
        let mut lines = node.kernel_lines().into_iter();
        lines.find(|line| line["destination"]["address"] == "10.60.0.3:9998")
    });
    assert_eq!((&line["endpoint"], &line["reason"]), (&"default/shop".into(), &"policy".into()));
}

fn rotated() {
    let node = Node::with("admin: 127.0.0.1:15000\naccess_log: {mode: denied, to: access.log}");
    let (log, moved) = (node.daemon.path("access.log"), node.daemon.path("access.log.1"));
    let has = |file: &std::path::Path, port: u16| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.contains(&format!("10.60.0.3:{port}"))
    };
    assert_eq!(node.net.status("client", "10.60.0.3", 9999, "/"), "refused");
    eventually("the line", || has(&log, 9999).then_some(()));
    std::fs::rename(&log, &moved).expect("it is there");
    node.daemon.signal(Signal::USR1);
    eventually("the new file", || log.exists().then_some(()));
    assert_eq!(node.net.status("client", "10.60.0.3", 9998, "/"), "refused");
    eventually("the line in the new file", || has(&log, 9998).then_some(()));
    assert!(!has(&moved, 9998) && !has(&log, 9999));
    std::fs::remove_file(&log).expect("it is there");
    node.daemon.signal(Signal::HUP);
    eventually("the new file", || log.exists().then_some(()));
    // What passes is not worth a line.
    assert_eq!(node.net.status("client", "10.60.0.3", 8081, "/"), "200");
    assert_eq!(node.net.status("client", "10.60.0.3", 7777, "/"), "refused");
    eventually("the line", || has(&log, 7777).then_some(()));
    assert!(!has(&log, 8081));
}

fn drained() {
    let mut node = Node::new();
    let answer = node.ask_admin("POST /drain");
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("SIGTERM"), "{answer}");
    let answer = node.ask_admin("POST /reload");
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("SIGHUP"), "{answer}");
    let http =
        SHOP.replace("protocol: TCP}]", "protocol: TCP}]\n      rules: {http: [{method: GET}]}");
    node.daemon.write("shop.yaml", &http);
    eventually("the new policy", || {
        (node.daemon.text(&["policy", "get", "shop"]).contains("inspect http")).then_some(())
    });
    assert_eq!(node.net.status("client", "10.60.0.3", 8081, "/"), "200");
    assert!(node.daemon.is_settled());
    node.daemon.signal(Signal::TERM);
    assert_eq!(node.daemon.wait().code(), Some(0));
    let messages = node.daemon.messages();
    let last = messages.lines().next_back().unwrap_or_default();
    assert!(last.ends_with("ended in order"), "{messages}");
}

fn ended() {
    let mut node = Node::new();
    let http = SHOP.replace("'8081'", "'8082'");
    let http = http.replace("protocol: TCP}]", "protocol: TCP}]\n      rules: {http: [{}]}");
    node.daemon.write("shop.yaml", &http);
    eventually("the new policy", || {
        (node.daemon.text(&["policy", "get", "shop"]).contains("inspect http")).then_some(())
    });
    // A request that nobody answers.
    let _silent = node.net.on("shop", || TcpListener::bind("10.60.0.3:8082").expect("a port"));
    let mut client = node.net.on("client", || TcpStream::connect("10.60.0.3:8082").expect("open"));
    client.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    let tracked = node.daemon.rows("ct");
    let read = |row: &&Vec<String>| row[5] == "inspected" && row[3] == "10.60.0.3:8082";
    let row = tracked.iter().find(read).unwrap_or_else(|| panic!("{tracked:?}"));
    assert!(row[6] == "at the proxy" && row[7].starts_with("-/"), "{row:?}");
    assert_eq!(node.daemon.json(&["status"])["draining"], Value::Null);
    node.daemon.signal(Signal::TERM);
    let status = eventually("that it ends", || {
        let status = node.daemon.json(&["status"]);
        (!status["draining"].is_null()).then_some(status)
    });
    assert_eq!((&status["draining"], &status["errors"]), (&1.into(), &Value::Array(Vec::new())));
    let said = node.daemon.text(&["status"]);
    assert!(said.contains("ending, waits for 1 connection,"), "{said}");
    node.daemon.signal(Signal::TERM);
    assert_eq!(node.daemon.wait().code(), Some(0));
    let messages = node.daemon.messages();
    assert!(messages.contains("asked twice") && !messages.contains("in order"), "{messages}");
    let last = messages.lines().next_back().unwrap_or_default();
    assert!(last.ends_with("ended, 1 connection cut"), "{messages}");
}

fn audited() {
    let node = Node::new();
    let audit = SHOP.replace("cilium.io/v2", "portreeve.dev/v1alpha1");
    let audit = audit.replace("CiliumNetworkPolicy", "TrafficPolicy");
    node.daemon.write("shop.yaml", &audit.replace("spec:", "spec:\n  mode: audit"));
    eventually("the new policy", || {
        (node.net.status("client", "10.60.0.3", 9999, "/") == "200").then_some(())
    });
    node.send(1, 5353);
    let line = eventually("the line", || {
        node.kernel_lines().into_iter().find(|line| line["verdict"] == "audit")
    });
    assert_eq!(line["destination"]["address"], "10.60.0.3:5353", "{line}");
    assert_eq!(line["protocol"], "UDP", "{line}");
    // What goes over TCP is told of by the proxy, which lets it pass, and not twice.
    let tcp: Vec<_> = node.log().into_iter().filter(|line| line["verdict"] == "audit").collect();
    assert_eq!(tcp.len(), 2, "{tcp:?}");
    assert!(node.metrics().contains(
        "portreeve_connections_audited_total{endpoint=\"default/shop\",direction=\"ingress\"} 2"
    ));
}

fn flood() {
    let node = Node::new();
    node.send(3000, 5353);
    // Who is denied now and then is heard beside it.
    assert_eq!(node.net.status("client", "10.60.0.3", 7777, "/"), "refused");
    let left_out = eventually("what was left out", || {
        node.log().into_iter().find(|line| line["type"] == "left_out")
    });
    let lines = node.kernel_lines();
    let about = |name| lines.iter().filter(|line| line["endpoint"] == name).count();
    // A flood may begin in one second and end in another one.
    let left: u64 = {
        let all = node.log();
        let out = all.iter().filter(|line| line["type"] == "left_out");
        out.filter_map(|line| line["count"].as_u64()).sum()
    };
    assert!((1..=40).contains(&about("default/shop")), "{} lines", about("default/shop"));
    assert_eq!(about("default/client"), 1, "{lines:?}");
    assert!(left >= 2900, "{left}: {left_out}");
}

fn counted() {
    let node = Node::new();
    node.send(200, 5353);
    let expected = "portreeve_kernel_denials_total{endpoint=\"default/shop\",direction=\"ingress\",\
                    reason=\"policy\"} 200";
    eventually("every denial", || node.metrics().contains(expected).then_some(()));
    let metrics = node.metrics();
    let packets = "portreeve_kernel_packets_total{direction=\"ingress\",outcome=\"policy\"} 200";
    assert!(metrics.contains(packets), "{metrics}");
    // A refusal that was answered is a packet still, and counted as one once.
    let answered =
        "portreeve_kernel_packet_actions_total{direction=\"ingress\",action=\"answered\"} ";
    assert!(metrics.contains(answered), "{metrics}");
    assert!(!metrics.contains("outcome=\"answered\""), "{metrics}");
    assert!(metrics.contains("portreeve_kernel_events_lost_total 0"), "{metrics}");
}

fn lost() {
    let mut node = Node::new();
    // The programs judge on, and nobody reads what they tell.
    node.daemon.signal(Signal::KILL);
    node.daemon.wait();
    const SENT: usize = 30_000;
    node.send(SENT, 5353);
    // That a connection was opened can't be told either; it is opened nevertheless.
    for _ in 0..3 {
        assert_eq!(node.net.status("client", "10.60.0.3", 8081, "/"), "200");
    }
    node.daemon.start(&node.net);
    let metrics = |outcome: &str| -> u64 {
        let rows = node.daemon.rows("metrics");
        let of = rows.iter().filter(|row| row[0] == outcome);
        of.filter_map(|row| row[2].parse::<u64>().ok()).sum()
    };
    assert_eq!(metrics("policy"), SENT as u64, "every packet was judged and counted");
    let lost = metrics("event_lost");
    assert!(lost > 1000, "{lost}");
    eventually("a word", || node.daemon.messages().contains("events of the kernel").then_some(()));
    assert!(
        node.daemon.messages().contains(&format!("{lost} events")),
        "{}",
        node.daemon.messages()
    );
    assert!(node.metrics().contains(&format!("portreeve_kernel_events_lost_total {lost}")));
    // Those that found room are told, and none twice.
    let told = |node: &Node| -> u64 {
        let metrics = node.metrics();
        let of_shop = "portreeve_kernel_denials_total{endpoint=\"default/shop\"";
        let lines = metrics.lines().filter(|line| line.starts_with(of_shop));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    eventually("what found room", || (told(&node) > 1000).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    let opened_lost = 6;
    assert!((SENT as u64 - lost..=SENT as u64 - lost + opened_lost).contains(&told(&node)));
}

fn idle() {
    let node = Node::new();
    std::thread::sleep(Duration::from_secs(2));
    let switches = || -> u64 {
        let mut sum = 0;
        for thread in
            std::fs::read_dir(format!("/proc/{}/task", node.daemon.pid())).expect("it runs")
        {
            let thread = thread.expect("a thread").path();
            let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
            if name.trim() != "kernel-events" {
                continue;
            }
            let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            sum += count.expect("a number");
        }
        sum
    };
    let before = switches();
    assert!(before > 0, "the thread is there");
    std::thread::sleep(Duration::from_secs(3));
    assert!(switches() - before <= 1, "{before}, then {}", switches());
}

fn limited() {
    let node = Node::new();
    let http =
        SHOP.replace("protocol: TCP}]", "protocol: TCP}]\n      rules: {http: [{method: GET}]}");
    node.daemon.write("shop.yaml", &http);
    eventually("the new policy", || {
        (node.daemon.text(&["policy", "get", "shop"]).contains("inspect http")).then_some(())
    });
    let detail = node.daemon.json(&["endpoint", "get", "client"]);
    assert_eq!(detail["limits"]["connections"], 8192, "{detail}");
    assert_eq!(node.net.status("client", "10.60.0.3", 8081, "/"), "200");
    allow_the_client_nothing(&node);
    assert_ne!(node.net.status("client", "10.60.0.3", 8081, "/"), "200");
    let hit = "portreeve_limits_hit_total{endpoint=\"default/client\",limit=\"connections\"} ";
    assert!(node.metrics().contains(hit));
    node.daemon.write("workloads.yaml", WORKLOADS);
    eventually("no limit", || {
        (node.net.status("client", "10.60.0.3", 8081, "/") == "200").then_some(())
    });
}

/// No connection of the proxy's.
fn allow_the_client_nothing(node: &Node) {
    let none = WORKLOADS.replace("interface: pcl", "interface: pcl, limits: {connections: 0}");
    node.daemon.write("workloads.yaml", &none);
    eventually("the limit", || {
        let detail = node.daemon.json(&["endpoint", "get", "client"]);
        (detail["limits"]["connections"] == 0 && detail["realised"] == detail["revision"])
            .then_some(())
    });
}

fn labels(party: &Value) -> String {
    party["labels"].as_str().unwrap_or_default().to_owned()
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
  egressDeny:
  - toPorts:
    - ports: [{port: '7777', protocol: TCP}]
";

/// The node's namespace with its daemon, and the workloads' namespaces.
struct Node {
    daemon: Daemon,
    net: Net,
}

impl Node {
    fn new() -> Self {
        Self::with("admin: 127.0.0.1:15000")
    }

    fn with(config: &str) -> Self {
        let mut net = Net::new(&["node", "client", "shop"]);
        net.forward("node");
        net.routed("node", "pcl", "client", "10.60.0.2", "fd60::2");
        net.routed("node", "psh", "shop", "10.60.0.3", "fd60::3");
        let mut daemon = Daemon::new("node", config);
        net.nginx("shop", daemon.folder(), &[8081, 9998, 9999]);
        daemon.write("workloads.yaml", WORKLOADS);
        daemon.write("shop.yaml", SHOP);
        daemon.write("client.yaml", CLIENT);
        daemon.start(&net);
        Self { daemon, net }
    }

    /// Datagrams of the client that the shop is not to get.
    fn send(&self, count: usize, port: u16) {
        self.net.on("client", || {
            let socket = UdpSocket::bind("10.60.0.2:0").expect("a socket");
            for _ in 0..count {
                // A refusal that was told is an error of the next one.
                while socket.send_to(b"x", ("10.60.0.3", port)).is_err() {}
            }
        });
    }

    /// The command line, asking this daemon.
    fn child(&self, arguments: &[&str]) -> Child {
        let mut command = std::process::Command::new(portreeve_tests::sidecar::node_binary());
        command.args(arguments).arg("--socket").arg(self.daemon.path("node.sock"));
        command.stdout(Stdio::piped()).spawn().expect("it runs")
    }

    fn monitor(&self, arguments: &[&str]) -> Told {
        Told::of(self.child(&[&["monitor", "--output", "json"], arguments].concat()))
    }

    fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.path("log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Those that the kernel decided.
    fn kernel_lines(&self) -> Vec<Value> {
        let is_kernels =
            |line: &Value| line["decided_by"] == "kernel" && line["type"] == "connection";
        self.log().into_iter().filter(is_kernels).collect()
    }

    fn metrics(&self) -> String {
        self.ask_admin("GET /metrics")
    }

    fn ask_admin(&self, what: &str) -> String {
        self.net.on("node", || {
            use std::io::Read;
            let mut stream = TcpStream::connect("127.0.0.1:15000").expect("the admin server");
            let asked = format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(asked.as_bytes()).expect("it reads");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an answer");
            text
        })
    }
}

/// What a `monitor` prints, from when it listens.
struct Told {
    process: Child,
    lines: Receiver<String>,
}

impl Told {
    fn of(mut process: Child) -> Self {
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let told = Self { process, lines };
        told.line(|line| line.contains("listening"));
        told
    }

    fn line(&self, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("it is told");
            if is_it(&line) {
                return line;
            }
        }
    }

    /// The next one of an event.
    fn next(&self, event: &str) -> Value {
        let is_it = |line: &str| {
            serde_json::from_str::<Value>(line).is_ok_and(|news| news["event"] == event)
        };
        serde_json::from_str(&self.line(is_it)).expect("JSON")
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
