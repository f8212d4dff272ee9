//! Programs as processes: where they are, on which core they run, and what CPU time and memory they take.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The file, in a program's folder, of what it says when it can't start.
const STDERR: &str = "stderr";

/// A running proxy, ended with this value.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
}

impl Running {
    /// Starts a command on a core, in its own folder.
    pub fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join(STDERR)).expect("a file"))
            .spawn()
            .expect("the program runs");
        Self { child, address, folder }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The last line it wrote to its standard error, or how it ended if there is none.
    pub fn last_words(&mut self) -> String {
        let text = std::fs::read(self.folder.path().join(STDERR)).unwrap_or_default();
        match (String::from_utf8_lossy(&text).lines().last(), self.child.try_wait()) {
            (Some(line), _) => line.to_owned(),
            (None, Ok(Some(status))) => status.to_string(),
            (None, _) => "it says nothing".to_owned(),
        }
    }

    /// Seconds of CPU time so far.
    pub fn cpu(&self) -> f64 {
        let ticks: u64 = self.family().into_iter().map(ticks).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Resident memory. Pages that several of its processes share count once each, as `ps` has it.
    pub fn memory_kib(&self) -> u64 {
        self.family().into_iter().map(memory).sum()
    }

    /// The process and its children.
    fn family(&self) -> Vec<u32> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let mut family: Vec<u32> =
            children.split_whitespace().filter_map(|child| child.parse().ok()).collect();
        family.push(pid);
        family
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15, counted from behind the name, which may hold spaces.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let time = |n: usize| fields.split_whitespace().nth(n).and_then(|t| t.parse::<u64>().ok());
    time(11).unwrap_or_default() + time(12).unwrap_or_default()
}

fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// A program of this workspace, built in the same profile.
pub fn sibling(name: &str) -> Option<PathBuf> {
    let (profile, flag) = match cfg!(debug_assertions) {
        true => ("debug", None),
        false => ("release", Some("--release")),
    };
    let package = match name {
        "portreeve" | "portreeve-node" => name,
        _ => env!("CARGO_PKG_NAME"),
    };
    let mut build = Command::new(env!("CARGO"));
    let build = build.arg("build").args(flag).args(["--quiet", "-p", package]).status();
    assert!(build.is_ok_and(|status| status.success()), "{name} does not build");
    let own = std::env::current_exe().ok()?;
    let target = own.ancestors().nth(2)?;
    Some(target.join(profile).join(name))
}

/// A command on one core.
pub fn on_core(core: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// Keeps the load that this thread makes away from the proxy.
pub fn pin_this_thread() {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(crate::contender::LOAD_CORE);
    let _ = rustix::thread::sched_setaffinity(None, &cores);
}
