//! Setting up, and what can be done with what is set up.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use portreeve_ebpf_common::{Config, Endpoint, FlowKey, LAYOUT, ListenerSlot, flags};
use rustix::net::{AddressFamily, SocketType, socket};

use crate::address::endpoint;
use crate::attach::{self, Targets};
use crate::error::{MapError, SetupError};
use crate::events::{Counters, Events};
use crate::instance::{Folder, InstanceName, Owner};
use crate::join;
use crate::maps::{Maps, check_pinned, socket_address};
use crate::policy::PolicyTable;
use crate::ports::{self, Scan};
use crate::preflight;
use crate::programs::{self, ATTACHMENTS, OWN_NAMESPACE, Place, Programs, is_wanted};
use crate::revoke::{Scope, revoke};
use crate::services::ServiceConfig;
use crate::settings::{Outbound, Settings};
use crate::sys::namespace_cookie;

/// Gets ready: looks for what is missing, loads the programs, opens the instance's maps or makes them.
/// Nothing is attached.
///
/// # Errors
/// [`SetupError`], with what to do about it; then nothing is left behind that was not there before.
pub fn prepare(settings: &Settings) -> Result<Prepared, SetupError> {
    let missing = preflight::missing(settings);
    if !missing.is_empty() {
        return Err(SetupError::Missing(missing));
    }
    if settings.join_sockets {
        join::self_test()?;
    }
    let folder = Folder::new(&settings.bpffs, &settings.instance);
    let owner = folder.take()?;
    let undo = Undo { folder: folder.clone(), armed: !folder.has_links() };
    if undo.armed {
        folder.forget_maps()?;
    }
    check_pinned(&folder, &settings.capacity)?;
    let targets = Targets::open(settings)?;
    attach::check_links(&folder, &targets)?;
    let programs = programs::load(&folder, settings)?;
    let maps = Maps::open(&folder, &settings.capacity)?;
    let namespace = own_namespace().map_err(SetupError::file("can't ask about", OWN_NAMESPACE))?;
    let redirect = Redirect {
        folder,
        maps,
        namespace,
        settings: settings.clone(),
        proxy: Mutex::default(),
        _owner: owner,
    };
    Ok(Prepared { undo, redirect, programs, targets })
}

/// Loaded, and not attached. Dropped, an instance that was not attached before is removed.
#[derive(Debug)]
pub struct Prepared {
    // The order matters: what is undone is undone before the instance is let go of.
    undo: Undo,
    redirect: Redirect,
    programs: Programs,
    targets: Targets,
}

/// Removes a new instance that did not come about.
#[derive(Debug)]
struct Undo {
    folder: Folder,
    armed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.folder.remove();
        }
    }
}

impl Prepared {
    /// As [`Redirect::set_policy`]; where programs are attached already, it is in force at once.
    ///
    /// # Errors
    /// [`MapError`]: nothing has changed.
    pub fn set_policy(&mut self, policy: &PolicyTable) -> Result<(), MapError> {
        self.redirect.set_policy(policy)
    }

    /// As [`Redirect::set_services`].
    ///
    /// # Errors
    /// [`MapError`]: those before stay in force.
    pub fn set_services(&mut self, services: &[Arc<ServiceConfig>]) -> Result<(), MapError> {
        self.redirect.set_services(services)
    }

    /// Attaches all programs, those that were attached before in one another's place.
    ///
    /// # Errors
    /// [`SetupError`]. If nothing was attached before, nothing is; otherwise the instance stays as
    /// closed as it was.
    pub fn attach(mut self) -> Result<Redirect, SetupError> {
        let before = self.redirect.maps.config()?;
        let attached = self.attach_all();
        if let Err(error) = attached {
            if let Some(before) = before {
                self.redirect.maps.set_config(&before)?;
            }
            return Err(error);
        }
        self.undo.armed = false;
        Ok(self.redirect)
    }

