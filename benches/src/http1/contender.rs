//! The proxies, each configured for the same policy: GET, path `^/public/.*$`, header X-Token
//! `^[0-9]+$`, all else 403; one worker, no access log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::contender::{Configure, Dialect, LOAD_CORE, Setting, program, wait_for_answer, write};
use crate::process::{Running, free_address, on_core};

/// HTTP/1.1.
pub const HTTP1: Dialect = Dialect { configure, answers, denies };

fn configure(name: &str) -> Configure {
    match name {
        "Portreeve" => portreeve,
        "HAProxy" => haproxy,
        "nginx" => nginx,
        "Envoy" => envoy,
        _ => floor,
    }
}

fn answers(address: SocketAddr) -> Result<(), Failure> {
    expect(address, "42", b"HTTP/1.1 200")
}

fn denies(address: SocketAddr) -> Result<(), Failure> {
    expect(address, "none", b"HTTP/1.1 403")
}

fn expect(address: SocketAddr, token: &str, status: &[u8; 12]) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /public/x HTTP/1.1\r\nHost: shop\r\nX-Token: {token}\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if &answer != status {
        return Err(format!("answered `{}`", String::from_utf8_lossy(&answer)).into());
    }
    Ok(())
}

/// nginx, answering from memory, on the load's core.
pub fn upstream() -> Result<Running, Failure> {
    let folder = tempfile::tempdir()?;
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
    let mut running = Running::start(command, address, folder);
    wait_for_answer("the upstream", &mut running, answers)?;
    Ok(running)
}

pub(crate) fn nginx_head(folder: &Path) -> String {
    format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error crit; user root;\n\
         worker_rlimit_nofile 20000; events {{ worker_connections 19000; }}\n",
        path = folder.display()
    )
}

pub(crate) fn nginx_folders(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.display()))
        .concat()
}

fn floor(command: &mut Command, setting: &Setting) {
    let Setting { listen, upstream, .. } = *setting;
    command.args([listen.to_string(), upstream.to_string()]);
}

fn portreeve(command: &mut Command, setting: &Setting) {
    let Setting { listen, upstream, .. } = *setting;
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
    let policy = setting.write("policy.yaml", policy);
    command
        .args(["run", "--workload-labels", "app=shop", "--peer", "127.0.0.0/8=app=client"])
        .args(["--listen", &listen.to_string(), "--upstream", &upstream.to_string()])
        .args(["--policy-port", "80", "--access-log", "off", "--admin", "off", "--workers", "1"])
        .arg("--policy")
        .arg(policy);
}

fn haproxy(command: &mut Command, setting: &Setting) {
    let Setting { listen, upstream, .. } = *setting;
    let config = format!(
        "global\n nbthread 1\n maxconn 6000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n option splice-auto\n\
         frontend f\n bind {listen}\n\
         http-request deny deny_status 403 unless {{ method GET }} {{ path -m reg ^/public/.*$ }} {{ req.hdr(X-Token) -m reg ^[0-9]+$ }}\n\
         default_backend b\n\
         backend b\n server s {upstream}\n"
    );
    command.arg("-db").arg("-f").arg(setting.write("haproxy.cfg", &config));
}

fn nginx(command: &mut Command, setting: &Setting) {
    let Setting { folder, listen, upstream, .. } = *setting;
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
    command.arg("-c").arg(setting.write("nginx.conf", &config)).arg("-p").arg(folder);
}

fn envoy(command: &mut Command, setting: &Setting) {
    let Setting { listen, upstream, .. } = *setting;
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
        .args(["--concurrency", "1", "--log-level", "critical", "--use-dynamic-base-id", "-c"])
        .arg(setting.write("envoy.yaml", &config));
}
