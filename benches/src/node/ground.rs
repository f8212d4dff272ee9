//! Where it is measured: the node's network namespace, which is this program's own, and workloads in
//! others, each with a cable to the node.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::thread::UnshareFlags;

use crate::Failure;

const INSIDE: &str = "PORTREEVE_BENCH_INSIDE";

/// A folder with a bpffs; gone with this value.
pub struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    /// Enters namespaces of its own, by starting this program again, and lets them route.
    ///
    /// # Errors
    /// Without root, or a kernel that has bpffs.
    pub fn enter() -> Result<Self, Failure> {
        if std::env::var_os(INSIDE).is_none() {
            let own = std::env::current_exe()?;
            let error = Command::new("unshare")
                .args(["--net", "--mount"])
                .arg(own)
                .args(std::env::args_os().skip(1))
                .env(INSIDE, "1")
                .exec();
            return Err(format!("can't run unshare: {error}").into());
        }
        ip("link set lo up\n")?;
        for option in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(Path::new("/proc/sys/net").join(option), "1")?;
        }
        Ok(Self { folder: tempfile::tempdir()? })
    }

    /// A bpf file system of its own, gone with the namespace of mounts.
    ///
    /// # Errors
    /// When it can't be mounted.
    pub fn bpffs(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder(name)?;
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&path).status()?;
        if mounted.success() { Ok(path) } else { Err("can't mount a bpffs".into()) }
    }

    /// A folder of its own.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            unmount(&entry.path());
        }
    }
}

/// Unmounts a bpffs, if it is one, and so removes what is pinned there.
pub(super) fn unmount(bpffs: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(bpffs).stderr(Stdio::null()).status();
}

type Job = Box<dyn FnOnce() + Send>;

/// A workload: a thread in a network namespace of its own. Its end of the cable is `eth0`.
pub struct Workload {
    /// Its address.
    pub address: IpAddr,
    /// The node's end of its cable.
    pub cable: String,
    work: Sender<Job>,
}

impl Workload {
    /// The workload of this number, from 1: `10.70.NUMBER.2`.
    ///
    /// # Errors
    /// When the namespace or the cable can't be made.
    pub fn new(number: u8) -> Result<Self, Failure> {
        let (work, jobs) = channel::<Job>();
        let (tell, told) = channel();
        thread::spawn(move || {
            // SAFETY: no file descriptors are unshared.
            let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
            let _ = tell.send(unshared.map(|()| rustix::thread::gettid().as_raw_nonzero()));
            jobs.into_iter().for_each(|job| job());
        });
        let thread = told.recv()??;
        let cable = format!("w{number}");
        ip(&format!(
            "link add {cable} type veth peer name eth0 netns {thread}\n\
             addr add 10.70.{number}.1/24 dev {cable}\nlink set dev {cable} up\n"
        ))?;
        let workload = Self { address: [10, 70, number, 2].into(), cable, work };
        workload.run(move || {
            ip(&format!(
                "link set lo up\naddr add 10.70.{number}.2/24 dev eth0\nlink set dev eth0 up\n\
                 route add default via 10.70.{number}.1\n"
            ))
        })??;
        Ok(workload)
    }

    /// Does something there. Sockets and processes that it makes stay there.
    ///
    /// # Errors
    /// When it ended without a result.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (done, result) = channel();
        let job: Job = Box::new(move || drop(done.send(job())));
        self.work.send(job).map_err(|_| "the workload has ended")?;
        Ok(result.recv()?)
    }
}

/// Interfaces `NAME0`, … of the node with nobody behind them.
///
/// # Errors
/// When they can't be made.
pub fn interfaces(name: &str, count: u32) -> Result<(), Failure> {
    let mut commands = String::new();
    for number in 0..count {
        commands.push_str(&format!(
            "link add {name}{number} type veth peer name {name}{number}x\n\
             link set dev {name}{number} up\n"
        ));
    }
    ip(&commands)
}

/// Takes them away.
///
/// # Errors
/// When one is not there.
pub fn without_interfaces(name: &str, count: u32) -> Result<(), Failure> {
    ip(&(0..count).map(|number| format!("link del {name}{number}\n")).collect::<String>())
}

/// Runs `ip` in this thread's namespace, with a command in each line.
fn ip(commands: &str) -> Result<(), Failure> {
    let mut ip = Command::new("ip");
    let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    ip.stdin.take().ok_or("no pipe")?.write_all(commands.as_bytes())?;
    let output = ip.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}
