//! The proxies, each configured for the same policy: POST, path `^/shop\.v1\.Orders/.*$`, header
//! x-token `^[0-9]+$`, all else denied; HTTP/2 without TLS on both sides, one worker, no access log.
//!
//! All announce 128 streams a connection. HAProxy and Envoy open windows of 1 MiB a stream. nginx keeps
//! its 64 KiB, since it sets memory of a window's size aside for each request with a body. For large
//! messages HAProxy and nginx get the buffers that cost them least; more was slower, and HAProxy 2.6
//! loses requests when frames are larger than 16 KiB.

use std::process::Command;

use super::CONCURRENT_STREAMS;
use super::client::{answers, denies};
use crate::Failure;
use crate::contender::{Configure, Dialect, LOAD_CORE, Setting, wait_for_answer};
use crate::peers::{envoy_with, floor, nginx_folders, nginx_head, portreeve_with};
use crate::process::{Running, free_address, on_core, sibling};

/// What policy allows.
const METHOD: &str = "POST";
const PATH: &str = r"^/shop\.v1\.Orders/.*$";

/// HTTP/2 without TLS.
pub const GRPC: Dialect = Dialect { configure, answers, denies };

/// Window of a stream, where a proxy has to be told.
const WINDOW: u32 = 1 << 20;
/// Window of a connection.
const CONNECTION_WINDOW: u32 = 64 << 20;

fn configure(name: &str) -> Configure {
    match name {
        "Portreeve" => portreeve,
        "HAProxy" => haproxy,
        "nginx" => nginx,
        "Envoy" => envoy,
        _ => floor,
    }
}

/// The service behind the proxies, on the load's core.
pub fn upstream() -> Result<Running, Failure> {
    let folder = tempfile::tempdir()?;
    let address = free_address();
    let mut command = on_core(LOAD_CORE, sibling("upstream_h2").ok_or("no upstream")?);
    command.arg(address.to_string());
    let mut running = Running::start(command, address, folder);
    wait_for_answer("the upstream", &mut running, answers)?;
    Ok(running)
}

/// A shared upstream connection from the first request on: what costs it least.
fn haproxy(command: &mut Command, setting: &Setting) {
    let Setting { listen, upstream, bulk, .. } = *setting;
    let bulk = if bulk { " tune.bufsize 32768\n tune.h2.max-frame-size 16384\n" } else { "" };
    let config = format!(
        "global\n nbthread 1\n maxconn 6000\n\
         tune.h2.initial-window-size {WINDOW}\n tune.h2.max-concurrent-streams {CONCURRENT_STREAMS}\n\
         {bulk}\
         defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         http-reuse always\n\
         frontend f\n bind {listen} proto h2\n\
         http-request deny deny_status 403 unless {{ method {METHOD} }} {{ path -m reg {PATH} }} {{ req.hdr(x-token) -m reg ^[0-9]+$ }}\n\
         default_backend b\n\
         backend b\n server s {upstream} proto h2\n"
    );
    command.arg("-db").arg("-f").arg(setting.write("haproxy.cfg", &config));
}

fn nginx(command: &mut Command, setting: &Setting) {
    let Setting { folder, listen, upstream, bulk } = *setting;
    let bulk = if bulk { "grpc_buffer_size 32k;" } else { "" };
    let config = format!(
        "{}http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; {}\n\
         client_max_body_size 0; client_body_timeout 1h; grpc_read_timeout 1h; grpc_send_timeout 1h;\n\
         {bulk} http2_max_concurrent_streams {CONCURRENT_STREAMS};\n\
         upstream up {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} http2 backlog=4096;\n\
         location / {{ return 403; }}\n\
         location ~ {PATH} {{\n\
         if ($request_method != {METHOD}) {{ return 403; }}\n\
         if ($http_x_token !~ ^[0-9]+$) {{ return 403; }}\n\
         grpc_pass grpc://up; }} }} }}\n",
        nginx_head(folder),
        nginx_folders(folder),
    );
    command.arg("-c").arg(setting.write("nginx.conf", &config)).arg("-p").arg(folder);
}

fn portreeve(command: &mut Command, setting: &Setting) {
    portreeve_with(command, setting, METHOD, PATH);
}

fn envoy(command: &mut Command, setting: &Setting) {
    let http2 = format!(
        "{{max_concurrent_streams: {CONCURRENT_STREAMS}, initial_stream_window_size: {WINDOW}, \
         initial_connection_window_size: {CONNECTION_WINDOW}}}"
    );
    envoy_with(command, setting, METHOD, PATH, Some(&http2));
}
