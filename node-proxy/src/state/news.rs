//! What happens, as it happens, for `portreeve-node monitor`.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::events::{Flows, PacketNews, RequestNews};

/// How many a reader may be behind before it loses some.
const BEHIND: usize = 4096;

/// Something that happened, and when. Fields are an interface: `monitor --output json` prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated {
    /// RFC 3339, UTC.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub news: News,
}

impl Dated {
    /// It was then.
    pub(crate) fn at(time: SystemTime, news: News) -> Self {
        Self { time: humantime::format_rfc3339_micros(time).to_string(), news }
    }

    /// It is just now.
    pub(crate) fn now(news: News) -> Self {
        Self::at(SystemTime::now(), news)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum News {
    /// Whoever watches is told from now on.
    Listening {
        /// What may not be as he believes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
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
    /// A backend does not answer as it is to.
    BackendUnhealthy {
        /// `namespace/name`.
        service: String,
        /// Who was asked.
        backend: String,
        /// What is wrong.
        error: String,
    },
    /// A backend answers as it is to, again.
    BackendHealthy {
        /// `namespace/name`.
        service: String,
        /// Who was asked.
        backend: String,
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
    /// The kernel dropped a packet.
    Dropped(Box<PacketNews>),
    /// A connection was opened, and goes on without the proxy or by it.
    Opened(Box<PacketNews>),
    /// The shared proxy has judged a request, or a connection.
    Judged(Box<RequestNews>),
    /// So many packets' events were lost on their way from the kernel; the packets were not.
    EventsLost {
        /// How many.
        count: u64,
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
pub struct NewsSender {
    all: broadcast::Sender<Dated>,
    flows: Flows,
}

impl Default for NewsSender {
    fn default() -> Self {
        Self { all: broadcast::Sender::new(BEHIND), flows: Flows::default() }
    }
}

impl NewsSender {
    /// With flows that somebody tells of already.
    pub(super) fn of(flows: Flows) -> Self {
        Self { flows, ..Self::default() }
    }

    /// Listens from now on, to all but what the kernel tells of.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Dated> {
        self.all.subscribe()
    }

    /// What the kernel tells of, packet by packet, and the proxy, request by request: it is apart, so that a
    /// flood washes nothing away.
    #[must_use]
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    pub(super) fn tell(&self, news: impl FnOnce() -> News) {
        if self.all.receiver_count() > 0 {
            // The last one may have gone meanwhile.
            let _ = self.all.send(Dated::now(news()));
        }
    }
}
