//! A node's datapath, and all that can be done with it. Each operation says when it is in force: at its
//! return, for every packet that comes after. A failure leaves what was in force before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use portreeve_ebpf_common::node::{
    EndpointEntry, NODE_LAYOUT, NodeConfig, Opened, endpoint_flags, mark,
};
use portreeve_ebpf_common::{Address, ListenerSlot, ServiceKey};

use super::attached::{OF_WORKLOAD, link_name};
use super::device;
use super::error::NodeError;
use super::grace::Expedited;
use super::maps::{Maps, check_pinned};
use super::netlink::Netlink;
use super::own::one_of_each;
use super::policy::NodePolicyTable;
use super::programs::{Programs, TO_PROXY};
use super::removal::{self, NodeRemoved};
use super::revisions::Revisions;
use super::settings::NodeSettings;
use crate::error::{MapError, SetupError};
use crate::instance::{Folder, Owner, unlink};
use crate::policy_map::is_full;
use crate::sys::{self, attach_type};
use crate::table::{Plain, Table};

/// A node's datapath. What it has set up outlives it: programs go on judging until they are detached.
#[derive(Debug)]
pub struct NodeKernel {
    pub(super) folder: Folder,
    pub(super) programs: Programs,
    pub(super) maps: Maps,
    /// The one that leads to the proxy.
    pub(super) device: AtomicU32,
    /// Whoever changes what is attached, or a policy, holds it.
    pub(super) state: Mutex<State>,
    netlink: Netlink,
    /// Services' addresses inside, as they were set last.
    pub(super) frontends: Mutex<HashSet<ServiceKey>>,
    /// Nothing of this instance was attached before it was opened.
    is_new: bool,
    _owner: Arc<Owner>,
}

#[derive(Debug)]
pub(super) struct State {
    /// As in `ENDPOINTS`.
    pub(super) attached: BTreeMap<u32, EndpointEntry>,
    /// As in `OWN`, by endpoint: there are many, and each is asked for its own.
    pub(super) own: BTreeMap<u32, BTreeSet<Address>>,
    revisions: Revisions,
}

impl NodeKernel {
    /// Sets everything up that is not there yet, and takes over what is: maps with all that is in them,
    /// and programs on their interfaces, which are replaced in place. Works in this thread's network
    /// namespace, the host's.
    ///
    /// # Errors
    /// When somebody else has the instance, when what is pinned is of another version or has less room,
    /// and what the kernel refuses. What was not there before is not there then, either.
    pub fn open(settings: &NodeSettings) -> Result<Self, NodeError> {
        let folder = Folder::of_node(&settings.bpffs, &settings.instance);
        let owner = Arc::new(folder.take()?);
        Expedited::put_back(&folder);
        let is_new = !folder.has_links();
        if is_new {
            folder.forget_maps()?;
        }
        Self::set_up(folder.clone(), settings, is_new, owner.clone()).inspect_err(|_| {
            if is_new {
                // Why it could not be set up says more than why something of it is left.
                let _ = removal::take_away(&folder);
            }
        })
    }

    fn set_up(
        folder: Folder,
        settings: &NodeSettings,
        is_new: bool,
        owner: Arc<Owner>,
    ) -> Result<Self, NodeError> {
        check_pinned(&folder, &settings.capacity)?;
        let programs = Programs::load(&folder, &settings.capacity)?;
        let maps = Maps::open(&folder, &settings.capacity)?;
        let device = device::prepare()?;
        let netlink = Netlink::open().map_err(NodeError::network("open a netlink socket"))?;
        let before = maps.config.get(&0).map_err(MapError::system("can't read", "CONFIG"))?;
        let config = NodeConfig { layout: NODE_LAYOUT, device, ..before.unwrap_or_default() };
        maps.config.put(&0, &config).map_err(MapError::system("can't write", "CONFIG"))?;
        let entries = maps.endpoints.entries();
        let entries = entries.map_err(MapError::system("can't read", "ENDPOINTS"))?;
        let attached = entries.iter().copied().collect();
        let revisions = Revisions::after(maps.revisions()?);
        let mut own: BTreeMap<u32, BTreeSet<Address>> = BTreeMap::new();
        for (address, endpoint) in
            maps.own.entries().map_err(MapError::system("can't read", "OWN"))?
        {
            own.entry(endpoint).or_default().insert(address);
        }
        let frontends = Mutex::default();
        let state = Mutex::new(State { attached, own, revisions });
        let kernel = Self {
            folder,
            programs,
            maps,
            device: device.into(),
            state,
            netlink,
            frontends,
            is_new,
            _owner: owner,
        };
        kernel.hold_namespace()?;
        kernel.hold("device", TO_PROXY, attach_type::TCX_INGRESS, device)?;
        for (interface, _) in entries {
            kernel.take_over(interface)?;
        }
        Ok(kernel)
    }

