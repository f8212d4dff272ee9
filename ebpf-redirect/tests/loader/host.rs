//! What a test happens in.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use portreeve_ebpf::{Capacity, InstanceName, Outbound, Settings};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::UnshareFlags;

/// What these tests need and isn't here.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if cgroup_mount().is_none() {
        return Some("no cgroup v2 is mounted".to_owned());
    }
    let probe = Command::new("unshare").args(["--net", "--mount", "ip", "link"]).output();
    match probe {
        Ok(output) if output.status.success() => None,
        _ => Some("no namespaces here".to_owned()),
    }
}

/// Network and mounts of this program's own. Called while there is one thread.
pub(crate) fn leave_the_network() {
    // SAFETY: nothing is shared with other threads, for there are none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
        .expect("namespaces");
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .expect("mounts of its own");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip runs");
    assert!(up.success());
}

/// Where cgroup v2 is mounted.
fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    mount.split(' ').nth(1).map(PathBuf::from)
}

/// A bpf file system and a cgroup; all is gone with this value.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    cgroup: PathBuf,
}

impl Host {
    pub(crate) fn new(test: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = format!("portreeve-{}-{test}", std::process::id());
        let cgroup = cgroup_mount().expect("cgroup v2").join(name);
        fs::create_dir(&cgroup).expect("a cgroup");
        let host = Self { folder, cgroup };
        fs::create_dir(host.bpffs()).expect("a folder");
        mount("bpf", host.bpffs(), "bpf", MountFlags::empty(), None).expect("a bpf file system");
        host
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    /// A cgroup, made if it is not there.
    pub(crate) fn cgroup(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).expect("a cgroup");
        cgroup
    }

    /// Settings for a workload in the cgroup of the instance's name.
    pub(crate) fn settings(&self, instance: &str) -> Settings {
        Settings {
            instance: name(instance),
            cgroup: self.cgroup(instance),
            bpffs: self.bpffs(),
            loopback_is_own: false,
            other_sockets: false,
            tell_redirects: false,
            outbound: Outbound::Own,
            inbound: true,
            join_sockets: false,
            capacity: Capacity::default(),
        }
    }

    /// A process in a cgroup.
    pub(crate) fn workload(&self, cgroup: &str) -> Process {
        Process::start(&["workload", path(&self.cgroup(cgroup))])
    }

    /// A process that sets the instance up, with a policy that lets one port be reached, and goes on
    /// until it is killed.
    pub(crate) fn proxy(&self, instance: &str, port: u16) -> Process {
        let settings = self.settings(instance);
        let port = port.to_string();
        Process::start(&["proxy", instance, path(&settings.cgroup), path(&settings.bpffs), &port])
    }

    /// A process in a cgroup of its own that is a proxy and joins sockets.
    pub(crate) fn joining_proxy(&self, instance: &str) -> Process {
        let settings = self.settings(instance);
        let own = self.cgroup("proxy");
        let (cgroup, bpffs) = (path(&settings.cgroup), path(&settings.bpffs));
        Process::start(&["joining", instance, cgroup, bpffs, path(&own)])
    }

    /// Puts this process into a cgroup of the test's, until what is returned is dropped.
    pub(crate) fn enter(&self, name: &str) -> Entered {
        let membership = fs::read_to_string("/proc/self/cgroup").expect("cgroups");
        let before = membership.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = cgroup_mount().expect("cgroup v2").join(before.expect("one of v2"));
        fs::write(self.cgroup(name).join("cgroup.procs"), "0").expect("it takes it");
        Entered { before }
    }

    /// A process that may see nobody else's sockets, and says what comes of setting the instance up.
    pub(crate) fn blind(&self, instance: &str) -> String {
        let settings = self.settings(instance);
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-sys_ptrace").arg(this_program());
        let arguments = ["refused", instance, path(&settings.cgroup), path(&settings.bpffs)];
        Process::spawn(command, &arguments).line()
    }

    /// What is pinned below the bpf file system, by path.
    pub(crate) fn pinned(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in
                fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"))
            {
                // The kernel's own, in each bpf file system.
                if entry.path().extension().is_some_and(|name| name == "debug") {
                    continue;
                }
                found.push(entry.path().display().to_string());
                if entry.path().is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.bpffs(), &mut found);
        found.sort();
        found
    }
}

/// This process is in another cgroup than it was.
pub(crate) struct Entered {
    before: PathBuf,
}

impl Drop for Entered {
    fn drop(&mut self) {
        fs::write(self.before.join("cgroup.procs"), "0").expect("it takes it back");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = unmount(self.bpffs(), UnmountFlags::DETACH);
        remove_cgroup(&self.cgroup);
    }
}

/// Removes a cgroup and those below it; there are no files that could be removed.
fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

pub(crate) fn name(instance: &str) -> InstanceName {
    instance.parse().expect("a name")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// This program as another process, which answers each line with one.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(this_program()), arguments)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .arg("as")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, stdin, stdout };
        assert_eq!(process.line(), "ready", "{arguments:?}");
        process
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it answers.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.line()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it listens");
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    /// `ok`, or the error's number.
    pub(crate) fn connect(&mut self, to: SocketAddr) -> String {
        self.ask(&format!("connect {to}"))
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it was running");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Workloads that connect all the time, one to what is allowed and one to what is denied.
pub(crate) struct Hammers {
    stop: PathBuf,
    processes: [Process; 2],
}

impl Hammers {
    pub(crate) fn start(
        host: &Host,
        cgroup: &str,
        allowed: SocketAddr,
        denied: SocketAddr,
    ) -> Self {
        let stop = host.folder.path().join("stop");
        let processes = [(allowed, "ok"), (denied, "1")].map(|(to, expected)| {
            let mut process = host.workload(cgroup);
            process.tell(&format!("hammer {to} {expected} {}", stop.display()));
            process
        });
        Self { stop, processes }
    }

    /// Ends them: nothing else than was expected came of many connections.
    pub(crate) fn check(mut self) {
        fs::write(&self.stop, "").expect("a file");
        for process in &mut self.processes {
            let said = process.line();
            let (connects, wrong) = said.split_once(" wrong:").expect("two parts");
            assert_eq!(wrong, "", "of {connects} connections");
            assert!(connects.parse::<u32>().expect("a number") > 200, "{connects}");
        }
    }
}

/// A server on loopback that takes connections, outside of every cgroup of the test.
pub(crate) fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || listener.incoming().for_each(drop));
    address
}
