//! A real Kafka broker as a process, and where the clients for it are.
//!
//! `tests/kafka/fetch` brings both; what it could not bring leaves tests ignored.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::node::net::{self, Net};
use crate::{free_address, needed, peers};

/// Java with the broker's jars.
#[must_use]
pub fn java() -> Command {
    java_as(Command::new(needed("java")))
}

fn java_as(mut java: Command) -> Command {
    java.arg("-Xmx512m")
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            peers::sources("kafka").join("log4j2.properties").display()
        ))
        .arg("-cp")
        .arg(format!("{}/*", peers::fetched("kafka").join("broker").display()));
    java
}

/// A running broker, with a controller of its own, ended with this value.
pub struct Broker {
    child: Child,
    /// Where clients come.
    pub address: SocketAddr,
    /// Where they may come without being sent elsewhere.
    pub direct: SocketAddr,
    folder: TempDir,
    /// The network namespace that it is in, if that is another.
    place: Option<PathBuf>,
}

impl Broker {
    /// Starts one that tells clients to come to `advertised`; `None`: to itself.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(advertised: Option<SocketAddr>) -> Self {
        let (address, direct, controller) = (free_address(), free_address(), free_address());
        Self::start_at(None, [address, direct, controller], advertised.unwrap_or(address))
    }

    /// Starts one in a place of its own, where it has this address.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_in(net: &Net, place: &str, address: IpAddr) -> Self {
        let address = SocketAddr::new(address, 9092);
        let own = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self::start_at(Some(net.path(place)), [address, own(9093), own(9094)], address)
    }

    fn start_at(place: Option<PathBuf>, listen: [SocketAddr; 3], told: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [address, direct, controller] = listen;
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             listeners=CLIENTS://{address},DIRECT://{direct},CONTROLLER://{controller}\n\
             advertised.listeners=CLIENTS://{told},DIRECT://{direct}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENTS:PLAINTEXT,DIRECT:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=DIRECT\n\
             controller.quorum.bootstrap.servers={controller}\nlog.dirs={}\n\
             num.partitions=2\ngroup.initial.rebalance.delay.ms=0\nauto.create.topics.enable=true\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             share.coordinator.state.topic.num.partitions=4\n",
            folder.path().join("data").display(),
        );
        std::fs::write(folder.path().join("server.properties"), properties).expect("properties");
        let formatted = java()
            .args(["kafka.tools.StorageTool", "format", "--standalone"])
            .args(["-t", "hmoJ0L9HTFu37fVw0dOyHg", "-c", "server.properties"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .status()
            .expect("java runs");
        assert!(formatted.success(), "the broker's storage can't be made");
        let child = Self::spawn(&folder, place.as_deref());
        let mut broker = Self { child, address, direct, folder, place };
        broker.wait_until_ready();
        broker
    }

    fn spawn(folder: &TempDir, place: Option<&Path>) -> Child {
        let mut options = std::fs::File::options();
        let log = options.create(true).append(true).open(folder.path().join("log"));
        let log = log.expect("a log");
        let mut java = match place {
            None => java(),
            Some(place) => java_as(net::inside(place, &needed("java"))),
        };
        java.args(["kafka.Kafka", "server.properties"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("java runs")
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.listens() {
            let ended = self.child.try_wait().expect("its status");
            assert!(ended.is_none() && Instant::now() < deadline, "{}", self.messages());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn listens(&self) -> bool {
        let connect = || TcpStream::connect(self.address).is_ok();
        match &self.place {
            None => connect(),
            Some(place) => net::on(place, connect),
        }
    }

    fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it can't be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it ended");
    }

    /// Starts it again, with what it had on disk.
    pub fn revive(&mut self) {
        self.child = Self::spawn(&self.folder, self.place.as_deref());
        self.wait_until_ready();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
