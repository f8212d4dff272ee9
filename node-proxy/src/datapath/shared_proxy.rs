//! The proxy that all endpoints share, for what has to be read.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use portreeve_core::redirection::NodeReporter;
use portreeve_core::{
    Endpoints, ListenerConfig, NodeConfig, NodeProxy, NodeRemote, StartError, Transparent,
    UpstreamConfig, UpstreamSource,
};
use portreeve_ebpf::ListenerSlot;
use portreeve_ebpf::node::{NodeKernel, mark};
use portreeve_policy::{EndpointPolicy, TrafficDirection};

use super::registered::Registered;
use super::{DatapathError, EndpointId, EndpointSpec, Proxying};

/// A proxy in this process, to which the kernel hands connections.
pub struct SharedProxy {
    registered: Registered,
    proxy: Option<NodeProxy>,
    remote: NodeRemote,
    kernel: Arc<NodeKernel>,
    /// Where the kernel is to find it.
    slots: Vec<ListenerSlot>,
}

/// What a listener is called, which way its connections go, and where the kernel looks for it.
const LISTENERS: [(&str, TrafficDirection, bool, ListenerSlot); 4] = [
    ("egress-v4", TrafficDirection::Egress, true, ListenerSlot::OutboundV4),
    ("egress-v6", TrafficDirection::Egress, false, ListenerSlot::OutboundV6),
    ("ingress-v4", TrafficDirection::Ingress, true, ListenerSlot::InboundV4),
    ("ingress-v6", TrafficDirection::Ingress, false, ListenerSlot::InboundV6),
];

impl SharedProxy {
    /// Starts a proxy, and has the kernel hand connections to it. `settings` is completed: its listeners,
    /// and where its upstream connections seem to come from, are the kernel's affair.
    ///
    /// # Errors
    /// When it can't start, and when the kernel does not take its sockets.
    pub fn start(mut settings: NodeConfig, kernel: Arc<NodeKernel>) -> Result<Self, StartError> {
        let has_v6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let wanted = || LISTENERS.into_iter().filter(|(_, _, v4, _)| *v4 || has_v6);
        settings.listeners = wanted().map(|(name, way, v4, _)| listener(name, way, v4)).collect();
        let slots = wanted().map(|(.., slot)| slot).collect();
        settings.upstream_source =
            UpstreamSource { client_address: true, mark: Some(mark::FROM_PROXY) };
        let endpoints = Arc::<Endpoints>::default();
        let proxy = NodeProxy::start_told(settings, endpoints.clone(), |way, address, sockets| {
            hand_over(&kernel, way, address, sockets)
        })?;
        let remote = proxy.remote();
        let registered = Registered::new(endpoints);
        Ok(Self { registered, proxy: Some(proxy), remote, kernel, slots })
    }

    /// Takes down what the kernel has decided, as long as there is a proxy.
    #[must_use]
    pub fn reporter(&self) -> Option<NodeReporter> {
        self.proxy.as_ref().map(NodeProxy::reporter)
    }
}

fn listener(name: &str, direction: TrafficDirection, v4: bool) -> ListenerConfig {
    let listen: SocketAddr = match v4 {
        true => (Ipv4Addr::LOCALHOST, 0).into(),
        false => (Ipv6Addr::LOCALHOST, 0).into(),
    };
    ListenerConfig {
        name: name.to_owned(),
        direction,
        listen,
        upstream: UpstreamConfig::OriginalDestination(Transparent::Tproxy),
        policy_port: None,
        advertised: None,
    }
}

/// The kernel gives a connection to one socket, and the group of those that share its port spreads them.
/// What any of them sends has to be known as the proxy's.
fn hand_over(
    kernel: &NodeKernel,
    way: TrafficDirection,
    address: SocketAddr,
    sockets: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let wanted = |(_, direction, v4, _): &&(&str, TrafficDirection, bool, ListenerSlot)| {
        *direction == way && *v4 == address.is_ipv4()
    };
    let Some((.., slot)) = LISTENERS.iter().find(wanted) else { return Ok(()) };
    // The last one stays in the map; all are marked.
    for socket in sockets {
        kernel.set_listener(*slot, *socket).map_err(std::io::Error::other)?;
    }
    Ok(())
}

impl Proxying for SharedProxy {
    fn policy_set(
        &mut self,
        endpoint: &EndpointSpec,
        _: u64,
        policy: EndpointPolicy,
    ) -> Result<(), DatapathError> {
        self.registered.put(endpoint, policy)
    }

    fn endpoint_removed(&mut self, id: EndpointId) {
        self.registered.remove(id);
    }

    fn addresses_changed(
        &mut self,
        policies: &mut dyn Iterator<Item = (EndpointId, EndpointPolicy)>,
    ) {
        self.registered.addresses_changed(policies);
    }

    fn reopen_logs(&mut self) {
        self.remote.reopen_logs();
    }

    fn health(&self) -> Result<(), DatapathError> {
        let failed = |error: &dyn std::fmt::Display| DatapathError(error.to_string());
        match self.proxy.as_ref().map(NodeProxy::trouble) {
            Some(None) => {}
            Some(Some(trouble)) => return Err(failed(&trouble)),
            None => return Err(failed(&"it has ended")),
        }
        for slot in &self.slots {
            if !self.kernel.has_listener(*slot).map_err(|error| failed(&error))? {
                return Err(failed(&"the kernel has no socket to hand connections to"));
            }
        }
        Ok(())
    }

    fn drain(&mut self) {
        self.remote.drain();
    }

    fn connections(&self) -> usize {
        self.proxy.as_ref().map_or(0, NodeProxy::connections)
    }
}

impl Drop for SharedProxy {
    fn drop(&mut self) {
        self.remote.stop();
        if let Some(proxy) = self.proxy.take() {
            proxy.join();
        }
    }
}

impl std::fmt::Debug for SharedProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedProxy")
            .field("endpoints", &self.registered.len())
            .finish_non_exhaustive()
    }
}