    fn attach_all(&self) -> Result<(), SetupError> {
        let Self { undo, redirect, programs, targets } = self;
        let settings = &redirect.settings;
        redirect.maps.clear_exempt()?;
        if settings.join_sockets {
            attach::attach_to_sockets(&redirect.folder, programs)?;
        }
        redirect.write_config()?;
        // Once before any connection is judged by it, and once for what was bound meanwhile.
        let scan = redirect.scan_ports()?;
        // Once programs are attached, they see all that is bound.
        if undo.armed && scan.unseen > 0 {
            return Err(SetupError::Unseen { processes: scan.unseen });
        }
        for attachment in ATTACHMENTS.iter().filter(|one| is_wanted(one, settings)) {
            if attachment.place == Place::Namespace {
                redirect.scan_ports()?;
            }
            attach::attach(&redirect.folder, programs, targets, attachment)?;
        }
        attach::detach_unwanted(&redirect.folder, settings)
    }
}

/// A workload's redirection, attached. It stays in force when this is dropped, and when the process
/// ends: without a proxy, what needs one is refused.
#[derive(Debug)]
pub struct Redirect {
    folder: Folder,
    maps: Maps,
    namespace: u64,
    settings: Settings,
    proxy: Mutex<Proxy>,
    _owner: Owner,
}

/// Where the proxy listens for the workload's connections.
#[derive(Clone, Copy, Debug, Default)]
struct Proxy {
    v4: Option<SocketAddrV4>,
    v6: Option<SocketAddrV6>,
}

/// Where a redirected connection wanted to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalDestination {
    /// What the application asked for.
    pub asked: SocketAddr,
    /// Where the proxy is to go: `asked`, or the backend of the service that it is.
    pub destination: SocketAddr,
}

impl Redirect {
    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> &InstanceName {
        self.folder.name()
    }

    /// Puts a policy in force: a connection is judged by all of it or by all of the one before.
    ///
    /// # Errors
    /// [`MapError`]: the policy before stays in force.
    pub fn set_policy(&self, policy: &PolicyTable) -> Result<(), MapError> {
        self.maps.policy.set(policy)
    }

    /// Puts services in force. A program finds each as it was or as it is to be, whole. It takes as long
    /// as what has changed asks for; services that are the same `Arc` as before are not looked at.
    ///
    /// # Errors
    /// [`MapError`]: services can't be so, or there is no room; those before stay in force. If the kernel
    /// refuses half-way, some are as they were and some as they are to be.
    pub fn set_services(&self, services: &[Arc<ServiceConfig>]) -> Result<(), MapError> {
        self.maps.services.set(services)
    }

    /// Ends the workload's connections that go by the proxy's side although this policy denies them, or
    /// wants them read: programs judge what is opened, and not what is open. Returns how many. Only
    /// connections in the calling thread's network namespace are seen.
    ///
    /// # Errors
    /// The kernel's, when sockets can't be listed or one can't be ended; the others are.
    pub fn revoke(&self, policy: &PolicyTable) -> io::Result<usize> {
        /// A `connect()` that the policy before has let pass is among the sockets by then.
        const SETTLED: Duration = Duration::from_millis(20);
        let own = *self.proxy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut proxy: Vec<SocketAddr> = own.v4.into_iter().map(SocketAddr::V4).collect();
        proxy.extend(own.v6.map(SocketAddr::V6));
        if let Outbound::Foreign { to, .. } = &self.settings.outbound {
            proxy.extend(to);
        }
        let scope = Scope {
            cgroup: &self.settings.cgroup,
            proxy: &proxy,
            inbound: self.settings.inbound,
            loopback_is_own: self.settings.loopback_is_own,
        };
        let ended = revoke(&scope, policy)?;
        thread::sleep(SETTLED);
        Ok(ended + revoke(&scope, policy)?)
    }

    /// Lets programs know a listening socket of the proxy, until it is closed.
    ///
    /// # Errors
    /// The kernel's, for a socket that does not listen or is not of TCP.
    pub fn register(&self, slot: ListenerSlot, listener: BorrowedFd<'_>) -> io::Result<()> {
        self.maps.register(slot, listener)
    }

