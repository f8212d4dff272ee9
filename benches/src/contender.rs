//! The proxies of a comparison: found, started on their core, tried before they count.
//!
//! A protocol brings their configuration and the request that tells whether they work (its
//! [`Dialect`]); nothing here knows what is spoken.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::process::{Running, free_address, on_core, sibling};

/// The core of the proxy.
const PROXY_CORE: usize = 0;
/// The core of load and upstream.
pub const LOAD_CORE: usize = 1;

/// How long a proxy may take to its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a comparison has to say of the protocol it compares.
pub struct Dialect {
    /// For each proxy by its name: writes its configuration to the folder and completes the command.
    pub configure: fn(&str) -> Configure,
    /// Whether what listens there answers an allowed request.
    pub answers: fn(SocketAddr) -> Result<(), Failure>,
    /// Whether what listens there denies all that policy denies.
    pub denies: fn(SocketAddr) -> Result<(), Failure>,
}

/// Completes the command of a proxy.
pub type Configure = fn(&mut Command, &Setting);

/// What a configuration depends on.
pub struct Setting<'a> {
    /// For files.
    pub folder: &'a Path,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the upstream is.
    pub upstream: SocketAddr,
    /// Whether large messages are to come: a proxy may be tuned for them where that costs others.
    pub bulk: bool,
}

impl Setting<'_> {
    /// Writes a file and says where it is.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.folder, name, text)
    }
}

/// Writes a file and says where it is.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// A proxy of the comparison.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    /// Whether it judges requests.
    pub judges: bool,
    program: PathBuf,
    configure: Configure,
    answers: fn(SocketAddr) -> Result<(), Failure>,
}

/// Those that are here and do what policy says, the floor first. The others are named.
pub fn contenders(dialect: &Dialect, upstream: SocketAddr) -> Vec<Contender> {
    let all: [(&'static str, bool, Option<PathBuf>); 5] = [
        ("floor", false, sibling("floor")),
        ("Portreeve", true, named_by("PORTREEVE").or_else(|| sibling("portreeve"))),
        ("HAProxy", true, program("haproxy")),
        ("nginx", true, program("nginx")),
        ("Envoy", true, named_by("ENVOY").or_else(|| program("envoy"))),
    ];
    let mut present = Vec::new();
    for (name, judges, program) in all {
        let Some(program) = program else {
            println!("not on this machine, left out: {name}");
            continue;
        };
        let (configure, answers) = ((dialect.configure)(name), dialect.answers);
        let contender = Contender { name, judges, program, configure, answers };
        match contender.try_out(dialect, upstream) {
            Ok(()) => present.push(contender),
            Err(reason) => println!("left out: {reason}"),
        }
    }
    present
}

/// The program that an environment variable names.
fn named_by(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// Where a program of the system is.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Ends this program unless the others that it needs are here.
pub fn need(programs: &[&str], packages: &str) {
    for needed in programs {
        if program(needed).is_none() {
            eprintln!(
                "error: no `{needed}` here; it makes the load or serves it (Debian: {packages})"
            );
            std::process::exit(1);
        }
    }
}

impl Contender {
    /// Starts it and waits for its first answer.
    pub fn start(&self, upstream: SocketAddr) -> Result<Running, Failure> {
        self.start_tuned(upstream, false)
    }

    /// The same, tuned for large messages.
    pub fn start_for_bulk(&self, upstream: SocketAddr) -> Result<Running, Failure> {
        self.start_tuned(upstream, true)
    }

    fn start_tuned(&self, upstream: SocketAddr, bulk: bool) -> Result<Running, Failure> {
        let folder = tempfile::tempdir()?;
        let listen = free_address();
        let mut command = on_core(PROXY_CORE, &self.program);
        let setting = Setting { folder: folder.path(), listen, upstream, bulk };
        (self.configure)(&mut command, &setting);
        let mut running = Running::start(command, listen, folder);
        wait_for_answer(self.name, &mut running, self.answers)?;
        Ok(running)
    }

    fn try_out(&self, dialect: &Dialect, upstream: SocketAddr) -> Result<(), Failure> {
        let running = self.start(upstream)?;
        if self.judges {
            (dialect.denies)(running.address).map_err(|why| format!("{}: {why}", self.name))?;
        }
        Ok(())
    }
}

/// Waits until it answers; an error says why it does not.
pub fn wait_for_answer(
    name: &str,
    running: &mut Running,
    answers: fn(SocketAddr) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Err(reason) = answers(running.address) else { return Ok(()) };
        if running.has_ended() {
            return Err(format!("{name} ended at once: {}", running.last_words()).into());
        }
        if Instant::now() > deadline {
            return Err(format!("{name} does not answer: {reason}").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