    /// Takes away all that an instance has set up, whoever made it: nothing is judged any more. The device
    /// goes with the last instance, wherever that is pinned. What isn't there is no error.
    ///
    /// # Errors
    /// When somebody has the instance, and when something can't be removed.
    pub fn remove(settings: &NodeSettings) -> Result<NodeRemoved, NodeError> {
        removal::remove(&settings.bpffs, &settings.instance)
    }

    /// Takes away all that this instance has set up if there was none of it before: for who has opened it, and
    /// can't begin after all. What was there before stays, and goes on judging. Nothing else is to be done
    /// with it afterwards.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn take_back(&self) -> Result<Option<NodeRemoved>, NodeError> {
        self.is_new.then(|| removal::take_away(&self.folder)).transpose()
    }

    /// Judges all that passes a workload's interface, from now on. `flags`: see
    /// [`endpoint_flags`](super::endpoint_flags). On an interface that is attached, the entry is replaced.
    ///
    /// # Errors
    /// Without room: then nothing passes the interface until it is attached or detached. When the kernel does
    /// not attach programs; then the interface is as it was.
    pub fn attach(&self, interface: u32, endpoint: u32, flags: u32) -> Result<(), NodeError> {
        let State { attached, own, .. } = &mut *lock(&self.state);
        let _expedited = Expedited::begin(&self.folder);
        let before = attached.get(&interface).copied();
        let revision = self.maps.policies.revision(endpoint)?;
        let link = self.netlink.link(interface);
        let link = link.map_err(NodeError::network("ask what the interface is"))?;
        if !link.is_ethernet() {
            return Err(NodeError::NotEthernet { interface });
        }
        let part = if link.master.is_some() { endpoint_flags::PART_OF_ANOTHER } else { 0 };
        let addresses = one_of_each(own.get(&endpoint));
        let entry = EndpointEntry { addresses, endpoint, flags: flags | part, revision };
        let paced = Opened { limit: self.room_between_looks(), ..Opened::default() };
        let known = put("OPENED", &self.maps.opened, &endpoint, &paced)
            .and_then(|()| put("ENDPOINTS", &self.maps.endpoints, &interface, &entry));
        if known.is_ok() {
            attached.insert(interface, entry);
        }
        // One of whom nothing is known lets nothing pass: without room for it, too, programs are attached.
        let held = OF_WORKLOAD
            .iter()
            .try_for_each(|(end, program, kind)| self.hold_end(interface, end, program, *kind));
        known?;
        if held.is_err() {
            match before {
                Some(before) => {
                    put("ENDPOINTS", &self.maps.endpoints, &interface, &before)?;
                    attached.insert(interface, before);
                }
                None => self.let_go(interface, attached)?,
            }
        }
        held
    }

    /// Lets everything pass that passes an interface. One that is gone is no error.
    ///
    /// # Errors
    /// When links or entries can't be removed.
    pub fn detach(&self, interface: u32) -> Result<(), NodeError> {
        self.let_go(interface, &mut lock(&self.state).attached)
    }

    fn let_go(
        &self,
        interface: u32,
        attached: &mut BTreeMap<u32, EndpointEntry>,
    ) -> Result<(), NodeError> {
        let _expedited = Expedited::begin(&self.folder);
        for (end, ..) in OF_WORKLOAD {
            let path = self.folder.link(&link_name(interface, end));
            unlink(&path).map_err(SetupError::file("can't remove", &path))?;
        }
        remove("ENDPOINTS", &self.maps.endpoints, &interface)?;
        attached.remove(&interface);
        Ok(())
    }

    /// Forgets an endpoint's policy, its connections and its addresses, and detaches its interfaces: those
    /// last, so that whatever fails, nothing passes that would not have passed before.
    ///
    /// # Errors
    /// What can't be removed.
    pub fn remove_endpoint(&self, endpoint: u32) -> Result<(), NodeError> {
        self.remove_policy(endpoint)?;
        for key in self.maps.tracked.keys().map_err(MapError::system("can't read", "TRACKED"))? {
            if key.endpoint == endpoint {
                remove("TRACKED", &self.maps.tracked, &key)?;
            }
        }
        let translated = &self.maps.translated;
        for ends in translated.keys().map_err(MapError::system("can't read", "TRANSLATED"))? {
            if ends.scope == endpoint {
                remove("TRANSLATED", translated, &ends)?;
            }
        }
        remove("OPENED", &self.maps.opened, &endpoint)?;
        self.set_own_addresses(endpoint, &[])?;
        for (interface, entry) in self.endpoints()? {
            if entry.endpoint == endpoint {
                self.detach(interface)?;
            }
        }
        Ok(())
    }

    /// Says who has a prefix, for all endpoints; `None`: nobody in particular. In force for what comes
    /// from now on; for connections that are open with [`rejudge`](Self::rejudge).
    ///
    /// # Errors
    /// When there is no room.
    pub fn set_identity(&self, prefix: IpNet, identity: Option<u32>) -> Result<(), NodeError> {
        Ok(self.maps.identities.set(prefix, identity)?)
    }

    /// Says who has which prefix, all of it; what differs is written. As
    /// [`set_identity`](Self::set_identity).
    ///
    /// # Errors
    /// When there is no room: nothing is written then.
    pub fn sync_identities(
        &self,
        identities: impl IntoIterator<Item = (IpNet, u32)>,
    ) -> Result<(), NodeError> {
        Ok(self.maps.identities.sync(identities.into_iter())?)
    }

    /// Puts an endpoint's policy in force, for connections that are open, too. Returns the revision that
    /// events name it by, or a higher one after [`rejudge`](Self::rejudge); 0 for a policy without entries.
    ///
    /// # Errors
    /// When there is no room.
    pub fn set_policy(&self, endpoint: u32, policy: &NodePolicyTable) -> Result<u32, NodeError> {
        // As many results as policies.
        self.set_policies(&[(endpoint, policy)], |_, _| ()).pop().unwrap_or(Ok(0))
    }

    /// The same for many, with little more to wait for than for one. Each fails by itself. Each endpoint and
    /// its revision is announced before anything is in force: events may come before this returns.
    pub fn set_policies(
        &self,
        policies: &[(u32, &NodePolicyTable)],
        mut announce: impl FnMut(u32, u32),
    ) -> Vec<Result<u32, NodeError>> {
        let State { attached, revisions, .. } = &mut *lock(&self.state);
        let _expedited = Expedited::begin(&self.folder);
        let mut number = |policy: &NodePolicyTable| match policy.is_empty() {
            true => 0,
            false => revisions.next(),
        };
        let policies: Vec<_> = policies
            .iter()
            .map(|(endpoint, policy)| (*endpoint, *policy, number(policy)))
            .inspect(|(endpoint, _, revision)| announce(*endpoint, *revision))
            .collect();
        let set = self.maps.policies.set(&policies);
        let told = policies.iter().zip(set).map(|((endpoint, _, revision), set)| {
            set?;
            self.set_revision(attached, *endpoint, *revision)?;
            Ok(*revision)
        });
        told.collect()
    }

    /// Has all connections judged once more, each at its next packet: addresses have other identities than
    /// when they were judged.
    ///
    /// # Errors
    /// When maps can't be written. Connections of some endpoints are not judged again then; call it again.
    pub fn rejudge(&self) -> Result<(), NodeError> {
        let State { attached, revisions, .. } = &mut *lock(&self.state);
        let revision = revisions.next();
        let mut result = Ok(());
        for endpoint in self.maps.policies.endpoints()? {
            // The policy first: until the entry says so, too, nothing is looked at; and what is judged
            // meanwhile is judged twice.
            let stamped = self.maps.policies.stamp(endpoint, revision).map_err(NodeError::from);
            let told = stamped.and_then(|()| self.set_revision(attached, endpoint, revision));
            result = result.and(told);
        }
        result
    }

    /// Has programs tell of new connections of these endpoints, and of nobody else's.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn tell_flows(&self, of: impl IntoIterator<Item = u32>) -> Result<(), NodeError> {
        let wanted = of.into_iter().map(|endpoint| (endpoint, endpoint_flags::TELL_FLOWS));
        self.set_flags(endpoint_flags::TELL_FLOWS, &wanted.collect())
    }

    /// Gives those who are named these flags, of those in `mask`, and everybody else none of them.
    pub(super) fn set_flags(
        &self,
        mask: u32,
        wanted: &BTreeMap<u32, u32>,
    ) -> Result<(), NodeError> {
        let State { attached, .. } = &mut *lock(&self.state);
        self.change(attached, |entry| {
            let own = wanted.get(&entry.endpoint).copied().unwrap_or_default();
            EndpointEntry { flags: entry.flags & !mask | own & mask, ..*entry }
        })
    }

    /// Makes of each entry what is said, and tells the kernel of those that become others.
    pub(super) fn change(
        &self,
        attached: &mut BTreeMap<u32, EndpointEntry>,
        becomes: impl Fn(&EndpointEntry) -> EndpointEntry,
    ) -> Result<(), NodeError> {
        for (interface, entry) in attached {
            let changed = becomes(entry);
            if changed != *entry {
                put("ENDPOINTS", &self.maps.endpoints, interface, &changed)?;
                *entry = changed;
            }
        }
        Ok(())
    }

    /// How many connections can be kept, and how many entries for packets of services.
    pub(super) fn room_for_connections(&self) -> [usize; 2] {
        [self.maps.tracked.capacity(), self.maps.translated.capacity()].map(|room| room as usize)
    }

    /// Says which revision is in force.
    fn set_revision(
        &self,
        attached: &mut BTreeMap<u32, EndpointEntry>,
        endpoint: u32,
        revision: u32,
    ) -> Result<(), NodeError> {
        self.change(attached, |entry| match entry.endpoint == endpoint {
            true => EndpointEntry { revision, ..*entry },
            false => *entry,
        })
    }

    /// Lets nothing pass to or from an endpoint, until it has a policy again.
    ///
    /// # Errors
    /// When the maps can't be written.
    pub fn remove_policy(&self, endpoint: u32) -> Result<(), NodeError> {
        let attached = &mut lock(&self.state).attached;
        // First, so that nobody finds what the policy has said before.
        let closed = self.set_revision(attached, endpoint, 0);
        self.maps.policies.remove(endpoint)?;
        closed
    }

    /// Hands connections that the proxy has to read to a listening socket, until it is closed. It has to
    /// be transparent (`IP_TRANSPARENT`), and is marked, so that programs know what it sends.
    ///
    /// # Errors
    /// When it can't be marked, or is no socket that listens.
    pub fn set_listener(
        &self,
        slot: ListenerSlot,
        listener: BorrowedFd<'_>,
    ) -> Result<(), NodeError> {
        sys::set_mark(listener, mark::FROM_PROXY).map_err(NodeError::Listener)?;
        let socket = u64::from(listener.as_raw_fd().unsigned_abs());
        self.maps.listeners.put(&(slot as u32), &socket).map_err(NodeError::Listener)
    }

    /// Whether there is a socket to hand connections to.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn has_listener(&self, slot: ListenerSlot) -> Result<bool, NodeError> {
        let socket = self.maps.listeners.get(&(slot as u32));
        Ok(socket.map_err(MapError::system("can't read", "LISTENERS"))?.is_some())
    }

    /// Whether packets of an interface can be read: those of tunnels without an Ethernet header can't.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn is_readable(&self, interface: u32) -> Result<bool, NodeError> {
        let link = self.netlink.link(interface);
        Ok(link.map_err(NodeError::network("ask what the interface is"))?.is_ethernet())
    }

    /// Whether an interface is a host's way to itself.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn is_loopback(&self, interface: u32) -> Result<bool, NodeError> {
        let link = self.netlink.link(interface);
        Ok(link.map_err(NodeError::network("ask what the interface is"))?.is_loopback)
    }

    /// Whether an interface is the one that leads to the proxy.
    #[must_use]
    pub fn is_own_device(&self, interface: u32) -> bool {
        self.device.load(Ordering::Relaxed) == interface
    }

    /// For tests: the file descriptor of a loaded program.
    #[doc(hidden)]
    pub fn program(&mut self, name: &str) -> Option<&mut aya::programs::Program> {
        self.programs.object.program_mut(name)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn put<K: Plain, V: Plain>(
    map: &'static str,
    table: &Table<K, V>,
    key: &K,
    value: &V,
) -> Result<(), NodeError> {
    table.put(key, value).map_err(|error: io::Error| match is_full(&error) {
        true => {
            let capacity = table.capacity();
            MapError::Full { map, entries: capacity as usize + 1, capacity }.into()
        }
        false => MapError::system("can't write", map)(error).into(),
    })
}

pub(super) fn remove<K: Plain, V: Plain>(
    map: &'static str,
    table: &Table<K, V>,
    key: &K,
) -> Result<(), NodeError> {
    Ok(table.remove(key).map_err(MapError::system("can't write", map))?)
}
