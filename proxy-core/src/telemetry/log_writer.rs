//! The thread that writes log lines out, so that no worker waits for a disk or a pipe.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::access_log::Sink;

/// Bytes that a worker gathers before it hands them over.
const FLUSH_AT: usize = 32 * 1024;

/// Buffers that may wait; beyond it lines are lost, and counted, rather than requests delayed.
const QUEUE: usize = 256;

/// How long the end of the proxy waits for lines to be written: long for a disk, short for who waits. A
/// pipe that nobody reads takes none, for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the access log can't be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The file can't be opened.
    #[error("can't open the access log `{path}`: {source}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer's thread can't be started.
    #[error("can't start the access log's thread: {0}")]
    Thread(#[source] io::Error),
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    /// Something is wanted.
    Look,
}

/// What is wanted of the writer's thread. Nobody waits in its queue to say so, for that may be full.
#[derive(Debug, Default)]
struct Wanted {
    reopen: AtomicBool,
    stop: AtomicBool,
}

/// The thread never sends it: it ends with the thread.
#[derive(Debug)]
enum Never {}

/// The writer.
#[derive(Debug)]
pub(super) struct LogWriter {
    messages: SyncSender<Message>,
    wanted: Arc<Wanted>,
    lost: Arc<AtomicU64>,
    working: Mutex<Receiver<Never>>,
}

impl LogWriter {
    pub(super) fn start(sink: &Sink) -> Result<Self, TelemetryError> {
        let output = open(sink).map_err(|(path, source)| TelemetryError::Open { path, source })?;
        let (messages, receiver) = sync_channel(QUEUE);
        let (works, working) = sync_channel(0);
        let sink = sink.clone();
        let wanted = Arc::<Wanted>::default();
        let asked = wanted.clone();
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                let _works: SyncSender<Never> = works;
                write_all(&receiver, &asked, output, &sink);
            })
            .map_err(TelemetryError::Thread)?;
        Ok(Self { messages, wanted, lost: Arc::default(), working: Mutex::new(working) })
    }

    pub(super) fn sender(&self) -> Lines {
        Lines { messages: self.messages.clone(), lost: self.lost.clone() }
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn reopen(&self) {
        self.want(&self.wanted.reopen);
    }

    /// Writes out what was handed over, unless that takes too long: then the thread is left where it is.
    /// Nothing is said of it, for it would be said to who does not read.
    pub(super) fn stop(&self) {
        self.want(&self.wanted.stop);
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        match working.recv_timeout(PATIENCE) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn want(&self, what: &AtomicBool) {
        what.store(true, Ordering::Release);
        // Where there is no room the thread has messages, and looks after them.
        let _ = self.messages.try_send(Message::Look);
    }
}

thread_local! {
    /// The lines of this worker that are not handed over. Each worker is a thread of its own.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A worker's way to the writer.
#[derive(Debug)]
pub(super) struct Lines {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let full = BUFFER.with_borrow_mut(|buffer| {
            write(buffer);
            buffer.len() >= FLUSH_AT
        });
        if full {
            self.flush();
        }
    }

    pub(super) fn flush(&self) {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                return;
            }
            // The buffer keeps its capacity for the next lines; what is sent is a copy of the
            // exact size, a few times a second.
            if self.messages.try_send(Message::Lines(buffer.clone())).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            buffer.clear();
        });
    }
}

type Output = Box<dyn Write + Send>;

fn open(sink: &Sink) -> Result<Output, (PathBuf, io::Error)> {
    Ok(match sink {
        Sink::Stdout => Box::new(io::stdout()),
        Sink::Stderr => Box::new(io::stderr()),
        Sink::File(path) => Box::new(append_to(path).map_err(|error| (path.clone(), error))?),
    })
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_all(messages: &Receiver<Message>, wanted: &Wanted, mut output: Output, sink: &Sink) {
    let mut failing = false;
    while let Some(message) = next(messages, wanted) {
        if wanted.reopen.swap(false, Ordering::AcqRel) {
            match open(sink) {
                Ok(opened) => output = opened,
                Err((path, error)) => {
                    tracing::error!(path = %path.display(), %error, "can't open the access log again");
                }
            }
        }
        if let Message::Lines(lines) = message {
            let written = output.write_all(&lines).and_then(|()| output.flush());
            if let (Err(error), false) = (&written, failing) {
                tracing::error!(%error, "can't write the access log");
            }
            failing = written.is_err();
        }
    }
}

/// `None`: all is written, and nothing more is wanted.
fn next(messages: &Receiver<Message>, wanted: &Wanted) -> Option<Message> {
    match messages.try_recv() {
        Err(TryRecvError::Empty) if wanted.stop.load(Ordering::Acquire) => None,
        Err(TryRecvError::Empty) => messages.recv().ok(),
        message => message.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    /// More than the queue and a pipe take.
    fn too_much(writer: &LogWriter) {
        let lines = writer.sender();
        for _ in 0..2 * QUEUE {
            lines.append(|line| line.resize(FLUSH_AT, b'x'));
        }
        assert!(writer.lost() > 0);
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_keep_the_proxy_from_ending() {
        let (_reader, pipe) = rustix::pipe::pipe().expect("a pipe");
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let writer = LogWriter::start(&Sink::File(path.into())).expect("it opens");
        too_much(&writer);
        let (ended, ends) = channel();
        thread::spawn(move || {
            writer.reopen();
            let begin = Instant::now();
            writer.stop();
            let _ = ended.send(begin.elapsed());
        });
        let took = ends.recv_timeout(Duration::from_secs(20)).expect("it ends");
        assert!(took >= PATIENCE, "who is slow gets some time: {took:?}");
    }

    #[test]
    fn what_was_handed_over_is_written_before_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let writer = LogWriter::start(&Sink::File(path.clone())).expect("it opens");
        let size = |path| std::fs::metadata(path).map_or(0, |file| file.len());
        let lines = writer.sender();
        let some = |lines: &Lines| (0..100).for_each(|_| lines.append(|line| line.push(b'x')));
        some(&lines);
        lines.flush();
        while size(&path) < 100 {
            thread::sleep(Duration::from_millis(5));
        }
        std::fs::rename(&path, &moved).expect("it is there");
        writer.reopen();
        some(&lines);
        lines.flush();
        writer.stop();
        assert_eq!((size(&moved), size(&path), writer.lost()), (100, 100, 0));
    }
}
