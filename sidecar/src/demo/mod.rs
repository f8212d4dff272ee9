//! `portreeve demo`: an upstream, the policy everybody quotes, the proxy, and a dozen requests,
//! through real sockets.
//!
//! | file | what |
//! | --- | --- |
//! | `upstream.rs` | the service behind the proxy |
//! | `requests.rs` | what is asked, and a client that asks it byte for byte |
//! | `table.rs` | what came of it |

mod requests;
mod table;
mod upstream;

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portreeve_core::telemetry::{AccessLogConfig, AccessLogMode, Sink};
use portreeve_core::{Limits, ListenerConfig, PolicyFiles, Proxy, ProxyConfig, UpstreamConfig};
use portreeve_policy::{Endpoint, Options, Peer, TrafficDirection};
use serde_json::Value;

use self::requests::{Answer, REQUESTS};
use crate::cli::DemoArguments;
use crate::{Failure, print};

/// The policy, as it stands in the examples.
const POLICY: &str = include_str!("../../../examples/demo/policy.yaml");
const POLICY_PATH: &str = "examples/demo/policy.yaml";

/// Where the proxy listens, if nobody else does.
const PORT: u16 = 15006;

/// How long the access log may lag behind.
const LOG_LAG: Duration = Duration::from_secs(5);

/// Runs the demo.
pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(Failure::new)?;
    let policy = policy_file(folder.path())?;
    let log = folder.path().join("access.log");
    let upstream = upstream::start().map_err(Failure::new)?;
    let proxy = start(upstream, &policy, &log)?;
    let [address, ..] = proxy.addresses() else { return Err(Failure::new("no listener")) };
    let address = *address;
    print(&format!(
        "upstream on {upstream}, proxy on {address}, policy {}:\n  \
         GET /public/.* and nothing else, and every call carries X-Token: [0-9]+\n\n",
        policy.display()
    ))?;
    let answers: Vec<Answer> =
        REQUESTS.iter().enumerate().map(|(n, request)| request.ask(address, n)).collect();
    let lines = logged(&log, &answers);
    print(&table::render(&answers, &lines, std::io::stdout().is_terminal()))?;
    let failed =
        answers.iter().zip(REQUESTS).any(|(answer, request)| answer.seen != request.expected);
    if failed {
        return Err(Failure::new("the proxy did not answer as it should; please report this"));
    }
    if !arguments.once {
        stay(&proxy, address, &policy)?;
    }
    proxy.remote().stop();
    proxy.join();
    Ok(())
}

/// The example in the working directory, so that it can be edited and seen to be read again; else
/// the copy in the binary.
fn policy_file(folder: &Path) -> Result<PathBuf, Failure> {
    let example = PathBuf::from(POLICY_PATH);
    if std::fs::read_to_string(&example).is_ok_and(|text| text == POLICY) {
        return Ok(example);
    }
    let copy = folder.join("policy.yaml");
    std::fs::write(&copy, POLICY).map_err(Failure::new)?;
    Ok(copy)
}

fn start(upstream: SocketAddr, policy: &Path, log: &Path) -> Result<Proxy, Failure> {
    let labels = |text: &str| text.parse().map_err(Failure::new);
    let client = Ipv4Addr::LOCALHOST;
    let config = |port: u16, admin: u16| -> Result<ProxyConfig, Failure> {
        Ok(ProxyConfig {
            endpoint: Endpoint::new("shop", "demo", labels("app=shop")?),
            peers: vec![Peer::new([std::net::IpAddr::from(client).into()], labels("app=client")?)],
            options: Options::default(),
            listeners: vec![ListenerConfig {
                name: "demo".to_owned(),
                direction: TrafficDirection::Ingress,
                listen: (client, port).into(),
                upstream: UpstreamConfig::Fixed(upstream),
                policy_port: Some(80),
                advertised: None,
            }],
            policy: PolicyFiles { paths: vec![policy.to_owned()], watch: true },
            limits: Limits::default(),
            workers: None,
            access_log: AccessLogConfig {
                mode: AccessLogMode::All,
                sink: Sink::File(log.to_owned()),
                query: false,
            },
            admin: Some((client, admin).into()),
        })
    };
    Proxy::start(config(PORT, PORT - 6)?)
        .or_else(|_| Proxy::start(config(0, 0)?).map_err(Failure::new))
}

/// The access log's line for each answer; lines come in the order of the requests, of which each
/// was answered before the next was asked.
fn logged(log: &Path, answers: &[Answer]) -> Vec<Value> {
    let deadline = Instant::now() + LOG_LAG;
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() >= answers.len() || Instant::now() > deadline {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Stays up until Ctrl-C.
fn stay(proxy: &Proxy, address: SocketAddr, policy: &Path) -> Result<(), Failure> {
    let admin = match proxy.admin_address() {
        Some(admin) => format!("  curl http://{admin}/policy\n  curl http://{admin}/metrics\n"),
        None => String::new(),
    };
    print(&format!(
        "\nIt stays up. Try, in another terminal:\n  \
         curl -i -H 'X-Token: 42' http://{address}/public/hello\n  \
         curl -i http://{address}/public/hello\n  \
         curl -i --path-as-is -H 'X-Token: 42' http://{address}/public/../private\n{admin}\
         Change {} and it is in force at once. Ctrl-C ends it.\n",
        policy.display()
    ))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(Failure::new)?;
    runtime.block_on(tokio::signal::ctrl_c()).map_err(Failure::new)
}
