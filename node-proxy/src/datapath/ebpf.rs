//! The kernel's side of a node, by programs on the interfaces of its workloads.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use portreeve_core::carried_out;
use portreeve_ebpf::node::{
    EndpointEntry, NodeError, NodeKernel, NodePolicyTable, NodeSettings, endpoint_flags,
    host_addresses,
};
use portreeve_ebpf::{ServiceConfig, kernel_verdict};
use portreeve_policy::{EndpointPolicy, Identity, Protocol};
use rustix::net::netdevice::{index_to_name, name_to_index};

use super::balancing::Balancing;
use super::census::Census;
use super::host;
use super::interfaces::{Interface, any_socket, check_is_workloads, interface};
use super::listing;
use super::neighbours;
use super::outside::{Change, Outside};
use super::{
    Datapath, DatapathError, DatapathStatus, EndpointId, EndpointSpec, MapFill, NumbersInUse,
    Reading, ServiceName, ServiceSpec, Table, Wanted,
};
use crate::events::Names;

/// Programs on the interfaces of workloads, as [`NodeKernel`] has them.
#[derive(Debug)]
pub struct EbpfDatapath {
    kernel: Arc<NodeKernel>,
    flags: u32,
    /// Where each endpoint is attached.
    interfaces: BTreeMap<EndpointId, Interface>,
    /// What the numbers in the kernel's events stand for.
    names: Arc<Names>,
    /// Endpoints of which something passes that a policy in audit mode would deny.
    audited: BTreeSet<EndpointId>,
    /// Somebody wants to see every connection.
    is_watched: bool,
    /// Who is where.
    ipcache: BTreeMap<IpNet, u32>,
    balancing: Balancing,
    outside: Outside,
    /// Why what leads packets to the proxy can't be made anew.
    ways: Option<String>,
    census: Option<Census>,
}

impl EbpfDatapath {
    /// Sets up, or takes over, what `settings` name. `told_at_once`: who is refused gets a reset or an ICMP
    /// message instead of silence.
    ///
    /// # Errors
    /// What is missing, and what the kernel refuses.
    pub fn open(settings: &NodeSettings, told_at_once: bool) -> Result<Self, NodeError> {
        let kernel = NodeKernel::open(settings)?;
        let mut balancing = Balancing::default();
        balancing.begin_with(kernel.services()?);
        let told = if told_at_once { endpoint_flags::TOLD_AT_ONCE } else { 0 };
        Ok(Self {
            kernel: Arc::new(kernel),
            flags: endpoint_flags::ENFORCED | told,
            interfaces: BTreeMap::new(),
            names: Arc::default(),
            audited: BTreeSet::new(),
            is_watched: false,
            ipcache: BTreeMap::new(),
            balancing,
            outside: Outside::default(),
            ways: None,
            census: None,
        })
    }

    /// Answers for services to those who come from outside, as far as there are devices and addresses by
    /// which they can; others are taken up when they come.
    pub fn serve_outside(&mut self, wanted: Outside) {
        self.outside = wanted;
        self.look_outside();
        match &self.outside.attached {
            Some(attached) => {
                let own = &self.outside.own;
                let devices: Vec<_> = attached.keys().collect();
                tracing::info!("services are answered from outside by {devices:?}, at {own:?}");
            }
            None => tracing::warn!(
                "there is no default route: it is not known which devices lead outside, and who answers \
                 for node ports stays as it was; `kernel.devices` names them"
            ),
        }
    }

    /// Attaches to these, and to no others; what can't be is an error of its own.
    fn attach_outside(&mut self, devices: BTreeMap<String, u32>) {
        self.outside.refused.clear();
        let all: BTreeSet<u32> = devices.values().copied().collect();
        if self.kernel.set_outside(&all).is_err() {
            // Which of them it was, is found out one by one.
            let mut good = BTreeSet::new();
            for (name, number) in &devices {
                good.insert(*number);
                if let Err(error) = self.kernel.set_outside(&good) {
                    good.remove(number);
                    let error = format!("nobody is answered by the device `{name}`: {error}");
                    self.outside.refused.push(error);
                }
            }
            if let Err(error) = self.kernel.set_outside(&good) {
                self.outside.refused.push(format!("devices that lead outside: {error}"));
            }
        }
        self.outside.attached = Some(devices);
    }

    /// Sees to it that no workload has so many connections that those of others are forgotten.
    ///
    /// # Errors
    /// When there can't be another thread.
    pub fn share_out_connections(&mut self) -> std::io::Result<()> {
        self.census = Some(Census::start(self.kernel.clone())?);
        Ok(())
    }

