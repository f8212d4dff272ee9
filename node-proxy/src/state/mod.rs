//! The state of a node: what objects say becomes what the datapath is to do, and only differences are
//! handed on. No I/O but the numbers' files, and time comes in as an argument.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`Node`] |
//! | `fold.rs` | a batch of changes folded into the policy engine |
//! | `people.rs` | workloads: who is an endpoint, who a peer, and identities that linger |
//! | `services.rs` | services and slices as what the datapath balances |
//! | `health.rs` | which backends are asked whether they are well, and what follows |
//! | `endpoints.rs`, `ipcache.rs`, `backoff.rs` | what is wanted, what is in force, when to try again |
//! | `closing.rs` | what stands in the place of objects that could not be read |
//! | `claims.rs`, `addresses.rs` | who has which interface and which address, when two name the same |
//! | `realise.rs`, `leftovers.rs` | telling the datapath, and taking away what nobody wants any more |
//! | `news.rs` | what happens, as it happens |
//! | `view.rs`, `policy_rows.rs` | all of it, to be shown |

mod addresses;
mod backoff;
mod claims;
mod closing;
mod endpoints;
mod fold;
mod health;
mod ipcache;
mod leftovers;
mod news;
mod people;
mod policy_rows;
mod realise;
mod services;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use portreeve_policy::{Diagnostic, Engine, Features, Options, PolicyName};

use self::addresses::Addresses;
use self::backoff::Backoff;
use self::endpoints::Endpoints;
use self::ipcache::Ipcache;
use self::leftovers::Leftovers;
pub use self::news::{Dated, News, NewsSender};
use self::people::People;
pub use self::policy_rows::{PolicyRow, RequestRow};
pub(crate) use self::policy_rows::{place, short};
use self::services::Services;
pub use self::view::{
    EndpointDetail, EndpointRow, IdentityRow, LimitsView, ObjectError, ServiceRow, Status,
};
use crate::datapath::{Datapath, DatapathError, EndpointId, Proxying};
use crate::events::Flows;
use crate::identities::{EndpointIds, Identities, StateError};
use crate::objects::{Attachment, ObjectKey};
use crate::source::Origin;

/// How a node works.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What this node is called in slices and workloads.
    pub name: String,
    /// How policy is evaluated.
    pub policy: Options,
    /// How long the identity of labels that nobody has any more means them.
    pub identity_linger: Duration,
}

/// Why a node can't begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its numbers can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The datapath does not tell which numbers it has.
    #[error("can't read which numbers are in use: {0}")]
    Datapath(DatapathError),
}

/// The state of a node.
pub struct Node {
    options: NodeOptions,
    engine: Engine,
    identities: Identities,
    ids: EndpointIds,
    objects: BTreeMap<ObjectKey, Known>,
    unreadable: Vec<Diagnostic>,
    doubles: Vec<Diagnostic>,
    people: People,
    /// What keeps workloads closed in place of policies that could not be read when the node started.
    closed: BTreeMap<ObjectKey, Vec<PolicyName>>,
    /// Services, and slices of them, that could not be read when the node started.
    unknown_services: BTreeSet<ObjectKey>,
    endpoints: Endpoints,
    addresses: Addresses,
    /// Why it is not known which addresses the node has itself.
    node_error: Option<DatapathError>,
    ipcache: Ipcache,
    services: Services,
    /// Of writing numbers down.
    saving: Backoff,
    leftovers: Leftovers,
    has_begun: bool,
    is_ending: bool,
    datapath: Box<dyn Datapath>,
    proxy: Box<dyn Proxying>,
    news: NewsSender,
}

/// What is known of an object.
#[derive(Debug)]
struct Known {
    origin: Origin,
    /// A version of it is in force.
    is_in_force: bool,
    /// What is written now is not what is in force.
    is_broken: bool,
    diagnostics: Vec<Diagnostic>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("revision", &self.engine.revision()).finish_non_exhaustive()
    }
}

impl Node {
    /// A node that knows of nothing yet. Its numbers are those of the state folder.
    ///
    /// # Errors
    /// When the numbers can't be read, or those that are in use can't be told.
    pub fn open(
        options: NodeOptions,
        state: &Path,
        datapath: Box<dyn Datapath>,
        proxy: Box<dyn Proxying>,
        now: Instant,
    ) -> Result<Self, OpenError> {
        let mut identities = Identities::open(state, now)?;
        let mut ids = EndpointIds::open(state, now)?;
        // What the kernel has under a number means somebody, whatever became of the folder.
        let in_use = datapath.numbers_in_use().map_err(OpenError::Datapath)?;
        identities.begin_after(&in_use.identities);
        ids.begin_after(&in_use.endpoints);
        // Who had something has it: of two who name it, the same one as before.
        let (mut endpoints, mut addresses) = (Endpoints::default(), Addresses::default());
        let names: HashMap<EndpointId, &str> = ids.names().collect();
        for (interface, id) in in_use.interfaces {
            if let Some(name) = names.get(&id) {
                endpoints.claims.begin_with(name, Attachment::Interface(interface));
            }
        }
        for (address, id) in in_use.addresses {
            if let Some(name) = names.get(&id) {
                addresses.begin_with(name, address);
            }
        }
        let engine = Engine::with_allocator(
            options.policy.clone(),
            Features::default(),
            Box::new(identities.clone()),
        );
        Ok(Self {
            options,
            engine,
            identities,
            ids,
            objects: BTreeMap::new(),
            unreadable: Vec::new(),
            doubles: Vec::new(),
            people: People::default(),
            closed: BTreeMap::new(),
            unknown_services: BTreeSet::new(),
            endpoints,
            addresses,
            node_error: None,
            ipcache: Ipcache::default(),
            services: Services::default(),
            saving: Backoff::default(),
            leftovers: Leftovers::default(),
            has_begun: false,
            is_ending: false,
            datapath,
            proxy,
            news: NewsSender::default(),
        })
    }

    /// With those who are told of packets and requests already.
    #[must_use]
    pub fn with_flows(self, flows: Flows) -> Self {
        Self { news: NewsSender::of(flows), ..self }
    }

    /// What happens from now on.
    #[must_use]
    pub fn news(&self) -> &NewsSender {
        &self.news
    }

    /// The datapath, to be asked.
    #[must_use]
    pub fn datapath(&self) -> &dyn Datapath {
        &*self.datapath
    }

    /// Has the kernel tell of connections that are opened, and the proxy of requests, if anybody listens.
    pub fn tell_flows(&mut self) {
        self.datapath.tell_flows(self.news.flows().is_opened_wanted());
        self.news.flows().look_who_listens();
    }

    /// Ends in order: the proxy accepts nothing more, and connections are waited for.
    pub fn drain(&mut self) {
        self.is_ending = true;
        self.proxy.drain();
    }

    /// The proxy.
    pub fn proxy(&mut self) -> &mut dyn Proxying {
        &mut *self.proxy
    }
}
