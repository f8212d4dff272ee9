//! The proxies, each configured for the same policy: GET, path `^/public/.*$`, header X-Token
//! `^[0-9]+$`, all else 403; one worker, no access log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::Failure;
use crate::contender::{Configure, Dialect, LOAD_CORE, Setting, program, wait_for_answer, write};
use crate::peers::{envoy_with, floor, nginx_folders, nginx_head, portreeve_with};
use crate::process::{Running, free_address, on_core};

/// What policy allows.
const METHOD: &str = "GET";
const PATH: &str = "^/public/.*$";

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

fn portreeve(command: &mut Command, setting: &Setting) {
    portreeve_with(command, setting, METHOD, PATH);
}

fn envoy(command: &mut Command, setting: &Setting) {
    envoy_with(command, setting, METHOD, PATH, None);
}
