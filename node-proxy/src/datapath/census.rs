//! Looks four times a second whether a workload has so many connections that those of others would be forgotten.
//! While few are opened it looks at one counter.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use portreeve_ebpf::node::{NodeError, NodeKernel, Reason};
use portreeve_ebpf_common::Direction;

/// The thread that looks; it ends with this value.
#[derive(Debug)]
pub(super) struct Census {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const EVERY: Duration = Duration::from_millis(250);

impl Census {
    /// Begins.
    pub(super) fn start(kernel: Arc<NodeKernel>) -> io::Result<Self> {
        let (end, ended) = channel();
        let look = move || {
            let mut state = State::default();
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                state.look(&kernel);
            }
        };
        let thread = thread::Builder::new().name("census".to_owned()).spawn(look)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What was seen last.
#[derive(Debug, Default)]
struct State {
    opened: u64,
    /// Endpoints that are refused more.
    crowded: Vec<u32>,
    has_failed: bool,
}

impl State {
    fn look(&mut self, kernel: &NodeKernel) {
        match self.try_look(kernel) {
            Ok(()) => self.has_failed = false,
            // Said once.
            Err(error) if !std::mem::replace(&mut self.has_failed, true) => {
                tracing::error!("connections can't be counted: {error}");
            }
            Err(_) => {}
        }
    }

    fn try_look(&mut self, kernel: &NodeKernel) -> Result<(), NodeError> {
        let counters = kernel.counters()?;
        let both = [Direction::Egress, Direction::Ingress];
        let opened = both.map(|way| counters.get(Reason::Opened, way)).into_iter().sum::<u64>();
        let few = kernel.room_between_looks();
        if self.crowded.is_empty() && opened.wrapping_sub(self.opened) < few {
            return Ok(());
        }
        self.opened = opened;
        let census = kernel.census()?;
        let crowded = kernel.share_out(&census)?;
        for endpoint in crowded.keys().filter(|endpoint| !self.crowded.contains(endpoint)) {
            let crowd = census.get(endpoint).copied().unwrap_or_default();
            tracing::warn!(
                "endpoint {endpoint} has more than its share of connections ({} opened, {} \
                 accepted): it gets no more until it has fewer",
                crowd.opened,
                crowd.accepted
            );
        }
        for endpoint in self.crowded.iter().filter(|endpoint| !crowded.contains_key(endpoint)) {
            tracing::info!("endpoint {endpoint} may open and accept connections again");
        }
        self.crowded = crowded.into_keys().collect();
        Ok(())
    }
}
