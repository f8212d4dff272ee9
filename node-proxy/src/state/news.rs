//! What happens, as it happens, for `portreeve-node monitor`.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// How many a reader may be behind before it loses some.
const BEHIND: usize = 4096;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum News {
    /// An object is new, or has changed.
    ObjectPut {
        /// Kind, namespace, name.
        object: String,
        /// Where it is written.
        origin: String,
    },
    /// An object has errors; what it said before stays in force.
    ObjectBroken {
        /// Kind, namespace, name.
        object: String,
        /// Where it is written.
        origin: String,
        /// The first error.
        error: String,
    },
    /// An object is gone.
    ObjectRemoved {
        /// Kind, namespace, name.
        object: String,
    },
    /// A file can't be read, or an object is written twice.
    Unreadable {
        /// What is wrong.
        error: String,
    },
    /// The policy of an endpoint is in force.
    EndpointRealised {
        /// `namespace/name`.
        endpoint: String,
        /// Its number.
        id: u32,
        /// The revision.
        revision: u64,
    },
    /// The datapath could not do what it was told for an endpoint.
    EndpointFailed {
        /// `namespace/name`.
        endpoint: String,
        /// Its number.
        id: u32,
        /// What it said.
        error: String,
    },
    /// A policy makes no sense for an endpoint: it keeps the one it had.
    PolicyRefused {
        /// `namespace/name`.
        endpoint: String,
        /// Why.
        error: String,
    },
    /// An endpoint is gone.
    EndpointRemoved {
        /// `namespace/name`.
        endpoint: String,
        /// Its number.
        id: u32,
    },
    /// Address entries were written and removed.
    Addresses {
        /// How many were written.
        put: usize,
        /// How many were removed.
        removed: usize,
    },
    /// A service is in force.
    ServiceRealised {
        /// `namespace/name`.
        service: String,
    },
    /// A service is gone.
    ServiceRemoved {
        /// `namespace/name`.
        service: String,
    },
    /// The datapath could not do what it was told for the node as a whole.
    Failed {
        /// What was to be done.
        what: String,
        /// What went wrong.
        error: String,
    },
    /// An identity was given up.
    IdentityCollected {
        /// Its number.
        identity: u32,
        /// The labels it stood for.
        labels: String,
    },
    /// Everything there is, is in force for the first time.
    Synced,
    /// The reader was too slow: so many were not told.
    Lost {
        /// How many.
        count: u64,
    },
}

/// Tells those who listen.
#[derive(Clone, Debug)]
pub struct NewsSender(broadcast::Sender<News>);

impl Default for NewsSender {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl NewsSender {
    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.0.subscribe()
    }

    pub(super) fn tell(&self, news: impl FnOnce() -> News) {
        if self.0.receiver_count() > 0 {
            // The last one may have gone meanwhile.
            let _ = self.0.send(news());
        }
    }
}
