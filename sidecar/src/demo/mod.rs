//! `portreeve demo`: policy at work in one command, through real sockets.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the proxy in the middle, and what both demos have in common |
//! | `http/` | HTTP: an upstream and a dozen requests |
//! | `kafka/` | Kafka: a stand-in for a broker and a dozen requests |
//! | `table.rs` | what came of them |

mod http;
mod kafka;
mod table;

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{Limits, ListenerConfig, PolicyFiles, Proxy, ProxyConfig, UpstreamConfig};
use portreeve_policy::{Endpoint, Options, Peer, TrafficDirection};
use serde_json::Value;
use tempfile::TempDir;

use self::table::Answer;
use crate::cli::{DemoArguments, DemoProtocol};
use crate::{Failure, print};

/// Where the proxy listens, if nobody else does.
const PORT: u16 = 15006;

/// How long the access log may lag behind.
const LOG_LAG: Duration = Duration::from_secs(5);

/// Runs the demo.
pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    match arguments.protocol {
        DemoProtocol::Http => http::run(arguments.once),
        DemoProtocol::Kafka => kafka::run(arguments.once),
    }
}

/// A policy among the examples.
struct Example {
    path: &'static str,
    text: &'static str,
}

/// The last part of a loopback address, and the labels of who has it.
type Peered = (u8, &'static str);

/// A proxy at work.
struct Demo {
    proxy: Proxy,
    address: SocketAddr,
    upstream: SocketAddr,
    policy: PathBuf,
    folder: TempDir,
}

impl Demo {
    fn start(
        example: &Example,
        labels: &str,
        peers: &[Peered],
        upstream: SocketAddr,
        policy_port: u16,
    ) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::new)?;
        let policy = example.file(folder.path())?;
        let parse = |text: &str| text.parse().map_err(Failure::new);
        let config = |port: u16, admin: u16| -> Result<ProxyConfig, Failure> {
            let peers: Result<_, Failure> = peers
                .iter()
                .map(|(last, labels)| {
                    let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, *last));
                    Ok(Peer::new([address.into()], parse(labels)?))
                })
                .collect();
            Ok(ProxyConfig {
                endpoint: Endpoint::new("workload", "demo", parse(labels)?),
                peers: peers?,
                options: Options::default(),
                listeners: vec![ListenerConfig {
                    name: "demo".to_owned(),
                    direction: TrafficDirection::Ingress,
                    listen: (Ipv4Addr::LOCALHOST, port).into(),
                    upstream: UpstreamConfig::Fixed(upstream),
                    policy_port: Some(policy_port),
                    advertised: None,
                }],
                policy: PolicyFiles { paths: vec![policy.clone()], watch: true }.into(),
                limits: Limits::default(),
                workers: None,
                access_log: AccessLogConfig {
                    mode: AccessLogMode::All,
                    sink: Sink::File(log_file(folder.path())),
                    query: false,
                },
                admin: Some((Ipv4Addr::LOCALHOST, admin).into()),
                observer: Default::default(),
                services: Vec::new(),
                redirection: None,
            })
        };
        let proxy = Proxy::start(config(PORT, PORT - 6)?)
            .or_else(|_| Proxy::start(config(0, 0)?).map_err(Failure::new))?;
        let [address, ..] = proxy.addresses() else { return Err(Failure::new("no listener")) };
        Ok(Self { address: *address, proxy, upstream, policy, folder })
    }

    fn introduce(&self, upstream: &str, policy: &str) -> Result<(), Failure> {
        print(&format!(
            "{upstream} on {}, proxy on {}, policy {}:\n  {policy}\n\n",
            self.upstream,
            self.address,
            self.policy.display()
        ))
    }

    /// Shows what came of the requests; an error if it is not what was to come.
    fn show(&self, answers: Vec<Answer>) -> Result<(), Failure> {
        let lines = logged(&log_file(self.folder.path()), answers.len());
        print(&table::render(&answers, &lines, std::io::stdout().is_terminal()))?;
        match answers.iter().all(|answer| answer.good) {
            true => Ok(()),
            false => Err(Failure::new("the proxy did not answer as it should; please report this")),
        }
    }

    /// Stays up until Ctrl-C.
    fn stay(&self, tries: &str) -> Result<(), Failure> {
        let admin = match self.proxy.admin_address() {
            Some(admin) => {
                format!("  curl http://{admin}/policy\n  curl http://{admin}/metrics\n")
            }
            None => String::new(),
        };
        print(&format!(
            "\nIt stays up. Try, in another terminal:\n{tries}{admin}\
             Change {} and it is in force at once. Ctrl-C ends it.\n",
            self.policy.display()
        ))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Failure::new)?;
        runtime.block_on(tokio::signal::ctrl_c()).map_err(Failure::new)
    }

    fn end(self) {
        self.proxy.remote().stop();
        self.proxy.join();
    }
}

impl Example {
    /// The example in the working directory, so that it can be edited and seen to be read again; else
    /// the copy in the binary.
    fn file(&self, folder: &Path) -> Result<PathBuf, Failure> {
        let example = PathBuf::from(self.path);
        if std::fs::read_to_string(&example).is_ok_and(|text| text == self.text) {
            return Ok(example);
        }
        let copy = folder.join("policy.yaml");
        std::fs::write(&copy, self.text).map_err(Failure::new)?;
        Ok(copy)
    }
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("access.log")
}

/// The access log's line for each answer, in the order of the requests, of which each was answered
/// before the next was asked.
fn logged(log: &Path, answers: usize) -> Vec<Value> {
    let deadline = Instant::now() + LOG_LAG;
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let mut lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // Workers hand their lines over each at its own time.
        lines.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
        if lines.len() >= answers || Instant::now() > deadline {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
