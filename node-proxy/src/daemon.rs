//! `portreeve-node run`: the source of truth is followed, the datapath told, questions answered, signals
//! obeyed.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portreeve_core::observer::Observing;
use portreeve_core::{NodeConfig, raise_file_limit};
use portreeve_ebpf::InstanceName;
use portreeve_ebpf::node::{NodeCapacity, NodeSettings, missing};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::api::Server;
use crate::cli::{DatapathKind, RunArguments};
use crate::command::Failure;
use crate::config::{self, Config, Refusals};
use crate::datapath::{
    Datapath, EbpfDatapath, Links, NoDatapath, Outside, Proxying, SharedProxy, counting,
};
use crate::events::{Flows, Reader, Told};
use crate::health::Checkup;
use crate::logging;
use crate::source::{Batch, Source, WatchedFolder, What};
use crate::state::{Node, NodeOptions};
use crate::trouble;

/// How often it is looked whether connections have ended.
const LOOK: Duration = Duration::from_millis(100);

/// How often it is looked whether the shared proxy is well, and for what was not there yet.
const HEALTH: Duration = Duration::from_secs(5);

/// Runs until a signal ends it.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    logging::start(&arguments.log)?;
    let ended = serve(arguments)?;
    // The last word: the proxy, which says what it does while it ends, is gone by now.
    tracing::info!("{ended}");
    Ok(())
}

/// All of it. How it has ended.
fn serve(arguments: &RunArguments) -> Result<String, Failure> {
    let config = config::from_arguments(arguments)?;
    check_datapath(&config)?;
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    let _entered = runtime.enter();
    // Before anything else: a signal that comes early must find somebody.
    let mut signals = Signals::new().map_err(Failure::new)?;
    let _lock = lock_state(&config.state)?;
    let again = Arc::new(Notify::new());
    // Before anything is set up: it may not be readable.
    let source = open_source(&config.objects, again.clone())?;
    if let Some(folder) = config.socket.parent() {
        make_folder(folder)?;
    }
    let server = Server::listen(&config.socket).map_err(Failure::new)?;
    // Before any is attached, so that nothing that becomes of it is missed.
    let links = Links::listen().map_err(|error| {
        Failure::new(format!("can't listen for interfaces that come and go: {error}"))
    })?;
    let (node, _reader) = open_node(&config)?;
    let mut checkup = Checkup::start().map_err(|error| {
        Failure::new(format!("can't ask backends whether they are well: {error}"))
    })?;
    tracing::info!("objects are read from {}", source.name());
    tracing::info!("status socket: {}", config.socket.display());
    runtime.block_on(async {
        let answers = tokio::spawn(server.serve(node.clone()));
        let followed = follow(&node, source, &again, &links, &mut checkup, &mut signals).await;
        // Before it drains, which is not well either.
        let health = lock(&node).proxy().health();
        let ended = match followed {
            Ok(()) => {
                checkup.leave();
                Ok(drain(&node, config.drain_timeout, &mut signals).await)
            }
            Err(failure) => Err(failure),
        };
        // The socket goes with it.
        answers.abort();
        let _ = answers.await;
        let health = health.map_err(|error| Failure::new(format!("the shared proxy: {error}")));
        ended.and_then(|ended| health.map(|()| ended))
    })
}

/// The node, and who reads what its kernel tells: to be dropped first.
fn open_node(config: &Config) -> Result<(Arc<Mutex<Node>>, Option<Reader>), Failure> {
    let options = NodeOptions {
        name: config.node.clone(),
        policy: config.policy.clone(),
        identity_linger: config.identity_linger,
    };
    let flows = Flows::default();
    let Carried { datapath, proxy, told } = open_datapath(config, &flows)?;
    let node = Node::open(options, &config.state, datapath, proxy, Instant::now())
        .map_err(|error| trouble::node(&error))?
        .with_flows(flows.clone());
    let reader = told.map(|told| Reader::start(told, flows).map_err(Failure::new));
    Ok((Arc::new(Mutex::new(node)), reader.transpose()?))
}

/// Before anything is begun: whether what is wanted can be at all.
fn check_datapath(config: &Config) -> Result<(), Failure> {
    match config.datapath {
        DatapathKind::None => Ok(()),
        DatapathKind::Ebpf => match trouble::missing(&missing(&config.kernel.bpffs)) {
            Some(failure) => Err(failure),
            None => Ok(()),
        },
    }
}

