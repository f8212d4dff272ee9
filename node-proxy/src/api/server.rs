//! The daemon's side of the status socket.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::watch::Watching;
use super::{Answer, LIST, RefusalCode, Request, Watch, answer, listed, reading};
use crate::datapath::Reading;
use crate::state::{Dated, News, Node};

/// A request is a line, and no longer than this.
const REQUEST_BYTES: u64 = 64 * 1024;
/// So many may ask, or listen, at once.
const AT_ONCE: usize = 64;
/// Who connects asks within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nobody can be answered.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers there.
    #[error(
        "somebody answers at `{path}` already\n  hint: is another `portreeve-node run` still there? \
         choose another path with `--socket`",
        path = .0.display()
    )]
    Taken(PathBuf),
    /// The system refuses.
    #[error(
        "can't listen at `{path}`: {source}\n  hint: choose another path with `--socket` or the key \
         `socket`",
        path = path.display()
    )]
    Refused {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens. Call it before other threads are started: for a moment, no file of this process is
    /// anybody else's to read.
    ///
    /// # Errors
    /// When somebody answers there already, or the system refuses.
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let refused = |source| ListenError::Refused { path: path.to_owned(), source };
        if StdStream::connect(path).is_ok() {
            return Err(ListenError::Taken(path.to_owned()));
        }
        // What a daemon that was killed has left.
        match fs::symlink_metadata(path) {
            Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
                fs::remove_file(path).map_err(refused)?;
            }
            Ok(_) => {
                let what = io::Error::other("there is a file of another kind");
                return Err(refused(what));
            }
            Err(_) => {}
        }
        let before = umask(Mode::from_raw_mode(0o177));
        let bound = StdListener::bind(path);
        umask(before);
        let listener = bound.map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = UnixListener::from_std(listener).map_err(refused)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers, until it is dropped.
    pub async fn serve(self, node: Arc<Mutex<Node>>) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("status socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (node, room) = (node.clone(), room.clone());
            tokio::spawn(async move {
                let Ok(_permit) = room.try_acquire() else {
                    let busy = Answer::refuse(RefusalCode::Busy, "too many ask at once".to_owned());
                    let (_, mut write) = stream.into_split();
                    return drop(write.write_all(busy.line().as_bytes()).await);
                };
                // One who goes away in between is no concern of ours.
                let _ = converse(stream, &node).await;
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been removed by somebody else.
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, node: &Mutex<Node>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(REQUEST_BYTES));
    loop {
        let mut line = String::new();
        let Ok(got) = tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await else {
            return Ok(());
        };
        if got? == 0 {
            return Ok(());
        }
        read.get_mut().set_limit(REQUEST_BYTES);
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(Request::Monitor(wanted)) => {
                let (listening, news) = {
                    let mut node = lock(node);
                    let listening = listening(&node, &wanted);
                    let name = wanted.endpoint.as_deref().and_then(|which| node.find(which));
                    let news = Watching::new(wanted, name, node.news());
                    node.tell_flows();
                    (listening, news)
                };
                let told = monitor(read.into_inner().into_inner(), write, listening, news).await;
                lock(node).tell_flows();
                return told;
            }
            Ok(Request::BpfList { table, endpoint, limit }) => {
                let reading = reading(&lock(node), table.into(), endpoint.as_deref(), limit);
                read_table(reading).await
            }
            Ok(request) => answer(&lock(node), &request),
            Err(error) => {
                Answer::refuse(RefusalCode::BadRequest, format!("not a request: {error}"))
            }
        };
        write.write_all(answer.line().as_bytes()).await?;
    }
}

/// A table may be large: it is read where it keeps nobody waiting.
async fn read_table(reading: Result<Reading, Answer>) -> Answer {
    match reading {
        Err(refusal) => refusal,
        Ok(reading) => match tokio::task::spawn_blocking(|| listed(reading())).await {
            Ok(answer) => answer,
            Err(error) => {
                Answer::refuse(RefusalCode::Failed, format!("the table can't be read: {error}"))
            }
        },
    }
}

/// So that who listens knows from when on, and whether to anything that there is: an endpoint may be yet to
/// come, or be misspelt.
fn listening(node: &Node, wanted: &Watch) -> Dated {
    let unknown = wanted.endpoint.as_deref().filter(|which| node.called(which).is_empty());
    let note = unknown.map(|which| {
        format!("there is no endpoint `{which}` yet: waiting for one\n  hint: {LIST}")
    });
    Dated::now(News::Listening { note })
}

/// Tells what happens until the listener goes.
async fn monitor(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    listening: Dated,
    mut news: Watching,
) -> io::Result<()> {
    write.write_all(Answer::of(listening).line().as_bytes()).await?;
    let mut ignored = [0; 64];
    loop {
        let told = tokio::select! {
            told = news.next() => told,
            read = read.read(&mut ignored) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        let Some(told) = told else { return Ok(()) };
        write.write_all(Answer::of(told).line().as_bytes()).await?;
    }
}

fn lock(node: &Mutex<Node>) -> std::sync::MutexGuard<'_, Node> {
    node.lock().unwrap_or_else(PoisonError::into_inner)
}
