//! What the shared proxy has decided, as those who watch hear of it. Fields are an interface:
//! `monitor --output json` prints them, by the names of the access log.

use portreeve_core::observer::{Asked, Flow};
use serde::{Deserialize, Serialize};

use super::packet::{PacketParty, party, verdict};

/// A request, or a connection, that the shared proxy has judged or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestNews {
    /// `namespace/name` of whose policy decided; none: nobody's.
    pub endpoint: Option<String>,
    /// `ingress` or `egress`, as the workload sees it.
    pub direction: String,
    /// `allow`, `deny`, or `audit`: it passed, though a policy in audit mode would deny it.
    pub verdict: String,
    /// Who asks.
    pub source: PacketParty,
    /// Who is asked.
    pub destination: PacketParty,
    /// What was asked.
    #[serde(flatten)]
    pub asked: AskedNews,
    /// Why, in the words of the access log.
    pub reason: String,
    /// The policy that decided; empty: none.
    pub policy: String,
    /// The rule in it.
    pub rule: String,
}

/// What was asked, in the words of its protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum AskedNews {
    /// An HTTP or gRPC request.
    Http {
        /// Its method.
        method: String,
        /// `Host` or `:authority`.
        host: String,
        /// The path in normal form, without the query.
        path: String,
        /// The answer's status; 0: there was none.
        status: u16,
    },
    /// A Kafka request.
    Kafka {
        /// The name of its API.
        api: String,
        /// What the client calls itself.
        client_id: String,
        /// Its consumer group; empty: none.
        group: String,
        /// Topics that it was allowed, as many as the log has room for.
        topics: Vec<String>,
        /// Topics that it was denied.
        denied_topics: Vec<String>,
    },
    /// A connection that was judged as a whole.
    Connection,
    /// A message that was not accepted, whatever policy says.
    Refused {
        /// `http1`, `http2`, `kafka`.
        protocol: String,
    },
    /// A connection that was reset because of a limit.
    Limit,
    /// Something that this version has no words for.
    Other,
}

/// So much of a text is told: those who watch may be behind by many.
const LONGEST: usize = 512;

impl RequestNews {
    pub(super) fn new(flow: &Flow<'_>) -> Self {
        Self {
            endpoint: (!flow.endpoint.is_empty()).then(|| flow.endpoint.to_owned()),
            direction: flow.direction.as_str().to_owned(),
            verdict: verdict(flow).to_owned(),
            source: party(&flow.source),
            destination: party(&flow.destination),
            asked: asked(&flow.asked),
            reason: flow.reason.to_owned(),
            policy: flow.policy.to_owned(),
            rule: flow.rule.to_owned(),
        }
    }
}

fn asked(asked: &Asked<'_>) -> AskedNews {
    match asked {
        Asked::Http { method, host, path, answer, .. } => AskedNews::Http {
            method: text(method),
            host: text(host),
            // It may hold secrets.
            path: text(path.split(|byte| *byte == b'?').next().unwrap_or_default()),
            status: answer.map_or(0, |answer| answer.status),
        },
        Asked::Kafka { api, client_id, group, topics, .. } => AskedNews::Kafka {
            api: (*api).to_owned(),
            client_id: text(client_id),
            group: text(group),
            topics: topics.allowed().map(text).collect(),
            denied_topics: topics.denied().map(text).collect(),
        },
        Asked::Connection => AskedNews::Connection,
        Asked::Refused { protocol, .. } => AskedNews::Refused { protocol: (*protocol).to_owned() },
        Asked::Limit => AskedNews::Limit,
        _ => AskedNews::Other,
    }
}

/// The beginning of what a client has written.
fn text(bytes: &[u8]) -> String {
    match bytes.get(..LONGEST) {
        Some(beginning) if bytes.len() > LONGEST => {
            String::from_utf8_lossy(beginning).into_owned() + "…"
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
