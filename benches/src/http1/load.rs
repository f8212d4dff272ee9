//! The loads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::contender::LOAD_CORE;
use crate::process::{Running, on_core, pin_this_thread};

/// As fast as they are answered, for two seconds: microseconds of the proxy's CPU a request.
pub fn cpu_per_request(proxy: &Running, token: &str, status: u16) -> f64 {
    let script = "-t1 -c64 -d2s";
    let mut wrk = on_core(LOAD_CORE, "wrk");
    wrk.args(script.split(' '))
        .args(["-H", &format!("X-Token: {token}")])
        .arg(format!("http://{}/public/x", proxy.address));
    let before = proxy.cpu();
    let report = output(&mut wrk);
    let spent = proxy.cpu() - before;
    let requests: f64 = number_before(&report, " requests in");
    let refused = report.contains("Non-2xx");
    assert_eq!(refused, status != 200, "the answers are not {status}:\n{report}");
    spent * 1e6 / requests
}

/// An even load, as a sidecar has it most of its life.
pub struct Paced {
    /// CPU of the proxy a request.
    pub cpu_micros: f64,
    /// Median time to the answer.
    pub p50_micros: f64,
}

const RATE: u32 = 2000;
const PACED_FOR: Duration = Duration::from_secs(2);

/// `RATE` requests a second over 16 connections, one after the other.
pub fn paced(proxy: &Running) -> Paced {
    pin_this_thread();
    let mut connections: Vec<TcpStream> =
        (0..16).map(|_| TcpStream::connect(proxy.address).expect("it listens")).collect();
    for connection in &connections {
        connection.set_nodelay(true).expect("a socket");
    }
    for connection in &mut connections {
        ask(connection);
    }
    let (before, begin) = (proxy.cpu(), Instant::now());
    let mut latencies = Vec::new();
    let interval = Duration::from_secs(1) / RATE;
    let mut number: u32 = 0;
    while begin.elapsed() < PACED_FOR {
        let due = begin + interval * number;
        // Waiting in a loop keeps the clock of the load out of the latency.
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let asked = Instant::now();
        let place = number as usize % connections.len();
        ask(&mut connections[place]);
        latencies.push(asked.elapsed());
        number += 1;
    }
    let spent = proxy.cpu() - before;
    latencies.sort();
    Paced {
        cpu_micros: spent * 1e6 / f64::from(number),
        p50_micros: latencies[latencies.len() / 2].as_secs_f64() * 1e6,
    }
}

const REQUEST: &[u8] = b"GET /public/x HTTP/1.1\r\nHost: shop\r\nX-Token: 42\r\n\r\n";

fn ask(connection: &mut TcpStream) {
    let mut buffer = [0; 4096];
    connection.write_all(REQUEST).expect("sent");
    let n = connection.read(&mut buffer).expect("answered");
    assert!(buffer[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..n]));
}

/// Bodies of 1 MiB over 8 connections: seconds of the proxy's CPU a GiB.
pub fn cpu_per_gib(proxy: &Running) -> f64 {
    let mut wrk = on_core(LOAD_CORE, "wrk");
    wrk.args(["-t1", "-c8", "-d2s", "-H", "X-Token: 42"])
        .arg(format!("http://{}/public/large", proxy.address));
    let before = proxy.cpu();
    let report = output(&mut wrk);
    let spent = proxy.cpu() - before;
    assert!(!report.contains("Non-2xx"), "{report}");
    spent / (number_before(&report, " requests in") / 1024.0)
}

/// Idle connections to measure.
const IDLE: usize = 4000;

/// Memory of connections that have asked once and wait, both sides open.
pub fn idle_kib(proxy: &Running) -> f64 {
    let before = proxy.memory_kib();
    let connections: Vec<TcpStream> = (0..IDLE)
        .map(|_| {
            let mut connection = TcpStream::connect(proxy.address).expect("it listens");
            ask(&mut connection);
            connection
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let after = proxy.memory_kib();
    drop(connections);
    after.saturating_sub(before) as f64 / IDLE as f64
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("wrk runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The number that stands before these words.
fn number_before(report: &str, words: &str) -> f64 {
    let line = report.lines().find(|line| line.contains(words)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
