//! The proxies, each configured for the same policy: GET, path `^/public/.*$`, header X-Token
//! `^[0-9]+$`, all else 403; one worker, no access log.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Running, free_address, on_core, sibling};

/// The core of the proxy.
const PROXY_CORE: usize = 0;
/// The core of load and upstream.
pub const LOAD_CORE: usize = 1;

/// A proxy of the comparison.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    /// Whether it judges requests.
    pub judges: bool,
    program: PathBuf,
    /// Writes its configuration to the folder and completes the command.
    configure: Configure,
}

/// Command, folder, where to listen, where the upstream is.
type Configure = fn(&mut Command, &Path, SocketAddr, SocketAddr);

/// Those that are here, the floor first, and the names of those that are not.
pub fn contenders() -> (Vec<Contender>, Vec<&'static str>) {
    let all: [(&'static str, bool, Option<PathBuf>, Configure); 5] = [
        ("floor", false, sibling("floor"), floor),
        ("Portreeve", true, sibling("portreeve"), portreeve),
        ("HAProxy", true, program("haproxy"), haproxy),
        ("nginx", true, program("nginx"), nginx),
        (
            "Envoy",
            true,
            std::env::var_os("ENVOY").map(PathBuf::from).or_else(|| program("envoy")),
            envoy,
        ),
    ];
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for (name, judges, program, configure) in all {
        match program {
            Some(program) => present.push(Contender { name, judges, program, configure }),
            None => missing.push(name),
        }
    }
    (present, missing)
}

/// Where a program of the system is.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl Contender {
    /// Starts it and waits for its first answer.
    pub fn start(&self, upstream: &Upstream) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let listen = free_address();
        let mut command = on_core(PROXY_CORE, &self.program);
        (self.configure)(&mut command, folder.path(), listen, upstream.running.address);
        let running = Running::start(command, listen, folder);
        wait_for_answer(self.name, listen);
        running
    }
}

fn wait_for_answer(name: &str, address: SocketAddr) {
    use std::io::{Read, Write};
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answered = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"GET /public/x HTTP/1.1\r\nHost: shop\r\nX-Token: 42\r\n\r\n")?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"HTTP/1.1 200")
        });
        if answered.unwrap_or(false) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} does not answer");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// nginx, answering from memory, on the load's core.
pub struct Upstream {
    running: Running,
}

impl Upstream {
    /// Starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let path = folder.path().display();
        std::fs::create_dir(folder.path().join("public")).expect("a folder");
        std::fs::write(folder.path().join("public/large"), vec![b'x'; 1 << 20]).expect("a file");
        let config = format!(
            "{}http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; sendfile on;\n\
             open_file_cache max=10; {}\n\
             server {{ listen {address} backlog=4096; root {path};\n\
             location /public/large {{ }}\n\
             location / {{ return 200 \"hello from the upstream\\n\"; }} }} }}\n",
            nginx_head(folder.path()),
            nginx_folders(folder.path()),
        );
        let config = write(folder.path(), "nginx.conf", &config);
        let mut command = on_core(LOAD_CORE, program("nginx").expect("it was looked for"));
        command.arg("-c").arg(config).arg("-p").arg(folder.path());
        let running = Running::start(command, address, folder);
        wait_for_answer("the upstream", address);
        Self { running }
    }
}

fn nginx_head(folder: &Path) -> String {
    format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error crit; user root;\n\
         worker_rlimit_nofile 20000; events {{ worker_connections 19000; }}\n",
        path = folder.display()
    )
}

fn nginx_folders(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.display()))
        .concat()
}

fn floor(command: &mut Command, _: &Path, listen: SocketAddr, upstream: SocketAddr) {
    command.args([listen.to_string(), upstream.to_string()]);
}

fn portreeve(command: &mut Command, folder: &Path, listen: SocketAddr, upstream: SocketAddr) {
    let policy = "apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: bench, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http:
        - method: GET
          path: ^/public/.*$
          headerMatches: [{name: X-Token, regex: '^[0-9]+$'}]
";
    let policy = write(folder, "policy.yaml", policy);
    command
        .args(["run", "--workload-labels", "app=shop", "--peer", "127.0.0.0/8=app=client"])
        .args(["--listen", &listen.to_string(), "--upstream", &upstream.to_string()])
        .args(["--policy-port", "80", "--access-log", "off", "--admin", "off", "--workers", "1"])
        .arg("--policy")
        .arg(policy);
}

fn haproxy(command: &mut Command, folder: &Path, listen: SocketAddr, upstream: SocketAddr) {
    let config = format!(
        "global\n nbthread 1\n maxconn 6000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n option splice-auto\n\
         frontend f\n bind {listen}\n\
         http-request deny deny_status 403 unless {{ method GET }} {{ path -m reg ^/public/.*$ }} {{ req.hdr(X-Token) -m reg ^[0-9]+$ }}\n\
         default_backend b\n\
         backend b\n server s {upstream}\n"
    );
    command.arg("-db").arg("-f").arg(write(folder, "haproxy.cfg", &config));
}

fn nginx(command: &mut Command, folder: &Path, listen: SocketAddr, upstream: SocketAddr) {
    let config = format!(
        "{}http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; {}\n\
         upstream up {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} backlog=4096;\n\
         location / {{ return 403; }}\n\
         location ~ ^/public/.*$ {{\n\
         if ($request_method != GET) {{ return 403; }}\n\
         if ($http_x_token !~ ^[0-9]+$) {{ return 403; }}\n\
         proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n",
        nginx_head(folder),
        nginx_folders(folder),
    );
    command.arg("-c").arg(write(folder, "nginx.conf", &config)).arg("-p").arg(folder);
}

fn envoy(command: &mut Command, folder: &Path, listen: SocketAddr, upstream: SocketAddr) {
    let socket = |address: SocketAddr| {
        format!("socket_address: {{address: {}, port_value: {}}}", address.ip(), address.port())
    };
    let config = format!(
        "static_resources:
  listeners:
  - address: {{{listen}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: HTTP1
          normalize_path: true
          merge_slashes: true
          generate_request_id: false
          http_filters:
          - name: envoy.filters.http.rbac
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  public:
                    principals: [{{any: true}}]
                    permissions:
                    - and_rules:
                        rules:
                        - header: {{name: ':method', string_match: {{exact: GET}}}}
                        - url_path: {{path: {{safe_regex: {{regex: '^/public/.*$'}}}}}}
                        - header: {{name: x-token, string_match: {{safe_regex: {{regex: '^[0-9]+$'}}}}}}
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: [{{match: {{prefix: /}}, route: {{cluster: up, timeout: 0s}}}}]
  clusters:
  - name: up
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{{upstream}}}}}}}]}}]
    circuit_breakers: {{thresholds: [{{max_connections: 20000, max_pending_requests: 20000, max_requests: 20000}}]}}
",
        listen = socket(listen),
        upstream = socket(upstream),
    );
    command
        .args(["--concurrency", "1", "--log-level", "off", "--use-dynamic-base-id", "-c"])
        .arg(write(folder, "envoy.yaml", &config));
}
