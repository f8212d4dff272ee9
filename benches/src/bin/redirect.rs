//! What kernel programs cost, with and without them in one run: `cargo run --release -p portreeve-benches
//! --bin redirect`, as root. `--quick` measures less often.
//!
//! The connections of two cgroups are compared: one that programs judge, one that nobody looks at. They
//! take turns, so that noise meets both; medians of the ratios of all rounds are shown.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portreeve_benches::Failure;
use portreeve_benches::process::sibling;
use portreeve_benches::redirect::ground::Ground;
use portreeve_benches::redirect::worker::{self, Work, measure};
use portreeve_ebpf::{
    BackendConfig, Capacity, Outbound, PolicyTable, Redirect, ServiceConfig, Settings,
    kernel_verdict, prepare,
};
use portreeve_policy::{Directory, Endpoint, EndpointPolicy, Options, Peer, Repository, Source};

const READ: &str = "10.50.3.1:80";
const SINK: &str = "10.50.2.2:80";
/// Takes connections as fast as they come, and drops them.
const TAKEN: &str = "10.50.2.3:80";

fn main() -> Result<(), Failure> {
    if worker::run()? {
        return Ok(());
    }
    let quick = std::env::args().any(|argument| argument == "--quick");
    let ground = Ground::enter()?;
    let bench = Bench { ground, rounds: if quick { 5 } else { 45 } };
    worker::stay_on(1)?;
    bench.serve()?;
    println!("Ratios to the same without programs, medians of {} rounds.\n", bench.rounds);
    println!("| what | without | with | ratio |\n| --- | --- | --- | --- |");
    bench.connects()?;
    bench.requests()
}

struct Bench {
    ground: Ground,
    rounds: usize,
}

