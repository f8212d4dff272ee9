//! The real binary: the daemon runs without a datapath, and the commands ask it.
//!
//! What they print is in `tests/expected/`; set `UPDATE_EXPECTED=1` to write it anew.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_portreeve-node");

struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
}

fn at(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

fn run(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["run", "--node", "node-1", "--datapath", "none", "--objects"]);
    command.arg(at(folder, "objects")).arg("--state").arg(at(folder, "state"));
    command.arg("--socket").arg(at(folder, "node.sock"));
    command
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = at(folder.path(), "objects");
        fs::create_dir(&objects).unwrap();
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/objects");
        for entry in fs::read_dir(cases).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, objects.join(path.file_name().unwrap())).unwrap();
        }
        let log = fs::File::create(at(folder.path(), "log")).unwrap();
        let child = run(folder.path()).stderr(log).spawn().unwrap();
        let daemon = Self { folder, child };
        daemon.until("it is up", |daemon| {
            let status = daemon.ask(&["status", "--output", "json"]);
            status.status.success() && text(&status.stdout).contains("\"synced\": true")
        });
        daemon
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--socket").arg(at(self.folder.path(), "node.sock"));
        command.output().unwrap()
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(at(self.folder.path(), "log")).unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn object(&self, name: &str) -> PathBuf {
        at(self.folder.path(), "objects").join(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Compares what was printed; the folder of the test is called FOLDER.
fn compare(name: &str, said: &str, folder: &Path) {
    let said = said.replace(&folder.display().to_string(), "FOLDER");
    let said = said.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &said).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(said, expected, "{name}: run `UPDATE_EXPECTED=1 cargo test -p portreeve-node`");
}

#[test]
fn commands_print_what_was_read_over() {
    let daemon = Daemon::start();
    for (name, arguments) in [
        ("status", &["status"][..]),
        ("endpoint-list", &["endpoint", "list"]),
        ("endpoint-get", &["endpoint", "get", "shop-1"]),
        ("policy-get", &["policy", "get", "default/shop-1"]),
        ("service-list", &["service", "list"]),
        ("identity-list", &["identity", "list"]),
    ] {
        for output in ["table", "json"] {
            let mut arguments = arguments.to_vec();
            arguments.extend(["--output", output]);
            let said = daemon.ask(&arguments);
            assert!(said.status.success(), "{}", text(&said.stderr));
            compare(&format!("{name}.{output}.txt"), &text(&said.stdout), daemon.folder.path());
        }
    }
    for (name, arguments) in [
        ("bpf-list", &["bpf", "ipcache", "list"][..]),
        ("endpoint-get-nobody", &["endpoint", "get", "nobody"]),
    ] {
        let said = daemon.ask(arguments);
        assert_eq!(said.status.code(), Some(1));
        compare(&format!("{name}.error.txt"), &text(&said.stderr), daemon.folder.path());
    }
    let log = daemon.log();
    assert!(log.contains("NOTHING IS ENFORCED"), "{log}");
}

#[test]
fn without_a_datapath_it_does_not_run_unless_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let config = "objects: objects\nstate: state\nsocket: node.sock\nkernel: {bpffs: nowhere}\n";
    std::fs::write(folder.path().join("node.yaml"), config).unwrap();
    let said = Command::new(BINARY)
        .args(["run", "--config"])
        .arg(folder.path().join("node.yaml"))
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    let detached = Command::new(BINARY)
        .args(["detach", "--bpffs"])
        .arg(folder.path().join("nowhere"))
        .output()
        .unwrap();
    assert_eq!(detached.status.code(), Some(1));
    // Others lack privileges as well.
    if rustix::process::geteuid().is_root() {
        compare("run-ebpf.error.txt", &text(&said.stderr), folder.path());
        compare("detach.error.txt", &text(&detached.stderr), folder.path());
    }
    assert!(!folder.path().join("state").exists(), "nothing was begun");
}

#[test]
fn who_asks_is_told_when_no_daemon_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("node.sock");
    let ask = |arguments: &[&str]| {
        Command::new(BINARY).args(arguments).arg("--socket").arg(&socket).output().unwrap()
    };
    let said = ask(&["bpf", "lb", "list", "--endpoint", "shop-1"]);
    assert_eq!(said.status.code(), Some(2), "whoever is asked");
    let said = ask(&["status"]);
    assert_eq!(said.status.code(), Some(3));
    compare("not-running.error.txt", &text(&said.stderr), folder.path());
    // What a daemon that was killed has left.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(ask(&["monitor"]).status.code(), Some(3));
}