    /// Where the workload's connections are turned to; to nowhere over a family that has no address.
    ///
    /// # Errors
    /// [`MapError`]: they go on as before.
    pub fn set_proxy(
        &self,
        v4: Option<SocketAddrV4>,
        v6: Option<SocketAddrV6>,
    ) -> Result<(), MapError> {
        let mut proxy = self.proxy.lock().unwrap_or_else(PoisonError::into_inner);
        self.maps.set_config(&self.config(Proxy { v4, v6 }))?;
        *proxy = Proxy { v4, v6 };
        Ok(())
    }

    /// Where a redirected connection wanted to go: `client` and `local` are the addresses of the
    /// socket that the proxy has accepted.
    ///
    /// # Errors
    /// `NotFound` for a connection that was not redirected, or whose client is gone.
    pub fn original_destination(
        &self,
        client: SocketAddr,
        local: SocketAddr,
    ) -> io::Result<OriginalDestination> {
        let key = FlowKey { client: endpoint(client), proxy: endpoint(local) };
        let flow = self.maps.flows.get(&key)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(OriginalDestination {
            asked: socket_address(flow.asked),
            destination: socket_address(flow.destination),
        })
    }

    /// Lets one connection of the proxy to the workload through, from an address that the proxy has
    /// bound, until what is returned is dropped.
    ///
    /// # Errors
    /// The kernel's, when there is no room.
    pub fn exempt(&self, from: SocketAddr, to: SocketAddr) -> io::Result<Exemption<'_>> {
        let key = FlowKey { client: endpoint(from), proxy: endpoint(to) };
        self.maps.exempt.put(&key, &1)?;
        Ok(Exemption { maps: &self.maps, key })
    }

    /// What programs tell from now on, and have told since nobody listened. There is one reader.
    ///
    /// # Errors
    /// The kernel's.
    pub fn events(&self) -> io::Result<Events> {
        Events::open(&self.folder)
    }

    /// What programs have counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&self) -> io::Result<Counters> {
        Counters::read(&self.folder)
    }

    fn scan_ports(&self) -> Result<Scan, MapError> {
        match self.settings.inbound {
            true => ports::scan(&self.maps, &self.settings.cgroup, self.namespace),
            false => Ok(Scan::default()),
        }
    }

    fn write_config(&self) -> Result<(), MapError> {
        let proxy = match &self.settings.outbound {
            Outbound::Own => Proxy::default(),
            Outbound::Foreign { to, .. } => Proxy {
                v4: to.iter().find_map(|address| match address {
                    SocketAddr::V4(address) => Some(*address),
                    SocketAddr::V6(_) => None,
                }),
                v6: to.iter().find_map(|address| match address {
                    SocketAddr::V6(address) => Some(*address),
                    SocketAddr::V4(_) => None,
                }),
            },
        };
        self.maps.set_config(&self.config(proxy))
    }

    fn config(&self, proxy: Proxy) -> Config {
        let settings = &self.settings;
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        Config {
            netns: self.namespace,
            layout: LAYOUT,
            flags: flag(settings.loopback_is_own, flags::LOOPBACK_IS_OWN)
                | flag(settings.other_sockets, flags::OTHER_SOCKETS)
                | flag(settings.tell_redirects, flags::TELL_REDIRECTS)
                | flag(settings.outbound != Outbound::Own, flags::FOREIGN_PROXY)
                | flag(settings.join_sockets, flags::JOIN_SOCKETS),
            proxy_v4: proxy.v4.map_or_else(Endpoint::default, |to| endpoint(to.into())),
            proxy_v6: proxy.v6.map_or_else(Endpoint::default, |to| endpoint(to.into())),
        }
    }
}

/// One connection of the proxy that is not judged again.
#[derive(Debug)]
pub struct Exemption<'a> {
    maps: &'a Maps,
    key: FlowKey,
}

impl Drop for Exemption<'_> {
    fn drop(&mut self) {
        let _ = self.maps.exempt.remove(&self.key);
    }
}

/// The cookie of the network namespace that this thread is in.
fn own_namespace() -> io::Result<u64> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    namespace_cookie(socket.as_fd())
}
