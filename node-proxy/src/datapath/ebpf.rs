//! The kernel's side of a node, by programs on the interfaces of its workloads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use portreeve_core::carried_out;
use portreeve_ebpf::kernel_verdict;
use portreeve_ebpf::node::{NodeKernel, NodePolicyTable, NodeSettings, endpoint_flags};
use portreeve_policy::{EndpointPolicy, Identity};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use super::balancing::Balancing;
use super::listing;
use super::{
    Datapath, DatapathError, DatapathStatus, EndpointId, EndpointSpec, Listing, MapFill,
    ServiceName, ServiceSpec, Table,
};
use crate::objects::Attachment;

/// Programs on the interfaces of workloads, as [`NodeKernel`] has them.
#[derive(Debug)]
pub struct EbpfDatapath {
    kernel: Arc<NodeKernel>,
    flags: u32,
    /// Where each endpoint is attached.
    interfaces: BTreeMap<EndpointId, u32>,
    /// The revision of each endpoint's policy in force, and how many entries it has.
    policies: BTreeMap<EndpointId, (u64, usize)>,
    /// Who is where.
    ipcache: BTreeMap<IpNet, u32>,
    balancing: Balancing,
}

impl EbpfDatapath {
    /// Sets up, or takes over, what `settings` name. `told_at_once`: who is refused gets a reset or an ICMP
    /// message instead of silence.
    ///
    /// # Errors
    /// What is missing, and what the kernel refuses.
    pub fn open(settings: &NodeSettings, told_at_once: bool) -> Result<Self, DatapathError> {
        let kernel = NodeKernel::open(settings).map_err(|error| failed(&error))?;
        let told = if told_at_once { endpoint_flags::TOLD_AT_ONCE } else { 0 };
        Ok(Self {
            kernel: Arc::new(kernel),
            flags: endpoint_flags::ENFORCED | told,
            interfaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            ipcache: BTreeMap::new(),
            balancing: Balancing::default(),
        })
    }

    /// Answers for services to those who come by these devices, at these addresses of the node.
    ///
    /// # Errors
    /// When there is no such device, and what the kernel refuses.
    pub fn serve_outside(
        &mut self,
        devices: &BTreeSet<String>,
        addresses: &[IpAddr],
    ) -> Result<(), DatapathError> {
        let number = |name: &String| {
            interface_number(name)
                .ok_or_else(|| DatapathError(format!("there is no device `{name}` on this host")))
        };
        let numbers = devices.iter().map(number).collect::<Result<BTreeSet<u32>, _>>()?;
        let v4 =
            addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        let v6 =
            addresses.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
        self.kernel.set_node_addresses(v4, v6).map_err(|error| failed(&error))?;
        self.kernel.set_outside(&numbers).map_err(|error| failed(&error))?;
        self.balancing = Balancing::new(addresses.to_vec());
        Ok(())
    }

    /// Connects processes of a cgroup to backends when they ask for services.
    ///
    /// # Errors
    /// When it is no cgroup, and what the kernel refuses.
    pub fn serve_processes(&self, cgroup: Option<&Path>) -> Result<(), DatapathError> {
        const CGROUP2: u64 = 0x6367_7270;
        if let Some(cgroup) = cgroup
            && !rustix::fs::statfs(cgroup)
                .is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2))
        {
            return Err(DatapathError(format!(
                "kernel.cgroup: `{}` is no folder of cgroup v2; see where that is mounted: \
                 `findmnt -t cgroup2`",
                cgroup.display()
            )));
        }
        self.kernel.set_cgroup(cgroup).map_err(|error| failed(&error))
    }

    /// The programs and maps themselves.
    #[must_use]
    pub fn kernel(&self) -> Arc<NodeKernel> {
        self.kernel.clone()
    }
}

/// Whether a bpf file system is there. What is pinned elsewhere is refused with a word that says nothing.
///
/// # Errors
/// With what to do.
pub fn check_bpffs(path: &Path) -> Result<(), DatapathError> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let mounted =
        rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(BPF_FS_MAGIC));
    if mounted {
        return Ok(());
    }
    Err(DatapathError(format!(
        "`{0}` is no bpf file system; mount one: `mount -t bpf bpf {0}`",
        path.display()
    )))
}

