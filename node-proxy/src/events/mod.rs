//! What the kernel tells of, packet by packet: read, given names, and handed to the access log, the
//! metrics and those who watch; and what the shared proxy tells of, request by request.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Flows`]: to those who watch |
//! | `names.rs` | [`Names`]: what numbers stand for |
//! | `decision.rs` | an event in the proxy's words |
//! | `packet.rs` | [`PacketNews`]: an event in everybody's words |
//! | `request.rs` | [`RequestNews`]: what the proxy has judged |
//! | `reader.rs` | [`Reader`]: the thread that reads |

mod decision;
mod names;
mod packet;
mod reader;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portreeve_core::observer::{Flow, Observer};
use tokio::sync::broadcast;

pub use self::names::Names;
pub use self::packet::{PacketNews, PacketParty};
pub use self::reader::{Reader, Told};
pub use self::request::{AskedNews, RequestNews};
use crate::state::{Dated, News};

/// How many of each kind a reader may be behind before it loses some.
const BEHIND: usize = 4096;

/// Tells those who watch of packets and requests, each kind apart: a flood of one washes nothing of
/// another away. They are put into words only while somebody wants them, and who is behind loses the
/// oldest and is told how many.
#[derive(Clone, Debug)]
pub struct Flows {
    dropped: broadcast::Sender<Dated>,
    opened: broadcast::Sender<Dated>,
    requests: broadcast::Sender<Dated>,
    /// Somebody listens to requests: asked for each of them, by every worker, without a lock.
    are_requests_wanted: Arc<AtomicBool>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            dropped: broadcast::Sender::new(BEHIND),
            opened: broadcast::Sender::new(BEHIND),
            requests: broadcast::Sender::new(BEHIND),
            are_requests_wanted: Arc::default(),
        }
    }
}

impl Flows {
    /// What is dropped from now on, and what was lost.
    #[must_use]
    pub fn dropped(&self) -> broadcast::Receiver<Dated> {
        self.dropped.subscribe()
    }

    /// Connections that are opened from now on, and go on.
    #[must_use]
    pub fn opened(&self) -> broadcast::Receiver<Dated> {
        self.opened.subscribe()
    }

    /// Whether anybody listens to connections that are opened.
    #[must_use]
    pub fn is_opened_wanted(&self) -> bool {
        self.opened.receiver_count() > 0
    }

    /// What the shared proxy judges, after [`Flows::look_who_listens`].
    #[must_use]
    pub fn requests(&self) -> broadcast::Receiver<Dated> {
        self.requests.subscribe()
    }

    /// Has the shared proxy tell of requests, if anybody listens.
    pub fn look_who_listens(&self) {
        self.are_requests_wanted.store(self.requests.receiver_count() > 0, Ordering::Relaxed);
    }

    fn tell_dropped(&self, news: impl FnOnce() -> Dated) {
        tell(&self.dropped, news);
    }

    fn tell_opened(&self, news: impl FnOnce() -> Dated) {
        tell(&self.opened, news);
    }
}

/// What the shared proxy tells.
impl Observer for Flows {
    fn observe(&self, flow: &Flow<'_>) {
        // What the kernel has decided is told by who reads its events.
        if !flow.by_kernel {
            let news = || News::Judged(Box::new(RequestNews::new(flow)));
            tell(&self.requests, || Dated::at(flow.time, news()));
        }
    }

    fn is_wanted(&self) -> bool {
        self.are_requests_wanted.load(Ordering::Relaxed)
    }
}

fn tell(to: &broadcast::Sender<Dated>, news: impl FnOnce() -> Dated) {
    if to.receiver_count() > 0 {
        // The last one may have gone meanwhile.
        let _ = to.send(news());
    }
}