    /// Connects processes of a cgroup to backends when they ask for services.
    ///
    /// # Errors
    /// What the kernel refuses, for instance when it is no cgroup.
    pub fn serve_processes(&self, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        self.kernel.set_cgroup(cgroup).map_err(|error| failed(&error))
    }

    /// Whether nobody has the same interface by other words: one may say its name, another its namespace.
    /// Who has it by the same ones has given it up, and is told where he goes after this one.
    fn check_is_free(&self, id: EndpointId, wanted: &Interface) -> Result<(), DatapathError> {
        let taken = self.interfaces.iter().find(|(other, own)| {
            **other != id && own.number == wanted.number && own.attachment != wanted.attachment
        });
        let Some((other, own)) = taken else { return Ok(()) };
        let Interface { attachment, name, .. } = wanted;
        Err(DatapathError(format!(
            "`{attachment}` is the interface `{name}`, and so is `{}`, endpoint {other}'s already",
            own.attachment
        )))
    }

    /// The programs and maps themselves.
    #[must_use]
    pub fn kernel(&self) -> Arc<NodeKernel> {
        self.kernel.clone()
    }

    /// What the kernel does besides judging. Of connections that pass it tells only where somebody hears
    /// it: whoever watches, or the log, where policy is tried out.
    fn flags(&self, id: EndpointId) -> u32 {
        match self.is_watched || self.audited.contains(&id) {
            true => self.flags | endpoint_flags::TELL_FLOWS,
            false => self.flags,
        }
    }

    /// Has the kernel know of whom it is to tell.
    fn tell_of_flows(&self) -> Result<(), NodeError> {
        let all = self.interfaces.keys().copied();
        self.kernel.tell_flows(all.filter(|id| self.flags(*id) & endpoint_flags::TELL_FLOWS != 0))
    }

    /// What the numbers in the kernel's events stand for.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        self.names.clone()
    }
}

/// A policy as the kernel has it, and whether it lets pass what it only marks, so that somebody is told.
fn table(policy: &EndpointPolicy) -> (NodePolicyTable, bool) {
    let audits = Cell::new(false);
    let table = NodePolicyTable::new(policy, |protocol, verdict| {
        // Over TCP it goes to the proxy, which tells of it.
        audits.set(audits.get() || (verdict.audited && protocol != Protocol::Tcp));
        kernel_verdict(protocol, &carried_out(protocol, verdict))
    });
    (table, audits.get())
}

fn failed(error: &dyn std::fmt::Display) -> DatapathError {
    DatapathError(error.to_string())
}

impl Datapath for EbpfDatapath {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn is_enforcing(&self) -> bool {
        true
    }

    fn endpoint_put(&mut self, endpoint: &EndpointSpec) -> Result<(), DatapathError> {
        self.names.endpoint(endpoint.id, &endpoint.name);
        let wanted = interface(&endpoint.attachment)?;
        check_is_workloads(&wanted, &self.kernel, &self.outside)?;
        self.check_is_free(endpoint.id, &wanted)?;
        // First whose addresses they are: there is no moment in which another may send from them.
        let addressed = self.kernel.set_own_addresses(endpoint.id, &endpoint.addresses);
        addressed.map_err(|error| failed(&error))?;
        let flags = self.flags(endpoint.id);
        let attached = self.kernel.attach(wanted.number, endpoint.id, flags);
        attached.map_err(|error| failed(&error))?;
        // One that it had before may be another's in a moment: that is known when all have been told.
        self.interfaces.insert(endpoint.id, wanted);
        Ok(())
    }

    fn endpoint_removed(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        self.names.no_policy(id);
        self.kernel.remove_endpoint(id).map_err(|error| failed(&error))?;
        self.interfaces.remove(&id);
        self.audited.remove(&id);
        Ok(())
    }

    fn numbers_given_up(&mut self, endpoints: &[EndpointId]) {
        self.names.forget(endpoints);
    }

    fn endpoint_closed(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        self.names.no_policy(id);
        self.kernel.remove_policy(id).map_err(|error| failed(&error))
    }

    fn policy_set(
        &mut self,
        id: EndpointId,
        revision: u64,
        policy: &EndpointPolicy,
    ) -> Result<(), DatapathError> {
        let one = [(id, revision, policy.clone())];
        self.policies_set(&one).pop().unwrap_or(Ok(()))
    }

