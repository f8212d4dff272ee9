//! What carries policy out: the kernel's side, and the proxy that reads what the kernel can't judge.
//! Both are traits, so that the node's state can be tested without either.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Datapath`], [`Proxying`], and what they are told |
//! | `ebpf.rs`, `listing.rs` | [`EbpfDatapath`]: programs on the workloads' interfaces, and what their maps hold |
//! | `counting.rs` | [`counting`]: what they have counted, for the metrics |
//! | `host.rs` | settings of the host that are in the way |
//! | `interfaces.rs` | which interfaces lead to workloads, and which can't |
//! | `neighbours.rs` | other instances, which judge as well |
//! | `links.rs` | [`Links`]: when interfaces and addresses come or go |
//! | `outside.rs` | [`Outside`]: what leads outside of this node |
//! | `shared_proxy.rs`, `registered.rs` | [`SharedProxy`]: the proxy to which they hand connections, and whom it knows |
//! | `none.rs` | [`NoDatapath`]: nothing is carried out, and it says so |
//! | `recording.rs` | [`Recording`]: writes down what it is told, fails when a test wants it to |

mod balancing;
mod census;
mod counting;
mod ebpf;
mod host;
mod interfaces;
mod links;
mod listing;
mod neighbours;
mod none;
mod outside;
mod recording;
pub(crate) mod registered;
mod shared_proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use portreeve_core::EndpointLimits;
use portreeve_policy::{EndpointPolicy, Identity, Protocol};
use serde::Serialize;

pub use self::counting::counting;
pub use self::ebpf::EbpfDatapath;
pub use self::links::Links;
pub use self::none::NoDatapath;
pub use self::outside::{NodeAddress, Outside};
pub use self::recording::{Call, Recorder, Recording};
pub use self::shared_proxy::SharedProxy;
use crate::objects::Attachment;

/// The number of an endpoint, from 1. It stays the same across restarts.
pub type EndpointId = u32;

/// Why the datapath could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DatapathError(pub String);

/// The kernel's side of a node. Calls are about differences, and are idempotent: what failed is called
/// again with the same, and after a restart everything is told once more.
///
/// The order of calls is: endpoints that go; endpoints that come or change; policies; address entries;
/// services; what is left of the time before. An identity is in the policies before any address has it, and stays in them after the last
/// address has lost it.
pub trait Datapath: Send {
    /// What it is called in messages.
    fn name(&self) -> &'static str;

    /// Whether anything is carried out at all.
    fn is_enforcing(&self) -> bool;

    /// An endpoint is there, or has another interface, identity or other addresses. A new one is closed
    /// until its policy is set. One without addresses may send nothing.
    ///
    /// # Errors
    /// When it can't be attached, or not with all of its addresses.
    fn endpoint_put(&mut self, endpoint: &EndpointSpec) -> Result<(), DatapathError>;

    /// An endpoint is gone. One that was never there is no error.
    ///
    /// # Errors
    /// When something of it is left.
    fn endpoint_removed(&mut self, id: EndpointId) -> Result<(), DatapathError>;

    /// Nobody has these numbers any more, and others may get them.
    fn numbers_given_up(&mut self, _endpoints: &[EndpointId]) {}

    /// Nothing may pass to or from an endpoint until its policy is set again.
    ///
    /// # Errors
    /// When that can't be brought about.
    fn endpoint_closed(&mut self, id: EndpointId) -> Result<(), DatapathError>;

    /// This is the endpoint's policy, all of it, in one step.
    ///
    /// # Errors
    /// When it is not in force.
    fn policy_set(
        &mut self,
        id: EndpointId,
        revision: u64,
        policy: &EndpointPolicy,
    ) -> Result<(), DatapathError>;

    /// Policies of many endpoints, each as with [`Datapath::policy_set`]; as many results.
    fn policies_set(
        &mut self,
        policies: &[(EndpointId, u64, EndpointPolicy)],
    ) -> Vec<Result<(), DatapathError>> {
        let each = policies.iter();
        each.map(|(id, revision, policy)| self.policy_set(*id, *revision, policy)).collect()
    }