/// What carries policy out.
struct Carried {
    datapath: Box<dyn Datapath>,
    proxy: Box<dyn Proxying>,
    told: Option<Told>,
}

fn open_datapath(config: &Config, flows: &Flows) -> Result<Carried, Failure> {
    if config.datapath == DatapathKind::None {
        // Nobody is to believe that policy is in force when it is not.
        tracing::warn!(
            "NOTHING IS ENFORCED: running without a datapath, as asked. Identities and policies \
             are computed and shown; every packet passes as if there were none"
        );
        let (datapath, proxy) = (Box::new(NoDatapath), Box::new(NoDatapath));
        return Ok(Carried { datapath, proxy, told: None });
    }
    let instance = config
        .kernel
        .instance
        .parse::<InstanceName>()
        .map_err(|error| Failure::config(format!("error: kernel.instance: {error}")))?;
    let settings = NodeSettings {
        instance,
        bpffs: config.kernel.bpffs.clone(),
        capacity: NodeCapacity::default(),
    };
    let told = config.kernel.refusals == Refusals::Told;
    let mut datapath =
        EbpfDatapath::open(&settings, told).map_err(|error| trouble::kernel(&error))?;
    let (devices, addresses) = (config.kernel.devices.clone(), config.kernel.addresses.clone());
    let outside = Outside::new(devices, addresses)
        .map_err(|error| Failure::config(format!("error: kernel.addresses: {error}")))?;
    datapath.serve_outside(outside);
    for trouble in datapath.troubles() {
        tracing::warn!("{trouble}");
    }
    datapath
        .serve_processes(config.kernel.cgroup.as_deref())
        .map_err(|error| Failure::new(format!("services can't be had at `connect()`: {error}")))?;
    datapath.share_out_connections().map_err(Failure::new)?;
    let mut proxy = NodeConfig::new(Vec::new());
    proxy.access_log = config.access_log.clone();
    proxy.admin = config.admin;
    proxy.limits = config.limits.resolve(config.drain_timeout);
    proxy.workers = config.workers;
    proxy.kernel = counting(datapath.kernel());
    proxy.observer = Observing::by(flows.clone());
    let proxy =
        SharedProxy::start(proxy, datapath.kernel()).map_err(|error| trouble::proxy(&error))?;
    let (kernel, names) = (datapath.kernel(), datapath.names());
    let told = proxy.reporter().map(|reporter| Told { kernel, names, reporter });
    Ok(Carried { datapath: Box::new(datapath), proxy: Box::new(proxy), told })
}

/// What can't be read at the start could be anything, and nothing is known of what it was.
fn open_source(objects: &Path, again: Arc<Notify>) -> Result<WatchedFolder, Failure> {
    let source = WatchedFolder::open(objects, again).map_err(|error| {
        Failure::config(format!(
            "error: {error}\n  hint: name another one with `--objects` or the key `objects`"
        ))
    })?;
    if source.unreadable().is_empty() {
        return Ok(source);
    }
    let errors: Vec<_> = source.unreadable().iter().map(ToString::to_string).collect();
    Err(Failure::config(format!(
        "{}\nerror: it is not known which objects these are, so it can't be told what would be \
         allowed without them\n  hint: mend them, or move them elsewhere",
        errors.join("\n")
    )))
}

/// The state folder is one daemon's own.
fn lock_state(state: &Path) -> Result<File, Failure> {
    make_folder(state)?;
    let path = state.join("lock");
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!(
            "can't use the state folder `{}`: {error}\n  hint: choose another one with `--state` or \
             the key `state`",
            state.display()
        ))
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| failed(&error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => {
            failed(&"another daemon uses it: is another `portreeve-node run` still there?")
        }
        error => failed(&error),
    })?;
    Ok(file)
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::new(format!(
            "can't make the folder `{}`: {error}\n  hint: choose another one with `--state` and \
             `--socket`, or the keys `state` and `socket`",
            path.display()
        ))
    })
}

