//! The `portreeve` binary as a process.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::{eventually, free_address};

/// The policy of most tests: `GET /public/.*`, and `POST` and `PUT` to `/upload`, from `app=client`.
pub const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http:
        - {method: GET|HEAD, path: '/public/.*'}
        - {method: POST|PUT, path: /upload}
        - {method: OPTIONS, path: '\\*'}
";

/// The binary under test, built once.
///
/// # Panics
/// When it can't be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("portreeve"))
}

/// The node's binary, built once.
///
/// # Panics
/// When it can't be built.
pub fn node_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("portreeve-node"))
}

fn built(package: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/<profile>/deps/<test>
    let folder = test.ancestors().nth(2).expect("the profile's folder");
    let release = folder.file_name().is_some_and(|name| name == "release");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", package]);
    if release {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(built.success(), "{package} does not build");
    folder.join(package)
}

/// Runs the binary to its end: exit code, standard output, standard error.
///
/// # Panics
/// When it can't be run.
#[must_use]
pub fn portreeve(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A running sidecar, ended with this value.
pub struct Sidecar {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its admin server.
    pub admin: SocketAddr,
    /// Its policy, configuration and log.
    pub folder: TempDir,
}

/// What is told to a sidecar before it starts.
pub struct Setup {
    upstream: SocketAddr,
    policy: String,
    more: String,
    listen: Option<SocketAddr>,
    listener: String,
    user: Option<u32>,
}

impl Setup {
    /// In front of this upstream, with [`POLICY`].
    #[must_use]
    pub fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            policy: POLICY.to_owned(),
            more: String::new(),
            listen: None,
            listener: String::new(),
            user: None,
        }
    }

    /// With this policy.
    #[must_use]
    pub fn policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.policy);
        self
    }

    /// With these lines in its configuration, too.
    #[must_use]
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    /// Listening there.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// With these keys for its listener, too.
    #[must_use]
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = format!(", {keys}");
        self
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(self) -> Sidecar {
        let folder = tempfile::tempdir().expect("a folder");
        let address = self.listen.unwrap_or_else(free_address);
        let admin = free_address();
        let policies = folder.path().join("policies");
        std::fs::create_dir(&policies).expect("a folder for policies");
        std::fs::write(policies.join("policy.yaml"), &self.policy).expect("the policy");
        let config = format!(
            "workload: {{labels: {{app: shop}}}}\n\
             inbound: [{{listen: '{address}', upstream: '{}', policy_port: 80{}}}]\n\
             peers: [{{addresses: [127.0.0.1], labels: {{app: client}}}}]\n\
             policy: {{paths: [policies]}}\n\
             access_log: {{to: '{}'}}\n\
             admin: {{listen: '{admin}'}}\n{}",
            self.upstream,
            self.listener,
            folder.path().join("access.log").display(),
            self.more,
        );
        let config_path = folder.path().join("sidecar.yaml");
        std::fs::write(&config_path, config).expect("the configuration");
        let mut command = Command::new(binary());
        if let Some(user) = self.user {
            use std::os::unix::fs::{PermissionsExt, chown};
            use std::os::unix::process::CommandExt;
            let everybody = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(folder.path(), everybody).expect("permissions");
            chown(folder.path(), Some(user), Some(user)).expect("an owner");
            // The binary lies where only its owner may look.
            let copy = folder.path().join("portreeve");
            std::fs::copy(binary(), &copy).expect("a copy of the binary");
            command = Command::new(copy);
            command.uid(user).gid(user);
        }
        let child = command
            .args(["run", "--config"])
            .arg(&config_path)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("stderr")).expect("a file"))
            .spawn()
            .expect("the binary runs");
        let mut sidecar = Sidecar { child, address, admin, folder };
        sidecar.wait_until_ready();
        sidecar
    }
}

impl Sidecar {
    fn wait_until_ready(&mut self) {
        eventually("the sidecar to be ready", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status}:\n{}", self.messages());
            }
            TcpStream::connect(self.admin).ok()
        });
    }

    /// A connection to it.
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// What it said on standard error.
    #[must_use]
    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the sidecar to end", || self.child.try_wait().ok().flatten())
    }

    /// Replaces its policy the way `mv` does.
    ///
    /// # Panics
    /// When the file can't be written.
    pub fn replace_policy(&self, policy: &str) {
        let policies = self.folder.path().join("policies");
        std::fs::write(policies.join("new"), policy).expect("the policy");
        std::fs::rename(policies.join("new"), policies.join("policy.yaml")).expect("renamed");
    }

    /// Asks the admin server: status and body.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn ask_admin(&self, method: &str, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.admin);
        let host = self.admin;
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        let answer = client.response();
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// `/policy` as JSON.
    ///
    /// # Panics
    /// When it isn't.
    #[must_use]
    pub fn policy_status(&self) -> Value {
        serde_json::from_str(&self.ask_admin("GET", "/policy").1).expect("JSON")
    }

    /// Reads its policy again, now.
    ///
    /// # Panics
    /// When the policy does not load.
    pub fn reload(&self) {
        let (status, body) = self.ask_admin("POST", "/reload");
        assert_eq!(status, 200, "{body}");
    }

    /// One metric's value, by its line's beginning.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.ask_admin("GET", "/metrics");
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Lines of the access log, once there are as many.
    #[must_use]
    pub fn logged(&self, lines: usize) -> Vec<Value> {
        let path = self.folder.path().join("access.log");
        eventually("lines in the access log", || {
            let text = std::fs::read_to_string(&path).ok()?;
            let read: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (read.len() >= lines).then_some(read)
        })
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let mut status = String::new();
        let mut file =
            std::fs::File::open(format!("/proc/{}/status", self.pid())).expect("a process");
        file.read_to_string(&mut status).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the sidecar said\n{}", self.messages());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Give back what the process held before the next test begins.
        std::thread::sleep(Duration::from_millis(1));
    }
}