    /// Who is at a prefix; the longest prefix of an address decides.
    ///
    /// # Errors
    /// When it could not be written. What is not known must be denied where policy is in force.
    fn ipcache_put(&mut self, prefix: IpNet, identity: Identity) -> Result<(), DatapathError>;

    /// Nothing is known of a prefix any more. One that was not there is no error.
    ///
    /// # Errors
    /// When it is still there.
    fn ipcache_removed(&mut self, prefix: IpNet) -> Result<(), DatapathError>;

    /// Addresses have other identities than before, and all of them have been told: connections that are
    /// open are judged once more.
    ///
    /// # Errors
    /// When some may go on as they were judged before. It is called again then.
    fn rejudge(&mut self) -> Result<(), DatapathError>;

    /// These services are about to be told anew: what they have is free for the others of them.
    fn services_change(&mut self, _names: &[ServiceName]) {}

    /// A service is there, or has changed. It is in force after [`Datapath::services_done`].
    ///
    /// # Errors
    /// When it can't be so; then it is what it was.
    fn service_put(&mut self, service: &ServiceSpec) -> Result<(), DatapathError>;

    /// A service is gone, after [`Datapath::services_done`]. One that was not there is no error.
    ///
    /// # Errors
    /// When something of it is left.
    fn service_removed(&mut self, name: &ServiceName) -> Result<(), DatapathError>;

    /// Services are now as was said since this was called last, all at once; what there was before the
    /// process began stays beside them. Returns those that can't be so, and why: they are what
    /// they were, and the others are not held up by them.
    ///
    /// # Errors
    /// When nothing of it is in force.
    fn services_done(&mut self) -> Result<BTreeMap<ServiceName, DatapathError>, DatapathError> {
        Ok(BTreeMap::new())
    }

    /// Every service has been told since the process began: what is left of others may go, but for what is
    /// in the place of these, which can't be as they are to be.
    ///
    /// # Errors
    /// When something of it is left.
    fn keep_services(&mut self, _failing: &[ServiceSpec]) -> Result<(), DatapathError> {
        Ok(())
    }

    /// These are all endpoints there are, whether each could be attached or not: what is left of others may
    /// go, and so may interfaces that these have left.
    ///
    /// # Errors
    /// When something of it is left.
    fn keep_endpoints(&mut self, all: &BTreeSet<EndpointId>) -> Result<(), DatapathError>;

    /// Every address entry has been told since the process began: what is left of others may go.
    ///
    /// # Errors
    /// When something of it is left.
    fn keep_addresses(&mut self) -> Result<(), DatapathError>;

    /// Endpoints that are no longer attached by themselves: their interface is gone, another has its name,
    /// or it has become part of another, or is so no longer. Each is returned once.
    fn lost(&mut self) -> Vec<EndpointId>;

    /// Looks whether what leads outside of the node is what it was, and takes up what is other. Whether
    /// services have to be put again: the node has other addresses.
    fn look_outside(&mut self) -> bool {
        false
    }

    /// The addresses that the node has itself; none: nobody looks.
    ///
    /// # Errors
    /// When they can't be read.
    fn host_addresses(&self) -> Result<Option<BTreeSet<IpAddr>>, DatapathError> {
        Ok(None)
    }

    /// Whether something that leads outside is not there yet, so that it is worth looking again.
    fn is_outside_lacking(&self) -> bool {
        false
    }

    /// Makes anew what leads packets to the proxy, if somebody has taken it away.
    fn restore_ways(&mut self) {}

    /// What of the host is not as it has to be; nobody but its owner can mend it.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }

    /// Numbers that are in use from a time before the process began.
    ///
    /// # Errors
    /// When that can't be told.
    fn numbers_in_use(&self) -> Result<NumbersInUse, DatapathError>;

    /// Whether somebody wants to see every connection that is opened.
    fn tell_flows(&mut self, _wanted: bool) {}

    /// What is attached, and how full its maps are.
    fn status(&self) -> DatapathStatus;

    /// What reads a table; `None`: there is no such table. It may take its time, and takes none of the
    /// datapath's.
    fn reading(&self, _: Table, _: Wanted) -> Option<Reading> {
        None
    }
}

