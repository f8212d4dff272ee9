//! `portreeve-node run` in a namespace, with a folder of objects, a state folder and a bpf file system of
//! its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::net::{Net, succeed};
use crate::sidecar::node_binary;

/// The daemon of a node; it, and what it has attached, is gone with this value.
pub struct Daemon {
    place: String,
    folder: tempfile::TempDir,
    process: Child,
}

impl Daemon {
    /// Folders for the daemon of the node in a place. It is not started yet, so that there may be objects
    /// before it is. `config` is added to a configuration that is the same for all.
    ///
    /// # Panics
    /// When they can't be made.
    #[must_use]
    pub fn new(place: &str, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Command::new("true").spawn().expect("a process");
        let daemon = Self { place: place.to_owned(), folder, process };
        for folder in ["objects", "bpf"] {
            fs::create_dir(daemon.path(folder)).expect("a folder");
        }
        succeed(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(daemon.path("bpf")));
        daemon.configure(config);
        daemon
    }

    /// Writes the configuration anew, for the next start.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn configure(&self, config: &str) {
        self.configure_kernel("bpffs: bpf", config);
    }

    /// The same, with the keys of `kernel`.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn configure_kernel(&self, kernel: &str, config: &str) {
        let admin = if config.contains("admin:") { "" } else { "admin: 'off'\n" };
        let config = format!(
            "objects: objects/\nstate: state/\nsocket: node.sock\nkernel: {{{kernel}}}\n\
             {admin}{config}\n"
        );
        fs::write(self.path("node.yaml"), config).expect("a file");
    }

    /// Starts the daemon, and waits until everything is in force. Its access log is the file `log`, which
    /// outlives it.
    ///
    /// # Panics
    /// When that takes longer than ten seconds.
    pub fn start(&mut self, net: &Net) {
        let messages = fs::File::create(self.path("messages")).expect("a file");
        let mut daemon = net.inside(&self.place, node_binary());
        daemon.args(["run", "--config"]).arg(self.path("node.yaml"));
        let log = fs::File::options().create(true).append(true).open(self.path("log"));
        daemon.stdout(log.expect("a file")).stderr(messages);
        self.process = daemon.spawn().expect("the daemon runs");
        let began = Instant::now();
        while !self.is_settled() {
            assert!(began.elapsed().as_secs() < 10, "{}", self.messages());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether all that is wanted is in force.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.ask("status").is_some_and(|status| status["settled"] == true)
    }

    /// Sends the daemon a signal.
    ///
    /// # Panics
    /// When it is not running.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it is nobody's.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.process.wait().expect("it ends")
    }

    /// The daemon's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A file or folder of the daemon.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of them all.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of objects, all at once.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, file: &str, text: &str) {
        let (there, new) = (self.path("objects").join(file), self.path("new"));
        fs::write(&new, text).expect("a file");
        fs::rename(new, there).expect("a file");
    }

    /// What it has written on standard error.
    #[must_use]
    pub fn messages(&self) -> String {
        fs::read_to_string(self.path("messages")).unwrap_or_default()
    }

    /// What the command line says.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn text(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(node_binary());
        let output = command.args(arguments).arg("--socket").arg(self.path("node.sock")).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    }

    /// The same as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?} says {text:?}"))
    }

    /// The rows of a table of the kernel.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn rows(&self, table: &str) -> Vec<Vec<String>> {
        let listing = self.json(&["bpf", table, "list"]);
        serde_json::from_value(listing["rows"].clone()).expect("rows")
    }

    /// Asks its socket itself, which takes no process: `status`, `endpoint-list`. `None`: it does not listen.
    #[must_use]
    pub fn ask(&self, request: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path("node.sock")).ok()?;
        stream.write_all(format!("{}\n", json!({ "request": request })).as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(serde_json::from_str::<Value>(&line).ok()?["ok"].take())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("umount").arg("--lazy").arg(self.path("bpf")).status();
    }
}
