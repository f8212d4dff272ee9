//! What a node's datapath costs: `cargo run --release -p portreeve-benches --bin node`, as root. `--quick`
//! measures less often; a word measures only what has it in its name: verdict, traffic, services, change,
//! memory.
//!
//! Traffic is compared between two workloads with programs on their interfaces and two without, in turns, so
//! that noise meets both; medians of the ratios of all rounds are shown.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use portreeve_benches::Failure;
use portreeve_benches::node::daemon::Daemon;
use portreeve_benches::node::ground::{Ground, Workload, interfaces, without_interfaces};
use portreeve_benches::node::services::{self, By};
use portreeve_benches::node::verdict::{Packet, Verdicts};
use portreeve_benches::process::sibling;
use portreeve_benches::redirect::worker::{self, Work};

/// Answers requests.
const WEB: u16 = 80;
/// Swallows what comes.
const SINK: u16 = 81;
/// Takes connections as fast as they come, and drops them.
const TAKEN: u16 = 82;

fn main() -> Result<(), Failure> {
    if worker::run()? {
        return Ok(());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let binary = sibling("portreeve-node").ok_or("no daemon")?;
    let (rounds, many) = if quick { (3, 1000) } else { (45, 10_000) };
    let bench = Bench { ground: Ground::enter()?, binary, rounds, many };
    let parts: [(&str, Part); 5] = [
        ("verdict", Bench::verdict),
        ("traffic", Bench::traffic),
        ("services", Bench::services),
        ("change", Bench::change),
        ("memory", Bench::memory),
    ];
    for (name, part) in parts {
        if only.is_empty() || only.iter().any(|word| name.contains(word.as_str())) {
            part(&bench)?;
            println!();
        }
    }
    Ok(())
}

type Part = fn(&Bench) -> Result<(), Failure>;

struct Bench {
    ground: Ground,
    binary: PathBuf,
    rounds: usize,
    /// So many services are many.
    many: u32,
}

impl Bench {
    /// Aim: at most 100 ns.
    fn verdict(&self) -> Result<(), Failure> {
        println!("| a packet (nanoseconds) | 10 entries | 100,000 entries, 50,000 addresses |");
        println!("| --- | --- | --- |");
        let mut nobodys = Verdicts::of_nobody(&self.ground.bpffs("nobodys")?)?;
        let mut least = Vec::new();
        for _ in 0..=self.rounds {
            least.push(nobodys.run(Packet::Nobodys, 200_000)?.as_nanos() as f64);
        }
        let least = median(least);
        println!("| nobody's: the least that a program does | {least:.0} | |");
        drop(nobodys);
        let mut small = Verdicts::new(&self.ground.bpffs("small")?, 10, 10)?;
        let mut large = Verdicts::new(&self.ground.bpffs("large")?, 100_000, 50_000)?;
        for (what, packet) in [
            ("judged by policy", Packet::Judged),
            ("sent on a connection", Packet::Sent),
            ("received on a connection", Packet::Received),
        ] {
            let mut took = [Vec::new(), Vec::new()];
            for round in 0..=self.rounds {
                for (verdicts, took) in [&mut small, &mut large].into_iter().zip(&mut took) {
                    let once = verdicts.run(packet, 200_000)?.as_nanos() as f64;
                    // The first warms up.
                    if round > 0 {
                        took.push(once);
                    }
                }
            }
            let [small, large] = took.map(median);
            println!("| {what} | {small:.0} | {large:.0} |");
        }
        Ok(())
    }

    /// Aim: at least 0.95 of the throughput, at most 1 / 0.95 of the time.
    fn traffic(&self) -> Result<(), Failure> {
        let ([a, b, c, d], objects) = pairs(1)?;
        let objects = [("workloads.yaml", objects.as_str()), ("policy.yaml", TRAFFIC)];
        let _daemon = Daemon::start(&self.ground, &self.binary, "traffic", &objects)?;
        println!("Ratios to the same without programs, medians of {} rounds.\n", self.rounds);
        println!("| what | without | with | ratio |\n| --- | --- | --- | --- |");
        let microseconds = ("µs", 1000.0);
        for (what, port, unit, work) in [
            ("64 KiB writes", SINK, ("MiB/s", 1.0), Work::Send(512)),
            ("request on an open connection", WEB, microseconds, Work::KeepAlive(3000)),
            ("connection, request, answer", WEB, microseconds, Work::Request(700)),
            ("connect", TAKEN, microseconds, Work::Connect(1000)),
        ] {
            let measure = |client: &Workload, server: &Workload| {
                let to = SocketAddr::new(server.address, port);
                client.run(move || worker::measure_here(work, to))?
            };
            self.compare(what, unit, || measure(&c, &d), || measure(&a, &b))?;
        }
        Ok(())
    }

    /// Both in turns; prints a line.
    fn compare(
        &self,
        what: &str,
        unit: (&str, f64),
        mut without: impl FnMut() -> Result<f64, Failure>,
        mut with: impl FnMut() -> Result<f64, Failure>,
    ) -> Result<(), Failure> {
        let (mut all, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..=self.rounds {
            let pair = [without()?, with()?];
            if round > 0 {
                all[0].push(pair[0] / unit.1);
                all[1].push(pair[1] / unit.1);
                ratios.push(pair[1] / pair[0]);
            }
        }
        let [without, with] = all.map(median);
        println!("| {what} | {without:.1} {0} | {with:.1} {0} | {1:.3} |", unit.0, median(ratios));
        Ok(())
    }

    /// Aim: flat.
    fn services(&self) -> Result<(), Failure> {
        let ([a, b, c, d], objects) = pairs(11)?;
        println!(
            "connect to a service, medians of {} rounds; in brackets to plain ones.\n",
            self.rounds
        );
        println!("| services | plain | programs | nftables, a map | nftables, rule by rule |");
        println!("| --- | --- | --- | --- | --- |");
        for (name, count) in [("one-service", 1), ("services", self.many)] {
            let services = services::objects(count, SocketAddr::new(b.address, TAKEN));
            let files = [
                ("workloads.yaml", objects.as_str()),
                ("policy.yaml", TRAFFIC),
                ("services.yaml", &services),
            ];
            let _daemon = Daemon::start(&self.ground, &self.binary, name, &files)?;
            let plain = SocketAddr::new(d.address, TAKEN);
            services::rules(count, plain, &c.cable, [&a.cable, &b.cable])?;
            let asked = [
                (&c, plain),
                (&a, services::address(By::Programs, count)),
                (&c, services::address(By::Map, count)),
                (&c, services::address(By::Rules, count)),
            ];
            let mut took = [const { Vec::new() }; 4];
            for round in 0..=self.rounds {
                for ((client, to), took) in asked.into_iter().zip(&mut took) {
                    let once = client.run(move || worker::measure_here(Work::Connect(500), to))?;
                    let once = once.map_err(|error| format!("connecting to {to}: {error}"))?;
                    if round > 0 {
                        took.push(once / 1000.0);
                    }
                }
            }
            let [plain, programs, map, rules] = took.map(median);
            println!(
                "| {count} | {plain:.1} µs | {programs:.1} µs ({:.2}) | {map:.1} µs ({:.2}) | \
                 {rules:.1} µs ({:.2}) |",
                programs / plain,
                map / plain,
                rules / plain
            );
        }
        Ok(())
    }

    /// Aim: less than 10 ms for 100 workloads.
    fn change(&self) -> Result<(), Failure> {
        const COUNT: u32 = 100;
        interfaces("c", COUNT)?;
        let workloads = crowd("c", COUNT, COUNT);
        let policy = |port: usize| EVERYBODY.replace("PORT", &port.to_string());
        let objects = [("workloads.yaml", workloads.as_str()), ("policy.yaml", &policy(80))];
        let daemon = Daemon::start(&self.ground, &self.binary, "change", &objects)?;
        let mut all = Vec::new();
        for round in 0..self.rounds {
            let took = daemon.change("policy.yaml", &policy(8000 + round), COUNT as usize)?;
            all.push(took.as_secs_f64() * 1000.0);
        }
        println!(
            "a policy that selects {COUNT} workloads, from the file's change until it is in force for all: \
             {:.1} ms",
            median(all)
        );
        drop(daemon);
        without_interfaces("c", COUNT)
    }

    /// Aim: less than 200 MiB.
    fn memory(&self) -> Result<(), Failure> {
        const COUNT: u32 = 1000;
        const APPS: u32 = 100;
        interfaces("m", COUNT)?;
        let workloads = crowd("m", COUNT, APPS);
        let objects = [("workloads.yaml", workloads.as_str()), ("policy.yaml", &chain(APPS))];
        let began = Instant::now();
        let daemon = Daemon::start(&self.ground, &self.binary, "memory", &objects)?;
        let took = began.elapsed().as_secs_f64();
        let all = daemon.maps_kib();
        let (process, maps) = (daemon.memory_kib()?, all.iter().map(|(kib, _)| kib).sum::<u64>());
        println!(
            "{COUNT} workloads of {APPS} applications, a policy each: process {:.1} MiB, maps {:.1} MiB, \
             together {:.1} MiB; in force after {took:.1} s",
            process as f64 / 1024.0,
            maps as f64 / 1024.0,
            (process + maps) as f64 / 1024.0
        );
        for (kib, name) in all.iter().take(8) {
            println!("  {name}: {:.1} MiB", *kib as f64 / 1024.0);
        }
        Ok(())
    }
}

/// What the client may do with the shop, among other things.
const TRAFFIC: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: shop}}]
    toPorts: [{ports: [{port: '80', endPort: 89, protocol: TCP}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '80', endPort: 89, protocol: TCP}]}]