/// Follows the source of truth until it is asked to end.
async fn follow(
    node: &Mutex<Node>,
    mut source: WatchedFolder,
    again: &Notify,
    links: &Links,
    checkup: &mut Checkup,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let (send, mut batches) = mpsc::channel::<Batch>(1);
    // On its own: a batch that is half read must not be lost to something that happens meanwhile.
    let reader = tokio::spawn(async move { while send.send(source.next().await).await.is_ok() {} });
    let mut looks = tokio::time::interval(HEALTH);
    // One for all turns: it waits a little for more, which the others must not make it begin again with.
    let mut changed = std::pin::pin!(links.changed());
    let (mut was_well, mut has_changed) = (true, false);
    loop {
        let (next, health) = {
            let mut node = lock(node);
            (node.next(), node.take_health())
        };
        if let Some(wanted) = health {
            checkup.want(wanted);
        }
        let wait = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            batch = batches.recv() => {
                match batch {
                    Some(batch) => take_in(node, batch),
                    None => return Err(Failure::new("nobody reads objects any more")),
                }
            }
            () = wait => lock(node).realise(Instant::now()),
            heard = checkup.heard() => {
                if heard.is_empty() {
                    return Err(Failure::new("nobody asks backends any more"));
                }
                let mut node = lock(node);
                if node.heard(heard) {
                    node.realise(Instant::now());
                }
            }
            _ = looks.tick() => {
                let health = lock(node).proxy().health();
                // Said once.
                if let (true, Err(error)) = (was_well, &health) {
                    tracing::error!(
                        "the shared proxy: {error}; what it is to read is refused until this daemon is \
                         started again"
                    );
                }
                was_well = health.is_ok();
                // A route comes a little later than its device and its address.
                let mut node = lock(node);
                node.restore_ways();
                if std::mem::take(&mut has_changed) || node.datapath().is_outside_lacking() {
                    node.look_outside();
                    node.realise(Instant::now());
                }
            }
            () = &mut changed => {
                changed.set(links.changed());
                has_changed = true;
                let mut node = lock(node);
                node.look_at_interfaces(Instant::now());
                node.realise(Instant::now());
            }
            received = signals.next() => match received {
                Received::Hangup => {
                    tracing::info!("reading all objects again");
                    again.notify_one();
                    lock(node).proxy().reopen_logs();
                }
                Received::User => lock(node).proxy().reopen_logs(),
                Received::End => break,
            },
        }
    }
    reader.abort();
    Ok(())
}

fn take_in(node: &Mutex<Node>, batch: Batch) {
    let begin = Instant::now();
    let (refused, accepted): (Vec<_>, Vec<_>) =
        batch.events.iter().partition(|event| matches!(event.what, What::Broken));
    let accepted = accepted.len();
    let is_all = refused.is_empty() && batch.unreadable.is_empty() && batch.doubles.is_empty();
    let mut node = lock(node);
    node.apply(batch, begin);
    node.realise(Instant::now());
    let (settled, took) = (node.is_settled(), begin.elapsed());
    let state = if settled { "in force" } else { "not all in force yet" };
    // What is refused has been told of, and comes into force in no way.
    if accepted > 0 || is_all {
        let changes = if accepted == 1 { "change" } else { "changes" };
        tracing::info!("{accepted} {changes}, {state}, {} µs", took.as_micros());
    }
}

/// Lets connections finish, for so long, or until it is asked again. How it has ended.
async fn drain(node: &Mutex<Node>, longest: Duration, signals: &mut Signals) -> String {
    lock(node).drain();
    let end = tokio::time::Instant::now() + longest;
    loop {
        let left = match lock(node).proxy().connections() {
            0 => return "ended in order".to_owned(),
            1 => "1 connection".to_owned(),
            left => format!("{left} connections"),
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = tokio::time::sleep_until(end) => {
                tracing::warn!("{left} still there after {longest:?}: ending");
                return format!("ended, {left} cut");
            }
            received = signals.next() => if let Received::End = received {
                tracing::warn!("asked twice: ending at once");
                return format!("ended, {left} cut");
            },
        }
    }
}

fn lock(node: &Mutex<Node>) -> MutexGuard<'_, Node> {
    node.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signals that `--help` lists.
struct Signals {
    hangup: Signal,
    user: Signal,
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy)]
enum Received {
    Hangup,
    User,
    End,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.hangup.recv() => Received::Hangup,
            _ = self.user.recv() => Received::User,
            _ = self.terminate.recv() => Received::End,
            _ = self.interrupt.recv() => Received::End,
        }
    }
}