/// Numbers that mean somebody already, and what those have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumbersInUse {
    /// Of endpoints.
    pub endpoints: BTreeSet<EndpointId>,
    /// Of identities, those of prefixes among them.
    pub identities: BTreeSet<u32>,
    /// Which endpoint each interface is judged as, by its name.
    pub interfaces: BTreeMap<String, EndpointId>,
    /// Which endpoint has each address.
    pub addresses: BTreeMap<IpAddr, EndpointId>,
}

/// The proxy that reads what the kernel can't judge.
pub trait Proxying: Send {
    /// This is an endpoint, and its policy. Told before the kernel is.
    ///
    /// # Errors
    /// When it is not in force.
    fn policy_set(
        &mut self,
        endpoint: &EndpointSpec,
        revision: u64,
        policy: EndpointPolicy,
    ) -> Result<(), DatapathError>;

    /// An endpoint is gone; its connections end.
    fn endpoint_removed(&mut self, id: EndpointId);

    /// Addresses have other identities than before: every endpoint's policy, which decides as it did.
    fn addresses_changed(
        &mut self,
        policies: &mut dyn Iterator<Item = (EndpointId, EndpointPolicy)>,
    );

    /// Whether it reads what it is to read. While it does not, that is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    fn health(&self) -> Result<(), DatapathError>;

    /// Open log files again: they were rotated.
    fn reopen_logs(&mut self);

    /// Accept nothing more, and let connections finish.
    fn drain(&mut self) {}

    /// How many connections there are, to know when draining is done.
    fn connections(&self) -> usize {
        0
    }
}

/// An endpoint, as the datapath sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Its number.
    pub id: EndpointId,
    /// `namespace/name`, for messages.
    pub name: String,
    /// Where it is attached.
    pub attachment: Attachment,
    /// Its own addresses; it may use no others, and no other endpoint has them.
    pub addresses: Vec<IpAddr>,
    /// Its own identity.
    pub identity: Identity,
    /// What it may use of the proxy.
    pub limits: EndpointLimits,
}

/// A service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service, as the datapath sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Which.
    pub name: ServiceName,
    /// Each of its ports, with the backends behind it.
    pub ports: Vec<PortSpec>,
    /// From outside, only backends of this node answer.
    pub external_local: bool,
    /// From inside, likewise.
    pub internal_local: bool,
    /// For how long a client comes back to the backend it had.
    pub affinity: Option<Duration>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Its name; may be empty.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// What clients connect to.
    pub frontends: Vec<Frontend>,
    /// Who answers, in order of their addresses.
    pub backends: Vec<Backend>,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// An address of the cluster's own.
    Cluster(SocketAddr),
    /// An address of outside, a load balancer's among them.
    External(SocketAddr),
    /// A port of every node.
    Node(u16),
}

/// One who answers for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Where it is.
    pub address: SocketAddr,
    /// What may be sent there.
    pub state: BackendState,
    /// It is on this node.
    pub is_local: bool,
}

/// What may be sent to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// New connections.
    Ready,
    /// It is about to leave: connections that it has, and new ones when nobody is ready.
    Terminating,
    /// It should be ready, and does not answer as it is to: connections that it has, and new ones when
    /// nobody else is left.
    Unhealthy,
    /// Connections that it has.
    NotReady,
}

/// Tables of the datapath that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
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

impl Table {
    /// Whether its entries are an endpoint's.
    #[must_use]
    pub fn has_endpoints(self) -> bool {
        matches!(self, Self::Policy | Self::Ct)
    }
}

/// What of a table is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Only what is this endpoint's.
    pub endpoint: Option<EndpointId>,
    /// At most so many rows.
    pub limit: usize,
}

/// Reads a table, on whatever thread.
pub type Reading = Box<dyn FnOnce() -> Result<Listing, DatapathError> + Send>;

/// What is in a table, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// How many there are beyond those.
    pub more: usize,
}

/// What is attached, and how full it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DatapathStatus {
    /// Programs that are attached, each in one line.
    pub attached: Vec<String>,
    /// Maps.
    pub maps: Vec<MapFill>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// Entries that it has.
    pub entries: u64,
    /// Entries that it has room for.
    pub capacity: u64,
}
