//! What the kernel tells of, packet by packet: read, given names, and handed to the access log, the
//! metrics and those who watch.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Flows`]: to those who watch |
//! | `names.rs` | [`Names`]: what numbers stand for |
//! | `decision.rs` | an event in the proxy's words |
//! | `packet.rs` | [`PacketNews`]: an event in everybody's words |
//! | `reader.rs` | [`Reader`]: the thread that reads |

mod decision;
mod names;
mod packet;
mod reader;

use tokio::sync::broadcast;

pub use self::names::Names;
pub use self::packet::{PacketNews, PacketParty};
pub use self::reader::{Reader, Told};
use crate::state::News;

/// How many of each kind a reader may be behind before it loses some.
const BEHIND: usize = 4096;

/// Tells those who watch of packets. Those that opened a connection are told apart: they are many, and
/// are put into words only when somebody wants them.
#[derive(Clone, Debug)]
pub struct Flows {
    dropped: broadcast::Sender<News>,
    opened: broadcast::Sender<News>,
}

impl Default for Flows {
    fn default() -> Self {
        Self { dropped: broadcast::Sender::new(BEHIND), opened: broadcast::Sender::new(BEHIND) }
    }
}

impl Flows {
    /// What is dropped from now on, and what was lost.
    #[must_use]
    pub fn dropped(&self) -> broadcast::Receiver<News> {
        self.dropped.subscribe()
    }

    /// Connections that are opened from now on, and go on.
    #[must_use]
    pub fn opened(&self) -> broadcast::Receiver<News> {
        self.opened.subscribe()
    }

    /// Whether anybody listens to connections that are opened.
    #[must_use]
    pub fn is_opened_wanted(&self) -> bool {
        self.opened.receiver_count() > 0
    }

    fn tell_dropped(&self, news: impl FnOnce() -> News) {
        tell(&self.dropped, news);
    }

    fn tell_opened(&self, news: impl FnOnce() -> News) {
        tell(&self.opened, news);
    }
}

fn tell(to: &broadcast::Sender<News>, news: impl FnOnce() -> News) {
    if to.receiver_count() > 0 {
        // The last one may have gone meanwhile.
        let _ = to.send(news());
    }
}
