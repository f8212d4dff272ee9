//! A datapath for tests: writes down what it is told, and fails when it is to.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use portreeve_policy::{EndpointPolicy, Identity};

use super::{
    Datapath, DatapathError, DatapathStatus, EndpointId, EndpointSpec, Listing, NumbersInUse,
    Proxying, Reading, ServiceName, ServiceSpec, Table, Wanted,
};

/// What the datapath was told.
#[derive(Clone, Debug)]
pub enum Call {
    /// `endpoint_put`.
    EndpointPut(EndpointSpec),
    /// `endpoint_removed`.
    EndpointRemoved(EndpointId),
    /// `numbers_given_up`.
    NumbersGivenUp(Vec<EndpointId>),
    /// `endpoint_closed`.
    EndpointClosed(EndpointId),
    /// `policy_set`.
    PolicySet(EndpointId, EndpointPolicy),
    /// The proxy's `policy_set`.
    ProxyPolicySet(EndpointId),
    /// The proxy's `endpoint_removed`.
    ProxyEndpointRemoved(EndpointId),
    /// The proxy's `addresses_changed`, with how many policies.
    ProxyAddressesChanged(usize),
    /// `ipcache_put`.
    IpcachePut(IpNet, Identity),
    /// `ipcache_removed`.
    IpcacheRemoved(IpNet),
    /// `services_change`.
    ServicesChange(Vec<ServiceName>),
    /// `service_put`.
    ServicePut(ServiceSpec),
    /// `service_removed`.
    ServiceRemoved(ServiceName),
    /// `rejudge`.
    Rejudge,
    /// `keep_endpoints`.
    KeepEndpoints(BTreeSet<EndpointId>),
    /// `keep_addresses`.
    KeepAddresses,
}

/// One line, for tests to compare.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndpointPut(endpoint) => {
                let EndpointSpec { id, name, attachment, identity, addresses, .. } = endpoint;
                let closed = if addresses.is_empty() { "closed " } else { "" };
                write!(
                    f,
                    "{closed}endpoint {id} {name} at {attachment} identity {}",
                    identity.get()
                )
            }
            Self::EndpointRemoved(id) => write!(f, "endpoint {id} removed"),
            Self::NumbersGivenUp(ids) => write!(f, "numbers {ids:?} given up"),
            Self::EndpointClosed(id) => write!(f, "endpoint {id} closed"),
            Self::PolicySet(id, _) => write!(f, "policy {id}"),
            Self::ProxyPolicySet(id) => write!(f, "proxy policy {id}"),
            Self::ProxyEndpointRemoved(id) => write!(f, "proxy endpoint {id} removed"),
            Self::ProxyAddressesChanged(count) => write!(f, "proxy addresses of {count}"),
            Self::IpcachePut(prefix, identity) => write!(f, "ipcache {prefix} {}", identity.get()),
            Self::IpcacheRemoved(prefix) => write!(f, "ipcache {prefix} removed"),
            Self::ServicesChange(names) => {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                write!(f, "services {} change", names.join(","))
            }
            Self::ServicePut(service) => write!(f, "service {}", service.name),
            Self::ServiceRemoved(name) => write!(f, "service {name} removed"),
            Self::Rejudge => f.write_str("rejudge"),
            Self::KeepEndpoints(all) => {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                write!(f, "keep endpoints {}", all.join(","))
            }
            Self::KeepAddresses => f.write_str("keep addresses"),
        }
    }
}

/// What a recording has written down, and what it is to fail at; shared with the test.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Vec<Call>,
    /// Calls whose line begins so fail.
    failing: BTreeSet<String>,
    /// Nothing is kept.
    counts_only: bool,
    count: usize,
    lost: Vec<EndpointId>,
    /// Reading a table takes so long.
    slow: Option<Duration>,
    in_use: NumbersInUse,
    host: Option<BTreeSet<IpAddr>>,
    /// How many services were failing when what was left of others was to go.
    services_kept: Option<usize>,
}

impl Recorder {
    /// What was told since it was asked last, each in a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.calls().iter().map(ToString::to_string).collect()
    }

    /// What was told since it was asked last.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// How many calls there were, ever.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().count
    }

    /// From now on, the node itself has these addresses.
    pub fn host_has(&self, addresses: &[&str]) {
        let addresses = addresses.iter().filter_map(|address| address.parse().ok());
        self.lock().host = Some(addresses.collect());
    }

    /// From now on, keeps no calls, only counts them.
    pub fn count_only(&self) {
        self.lock().counts_only = true;
    }

    /// From now on, calls whose line begins so fail.
    pub fn fail(&self, begin: &str) {
        self.lock().failing.insert(begin.to_owned());
    }

    /// From now on, everything works.
    pub fn mend(&self) {
        self.lock().failing.clear();
    }

    /// An endpoint's interface is another than it was.
    pub fn lose(&self, id: EndpointId) {
        self.lock().lost.push(id);
    }

    /// Whether what is left of services was to go since it was asked last, and how many were failing then.
    #[must_use]
    pub fn services_kept(&self) -> Option<usize> {
        self.lock().services_kept.take()
    }

    /// From now on there are tables, without anything in them, and reading one takes so long.
    pub fn read_slowly(&self, time: Duration) {
        self.lock().slow = Some(time);
    }

    /// Numbers that are in use from a time before.
    pub fn in_use(&self, numbers: NumbersInUse) {
        self.lock().in_use = numbers;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, call: Call) -> Result<(), DatapathError> {
        let mut shared = self.lock();
        shared.count += 1;
        if shared.counts_only {
            return Ok(());
        }
        let line = call.to_string();
        let fails = shared.failing.iter().any(|begin| line.starts_with(begin.as_str()));
        shared.calls.push(call);
        match fails {
            true => Err(DatapathError(format!("told to fail at `{line}`"))),
            false => Ok(()),
        }
    }
}