#[test]
fn changes_are_seen_as_they_happen_and_a_broken_one_is_shown() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start();
    let socket = at(daemon.folder.path(), "node.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut monitor = Command::new(BINARY)
        .args(["monitor", "--output", "json", "--socket"])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut news = BufReader::new(monitor.stdout.take().unwrap()).lines().map(Result::unwrap);
    let listening = news.next().unwrap();
    assert!(listening.starts_with("{\"event\":\"listening\",\"time\":\"2"), "{listening}");
    let policy = fs::read_to_string(daemon.object("policy.yaml")).unwrap();
    fs::write(daemon.object("policy.yaml"), policy.replace("ingress:", "ingres:")).unwrap();
    let broken = news.next().unwrap();
    assert!(broken.contains("\"object-broken\""), "{broken}");
    let log = daemon.log();
    assert!(log.contains("ERROR /") && !log.contains("error: "), "{log}");
    let (_, after) = log.split_once("ERROR").unwrap();
    assert!(!after.contains("in force"), "what is refused is no change: {log}");
    let said = daemon.ask(&["status"]);
    compare("status-broken.table.txt", &text(&said.stdout), daemon.folder.path());
    fs::write(daemon.object("policy.yaml"), policy).unwrap();
    let put = news.next().unwrap();
    assert!(put.contains("\"object-put\"") && put.contains("policy.yaml:2"), "{put}");
    assert!(put.contains("\"time\":\"2"), "{put}");
    assert!(news.next().unwrap().contains("\"endpoint-realised\""));
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    // It has no log files, and goes on.
    daemon.signal("USR1");
    daemon.signal("HUP");
    daemon.until("it was told to read again", |daemon| daemon.log().contains("all objects again"));
}

#[test]
fn who_watches_an_endpoint_that_is_not_there_is_told_so_at_once() {
    let daemon = Daemon::start();
    for (name, is_there) in [("shop-1", true), ("shop-l", false)] {
        let mut monitor = Command::new(BINARY)
            .args(["monitor", "--endpoint", name, "--socket"])
            .arg(at(daemon.folder.path(), "node.sock"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(monitor.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("listening") && !first.contains("note"), "{first}");
        monitor.kill().unwrap();
        let said = text(&monitor.wait_with_output().unwrap().stderr);
        assert_eq!(said.is_empty(), is_there, "{said}");
        if !is_there {
            compare("monitor-nobody.error.txt", &said, daemon.folder.path());
        }
    }
}

#[test]
fn numbers_outlive_sigkill_and_sigterm_ends_it_in_order() {
    let mut daemon = Daemon::start();
    let ask = |daemon: &Daemon| text(&daemon.ask(&["identity", "list"]).stdout);
    let before = ask(&daemon);
    // A second one may not use the same folder, nor the same socket.
    let second = run(daemon.folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another daemon uses it"), "{}", text(&second.stderr));
    daemon.signal("KILL");
    daemon.child.wait().unwrap();
    let log = fs::File::create(at(daemon.folder.path(), "log")).unwrap();
    daemon.child = run(daemon.folder.path()).stderr(log).spawn().unwrap();
    daemon.until("it is up again", |daemon| ask(daemon) == before);
    daemon.signal("TERM");
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
    assert!(daemon.log().contains("ended in order"));
    assert!(!at(daemon.folder.path(), "node.sock").exists());
}

#[test]
fn config_check_finds_what_run_would_refuse_the_configuration_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(at(folder.path(), "objects")).unwrap();
    let file = at(folder.path(), "node.yaml");
    let mut all = String::new();
    for wrong in [
        "",
        "objects: objects\nobjects: objects\n",
        "objects: objects\nkernel: {instance: a/b}\n",
        "objects: objects\nkernel: {addresses: [224.0.0.1]}\n",
        "objects: objects\nkernel: {cgroup: nowhere}\naccess_log: {to: nowhere/log}\n",
    ] {
        fs::write(&file, wrong).unwrap();
        let [checked, run] = [&["config", "check"][..], &["run", "--config"]].map(|command| {
            let said = Command::new(BINARY).args(command).arg(&file).output().unwrap();
            assert_eq!(said.status.code(), Some(78), "{command:?} {wrong}");
            text(&said.stderr)
        });
        assert_eq!(checked, run);
        all += &checked;
    }
    compare("config-check.error.txt", &all, folder.path());
    fs::write(&file, "objects: objects\nkernel: {instance: blue}\n").unwrap();
    let said = Command::new(BINARY).args(["config", "check"]).arg(&file).output().unwrap();
    assert!(said.status.success(), "{}", text(&said.stderr));
}

#[test]
fn it_does_not_begin_with_what_can_not_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(78));
    compare("run-nowhere.error.txt", &text(&said.stderr), folder.path());
    fs::create_dir(at(folder.path(), "objects")).unwrap();
    fs::write(at(folder.path(), "objects/a.yaml"), "kind: [\n").unwrap();
    let said = run(folder.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(78));
    assert!(text(&said.stderr).contains("it can't be told what would be allowed"));
    let misspelt = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolcy\nmetadata: {name: p}\n";
    fs::write(at(folder.path(), "objects/a.yaml"), misspelt).unwrap();
    let said = run(folder.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(78));
    let hint = "did you mean `CiliumNetworkPolicy`?";
    assert!(text(&said.stderr).contains(hint), "{}", text(&said.stderr));
    fs::write(at(folder.path(), "objects/a.yaml"), "").unwrap();
    fs::create_dir_all(at(folder.path(), "state")).unwrap();
    fs::write(at(folder.path(), "state/identities.json"), "{\"format\": \"portr").unwrap();
    let said = run(folder.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(78));
    assert!(text(&said.stderr).contains("is damaged"), "{}", text(&said.stderr));
}
