//! What the fuzz target `http2_pairing` runs: whole connections of both sides, through the pairing.
//!
//! | file | what |
//! | --- | --- |
//! | `bytes.rs` | any bytes from either side, cut in any way |
//! | `calls.rs` | any calls between a client and a server that keep the rules |
//!
//! Invariants: nothing panics; every request that was judged is over exactly once; what is denied never
//! reaches the server; between peers that keep the rules every call ends, and a body arrives as it was
//! sent.

mod bytes;
mod calls;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portreeve_protocols::gate::Phase;
use portreeve_protocols::http1;
use portreeve_protocols::http2::{Refusal, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::upstream::{Connect, Connecting};
use super::{Decision, Edits, Judge, Passed};
use crate::endpoints::Role;
use crate::redirection::{Target, Way};
use crate::relay::{End, Session};
use crate::runtime::{Crowd, Registration, Registry};

/// Any input: its first byte chooses which of the two it is.
///
/// # Panics
/// When an invariant does not hold.
pub fn http2_pairing(data: &[u8]) {
    match data {
        [] => {}
        [choice, rest @ ..] if choice % 2 == 0 => bytes::run(*choice, rest),
        [choice, rest @ ..] => calls::run(*choice, rest),
    }
}

/// What was asked of policy, and what became of it.
#[derive(Debug, Default)]
struct Record {
    allowed: usize,
    open: usize,
    closed: usize,
}

/// Allows every path that does not begin with `/denied`.
struct Recorder {
    record: Arc<Mutex<Record>>,
    now: Instant,
}

impl Recorder {
    fn new() -> (Self, Arc<Mutex<Record>>) {
        let record = Arc::<Mutex<Record>>::default();
        (Self { record: record.clone(), now: Instant::now() }, record)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Judge for Recorder {
    type Ticket = ();

    fn decide(&mut self, request: &Request<'_>, _: &mut Edits) -> (Decision, ()) {
        assert!(request.path.starts_with('/') || request.path == "*", "{}", request.path);
        assert!(!request.path.contains("/../") && !request.path.contains("//"), "{}", request.path);
        let mut record = self.record();
        record.open += 1;
        if request.path.starts_with("/denied") {
            return (Decision::Deny, ());
        }
        record.allowed += 1;
        (Decision::Allow, ())
    }

    fn answered_unasked(&mut self, _: &Request<'_>) {
        self.record().open += 1;
    }

    fn responded(&mut self, (): &mut ()) {}

    fn finished(&mut self, (): (), _: &Passed) {
        let mut record = self.record();
        record.open = record.open.checked_sub(1).unwrap_or_else(|| panic!("over twice"));
    }

    fn refused_head(&mut self, _: http1::Refusal) {}

    fn refused(&mut self, _: Refusal) {}
}

impl Session for Recorder {
    fn set_now(&mut self, now: Instant) {
        self.now = now;
    }
    fn now(&self) -> Instant {
        self.now
    }
    fn upstream(&self) -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Target { address, limit: Duration::from_secs(1), way: Way::Straight }
    }
    fn upstream_opened(&mut self) {}
    fn upstream_failed(&mut self, _: &io::Error) {}
    fn time_allowed(&self, _: Phase) -> Option<Duration> {
        None
    }
    fn timed_out(&mut self, _: Phase) {}
    fn review(&mut self) {}
    fn revoked(&self) -> bool {
        false
    }
    fn closed(&mut self, _: End, _: u64, _: u64) {
        self.record().closed += 1;
    }
}

/// Hands out connections that were made before; then there are none to be had.
struct Given<T>(Vec<T>);

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connect for Given<T> {
    type Io = T;

    fn connect(&mut self, _: Target) -> Connecting<T> {
        let next = self.0.pop().ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused));
        Box::pin(std::future::ready(next))
    }
}

fn registration() -> Registration {
    let registry = Arc::new(Registry::new(Arc::new(Crowd::new(1))));
    registry.register(Role::Client).unwrap_or_else(|| panic!("there is room for one"))
}
