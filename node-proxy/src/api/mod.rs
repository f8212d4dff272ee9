//! The status socket: one line of JSON asks, one answers. `monitor` is answered by a line for
//! everything that happens, until the reader has enough.
//!
//! ```text
//! → {"request":"endpoint-get","endpoint":"default/shop-1"}
//! ← {"ok":{"id":1,"name":"default/shop-1",…}}
//! → {"request":"endpoint-get","endpoint":"nobody"}
//! ← {"error":{"code":"not-found","message":"there is no endpoint `nobody`…"}}
//! ```
//!
//! Only the owner of the process may connect: the socket has the mode 0600.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Request`], [`Answer`] |
//! | `server.rs` | the daemon's side |
//! | `watch.rs` | what happens, for one who watches |
//! | `client.rs` | the command line's side |

mod client;
mod server;
#[cfg(test)]
mod tests;
mod watch;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::client::{Client, ClientError};
pub use self::server::{ListenError, Server};
use crate::datapath::{DatapathError, Listing, Reading, Table, Wanted};
use crate::state::Node;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What there is, in numbers, and what is wrong.
    Status,
    /// All endpoints.
    EndpointList,
    /// One endpoint, with all that is known of it.
    EndpointGet {
        /// `namespace/name`, its number, or its name when only one is called so.
        endpoint: String,
    },
    /// What one endpoint may do with whom.
    PolicyGet {
        /// As above.
        endpoint: String,
    },
    /// All services.
    ServiceList,
    /// All identities.
    IdentityList,
    /// What is in a table of the datapath.
    BpfList {
        /// Which.
        table: BpfTable,
        /// Only what is this endpoint's, as above; of policies and connections.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// At most so many rows.
        #[serde(default = "row_limit")]
        limit: usize,
    },
    /// What happens from now on.
    Monitor(Watch),
}

/// What one who watches wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// Only what is about this endpoint: `namespace/name`, its number, or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Only this; none: [`WatchType::USUAL`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<WatchType>,
}

/// Kinds of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WatchType {
    /// Packets that the kernel drops.
    Drop,
    /// Connections that are opened in the kernel.
    Open,
    /// Requests, and connections, that the proxy judges.
    L7,
    /// Objects, policies, addresses and services that come into force.
    Change,
}

/// A table of the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BpfTable {
    /// Policies of endpoints.
    Policy,
    /// Who is where.
    Ipcache,
    /// Connections.
    Ct,
    /// Services and backends.
    Lb,
    /// Counters.
    Metrics,
}

/// Rows of a table, unless told otherwise.
pub(crate) const ROWS: usize = 10_000;

fn row_limit() -> usize {
    ROWS
}

impl From<BpfTable> for Table {
    fn from(table: BpfTable) -> Self {
        match table {
            BpfTable::Policy => Self::Policy,
            BpfTable::Ipcache => Self::Ipcache,
            BpfTable::Ct => Self::Ct,
            BpfTable::Lb => Self::Lb,
            BpfTable::Metrics => Self::Metrics,
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// This.
    Ok(Value),
    /// It can't be answered.
    Error(Refusal),
}

/// Why something can't be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// What was asked for is not there.
    NotFound,
    /// There is no datapath, or it has no such table.
    NoDatapath,
    /// It is there, and can't be read.
    Failed,
    /// The request is not one.
    BadRequest,
    /// Too many ask at once.
    Busy,
}

impl Answer {
    fn of(value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::refuse(RefusalCode::BadRequest, error.to_string()),
        }
    }

    fn refuse(code: RefusalCode, message: String) -> Self {
        Self::Error(Refusal { code, message })
    }

    /// As one line.
    fn line(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_else(|error| {
            format!("{{\"error\":{{\"code\":\"bad-request\",\"message\":\"{error}\"}}}}")
        });
        text + "\n"
    }
}

/// What reads a table, without the node.
fn reading(
    node: &Node,
    table: Table,
    endpoint: Option<&str>,
    limit: usize,
) -> Result<Reading, Answer> {
    let endpoint = match endpoint {
        None => None,
        Some(_) if !table.has_endpoints() => {
            let message = "nothing of this table is one endpoint's".to_owned();
            return Err(Answer::refuse(RefusalCode::BadRequest, message));
        }
        // The kernel may have one that the node does not know of.
        Some(which) => Some(match node.find_id(which).or_else(|| which.parse().ok()) {
            Some(id) => id,
            None => return Err(nobody(node, which)),
        }),
    };
    node.datapath().reading(table, Wanted { endpoint, limit }).ok_or_else(|| {
        let message = match node.datapath().is_enforcing() {
            true => "the datapath has no such table",
            false => "no datapath: the daemon runs without one, and has no tables",
        };
        Answer::refuse(RefusalCode::NoDatapath, message.to_owned())
    })
}

fn listed(listing: Result<Listing, DatapathError>) -> Answer {
    match listing {
        Ok(listing) => Answer::of(listing),
        Err(error) => {
            Answer::refuse(RefusalCode::Failed, format!("the table can't be read: {error}"))
        }
    }
}

/// Of an endpoint that is not there.
const LIST: &str = "`portreeve-node endpoint list` shows those that there are";

/// Nobody is meant by that, or it is not known who.
fn nobody(node: &Node, which: &str) -> Answer {
    let several = node.called(which);
    let message = match several.is_empty() {
        true => format!("there is no endpoint `{which}`\n  hint: {LIST}"),
        false => format!(
            "several endpoints are called `{which}`: {}\n  hint: name one with its namespace",
            several.join(", ")
        ),
    };
    Answer::refuse(RefusalCode::NotFound, message)
}

/// Answers everything but [`Request::Monitor`].
#[must_use]
pub fn answer(node: &Node, request: &Request) -> Answer {
    match request {
        Request::Status => Answer::of(node.status()),
        Request::EndpointList => Answer::of(node.endpoints()),
        Request::EndpointGet { endpoint } => match node.endpoint(endpoint) {
            Some(detail) => Answer::of(detail),
            None => nobody(node, endpoint),
        },
        Request::PolicyGet { endpoint } => match node.policy(endpoint) {
            Some(rows) => Answer::of(rows),
            None => nobody(node, endpoint),
        },
        Request::ServiceList => Answer::of(node.services()),
        Request::IdentityList => Answer::of(node.identities()),
        Request::BpfList { table, endpoint, limit } => {
            match reading(node, (*table).into(), endpoint.as_deref(), *limit) {
                Ok(reading) => listed(reading()),
                Err(refusal) => refusal,
            }
        }
        Request::Monitor(_) => {
            Answer::refuse(RefusalCode::BadRequest, "monitor has no one answer".to_owned())
        }
    }
}
