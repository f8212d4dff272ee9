//! The harness of the end-to-end tests: starts the real binary, upstreams and clients, and ends
//! what it started.
//!
//! | module | what |
//! | --- | --- |
//! | [`sidecar`] | the `portreeve` binary as a process |
//! | [`authz`] | `portreeve authz serve`, and the proxies that ask it |
//! | [`upstream`] | servers behind it, from a script or from a system program |
//! | [`client`] | a client that sends exactly the bytes it is told to |
//! | [`http2`] | HTTP/2 by hand and by the `h2` crate, and a server that does as it is told |
//! | [`peers`] | clients that a suite fetches, and what they are expected to print |
//! | [`grpc`] | a gRPC server that counts what reaches it |
//! | [`grpc_tonic`] | the gRPC suite's client in Rust |
//! | [`kafka`] | a real Kafka broker |
//! | [`kafka_oracle`] | how `kafka-protocol` reads the same bytes |
//! | [`workload`] | processes in a cgroup and a namespace, for kernel programs |
//! | [`node`] | a miniature node: namespaces, and `portreeve-node` in one of them |
//! | [`hyper_oracle`] | how hyper reads the same bytes |

pub mod authz;
pub mod client;
pub mod grpc;
pub mod grpc_tonic;
pub mod http2;
pub mod hyper_oracle;
pub mod kafka;
pub mod kafka_oracle;
pub mod node;
pub mod peers;
pub mod sidecar;
pub mod upstream;
pub mod workload;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// An address that nobody listens on, and nobody else is given. Below the ports that the kernel
/// gives to outgoing connections, one of which could take it before it is used.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 8000).unwrap_or_default();
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(tried < 12_000, "no free port");
        let address = SocketAddr::from(([127, 0, 0, 1], 12_000 + first + tried));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Tries until it succeeds.
///
/// # Panics
/// When that takes longer than ten seconds.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where a program of the system is, if it is.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A test that runs only where it can. Where it can't it is reported as ignored, with the reason.
pub fn trial(
    name: &str,
    needs: &[Need],
    run: impl FnOnce() + Send + 'static,
) -> libtest_mimic::Trial {
    let missing: Vec<String> = needs.iter().filter_map(Need::missing).collect();
    let name = match missing.is_empty() {
        true => name.to_owned(),
        false => format!("{name} (not run: {})", missing.join(", ")),
    };
    libtest_mimic::Trial::test(name, move || {
        run();
        Ok(())
    })
    .with_ignored_flag(!missing.is_empty())
}

/// What a test needs of the machine.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program.
    Program(&'static str),
    /// The right to do everything.
    Root,
    /// Network namespaces of the test's own.
    Namespaces,
    /// So many open files.
    Files(u64),
    /// A part of what a suite's `fetch` brings.
    Fetched(&'static str, &'static str),
    /// cgroup v2 and bpffs, and the right to load kernel programs.
    KernelPrograms,
    /// That a fault that is known is mended, which it isn't yet: what goes wrong. `--ignored` runs the test.
    Mended(&'static str),
    /// Envoy: `ENVOY`, the path, or what `tests/envoy/fetch` brings.
    Envoy,
}

impl Need {
    fn missing(&self) -> Option<String> {
        match self {
            Self::Program(name) => program(name).is_none().then(|| format!("no {name} here")),
            Self::Mended(fault) => Some(format!("a known fault: {fault}")),
            Self::Root => (!is_root()).then(|| "not root".to_owned()),
            Self::Namespaces => {
                let probe = format!("portreeve-probe-{}", std::process::id());
                let ip = |verb: &str| {
                    let ip = program("ip")?;
                    let output =
                        std::process::Command::new(ip).args(["netns", verb, &probe]).output();
                    output.ok().filter(|output| output.status.success())
                };
                let made = ip("add").and_then(|_| ip("del"));
                made.is_none().then(|| "no network namespaces here".to_owned())
            }
            Self::KernelPrograms => kernel_programs_missing(),
            Self::Envoy => authz::envoy().is_none().then(|| "no envoy here".to_owned()),
            Self::Fetched(suite, part) => {
                let missing = !peers::fetched(suite).join(part).is_dir();
                missing.then(|| format!("tests/{suite}/fetch has not brought `{part}`"))
            }
            Self::Files(files) => {
                use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
                let limit = getrlimit(Resource::Nofile);
                let wanted = Rlimit {
                    current: Some(*files),
                    maximum: limit.maximum.map(|maximum| maximum.max(*files)),
                };
                let enough = limit.current.is_none_or(|current| current >= *files);
                (!enough && setrlimit(Resource::Nofile, wanted).is_err())
                    .then(|| format!("fewer than {files} open files allowed"))
            }
        }
    }
}

/// Why kernel programs can't be tried here.
fn kernel_programs_missing() -> Option<String> {
    const BPF: u32 = 39;
    if workload::cgroup_mount().is_none() {
        return Some("no cgroup v2 mounted".to_owned());
    }
    let systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !systems.lines().any(|line| line.ends_with("\tbpf")) {
        return Some("a kernel without bpffs".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    (effective & (1 << BPF) == 0).then(|| "no CAP_BPF".to_owned())
}

/// The path of a program that a test's needs have named.
///
/// # Panics
/// When it is gone.
#[must_use]
pub fn needed(name: &str) -> PathBuf {
    program(name).expect("it is among the needs")
}