";

/// Selects every workload.
const EVERYBODY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: everybody, namespace: default}
spec:
  endpointSelector: {}
  ingress:
  - fromEndpoints: [{matchLabels: {app: a1}}]
    toPorts: [{ports: [{port: 'PORT', protocol: TCP}]}]
";

/// Two workloads that are judged, and two that aren't, clients and servers; the first two as objects.
fn pairs(first: u8) -> Result<([Workload; 4], String), Failure> {
    let [a, b, c, d] = [0, 1, 2, 3].map(|number| Workload::new(first + number));
    let all = [a?, b?, c?, d?];
    serve(&all[1])?;
    serve(&all[3])?;
    let objects = [workload("client", &all[0]), workload("shop", &all[1])].concat();
    Ok((all, objects))
}

/// A workload as an object.
fn workload(app: &str, workload: &Workload) -> String {
    format!(
        "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\n\
         metadata: {{name: {app}, namespace: default, labels: {{app: {app}}}}}\n\
         spec: {{addresses: [{}], interface: {}}}\n---\n",
        workload.address, workload.cable
    )
}

/// Workloads on interfaces `NAME0`, …, in turns of so many applications.
fn crowd(name: &str, count: u32, apps: u32) -> String {
    let mut text = String::new();
    for number in 0..count {
        let address = std::net::Ipv4Addr::from(0x0a47_0000 + number);
        let _ = write!(
            text,
            "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\n\
             metadata: {{name: {name}{number}, namespace: default, labels: {{app: a{}}}}}\n\
             spec: {{addresses: [{address}], interface: {name}{number}}}\n---\n",
            number % apps
        );
    }
    text
}