    fn policies_set(
        &mut self,
        policies: &[(EndpointId, u64, EndpointPolicy)],
    ) -> Vec<Result<(), DatapathError>> {
        let tables: Vec<_> = policies.iter().map(|(.., policy)| table(policy)).collect();
        let marked = policies.iter().zip(&tables).filter(|(_, (_, audits))| *audits);
        self.audited.extend(marked.map(|((id, ..), _)| *id));
        // Before the policies: nothing passes unheard that a policy only marks.
        if let Err(error) = self.tell_of_flows() {
            return policies.iter().map(|_| Err(failed(&error))).collect();
        }
        let all = policies.iter().zip(&tables).map(|((id, ..), (table, _))| (*id, table));
        let named: HashMap<_, _> = policies.iter().map(|(id, _, policy)| (*id, policy)).collect();
        let announce = |id, first| {
            if let Some(policy) = named.get(&id) {
                self.names.announced(id, first, policy);
            }
        };
        let set = self.kernel.set_policies(&all.collect::<Vec<_>>(), announce);
        let mut results = Vec::with_capacity(policies.len());
        for (((id, ..), (_, audits)), set) in policies.iter().zip(&tables).zip(set) {
            self.names.settled(*id, set.is_ok());
            results.push(set.map_err(|error| failed(&error)).map(|_| {
                if !audits {
                    self.audited.remove(id);
                }
            }));
        }
        // More than anybody wants to know is told meanwhile, no more.
        if let Err(error) = self.tell_of_flows() {
            tracing::warn!("the kernel tells of connections that nobody asks for: {error}");
        }
        results
    }

    fn ipcache_put(&mut self, prefix: IpNet, identity: Identity) -> Result<(), DatapathError> {
        let number = identity.get();
        self.kernel.set_identity(prefix, Some(number)).map_err(|error| failed(&error))?;
        self.ipcache.insert(prefix, number);
        Ok(())
    }

    fn ipcache_removed(&mut self, prefix: IpNet) -> Result<(), DatapathError> {
        self.kernel.set_identity(prefix, None).map_err(|error| failed(&error))?;
        self.ipcache.remove(&prefix);
        Ok(())
    }

    fn service_put(&mut self, service: &ServiceSpec) -> Result<(), DatapathError> {
        self.balancing.put(service)
    }

    fn service_removed(&mut self, name: &ServiceName) -> Result<(), DatapathError> {
        self.balancing.remove(name);
        Ok(())
    }

    fn services_done(&mut self) -> Result<BTreeMap<ServiceName, DatapathError>, DatapathError> {
        let before = self.balancing.end_round();
        match self.kernel.set_services(&self.balancing.all()) {
            Ok(()) => return Ok(BTreeMap::new()),
            Err(error) if before.is_empty() => return Err(failed(&error)),
            Err(_) => {}
        }
        let kernel = &self.kernel;
        let set =
            |all: &[Arc<ServiceConfig>]| kernel.set_services(all).map_err(|error| failed(&error));
        Ok(self.balancing.one_by_one(before, set))
    }

    fn services_change(&mut self, names: &[ServiceName]) {
        self.balancing.take_out(names);
    }

    fn keep_services(&mut self, failing: &[ServiceSpec]) -> Result<(), DatapathError> {
        if self.balancing.keep(failing) {
            self.kernel.set_services(&self.balancing.all()).map_err(|error| failed(&error))?;
            self.balancing.kept();
        }
        Ok(())
    }

    fn rejudge(&mut self) -> Result<(), DatapathError> {
        self.kernel.rejudge().map_err(|error| failed(&error))
    }

