//! Whether backends are well, and telling load balancers of outside whether this node has any: all the I/O
//! of it, on a thread of its own, so that neither a slow answer holds up the datapath nor the other way
//! round. What follows from answers is [`state`](crate::state)'s.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Checkup`]: what is wanted goes in, what was heard comes out |
//! | `probe.rs` | one question to one backend |
//! | `node_port.rs` | `healthCheckNodePort`, answered as kube-proxy does |

mod node_port;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use self::node_port::NodePort;
use crate::datapath::ServiceName;
use crate::objects::HealthCheck;

/// Questions that are on their way at once, at most: so that many who are silent hold up nobody for long.
const AT_ONCE: usize = 1024;
/// Answers that nobody has read yet; beyond it, questions wait.
const BEHIND: usize = 1024;
/// When a port that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A backend, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// Who is asked.
    pub target: SocketAddr,
    /// How.
    pub check: HealthCheck,
}

/// What a `healthCheckNodePort` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalBackends {
    /// The service.
    pub service: ServiceName,
    /// How many backends on this node take new connections.
    pub count: usize,
}

/// What is to be asked, and answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Who is asked.
    pub probes: Arc<BTreeSet<Probe>>,
    /// The ports of the node where others ask.
    pub ports: BTreeMap<u16, LocalBackends>,
    /// The node is about to leave: nobody is to be sent here any more.
    pub is_leaving: bool,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A backend answered as one that is well, or what was wrong.
    Answer(Probe, Result<(), String>),
    /// Nobody could be asked, for a reason of this node's own.
    Unable(String),
    /// Ports of the node that can't be answered at, and why.
    Unanswered(BTreeMap<u16, String>),
}

/// Asks, and answers. Ends with this value.
#[derive(Debug)]
pub struct Checkup {
    wanted: watch::Sender<Wanted>,
    heard: mpsc::Receiver<Heard>,
}

impl Checkup {
    /// Begins, with nobody to ask.
    ///
    /// # Errors
    /// When the thread can't be had.
    pub fn start() -> io::Result<Self> {
        let (wanted, told) = watch::channel(Wanted::default());
        let (tell, heard) = mpsc::channel(BEHIND);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(work(told, tell));
        thread::Builder::new().name("health".to_owned()).spawn(work)?;
        Ok(Self { wanted, heard })
    }

    /// From now on, this is wanted.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
    }

    /// The node is about to leave.
    pub fn leave(&self) {
        self.wanted.send_modify(|wanted| wanted.is_leaving = true);
    }

    /// What was heard since this was called last, as soon as there is anything. Nothing: it has ended.
    pub async fn heard(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        self.heard.recv_many(&mut all, BEHIND).await;
        all
    }
}

/// Does what is wanted until nobody wants anything.
async fn work(mut wanted: watch::Receiver<Wanted>, tell: mpsc::Sender<Heard>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking: BTreeMap<Probe, Task> = BTreeMap::new();
    let mut ports = Ports::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        // Who leaves has no use for answers, and nobody reads them.
        asking.retain(|probe, _| now.probes.contains(probe) && !now.is_leaving);
        for probe in now.probes.iter().filter(|_| !now.is_leaving) {
            if !asking.contains_key(probe) {
                let again = probe::ask_again_and_again(probe.clone(), turns.clone(), tell.clone());
                asking.insert(probe.clone(), Task(tokio::spawn(again)));
            }
        }
        if ports.follow(&now) && tell.send(Heard::Unanswered(ports.failing.clone())).await.is_err()
        {
            return;
        }
        let wait = async {
            match ports.failing.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = wait => {}
        }
    }
}

/// Work that goes on until this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The ports of the node where others ask.
#[derive(Default)]
struct Ports {
    open: BTreeMap<u16, NodePort>,
    failing: BTreeMap<u16, String>,
}

impl Ports {
    /// Opens and closes what has to be; whether other ports than before can't be had.
    fn follow(&mut self, wanted: &Wanted) -> bool {
        self.open.retain(|port, _| wanted.ports.contains_key(port));
        let mut failing = BTreeMap::new();
        for (port, local) in &wanted.ports {
            if let Some(open) = self.open.get(port) {
                open.tell(local, wanted.is_leaving);
                continue;
            }
            match NodePort::open(*port, local, wanted.is_leaving) {
                Ok(open) => {
                    self.open.insert(*port, open);
                }
                Err(error) => {
                    failing.insert(*port, error.to_string());
                }
            }
        }
        let has_changed = failing != self.failing;
        self.failing = failing;
        has_changed
    }
}