/// Each application may be called by the one before it: one port unread, one read.
fn chain(apps: u32) -> String {
    let mut text = String::new();
    for app in 0..apps {
        let before = (app + apps - 1) % apps;
        let _ = write!(
            text,
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
             metadata: {{name: a{app}, namespace: default}}\n\
             spec:\n  endpointSelector: {{matchLabels: {{app: a{app}}}}}\n  ingress:\n  \
             - fromEndpoints: [{{matchLabels: {{app: a{before}}}}}]\n    toPorts:\n    \
             - ports: [{{port: '80', protocol: TCP}}]\n      \
             rules: {{http: [{{method: GET, path: '/a{app}/.*'}}]}}\n    \
             - ports: [{{port: '443', protocol: TCP}}]\n---\n"
        );
    }
    text
}

fn serve(workload: &Workload) -> Result<(), Failure> {
    let servers: [(u16, fn(TcpStream)); 3] = [(WEB, answer), (SINK, swallow), (TAKEN, drop)];
    for (port, serve) in servers {
        let listener = workload.run(move || TcpListener::bind(("0.0.0.0", port)))??;
        thread::spawn(move || {
            // Clients are on the other processor.
            let _ = worker::stay_on(1);
            for client in listener.incoming().flatten() {
                match port {
                    TAKEN => drop(client),
                    _ => drop(thread::spawn(move || serve(client))),
                }
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) {
    let mut head = [0; 4096];
    while let Ok(read) = stream.read(&mut head) {
        if read == 0 || stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err()
        {
            return;
        }
    }
}

fn swallow(mut stream: TcpStream) {
    let mut bytes = vec![0; 256 * 1024];
    while let Ok(1..) = stream.read(&mut bytes) {}
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