    fn keep_endpoints(&mut self, all: &BTreeSet<EndpointId>) -> Result<(), DatapathError> {
        let known = self.kernel.known_endpoints().map_err(|error| failed(&error))?;
        for gone in known.difference(all) {
            self.kernel.remove_endpoint(*gone).map_err(|error| failed(&error))?;
        }
        for (interface, entry) in self.kernel.endpoints().map_err(|error| failed(&error))? {
            // Of one that could not be attached since the process began, this is the interface it had.
            let own = self.interfaces.get(&entry.endpoint);
            if own.is_some_and(|own| own.number != interface) {
                self.kernel.detach(interface).map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    fn keep_addresses(&mut self) -> Result<(), DatapathError> {
        self.names.complete();
        let known = self.ipcache.iter().map(|(prefix, identity)| (*prefix, *identity));
        self.kernel.sync_identities(known).map_err(|error| failed(&error))?;
        self.rejudge()
    }

    fn lost(&mut self) -> Vec<EndpointId> {
        let Ok(any) = any_socket() else { return Vec::new() };
        let moved = self.kernel.moved().unwrap_or_else(|error| {
            tracing::warn!("which interfaces are part of others is not known: {error}");
            BTreeSet::new()
        });
        let is_other = |own: &Interface| {
            name_to_index(&any, &own.name).ok() != Some(own.number) || moved.contains(&own.number)
        };
        let lost = self.interfaces.iter().filter(|(_, own)| is_other(own));
        let lost: Vec<EndpointId> = lost.map(|(id, _)| *id).collect();
        self.interfaces.retain(|id, _| !lost.contains(id));
        lost
    }

    fn host_addresses(&self) -> Result<Option<BTreeSet<IpAddr>>, DatapathError> {
        host_addresses().map(Some).map_err(|error| DatapathError(error.to_string()))
    }

    fn look_outside(&mut self) -> bool {
        let found = self.outside.find();
        let Change { devices, addresses } = self.outside.change(found);
        let is_moved = addresses.is_some();
        if let Some(devices) = devices {
            self.attach_outside(devices);
        }
        if let Some(own) = addresses {
            let v4 =
                own.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
            let v6 =
                own.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
            if let Err(error) = self.kernel.set_node_addresses(v4, v6) {
                self.outside.refused.push(format!("this node's addresses: {error}"));
            }
            self.balancing.answer_at(own.clone());
            self.outside.own = own;
        }
        is_moved
    }

    fn is_outside_lacking(&self) -> bool {
        self.outside.is_lacking()
    }

    fn restore_ways(&mut self) {
        let failed = self.kernel.restore_ways().err().map(|error| error.to_string());
        if let Some(error) = failed.as_ref().filter(|_| self.ways.is_none()) {
            tracing::error!("nothing leads to the proxy: {error}");
        }
        self.ways = failed;
    }

    fn troubles(&self) -> Vec<String> {
        let ways = self.ways.iter().map(|error| format!("nothing leads to the proxy: {error}"));
        let neighbours = neighbours::troubles(&self.kernel);
        let outside = self.outside.errors().into_iter();
        outside.chain(host::troubles()).chain(ways).chain(neighbours).collect()
    }

    fn numbers_in_use(&self) -> Result<NumbersInUse, DatapathError> {
        let endpoints = self.kernel.known_endpoints().map_err(|error| failed(&error))?;
        let identities = self.kernel.known_identities().map_err(|error| failed(&error))?;
        let any = any_socket().map_err(|error| failed(&error))?;
        let attached = self.kernel.endpoints().map_err(|error| failed(&error))?;
        let named = |(interface, entry): (u32, EndpointEntry)| {
            Some((index_to_name(&any, interface).ok()?, entry.endpoint))
        };
        let interfaces = attached.into_iter().filter_map(named).collect();
        let addresses = self.kernel.own_addresses().map_err(|error| failed(&error))?;
        Ok(NumbersInUse { endpoints, identities, interfaces, addresses })
    }

    fn tell_flows(&mut self, wanted: bool) {
        self.is_watched = wanted;
        if let Err(error) = self.tell_of_flows() {
            tracing::warn!("connections that are opened can't be shown: {error}");
        }
    }

    fn status(&self) -> DatapathStatus {
        let maps = self.kernel.status().unwrap_or_default();
        let attached = self.interfaces.iter().map(|(id, Interface { name, number, .. })| {
            format!("interface {name} ({number}), ingress and egress (TCX): endpoint {id}")
        });
        DatapathStatus {
            attached: attached.collect(),
            maps: maps
                .into_iter()
                .map(|fill| MapFill {
                    name: fill.map.to_owned(),
                    entries: fill.entries as u64,
                    capacity: u64::from(fill.capacity),
                })
                .collect(),
        }
    }

    fn reading(&self, table: Table, wanted: Wanted) -> Option<Reading> {
        let (kernel, names) = (self.kernel.clone(), self.names.clone());
        let failed = |error: NodeError| failed(&error);
        Some(match table {
            Table::Policy => Box::new(move || {
                let all = kernel.policy_contents(wanted.endpoint).map_err(failed)?;
                Ok(listing::policies(&all, &names, wanted.limit))
            }),
            Table::Ipcache => Box::new(move || {
                Ok(listing::ipcache(&kernel.identity_contents().map_err(failed)?, wanted.limit))
            }),
            Table::Ct => Box::new(move || {
                let some = kernel.track_contents(wanted.endpoint, wanted.limit).map_err(failed)?;
                Ok(listing::connections(&some.0, some.1))
            }),
            Table::Metrics => {
                Box::new(move || Ok(listing::counters(&kernel.counters().map_err(failed)?)))
            }
            Table::Lb => {
                let services = self.balancing.names();
                Box::new(move || {
                    let contents = kernel.balancer_contents().map_err(failed)?;
                    Ok(listing::services(&contents, &services, wanted.limit))
                })
            }
        })
    }
}
