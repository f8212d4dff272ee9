//! The proxy of a whole node: as for one workload, but that the endpoints and their policies come from the
//! program, by [`Endpoints`], and go and change while it runs.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use portreeve_policy::TrafficDirection;

use crate::config::ListenerConfig;
use crate::control::Policies;
use crate::endpoints::Endpoints;
pub use crate::launch::Trouble;
use crate::launch::{Crew, Listening, Running, Whose};
use crate::limits::Limits;
use crate::listener::Bound;
use crate::observer::Observing;
use crate::proxy::{Remote, StartError};
use crate::redirection::{AsClient, KernelCounting, NodeReporter};
use crate::telemetry::{AccessLogConfig, AccessLogMode, Telemetry};

/// Everything that the proxy of a node needs to know, besides its endpoints.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where traffic comes in. A connection to an egress listener is of the endpoint that has the client's
    /// address, one to an ingress listener of the endpoint that has its destination's.
    pub listeners: Vec<ListenerConfig>,
    /// Bounds and time-outs of the whole proxy, and of any one connection.
    pub limits: Limits,
    /// Worker threads; `None`: as many as the process has cores.
    pub workers: Option<NonZeroUsize>,
    /// Which requests are logged, and where to.
    pub access_log: AccessLogConfig,
    /// Where the admin server listens; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Who is told of every decision.
    pub observer: Observing,
    /// How upstream connections are opened.
    pub upstream_source: UpstreamSource,
    /// Who knows what programs inside of the kernel have counted, for the metrics.
    pub kernel: KernelCounting,
}

impl NodeConfig {
    /// With everything else as it is by default: upstream connections are the host's own, no access log,
    /// no admin server.
    #[must_use]
    pub fn new(listeners: Vec<ListenerConfig>) -> Self {
        Self {
            listeners,
            limits: Limits::default(),
            workers: None,
            access_log: AccessLogConfig { mode: AccessLogMode::Off, ..Default::default() },
            admin: None,
            observer: Observing::default(),
            upstream_source: UpstreamSource::default(),
            kernel: KernelCounting::default(),
        }
    }
}

/// Where upstream connections seem to come from. Either needs `CAP_NET_ADMIN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamSource {
    /// From the client's address (`IP_TRANSPARENT`), with a port of the proxy's. What the server sends back
    /// has to be led to this host.
    pub client_address: bool,
    /// With this mark (`SO_MARK`), by which the node's routes and programs know them.
    pub mark: Option<u32>,
}

/// A running proxy of a node.
#[derive(Debug)]
pub struct NodeProxy {
    running: Running,
    endpoints: Arc<Endpoints>,
}

impl NodeProxy {
    /// Binds all addresses and starts to serve the endpoints that there are and will be. When it returns,
    /// connections are accepted.
    ///
    /// # Errors
    /// [`StartError`], with nothing left behind.
    pub fn start(config: NodeConfig, endpoints: Arc<Endpoints>) -> Result<Self, StartError> {
        Self::start_told(config, endpoints, |_, _, _| Ok(()))
    }

    /// The same; `told` hears of every listener's sockets, one for each worker, before anything is accepted:
    /// for who hands connections to them.
    ///
    /// # Errors
    /// [`StartError`]; [`StartError::Listening`] with what `told` said.
    pub fn start_told(
        config: NodeConfig,
        endpoints: Arc<Endpoints>,
        mut told: impl FnMut(TrafficDirection, SocketAddr, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) -> Result<Self, StartError> {
        let telemetry = Telemetry::new(&config.access_log, config.observer.clone())?;
        let listening = Listening::bind(&config.listeners, config.workers, config.admin, None)?;
        for (listener, sockets) in config.listeners.iter().zip(&listening.listeners) {
            let Some(Bound { settings, .. }) = sockets.first() else { continue };
            let descriptors: Vec<_> = sockets.iter().map(|bound| bound.socket.as_fd()).collect();
            told(settings.direction, settings.address, &descriptors).map_err(|source| {
                let (name, address) = (listener.name.clone(), settings.address);
                StartError::Listening { name, address, source }
            })?;
        }
        let crew = Crew {
            limits: config.limits,
            telemetry,
            bypass: None,
            as_client: AsClient::new(config.upstream_source).map(Arc::new),
            joins_sockets: false,
            whose: Whose::Many(endpoints.clone()),
        };
        let policies = Policies::Many(endpoints.clone(), config.kernel);
        Ok(Self { running: crew.start(listening, policies, None)?, endpoints })
    }

    /// Where each listener listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.running.addresses
    }

    /// Where the admin server listens.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.running.admin
    }

    /// A way to steer the proxy from another thread.
    #[must_use]
    pub fn remote(&self) -> NodeRemote {
        NodeRemote(self.running.remote())
    }

    /// Takes down what the kernel has decided; to be dropped before [`NodeProxy::join`].
    #[must_use]
    pub fn reporter(&self) -> NodeReporter {
        NodeReporter::new(self.running.telemetry.clone(), self.endpoints.clone())
    }

    /// Why it does not serve, or not with all it has; `None`: it does.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.running.trouble()
    }

    /// How many connections it has: one between two endpoints, which either has one of, is one.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.running.connections()
    }

    /// Waits until all connections have ended. The access log is still written, until
    /// [`NodeProxy::join`].
    pub async fn drained(&mut self) {
        self.running.drained().await;
    }

    /// Waits until the proxy has drained. Returns at once only if it already has.
    pub fn join(self) {
        self.running.join();
    }
}

/// Steers a running proxy of a node; cheap to clone. Its policies are steered by [`Endpoints`].
#[derive(Clone, Debug)]
pub struct NodeRemote(Remote);

impl NodeRemote {
    /// Stops accepting, lets connections end between messages, and cuts what is left after the
    /// drain time-out. [`NodeProxy::join`] returns when that is done.
    pub fn drain(&self) {
        self.0.drain();
    }

    /// Cuts all connections and ends.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Opens the access log file again, after it was rotated.
    pub fn reopen_logs(&self) {
        self.0.reopen_logs();
    }
}