/// Writes down what it is told.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Where.
    pub recorder: Recorder,
}

impl Datapath for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn is_enforcing(&self) -> bool {
        true
    }

    fn endpoint_put(&mut self, endpoint: &EndpointSpec) -> Result<(), DatapathError> {
        self.recorder.record(Call::EndpointPut(endpoint.clone()))
    }

    fn endpoint_removed(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        self.recorder.record(Call::EndpointRemoved(id))
    }

    fn numbers_given_up(&mut self, endpoints: &[EndpointId]) {
        // Never fails.
        let _ = self.recorder.record(Call::NumbersGivenUp(endpoints.to_vec()));
    }

    fn endpoint_closed(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        self.recorder.record(Call::EndpointClosed(id))
    }

    fn policy_set(
        &mut self,
        id: EndpointId,
        _: u64,
        policy: &EndpointPolicy,
    ) -> Result<(), DatapathError> {
        self.recorder.record(Call::PolicySet(id, policy.clone()))
    }

    fn ipcache_put(&mut self, prefix: IpNet, identity: Identity) -> Result<(), DatapathError> {
        self.recorder.record(Call::IpcachePut(prefix, identity))
    }

    fn ipcache_removed(&mut self, prefix: IpNet) -> Result<(), DatapathError> {
        self.recorder.record(Call::IpcacheRemoved(prefix))
    }

    fn services_change(&mut self, names: &[ServiceName]) {
        // Never fails.
        let _ = self.recorder.record(Call::ServicesChange(names.to_vec()));
    }

    fn keep_services(&mut self, failing: &[ServiceSpec]) -> Result<(), DatapathError> {
        self.recorder.lock().services_kept = Some(failing.len());
        Ok(())
    }

    fn service_put(&mut self, service: &ServiceSpec) -> Result<(), DatapathError> {
        self.recorder.record(Call::ServicePut(service.clone()))
    }

    fn service_removed(&mut self, name: &ServiceName) -> Result<(), DatapathError> {
        self.recorder.record(Call::ServiceRemoved(name.clone()))
    }

    fn rejudge(&mut self) -> Result<(), DatapathError> {
        self.recorder.record(Call::Rejudge)
    }

    fn keep_endpoints(&mut self, all: &BTreeSet<EndpointId>) -> Result<(), DatapathError> {
        self.recorder.record(Call::KeepEndpoints(all.clone()))
    }

    fn keep_addresses(&mut self) -> Result<(), DatapathError> {
        self.recorder.record(Call::KeepAddresses)
    }

    /// Fails as the call `host addresses` would.
    fn host_addresses(&self) -> Result<Option<BTreeSet<IpAddr>>, DatapathError> {
        let shared = self.recorder.lock();
        match shared.failing.contains("host addresses") {
            true => Err(DatapathError("no room".to_owned())),
            false => Ok(shared.host.clone()),
        }
    }

    fn lost(&mut self) -> Vec<EndpointId> {
        std::mem::take(&mut self.recorder.lock().lost)
    }

    fn numbers_in_use(&self) -> Result<NumbersInUse, DatapathError> {
        Ok(self.recorder.lock().in_use.clone())
    }

    fn status(&self) -> DatapathStatus {
        DatapathStatus::default()
    }

    fn reading(&self, _: Table, _: Wanted) -> Option<Reading> {
        let time = self.recorder.lock().slow?;
        Some(Box::new(move || {
            std::thread::sleep(time);
            Ok(Listing::default())
        }))
    }
}

impl Proxying for Recording {
    fn policy_set(
        &mut self,
        endpoint: &EndpointSpec,
        _: u64,
        _: EndpointPolicy,
    ) -> Result<(), DatapathError> {
        self.recorder.record(Call::ProxyPolicySet(endpoint.id))
    }

    fn endpoint_removed(&mut self, id: EndpointId) {
        // Never fails.
        let _ = self.recorder.record(Call::ProxyEndpointRemoved(id));
    }

    fn addresses_changed(
        &mut self,
        policies: &mut dyn Iterator<Item = (EndpointId, EndpointPolicy)>,
    ) {
        let _ = self.recorder.record(Call::ProxyAddressesChanged(policies.count()));
    }

    /// Fails as the call `proxy health` would.
    fn health(&self) -> Result<(), DatapathError> {
        match self.recorder.lock().failing.contains("proxy health") {
            true => Err(DatapathError("as it was told".to_owned())),
            false => Ok(()),
        }
    }

    fn reopen_logs(&mut self) {}
}
