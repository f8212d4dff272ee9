//! A workload whose traffic comes to the proxy by itself: processes in a cgroup and a network namespace
//! of the test's own, kernel programs pinned in a bpffs of the test's own. Nothing can leave the
//! namespace: it has no interface but loopback, where all of `10.50.0.0/16` and `fd50::/64` lives.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::sidecar::binary;
use crate::{Need, eventually, needed};

/// What tests with kernel programs need.
pub const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Namespaces,
    Need::KernelPrograms,
    Need::Program("ip"),
    Need::Program("nsenter"),
    Need::Program("python3"),
];

/// Where cgroup v2 is mounted.
#[must_use]
pub fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    mount.split(' ').nth(1).map(PathBuf::from)
}

/// A network namespace, a bpffs and cgroups; all is gone with this value.
pub struct Host {
    namespace: String,
    cgroups: PathBuf,
    /// Where kernel programs are pinned.
    pub bpffs: PathBuf,
    /// Files of the test.
    pub folder: TempDir,
    processes: Vec<Child>,
}

impl Host {
    /// A host for the test of this name.
    ///
    /// # Panics
    /// When it can't be set up.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let namespace = format!("pre{name}{}", std::process::id());
        let folder = tempfile::tempdir().expect("a folder");
        let bpffs = folder.path().join("bpf");
        fs::create_dir(&bpffs).expect("a folder");
        let cgroups = cgroup_mount().expect("cgroup v2").join(format!("portreeve-{namespace}"));
        fs::create_dir(&cgroups).expect("a cgroup");
        let host = Self { namespace, cgroups, bpffs, folder, processes: Vec::new() };
        succeed(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&host.bpffs));
        let name = &host.namespace;
        for command in [
            format!("netns add {name}"),
            format!("-n {name} link set lo up"),
            format!("-n {name} addr add 10.50.0.1/32 dev lo"),
            format!("-n {name} addr add fd50::1/128 dev lo nodad"),
            format!("-n {name} route add local 10.50.0.0/16 dev lo"),
            format!("-n {name} -6 route add local fd50::/64 dev lo"),
        ] {
            succeed(Command::new(needed("ip")).args(command.split(' ')));
        }
        host
    }

    /// Lets every address of both families be in the namespace.
    ///
    /// # Panics
    /// When it can't be done.
    pub fn route_everything(&self) {
        for (family, all) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
            let name = &self.namespace;
            let command = format!("{family} -n {name} route add local {all} dev lo");
            succeed(Command::new(needed("ip")).args(command.split(' ')));
        }
    }

    /// Takes the calling thread into the namespace, for good.
    ///
    /// # Panics
    /// When it can't.
    pub fn enter(&self) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let namespace = fs::File::open(format!("/run/netns/{}", self.namespace)).expect("there");
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).expect("entered");
    }

    /// A cgroup, made if it is not there.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn cgroup(&self, name: &str) -> PathBuf {
        let cgroup = self.cgroups.join(name);
        fs::create_dir_all(&cgroup).expect("a cgroup");
        cgroup
    }

    /// A program in the namespace. The mounts stay those of the test: `ip netns exec` would hide them.
    #[must_use]
    pub fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new(needed("nsenter"));
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// A program in the namespace and in a cgroup.
    #[must_use]
    pub fn in_cgroup(&self, cgroup: &str, program: &Path) -> Command {
        let mut command = self.inside(Path::new("/bin/sh"));
        let join =
            format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.cgroup(cgroup).display());
        command.args(["-c", &join, "sh"]).arg(program);
        command
    }

    /// `tests/ebpf/probe.py` in a cgroup, run to its end: what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn probe(&self, cgroup: &str, arguments: &str) -> Value {
        let said = self.probe_with(cgroup, arguments, "");
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("`{arguments}` printed {said:?}"))
    }

    /// The same with something on its standard input.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn probe_with(&self, cgroup: &str, arguments: &str, input: &str) -> String {
        let mut child = self
            .probing(cgroup, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the probe runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("the probe ends");
        let _ = writer.join();
        assert!(output.status.success(), "`{arguments}` failed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The probe, not started yet.
    #[must_use]
    pub fn probing(&self, cgroup: &str, arguments: &str) -> Command {
        let mut command = self.in_cgroup(cgroup, &needed("python3"));
        command.arg(script("probe.py")).args(arguments.split(' '));
        command
    }

    /// Starts servers, see `tests/ebpf/servers.py`; in a cgroup if one is named.
    ///
    /// # Panics
    /// When they don't start.
    pub fn serve(&mut self, cgroup: Option<&str>, servers: &[&str]) {
        let python = needed("python3");
        let mut command = match cgroup {
            Some(cgroup) => self.in_cgroup(cgroup, &python),
            None => self.inside(&python),
        };
        let ready = self.folder.path().join(format!("ready-{}", self.processes.len()));
        let out = fs::File::create(&ready).expect("a file");
        command.arg(script("servers.py")).args(servers).stdin(Stdio::piped()).stdout(out);
        self.processes.push(command.spawn().expect("servers run"));
        eventually("servers", || {
            fs::read_to_string(&ready).is_ok_and(|said| said.contains("ready")).then_some(())
        });
    }

    /// Starts a program in the namespace, outside of all cgroups, and waits until it prints `ready`.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&mut self, program: &str, arguments: &[&str], ready: &str) {
        let program = match program.contains('/') {
            true => PathBuf::from(program),
            false => needed(program),
        };
        let log = self.folder.path().join(format!("out-{}", self.processes.len()));
        let out = fs::File::create(&log).expect("a file");
        let errors = out.try_clone().expect("a file");
        let child = self.inside(&program).args(arguments).stdout(out).stderr(errors).spawn();
        self.processes.push(child.expect("it runs"));
        eventually("a program", || {
            fs::read_to_string(&log).is_ok_and(|said| said.contains(ready)).then_some(())
        });
    }

    /// Writes a file into the test's folder; nobody sees half of it.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let new = path.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, &path).expect("renamed");
        path
    }

    /// Runs `portreeve` in the namespace to its end: exit code, standard output, standard error.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn portreeve(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.inside(binary()).args(arguments).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// Starts a sidecar with a configuration, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn sidecar(&self, name: &str, config: &str) -> Redirected {
        let config = self.file(&format!("{name}.yaml"), config);
        let [stdout, stderr] =
            ["out", "err"].map(|kind| self.folder.path().join(format!("{name}.{kind}")));
        let create = |path: &Path| fs::File::create(path).expect("a file");
        let child = self
            .inside(binary())
            .args(["run", "--config"])
            .arg(&config)
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .spawn();
        let mut sidecar = Redirected { child: child.expect("the sidecar runs"), stdout, stderr };
        eventually("the sidecar", || {
            if let Some(status) = sidecar.child.try_wait().expect("a child") {
                panic!("the sidecar ended with {status}:\n{}", sidecar.messages());
            }
            sidecar.messages().contains("` is in force").then_some(())
        });
        sidecar
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = Command::new("umount").arg("--lazy").arg(&self.bpffs).status();
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
        let inner = fs::read_dir(&self.cgroups).into_iter().flatten().flatten();
        for cgroup in inner.map(|entry| entry.path()).chain([self.cgroups.clone()]) {
            // A process that was just killed is in it for a moment.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
            while cgroup.is_dir()
                && fs::remove_dir(&cgroup).is_err()
                && std::time::Instant::now() < until
            {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// A sidecar that kernel programs feed.
pub struct Redirected {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Redirected {
    /// What it has said.
    #[must_use]
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its access log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(id) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(id, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it can't be waited for.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child")
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A probe that holds a connection open.
pub struct Held {
    child: Child,
    stdin: std::process::ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// What it said when the connection was open.
    pub opened: Value,
}

impl Held {
    /// Starts the probe, and waits until it is connected.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn start(probe: &mut Command) -> Self {
        let mut child =
            probe.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut held = Self { child, stdin, lines, opened: Value::Null };
        held.opened = held.next();
        assert_eq!(held.opened["error"], Value::Null);
        held
    }

    /// Sends a line and returns what comes back: null, if nothing does any more.
    ///
    /// # Panics
    /// When the probe has ended.
    pub fn echo(&mut self, text: &str) -> Value {
        writeln!(self.stdin, "{text}").expect("the probe reads");
        self.next()["echo"].take()
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ebpf").join(name)
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
