//! How long it takes from a changed file to the last call of the datapath, and how much memory a crowded
//! node needs: `cargo run --release -p portreeve-node --example node_scale`.
//!
//! The datapath only counts its calls: what is measured is reading, computing and telling.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use portreeve_node::datapath::{Recorder, Recording};
use portreeve_node::source::Folder;
use portreeve_node::state::{Node, NodeOptions};
use portreeve_policy::Options;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How often each change is measured; the median is printed.
const TIMES: usize = 9;

struct Bench {
    objects: tempfile::TempDir,
    _state: tempfile::TempDir,
    folder: Folder,
    node: Node,
    told: Recorder,
}

fn main() -> Result<()> {
    for (workloads, peers) in [(100, 1_000), (1_000, 1_000), (1_000, 20_000)] {
        measure(workloads, peers)?;
    }
    Ok(())
}

fn measure(workloads: usize, peers: usize) -> Result<()> {
    let before = memory()?;
    let mut bench = Bench::new()?;
    for number in 0..workloads {
        bench.write(&format!("w{number}.yaml"), &workload(number))?;
    }
    bench.write("peers.yaml", &(0..peers).map(peer).collect::<String>())?;
    for app in 0..20 {
        bench.write(&format!("p{app}.yaml"), &policy(app, 0))?;
    }
    println!("{workloads} workloads, {peers} peers, 20 policies");
    let (time, calls) = bench.step()?;
    if let Some(error) = bench.node.object_errors().first() {
        return Err(format!("{}: {}", error.file, error.error).into());
    }
    println!("  from nothing:                 {time:>10.1?}, {calls} calls");
    println!("  memory:                       {:>7.1} MiB more than before", memory()? - before);
    bench.median("a policy of 1 in 20 workloads", |round| ("p3.yaml".into(), policy(3, round)))?;
    bench.median("a policy of all workloads", |round| ("all.yaml".into(), everybody(round)))?;
    bench.median("a peer of known labels", |round| ("new.yaml".into(), peer(peers + round)))?;
    bench.median("a workload's address", |round| {
        ("w0.yaml".into(), workload(0).replace("10.0.0.0", &format!("10.9.9.{round}")))
    })?;
    println!("  memory after that:            {:>7.1} MiB more than before\n", memory()? - before);
    Ok(())
}

impl Bench {
    fn new() -> Result<Self> {
        let (objects, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let told = Recorder::default();
        told.count_only();
        let options = NodeOptions {
            name: "node-1".to_owned(),
            policy: Options::default(),
            identity_linger: Duration::from_secs(900),
        };
        let recording = Recording { recorder: told.clone() };
        let (datapath, proxy) = (Box::new(recording.clone()), Box::new(recording));
        let node = Node::open(options, state.path(), datapath, proxy, Instant::now())?;
        let folder = Folder::new(objects.path());
        Ok(Self { objects, _state: state, folder, node, told })
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.objects.path().join(name);
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    }

    /// Reads what has changed and tells the datapath: how long it took, and how many calls it made.
    fn step(&mut self) -> Result<(Duration, usize)> {
        let (begin, before) = (Instant::now(), self.told.count());
        let batch = self.folder.read()?;
        self.node.apply(batch, Instant::now());
        self.node.realise(Instant::now());
        Ok((begin.elapsed(), self.told.count() - before))
    }

    fn median(&mut self, what: &str, change: impl Fn(usize) -> (String, String)) -> Result<()> {
        let mut times = Vec::new();
        let mut calls = 0;
        for round in 1..=TIMES {
            let (name, text) = change(round);
            // Files that were written just now are looked at twice; that is not the change's cost.
            std::thread::sleep(Duration::from_millis(110));
            self.folder.read()?;
            self.write(&name, &text)?;
            let (time, made) = self.step()?;
            times.push(time);
            calls = made;
        }
        times.sort();
        println!("  {:<29} {:>10.1?}, {calls} calls", format!("{what}:"), times[TIMES / 2]);
        Ok(())
    }
}

fn workload(number: usize) -> String {
    let address = format!("10.0.{}.{}", number / 250, number % 250);
    format!(
        "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w{number}, namespace: \
         shop, labels: {{app: a{}, tier: t{}}}}}\nspec: {{addresses: [{address}], interface: \
         veth{number}}}\n",
        number % 20,
        number % 7
    )
}

fn peer(number: usize) -> String {
    let address = format!("10.1{}.{}.{}", number / 62_500, number / 250 % 250, number % 250);
    format!(
        "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {{name: peer{number}, namespace: \
         shop, labels: {{app: c{}}}}}\nspec: {{addresses: [{address}]}}\n---\n",
        number % 200
    )
}

fn policy(app: usize, round: usize) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{app}, namespace: \
         shop}}\nspec:\n  endpointSelector: {{matchLabels: {{app: a{app}}}}}\n  ingress:\n  - \
         fromEndpoints: [{{matchLabels: {{app: c{app}}}}}, {{matchLabels: {{app: c{}}}}}]\n    toPorts: \
         [{{ports: [{{port: '{}', protocol: TCP}}], rules: {{http: [{{path: '/public/.*'}}]}}}}]\n",
        app + 20,
        8080 + round
    )
}

fn everybody(round: usize) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: all, namespace: \
         shop}}\nspec:\n  endpointSelector: {{}}\n  ingress: [{{fromEntities: [host], toPorts: [{{ports: \
         [{{port: '{}'}}]}}]}}]\n",
        9000 + round
    )
}

/// Resident memory of this process, in MiB.
fn memory() -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}
