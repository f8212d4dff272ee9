//! Services as they are configured, and what can't be meant.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portreeve_ebpf_common::{Endpoint, ServiceKey, protocol};
use portreeve_policy::{Labels, Service};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::address::endpoint;

/// An address that stands for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its own labels, for policies that select services.
    pub labels: Labels,
    /// What clients connect to. Each gets the backends of its own address family.
    pub frontends: Vec<(IpAddr, u16)>,
    /// What they speak.
    pub protocol: Transport,
    /// Who answers.
    pub backends: Vec<BackendConfig>,
    /// Who asks is outside: addresses mean what they mean there, and which backend a connection gets is
    /// the same on every node.
    pub external: bool,
    /// For how long a client comes back to the backend that it had; none: it does not. Counted in
    /// seconds, what is left of one counts as one.
    pub affinity: Option<Duration>,
}

/// One who answers for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share, beside those of the others: up to [`MAX_WEIGHT`]. 0: no new client is sent there, one
    /// who comes back is.
    pub weight: u32,
    /// Nobody is sent there any more; connections that it has go on.
    pub draining: bool,
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Why services can't be as they are configured. Those before stay in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Two services have an address, or one has it twice.
    #[error("services `{one}` and `{other}`: both have the frontend `{frontend}` ({transport})")]
    DuplicateFrontend {
        /// One service.
        one: String,
        /// The other.
        other: String,
        /// The address.
        frontend: SocketAddr,
        /// What they speak.
        transport: Transport,
    },
    /// A backend is there twice.
    #[error("service `{service}`: the backend `{backend}` is there twice")]
    DuplicateBackend {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
    },
    /// An address, or a port, that nobody can be at.
    #[error("service `{service}`: `{address}` is nowhere to connect to")]
    Nowhere {
        /// The service.
        service: String,
        /// The address.
        address: SocketAddr,
    },
    /// A weight out of its range.
    #[error(
        "service `{service}`: the weight {weight} of `{backend}` is more than {MAX_WEIGHT}, the \
         greatest there is"
    )]
    Weight {
        /// The service.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// Its weight.
        weight: u32,
    },
    /// More backends than one service can have.
    #[error("service `{service}`: {count} backends; at most {MAX_BACKENDS} are possible")]
    TooManyBackends {
        /// The service.
        service: String,
        /// How many it has.
        count: usize,
    },
    /// More than the kernel's maps have room for.
    #[error("{needed} {what}, and room for {room}: what is new comes before what is old goes")]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// How many there would be for a moment.
        needed: usize,
        /// How many there may be.
        room: usize,
    },
}

/// The greatest weight (as in the Gateway API). The least share that a backend can have in its slot, one
/// of this, is far more than the smallest that can be told.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// The most backends of one service: a random number of 32 bits chooses among so few without telling.
pub const MAX_BACKENDS: usize = 4096;

impl ServiceConfig {
    /// Namespace and name.
    fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The keys that its frontends have.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ServiceKey> {
        let protocol = self.protocol.number();
        let frontends = self.frontends.iter().copied().map(SocketAddr::from).map(endpoint);
        frontends.map(move |frontend| match self.external {
            true => ServiceKey::external(frontend, protocol),
            false => ServiceKey::internal(frontend, protocol),
        })
    }

    /// As the kernel counts: in seconds, 0 for none.
    pub(super) fn affinity_seconds(&self) -> u32 {
        let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self.affinity.map_or(0, |time| u32::try_from(seconds(time)).unwrap_or(u32::MAX))
    }

    /// Whether it can be so, but for what others have.
    ///
    /// # Errors
    /// With what can't be meant.
    pub fn check(&self) -> Result<(), ServiceError> {
        let service = || self.title();
        let count = self.backends.len();
        if count > MAX_BACKENDS {
            return Err(ServiceError::TooManyBackends { service: service(), count });
        }
        let frontends = self.frontends.iter().copied().map(SocketAddr::from);
        let mut all = frontends.chain(self.backends.iter().map(|backend| backend.address));
        if let Some(address) = all.find(|address| is_nowhere(*address)) {
            return Err(ServiceError::Nowhere { service: service(), address });
        }
        let mut seen: FxHashSet<Endpoint> = FxHashSet::default();
        for &BackendConfig { address: backend, weight, .. } in &self.backends {
            if weight > MAX_WEIGHT {
                return Err(ServiceError::Weight { service: service(), backend, weight });
            }
            if !seen.insert(endpoint(backend)) {
                return Err(ServiceError::DuplicateBackend { service: service(), backend });
            }
        }
        Ok(())
    }
}

/// Whether services can be as they are configured.
pub(super) fn check<'a>(
    services: impl IntoIterator<Item = &'a ServiceConfig>,
) -> Result<(), ServiceError> {
    let mut owners: FxHashMap<ServiceKey, &ServiceConfig> = FxHashMap::default();
    for service in services {
        service.check()?;
        for (key, frontend) in service.keys().zip(&service.frontends) {
            if let Some(other) = owners.insert(key, service) {
                return Err(ServiceError::DuplicateFrontend {
                    one: other.title(),
                    other: service.title(),
                    frontend: (*frontend).into(),
                    transport: service.protocol,
                });
            }
        }
    }
    Ok(())
}

/// Nobody can be reached there: not at port 0, nor at the address that stands for any.
fn is_nowhere(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.port() == 0 || ip.is_unspecified() || ip.is_multicast()
}

impl Transport {
    /// The IP protocol's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// For policies that name a service: it has no selector, its backends say what stands behind it. Those
/// that are drained still count, since they still have connections.
impl From<&ServiceConfig> for Service {
    fn from(config: &ServiceConfig) -> Self {
        let backends: BTreeSet<IpAddr> =
            config.backends.iter().map(|backend| backend.address.ip().to_canonical()).collect();
        Self {
            namespace: config.namespace.clone(),
            name: config.name.clone(),
            labels: config.labels.clone(),
            backends: backends.into_iter().collect(),
            ..Self::default()
        }
    }
}