/// The number of the interface that a workload is attached by.
fn interface(attachment: &Attachment) -> Result<u32, DatapathError> {
    match attachment {
        Attachment::Interface(name) => interface_number(name)
            .ok_or_else(|| DatapathError(format!("there is no interface `{name}` on this host"))),
        Attachment::NetworkNamespace(path) => Err(DatapathError(format!(
            "the interface that leads into `{}` is not looked for by this version: name it as \
             `interface`",
            path.display()
        ))),
    }
}

fn interface_number(name: &str) -> Option<u32> {
    // Asked of this thread's network namespace; `/sys` may be another's.
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    name_to_index(&any, name).ok()
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
        let wanted = interface(&endpoint.attachment)?;
        let before = self.interfaces.get(&endpoint.id).copied();
        // First whose addresses they are: there is no moment in which another may send from them.
        let addressed = self.kernel.set_own_addresses(endpoint.id, &endpoint.addresses);
        addressed.map_err(|error| failed(&error))?;
        let attached = self.kernel.attach(wanted, endpoint.id, self.flags);
        attached.map_err(|error| failed(&error))?;
        self.interfaces.insert(endpoint.id, wanted);
        match before {
            Some(before) if before != wanted => {
                self.kernel.detach(before).map_err(|error| failed(&error))
            }
            _ => Ok(()),
        }
    }

    fn endpoint_removed(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        self.kernel.remove_endpoint(id).map_err(|error| failed(&error))?;
        self.interfaces.remove(&id);
        self.policies.remove(&id);
        Ok(())
    }

    fn endpoint_closed(&mut self, id: EndpointId) -> Result<(), DatapathError> {
        self.policies.remove(&id);
        self.kernel.remove_policy(id).map_err(|error| failed(&error))
    }

    fn policy_set(
        &mut self,
        id: EndpointId,
        revision: u64,
        policy: &EndpointPolicy,
    ) -> Result<(), DatapathError> {
        let table = NodePolicyTable::new(policy, revision, |protocol, verdict| {
            kernel_verdict(protocol, &carried_out(protocol, verdict))
        });
        self.kernel.set_policy(id, &table).map_err(|error| failed(&error))?;
        self.policies.insert(id, (revision, table.len()));
        Ok(())
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

    fn services_done(&mut self) -> Result<(), DatapathError> {
        self.kernel.set_services(&self.balancing.all()).map_err(|error| failed(&error))
    }

    fn synced(&mut self) -> Result<(), DatapathError> {
        let there = self.kernel.endpoints().map_err(|error| failed(&error))?;
        let ours: BTreeSet<u32> = self.interfaces.values().copied().collect();
        for (interface, entry) in there {
            match self.interfaces.contains_key(&entry.endpoint) {
                true if ours.contains(&interface) => continue,
                true => self.kernel.detach(interface),
                false => self.kernel.remove_endpoint(entry.endpoint),
            }
            .map_err(|error| failed(&error))?;
        }
        let known = self.ipcache.iter().map(|(prefix, identity)| (*prefix, *identity));
        self.kernel.sync_identities(known).map_err(|error| failed(&error))
    }

    fn status(&self) -> DatapathStatus {
        let maps = self.kernel.status().unwrap_or_default();
        let attached = self.interfaces.iter().map(|(id, interface)| {
            format!("interface {interface}, ingress and egress (TCX): endpoint {id}")
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

    fn list(&self, table: Table) -> Option<Listing> {
        match table {
            Table::Policy => Some(listing::policies(&self.policies)),
            Table::Ipcache => Some(listing::ipcache(&self.ipcache)),
            Table::Ct => Some(listing::connections(&self.kernel.connections().ok()?)),
            Table::Metrics => Some(listing::counters(&self.kernel.counters().ok()?)),
            Table::Lb => Some(self.balancing.listing()),
        }
    }
}
