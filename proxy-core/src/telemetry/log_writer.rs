//! The thread that writes log lines out, so that no worker waits for a disk or a pipe.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::access_log::Sink;

/// Bytes that a worker gathers before it hands them over.
const FLUSH_AT: usize = 32 * 1024;

/// Buffers that may wait; beyond it lines are lost, and counted, rather than requests delayed.
const QUEUE: usize = 256;

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
    Reopen,
    Stop,
}

/// The writer.
#[derive(Debug)]
pub(super) struct LogWriter {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LogWriter {
    pub(super) fn start(sink: &Sink) -> Result<Self, TelemetryError> {
        let output = open(sink).map_err(|(path, source)| TelemetryError::Open { path, source })?;
        let (messages, receiver) = sync_channel(QUEUE);
        let sink = sink.clone();
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&receiver, output, &sink))
            .map_err(TelemetryError::Thread)?;
        Ok(Self { messages, lost: Arc::default(), thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn sender(&self) -> Lines {
        Lines { messages: self.messages.clone(), lost: self.lost.clone() }
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn reopen(&self) {
        let _ = self.messages.send(Message::Reopen);
    }

    pub(super) fn stop(&self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
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

fn write_all(messages: &Receiver<Message>, mut output: Output, sink: &Sink) {
    let mut failing = false;
    while let Ok(message) = messages.recv() {
        match message {
            Message::Lines(lines) => {
                let written = output.write_all(&lines).and_then(|()| output.flush());
                if let (Err(error), false) = (&written, failing) {
                    tracing::error!(%error, "can't write the access log");
                }
                failing = written.is_err();
            }
            Message::Reopen => match open(sink) {
                Ok(opened) => output = opened,
                Err((path, error)) => {
                    tracing::error!(path = %path.display(), %error, "can't open the access log again");
                }
            },
            Message::Stop => return,
        }
    }
}
