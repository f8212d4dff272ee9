//! `portreeve-node run`: the source of truth is followed, the datapath told, questions answered, signals
//! obeyed. What it begins with is set up in `start.rs`.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portreeve_core::raise_file_limit;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::api::Server;
use crate::cli::RunArguments;
use crate::command::Failure;
use crate::datapath::Links;
use crate::health::Checkup;
use crate::source::{Batch, Source, WatchedFolder, What};
use crate::state::Node;
use crate::{config, folders, logging, start};

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
    start::check_datapath(&config)?;
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    let _entered = runtime.enter();
    // Before anything else: a signal that comes early must find somebody.
    let mut signals = Signals::new().map_err(Failure::new)?;
    let _lock = folders::lock_state(&config.state)?;
    let again = Arc::new(Notify::new());
    // Before anything is set up: it may not be readable.
    let source = open_source(&config.objects, again.clone())?;
    if let Some(folder) = config.socket.parent() {
        folders::make(folder)?;
    }
    let server = Server::listen(&config.socket).map_err(Failure::new)?;
    // Before any is attached, so that nothing that becomes of it is missed.
    let links = Links::listen().map_err(|error| {
        Failure::new(format!("can't listen for interfaces that come and go: {error}"))
    })?;
    let mut checkup = Checkup::start().map_err(|error| {
        Failure::new(format!("can't ask backends whether they are well: {error}"))
    })?;
    // The last that can fail: it changes the node.
    let (node, _reader) = start::open_node(&config)?;
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
            heard = hear(node, checkup) => {
                heard?;
                lock(node).realise(Instant::now());
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
                let mut is_due = node.look_at_node(Instant::now());
                if std::mem::take(&mut has_changed) || node.datapath().is_outside_lacking() {
                    node.look_outside();
                    is_due = true;
                }
                if is_due {
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

/// Listens to what backends answer until something follows from it. Most answers change nothing.
async fn hear(node: &Mutex<Node>, checkup: &mut Checkup) -> Result<(), Failure> {
    loop {
        let heard = checkup.heard().await;
        if heard.is_empty() {
            return Err(Failure::new("nobody asks backends any more"));
        }
        if lock(node).heard(heard) {
            return Ok(());
        }
    }
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
