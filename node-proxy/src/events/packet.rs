//! A packet that was dropped, or that opened a connection, as those who watch hear of it. Fields are an
//! interface: `monitor --output json` prints them.

use portreeve_core::observer::{Flow, Party};
use portreeve_core::redirection::KernelDecision;
use portreeve_policy::Outcome;
use serde::{Deserialize, Serialize};

use crate::datapath::EndpointId;

/// What the kernel did with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketNews {
    /// `namespace/name` of whose interface it was; none: nobody knows.
    pub endpoint: Option<String>,
    /// Its number.
    pub id: EndpointId,
    /// `ingress` or `egress`, as the workload sees it.
    pub direction: String,
    /// `TCP`, `UDP`, …
    pub protocol: String,
    /// `allow`, `deny`, or `audit`: it passed, though a policy in audit mode would deny it.
    pub verdict: String,
    /// Who sent it.
    pub source: PacketParty,
    /// Where to; the port of an ICMP message is its type.
    pub destination: PacketParty,
    /// Why, in the words of the access log.
    pub reason: String,
    /// The policy that decided; empty: none, or one that is no longer in force.
    pub policy: String,
    /// The rule in it.
    pub rule: String,
}

/// One end of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketParty {
    /// Its address.
    pub address: String,
    /// Its identity; 0: unknown.
    pub identity: u32,
    /// Its labels, joined by commas.
    pub labels: String,
}

impl PacketNews {
    pub(super) fn new(
        name: Option<&str>,
        id: EndpointId,
        decision: &KernelDecision,
        flow: &Flow<'_>,
    ) -> Self {
        Self {
            endpoint: name.map(str::to_owned),
            id,
            direction: flow.direction.as_str().to_owned(),
            protocol: decision.protocol.to_string(),
            verdict: verdict(flow).to_owned(),
            source: party(&flow.source),
            destination: party(&flow.destination),
            reason: flow.reason.to_owned(),
            policy: flow.policy.to_owned(),
            rule: flow.rule.to_owned(),
        }
    }
}

/// In the words of the access log.
pub(super) fn verdict(flow: &Flow<'_>) -> &'static str {
    match flow.verdict {
        Outcome::Allow => "allow",
        Outcome::Audit => "audit",
        _ => "deny",
    }
}

pub(super) fn party(party: &Party<'_>) -> PacketParty {
    PacketParty {
        address: party.address.map(|address| address.to_string()).unwrap_or_default(),
        identity: party.identity,
        labels: party.labels.to_owned(),
    }
}
