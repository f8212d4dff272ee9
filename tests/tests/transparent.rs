//! Redirected traffic in network namespaces of the test's own: nftables REDIRECT and TPROXY, IPv4
//! and IPv6.
//!
//! ```text
//!  client namespace            server namespace
//!  10.77.0.1  fd77::1  ──veth──  10.77.0.2  fd77::2   service on 8080, sidecar on 15006
//! ```

use std::path::Path;
use std::process::{Child, Command, Stdio};

use portreeve_tests::sidecar::binary;
use portreeve_tests::{Need, eventually, needed, trial};

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let needs = [
        Need::Root,
        Need::Namespaces,
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("curl"),
        Need::Program("python3"),
    ];
    let redirect = "chain in { type nat hook prerouting priority dstnat; \
                    iifname v0 tcp dport 8080 redirect to :15006; }";
    let tproxy = "chain in { type filter hook prerouting priority mangle; \
                  meta l4proto tcp socket transparent 1 meta mark set 1 accept; \
                  iifname v0 tcp dport 8080 meta mark set 1 tproxy to :15006 accept; }";
    let tests = vec![
        trial("redirected_by_nftables", &needs, move || run("rd", redirect, "true")),
        trial("redirected_by_tproxy", &needs, move || run("tp", tproxy, "tproxy")),
        trial("a_connection_to_the_listener_itself_is_reset", &needs, move || {
            let network = Network::new("lo", redirect, "true");
            assert_eq!(network.curl("10.77.0.2:15006", "/public/a"), "reset");
            let said = std::fs::read_to_string(network.folder.path().join("stderr"));
            assert!(said.expect("messages").contains("forwarding would loop"));
        }),
    ];
    // Namespaces are few, and the sidecars' ports the same.
    let arguments = libtest_mimic::Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, tests).exit();
}

fn run(name: &str, chain: &str, transparent: &str) {
    let network = Network::new(name, chain, transparent);
    for address in ["10.77.0.2:8080", "[fd77::2]:8080"] {
        assert_eq!(network.curl(address, "/public/hello"), "200", "{address}");
        assert_eq!(network.curl(address, "/private"), "403", "{address}");
    }
    // Who has no label is nobody, on either family.
    for (from, address) in [("10.77.0.9", "10.77.0.2:8080"), ("fd77::9", "[fd77::2]:8080")] {
        assert_eq!(network.curl_from(Some(from), address, "/public/hello"), "reset", "{from}");
    }
    let log = eventually("the access log", || {
        let log = std::fs::read_to_string(network.folder.path().join("log")).ok()?;
        (log.matches("no_rule_allows").count() >= 4).then_some(log)
    });
    assert!(log.contains("\"destination\":{\"address\":\"10.77.0.2:8080\""), "{log}");
    assert!(log.contains("\"destination\":{\"address\":\"[fd77::2]:8080\""), "{log}");
    assert!(log.contains("\"source\":{\"address\":\"10.77.0.1:"), "{log}");
    for stranger in ["10.77.0.9:", "[fd77::9]:"] {
        let denied = format!(
            "\"type\":\"connection\",\"direction\":\"ingress\",\"verdict\":\"deny\",\"source\":{{\"address\":\"{stranger}"
        );
        assert!(log.contains(&denied), "{log}");
    }
}

/// Two namespaces, a service and a sidecar.
struct Network {
    client: String,
    server: String,
    processes: Vec<Child>,
    folder: tempfile::TempDir,
}

const POLICY: &str = "
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
";

/// Answers on both families; its replies to a TPROXY'd connection leave through the same mark.
const SERVICE: &str = "
import http.server, socket, socketserver
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'ok')
    def log_message(self, *a): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
Server(('::', 8080), Handler).serve_forever()
";

impl Network {
    fn new(name: &str, chain: &str, transparent: &str) -> Self {
        let unique = std::process::id();
        let (client, server) = (format!("prc{name}{unique}"), format!("prs{name}{unique}"));
        let folder = tempfile::tempdir().expect("a folder");
        let mut network = Self { client, server, processes: Vec::new(), folder };
        network.wire();
        network.serve(chain, transparent);
        network
    }