impl Bench {
    fn serve(&self) -> Result<(), Failure> {
        let listener = TcpListener::bind(READ)?;
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|c| drop(thread::spawn(|| answer(c))));
        });
        let listener = TcpListener::bind(TAKEN)?;
        thread::spawn(move || listener.incoming().for_each(drop));
        let listener = TcpListener::bind(SINK)?;
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|c| drop(thread::spawn(|| swallow(c))))
        });
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
            // The first warms up.
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

    fn connects(&self) -> Result<(), Failure> {
        const MICROSECONDS: (&str, f64) = ("µs", 1000.0);
        let (judged, free) = (self.ground.cgroup(true), self.ground.cgroup(false));
        let straight: SocketAddr = TAKEN.parse()?;
        let connect = |cgroup: &Path, to| measure(cgroup, Work::Connect(1000), to, false);
        let redirect = self.attach()?;
        for (entries, what) in [(10, "10 policy entries"), (100_000, "100,000 policy entries")] {
            let policy = table(entries, 1)?;
            redirect.set_policy(&policy)?;
            self.compare(
                &format!("connect, {what}"),
                MICROSECONDS,
                || connect(&free, straight),
                || connect(&judged, straight),
            )?;
        }
        for (count, what) in [(1, "1 service"), (10_000, "10,000 services")] {
            redirect.set_services(&services(count)?)?;
            let frontend = SocketAddr::from(([10, 50, 200, 0], 80));
            self.compare(
                &format!("connect to a service, {what}"),
                MICROSECONDS,
                || connect(&free, straight),
                || connect(&judged, frontend),
            )?;
        }
        let sink: SocketAddr = SINK.parse()?;
        let send = |cgroup: &Path| measure(cgroup, Work::Send(512), sink, false);
        self.compare("64 KiB writes", ("MiB/s", 1.0), || send(&free), || send(&judged))?;
        self.updates(&redirect)?;
        drop(redirect);
        portreeve_ebpf::detach(&self.ground.bpffs, &"bench".parse()?)?;
        Ok(())
    }

    fn updates(&self, redirect: &Redirect) -> Result<(), Failure> {
        let tables = [table(100_000, 1)?, table(100_001, 2)?];
        redirect.set_policy(&tables[0])?;
        let mut took = Vec::new();
        for round in 0..self.rounds * 2 {
            let began = Instant::now();
            redirect.set_policy(&tables[(round + 1) % 2])?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        println!("\none entry of 100,000 changed: {:.2} ms", median(took));
        let mut all = services(10_000)?;
        redirect.set_services(&all)?;
        let mut took = Vec::new();
        for round in 0..self.rounds {
            let service = all.get_mut(round * 97 % 10_000).ok_or("no service")?;
            let first = Arc::make_mut(service).backends.first_mut().ok_or("no backend")?;
            first.draining = !first.draining;
            // What was there before is taken away behind the caller's back, and not hurried here.
            thread::sleep(Duration::from_millis(50));
            let began = Instant::now();
            redirect.set_services(&all)?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        println!("one backend of 10,000 services drained: {:.2} ms", median(took));
        let (small, large) = (table(10, 3)?, table(100_000, 4)?);
        let mut took = Vec::new();
        for _ in 0..5 {
            redirect.set_policy(&small)?;
            let began = Instant::now();
            redirect.set_policy(&large)?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        println!("a policy of 100,000 entries replaced: {:.0} ms\n", median(took));
        Ok(())
    }

    fn attach(&self) -> Result<Redirect, Failure> {
        let mut prepared = prepare(&Settings {
            instance: "bench".parse()?,
            cgroup: self.ground.cgroup(true),
            bpffs: self.ground.bpffs.clone(),
            loopback_is_own: false,
            other_sockets: true,
            tell_redirects: false,
            outbound: Outbound::Own,
            inbound: false,
            join_sockets: false,
            capacity: Capacity::default(),
        })?;
        prepared.set_policy(&table(10, 1)?)?;
        Ok(prepared.attach()?)
    }

    /// The same proxy, fed by kernel programs and by nftables.
    fn requests(&self) -> Result<(), Failure> {
        const MICROSECONDS: (&str, f64) = ("µs", 1000.0);
        let (judged, free) = (self.ground.cgroup(true), self.ground.cgroup(false));
        let read: SocketAddr = READ.parse()?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("policy.yaml"), POLICY)?;
        let sidecar = sibling("portreeve").ok_or("no sidecar")?;
        let common = "workload: {labels: {app: shop}}\nadmin: {listen: off}\naccess_log: {mode: off}\n\
                      peers: [{addresses: [10.50.0.0/16], labels: {app: peer}}]\n\
                      policy: {paths: [policy.yaml]}\nworkers: 1\n";
        let start = |name: &str, more: &str| -> Result<Running, Failure> {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{common}{more}"))?;
            let errors = std::fs::File::create(folder.path().join(format!("{name}.err")))?;
            let child = Command::new(&sidecar)
                .args(["run", "--config"])
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(errors)
                .spawn()?;
            thread::sleep(Duration::from_millis(500));
            Ok(Running(child))
        };
        let redirect = format!(
            "redirect: {{mode: ebpf, cgroup: {}, bpffs: {}, instance: bench, inbound: false}}\n",
            judged.display(),
            self.ground.bpffs.display()
        );
        let _by_programs = start("ebpf.yaml", &redirect)?;
        let _by_nftables =
            start("nft.yaml", "outbound: [{listen: '127.0.0.1:15101', transparent: redirect}]\n")?;
        // The proxy's own connections are root's.
        let rules = "table ip bench {\nchain out {\ntype nat hook output priority -100;\n\
                     meta skuid 65534 ip daddr 10.50.3.1 tcp dport 80 redirect to :15101;\n}\n}\n";
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        nft.stdin.take().ok_or("no pipe")?.write_all(rules.as_bytes())?;
        if !nft.wait()?.success() {
            return Err("nft refuses the rule".into());
        }
        println!(
            "| what | nftables REDIRECT | kernel programs | ratio |\n| --- | --- | --- | --- |"
        );
        for (work, what) in [
            (Work::Request(700), "connection, request, answer"),
            (Work::KeepAlive(3000), "request on an open connection"),
        ] {
            self.compare(
                what,
                MICROSECONDS,
                || measure(&free, work, read, true),
                || measure(&judged, work, read, false),
            )?;
        }
        Ok(())
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: bench, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  egress:
  - toEndpoints: [{matchLabels: {app: peer}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules: {http: [{method: GET, path: '/public/.*', headers: ['X-Token: 1']}]}
";

/// A policy that lets everything of `10.50.0.0/16` pass, with so many entries besides.
fn table(entries: u32, revision: u64) -> Result<PolicyTable, Failure> {
    let mut text = POLICY.replace(
        "      rules: {http: [{method: GET, path: '/public/.*', headers: ['X-Token: 1']}]}\n",
        "",
    );
    text.push_str("  - toEndpoints: [{matchLabels: {app: many}}]\n");
    let repository = Repository::parse([Source::new("bench.yaml", text)])?;
    let many = (0..entries).map(|number| {
        let address = std::net::Ipv4Addr::from(0x0b00_0000 + number * 37);
        IpNet::from(std::net::IpAddr::from(address))
    });
    let peers = vec![
        Peer::new(["10.50.0.0/16".parse()?], "app=peer".parse()?),
        Peer::new(many, "app=many".parse()?),
    ];
    let endpoint = Endpoint::new("shop", "default", "app=shop".parse()?);
    let directory = Directory::from(peers);
    let policy = EndpointPolicy::resolve(&repository, &endpoint, &directory, &Options::default())?;
    Ok(PolicyTable::new(&policy, revision, |protocol, verdict| kernel_verdict(protocol, &verdict)))
}

/// Services `10.50.200.0:80` and on, each with one backend, which is there.
fn services(count: u32) -> Result<Vec<Arc<ServiceConfig>>, Failure> {
    let mut services = Vec::new();
    for number in 0..count {
        let mut name = String::new();
        write!(name, "service-{number}")?;
        let address = std::net::Ipv4Addr::from(0x0a32_c800 + number);
        services.push(Arc::new(ServiceConfig {
            name,
            namespace: "default".to_owned(),
            labels: portreeve_policy::Labels::default(),
            frontends: vec![(address.into(), 80)],
            protocol: portreeve_ebpf::Transport::Tcp,
            backends: vec![BackendConfig { address: TAKEN.parse()?, weight: 1, draining: false }],
            external: false,
            affinity: None,
        }));
    }
    Ok(services)
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
