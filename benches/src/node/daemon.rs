//! `portreeve-node run` with folders of its own, and what can be seen of it from outside.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::loaded_maps;

use super::ground::{Ground, unmount};
use crate::Failure;

/// The longest wait for a node with all of its workloads.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon with its folder; it ends with this value, and so does what it has attached.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    /// Maps that were there before.
    others: HashSet<u32>,
}

impl Daemon {
    /// Starts it with these objects, and waits until everything is in force.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn start(
        ground: &Ground,
        binary: &Path,
        name: &str,
        objects: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let folder = ground.folder(name)?;
        ground.bpffs(&format!("{name}/bpf"))?;
        ground.folder(&format!("{name}/objects"))?;
        for (file, text) in objects {
            fs::write(folder.join("objects").join(file), text)?;
        }
        let config = "objects: objects/\nstate: state/\nsocket: node.sock\n\
                      kernel: {bpffs: bpf}\nadmin: 'off'\n";
        fs::write(folder.join("node.yaml"), config)?;
        let others = maps().map(|map| map.id).collect();
        let child = Command::new(binary)
            .args(["run", "--config"])
            .arg(folder.join("node.yaml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("messages"))?)
            .spawn()?;
        let daemon = Self { child, folder, others };
        daemon.wait_until_settled()?;
        Ok(daemon)
    }

    fn wait_until_settled(&self) -> Result<(), Failure> {
        let began = Instant::now();
        while !self.ask("status").is_ok_and(|status| status.contains("\"settled\":true")) {
            if began.elapsed() > PATIENCE {
                return Err(fs::read_to_string(self.folder.join("messages"))?.into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn connect(&self, request: &str) -> Result<BufReader<UnixStream>, Failure> {
        let mut stream = UnixStream::connect(self.folder.join("node.sock"))?;
        writeln!(stream, "{{\"request\":\"{request}\"}}")?;
        Ok(BufReader::new(stream))
    }

    fn ask(&self, request: &str) -> Result<String, Failure> {
        let mut line = String::new();
        self.connect(request)?.read_line(&mut line)?;
        Ok(line)
    }

    /// Writes a file of objects: how long it takes until so many endpoints have a new policy in force.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn change(&self, file: &str, text: &str, endpoints: usize) -> Result<Duration, Failure> {
        let mut news = self.connect("monitor")?;
        news.get_ref().set_read_timeout(Some(PATIENCE))?;
        // It listens before it hears.
        thread::sleep(Duration::from_millis(20));
        let new = self.folder.join("new");
        fs::write(&new, text)?;
        let began = Instant::now();
        fs::rename(new, self.folder.join("objects").join(file))?;
        let (mut realised, mut line) = (0, String::new());
        while realised < endpoints {
            line.clear();
            if news.read_line(&mut line)? == 0 {
                return Err("the daemon tells nothing any more".into());
            }
            realised += usize::from(line.contains("\"endpoint-realised\""));
        }
        Ok(began.elapsed())
    }

    /// Resident memory of the process in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory_kib(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
    }

    /// Memory in KiB that the kernel charges for maps that came with the daemon, by name, the largest first.
    /// Whoever else makes maps meanwhile is counted, too.
    #[must_use]
    pub fn maps_kib(&self) -> Vec<(u64, String)> {
        let mut by_name = BTreeMap::<String, u64>::new();
        for map in maps().filter(|map| !self.others.contains(&map.id)) {
            *by_name.entry(map.name).or_default() += map.bytes;
        }
        let mut all: Vec<_> =
            by_name.into_iter().map(|(name, bytes)| (bytes / 1024, name)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What is pinned would go on judging.
        unmount(&self.folder.join("bpf"));
    }
}

/// A map of this machine, and the bytes that it takes.
struct Map {
    id: u32,
    name: String,
    bytes: u64,
}

fn maps() -> impl Iterator<Item = Map> {
    loaded_maps().filter_map(|map| {
        let map = map.ok()?;
        let file = map.fd().ok()?;
        let path = format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd());
        let info = fs::read_to_string(path).ok()?;
        let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
        let name = map.name_as_str().unwrap_or("without a name").to_owned();
        Some(Map { id: map.id(), name, bytes: bytes.trim().parse().ok()? })
    })
}