    fn wire(&self) {
        let (client, server) = (&self.client, &self.server);
        for command in [
            format!("netns add {client}"),
            format!("netns add {server}"),
            format!("-n {client} link add v0 type veth peer name v0 netns {server}"),
            format!("-n {client} addr add 10.77.0.1/24 dev v0"),
            format!("-n {client} addr add 10.77.0.9/24 dev v0"),
            format!("-n {client} addr add fd77::9/64 dev v0 nodad preferred_lft 0"),
            format!("-n {client} addr add fd77::1/64 dev v0 nodad"),
            format!("-n {server} addr add 10.77.0.2/24 dev v0"),
            format!("-n {server} addr add fd77::2/64 dev v0 nodad"),
            format!("-n {client} link set lo up"),
            format!("-n {server} link set lo up"),
            format!("-n {client} link set v0 up"),
            format!("-n {server} link set v0 up"),
            // What TPROXY has marked is delivered here, whatever its address.
            format!("-n {server} rule add fwmark 1 lookup 100"),
            format!("-n {server} route add local 0.0.0.0/0 dev lo table 100"),
            format!("-n {server} -6 rule add fwmark 1 lookup 100"),
            format!("-n {server} -6 route add local ::/0 dev lo table 100"),
        ] {
            succeed(Command::new(needed("ip")).args(command.split(' ')));
        }
    }

    fn serve(&mut self, chain: &str, transparent: &str) {
        let folder = self.folder.path().to_owned();
        let rules = folder.join("rules");
        std::fs::write(&rules, format!("table inet portreeve {{\n{chain}\n}}\n")).expect("a file");
        succeed(self.inside(&self.server, &needed("nft")).arg("-f").arg(&rules));
        let service = self.inside(&self.server, &needed("python3")).args(["-c", SERVICE]).spawn();
        self.processes.push(service.expect("the service runs"));
        std::fs::write(folder.join("policy.yaml"), POLICY).expect("the policy");
        let config = format!(
            "workload: {{labels: {{app: shop}}}}\n\
             inbound: [{{listen: '[::]:15006', transparent: {transparent}}}]\n\
             peers: [{{addresses: [10.77.0.1, 'fd77::1'], labels: {{app: client}}}}]\n\
             policy: {{paths: [policy.yaml]}}\naccess_log: {{to: {}}}\nadmin: {{listen: off}}\n",
            folder.join("log").display()
        );
        std::fs::write(folder.join("sidecar.yaml"), config).expect("the configuration");
        let stderr = std::fs::File::create(folder.join("stderr")).expect("a file");
        let sidecar = self
            .inside(&self.server, binary())
            .args(["run", "--config"])
            .arg(folder.join("sidecar.yaml"))
            .stderr(stderr)
            .spawn();
        self.processes.push(sidecar.expect("the sidecar runs"));
        eventually("service and sidecar", || {
            (self.curl("10.77.0.2:8080", "/public/hello") == "200").then_some(())
        });
    }

    fn inside(&self, namespace: &str, program: &Path) -> Command {
        let mut command = Command::new(needed("ip"));
        command.args(["netns", "exec", namespace]).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A status, or `reset`.
    fn curl(&self, address: &str, path: &str) -> String {
        self.curl_from(None, address, path)
    }

    fn curl_from(&self, from: Option<&str>, address: &str, path: &str) -> String {
        let mut curl = self.inside(&self.client, &needed("curl"));
        curl.args([
            "--silent",
            "--max-time",
            "5",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        if let Some(from) = from {
            curl.args(["--interface", from]);
        }
        let output = curl
            .arg(format!("http://{address}{path}"))
            .stdout(Stdio::piped())
            .output()
            .expect("curl runs");
        match output.status.code() {
            Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
            // A reset may come while curl still connects.
            Some(7 | 52 | 56) => "reset".to_owned(),
            code => format!("curl ended with {code:?}"),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.folder.path().join("stderr"));
            eprintln!("--- what the sidecar said\n{}", said.unwrap_or_default());
        }
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for namespace in [&self.client, &self.server] {
            let _ = Command::new(needed("ip")).args(["netns", "del", namespace]).status();
        }
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
