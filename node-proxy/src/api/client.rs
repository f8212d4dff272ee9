//! The command line's side of the status socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Answer, Refusal, Request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error(
        "the daemon is not running: nobody answers at `{path}` ({source})\n  hint: start it with \
         `portreeve-node run`, or name its socket with `--socket`",
        path = path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is somebody else's.
    #[error("may not ask at `{path}`: run this as the user that runs the daemon", path = .0.display())]
    NotAllowed(PathBuf),
    /// The daemon has gone in the middle of it.
    #[error("the daemon has gone: {0}")]
    Gone(io::Error),
    /// What came is not an answer.
    #[error("not an answer: {0}; is the daemon of another version?")]
    NotAnAnswer(serde_json::Error),
    /// It says no.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::NotAllowed(path.to_owned()))
            }
            Err(source) => Err(ClientError::NotRunning { path: path.to_owned(), source }),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&mut self, request: &Request) -> Result<Value, ClientError> {
        self.send(request)?;
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        self.next()?.ok_or_else(|| ClientError::Gone(gone()))
    }

    /// Asks; the answers are read with [`Client::next`].
    ///
    /// # Errors
    /// When the daemon has gone.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::NotAnAnswer)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Gone)
    }

    /// The next answer; none: there are no more.
    ///
    /// # Errors
    /// When the daemon says no, or has gone.
    #[expect(clippy::should_implement_trait, reason = "an iterator has no errors of its own")]
    pub fn next(&mut self) -> Result<Option<Value>, ClientError> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).map_err(ClientError::Gone)? == 0 {
            return Ok(None);
        }
        match serde_json::from_str(&line).map_err(ClientError::NotAnAnswer)? {
            Answer::Ok(value) => Ok(Some(value)),
            Answer::Error(refusal) => Err(ClientError::Refused(refusal)),
        }
    }
}
