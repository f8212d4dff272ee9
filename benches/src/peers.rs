//! How the proxies are started, as far as it does not depend on what is spoken: the same few arguments
//! and files for every comparison, with the allowed method and path put in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::contender::Setting;

/// The relay that looks at nothing.
pub fn floor(command: &mut Command, setting: &Setting) {
    command.args([setting.listen.to_string(), setting.upstream.to_string()]);
}

/// Portreeve, one worker.
pub fn portreeve_with(command: &mut Command, setting: &Setting, method: &str, path: &str) {
    let Setting { listen, upstream, .. } = *setting;
    let policy = format!(
        "apiVersion: portreeve.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: bench, namespace: default}}
spec:
  endpointSelector: {{matchLabels: {{app: shop}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: client}}}}]
    toPorts:
    - ports: [{{port: '80', protocol: TCP}}]
      rules:
        http:
        - method: {method}
          path: {path}
          headerMatches: [{{name: X-Token, regex: '^[0-9]+$'}}]
"
    );
    let policy = setting.write("policy.yaml", &policy);
    command
        .args(["run", "--workload-labels", "app=shop", "--peer", "127.0.0.0/8=app=client"])
        .args(["--listen", &listen.to_string(), "--upstream", &upstream.to_string()])
        .args(["--policy-port", "80", "--access-log", "off", "--admin", "off", "--workers", "1"])
        .arg("--policy")
        .arg(policy);
}

/// How an nginx configuration begins.
pub fn nginx_head(folder: &Path) -> String {
    format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error crit; user root;\n\
         worker_rlimit_nofile 20000; events {{ worker_connections 19000; }}\n",
        path = folder.display()
    )
}

/// Where nginx may leave files.
pub fn nginx_folders(folder: &Path) -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.display()))
        .concat()
}

/// Envoy. With settings for HTTP/2 it speaks that on both sides, else HTTP/1.1.
pub fn envoy_with(
    command: &mut Command,
    setting: &Setting,
    method: &str,
    path: &str,
    http2: Option<&str>,
) {
    let Setting { listen, upstream, .. } = *setting;
    let socket = |address: SocketAddr| {
        format!("socket_address: {{address: {}, port_value: {}}}", address.ip(), address.port())
    };
    let (codec, in_options, up_options) = match http2 {
        None => ("HTTP1", String::new(), String::new()),
        Some(http2) => (
            "HTTP2",
            format!(
                "          http2_protocol_options: {http2}\n          stream_idle_timeout: 0s\n"
            ),
            format!(
                "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {http2}}}\n"
            ),
        ),
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
          codec_type: {codec}
{in_options}          normalize_path: true
          merge_slashes: true
          generate_request_id: false
          http_filters:
          - name: envoy.filters.http.rbac
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  bench:
                    principals: [{{any: true}}]
                    permissions:
                    - and_rules:
                        rules:
                        - header: {{name: ':method', string_match: {{exact: {method}}}}}
                        - url_path: {{path: {{safe_regex: {{regex: '{path}'}}}}}}
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
{up_options}    load_assignment:
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
