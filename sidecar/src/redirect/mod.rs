//! Programs inside of the kernel that feed the proxy, or another one. Nothing outside of this folder
//! knows the crate that loads them.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | what is configured, and the start of `portreeve run --redirect` |
//! | `arguments.rs` | flags |
//! | `kernel.rs` | the proxy's seam, answered by the programs |
//! | `events.rs` | what they tell, taken down on a thread of its own |
//! | `foreign.rs` | `portreeve redirect --to`: for a proxy of another make |
//! | `inspect.rs` | `portreeve redirect status` and `detach` |

mod arguments;
mod events;
mod foreign;
mod inspect;
mod kernel;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::sync::Arc;

use portreeve_core::ProxyConfig;
use portreeve_core::redirection::Reporter;
use portreeve_ebpf::services::{ServiceRoom, ServiceTables};
use portreeve_policy::Service;

pub(crate) use self::arguments::{RedirectCommand, RunFlags};
use self::events::EventThread;
use self::kernel::Kernel;
use crate::Failure;

use portreeve_ebpf::self_test;
pub(crate) use portreeve_ebpf::services::{BackendConfig, ServiceConfig, ServiceError, Transport};
pub(crate) use portreeve_ebpf::{Capacity, InstanceName, Outbound, Settings};

/// Where the bpf file system is mounted, nearly everywhere.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// Runs one of the commands.
pub(crate) fn run(command: &RedirectCommand) -> Result<(), Failure> {
    match &command.action {
        None => foreign::run(&command.to),
        Some(arguments::Action::Status(arguments)) => inspect::status(arguments),
        Some(arguments::Action::Detach(arguments)) => inspect::detach(arguments),
    }
}

/// What a proxy's redirection is to be.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    /// Join sockets where the running kernel can.
    pub(crate) join_if_possible: bool,
    /// Listeners over IPv6 that nobody asked for, by name: they are left out where there is no IPv6.
    pub(crate) only_with_ipv6: Vec<String>,
}

/// What is in the way of services, before they are put in force.
pub(crate) fn check_services(
    services: &[ServiceConfig],
    capacity: &Capacity,
) -> Result<(), ServiceError> {
    let room = ServiceRoom {
        frontends: capacity.services as usize,
        slots: capacity.slots as usize,
        backends: capacity.backends as usize,
    };
    let services: Vec<_> = services.iter().cloned().map(Arc::new).collect();
    ServiceTables::new(room).plan(&services).map(drop)
}

/// Services as policy refers to them: one by each name, whatever the number of its ports.
pub(crate) fn directory(services: &[ServiceConfig]) -> Vec<Service> {
    let mut named: Vec<Service> = Vec::new();
    for service in services.iter().map(Service::from) {
        let known = named
            .iter_mut()
            .find(|known| (&known.name, &known.namespace) == (&service.name, &service.namespace));
        match known {
            Some(known) => known.backends.extend(service.backends),
            None => named.push(service),
        }
    }
    named
}

/// A proxy's redirection.
#[derive(Debug)]
pub(crate) struct Redirect {
    kernel: Arc<Kernel>,
    events: Option<EventThread>,
}

impl Redirect {
    /// Gets everything ready, and has the proxy of this configuration fed by it. Nothing is attached
    /// before the proxy starts.
    pub(crate) fn prepare(
        mut config: Config,
        services: Vec<ServiceConfig>,
        proxy: &mut ProxyConfig,
    ) -> Result<Self, Failure> {
        let unwanted = &config.only_with_ipv6;
        if !unwanted.is_empty() && TcpListener::bind("[::1]:0").is_err() {
            proxy.listeners.retain(|listener| !unwanted.contains(&listener.name));
            tracing::warn!("this host has no IPv6: connections over it are not turned anywhere");
        }
        if config.join_if_possible {
            match self_test() {
                Ok(()) => config.settings.join_sockets = true,
                Err(error) => tracing::warn!("{error}: sockets are not joined"),
            }
        }
        let kernel = Kernel::prepare(&config.settings, services).map_err(Failure::new)?;
        let kernel = Arc::new(kernel);
        proxy.redirection = Some(kernel.clone());
        Ok(Self { kernel, events: None })
    }

    /// Begins to take down what the kernel tells. The proxy has started.
    pub(crate) fn report_to(&mut self, reporter: Reporter) -> Result<(), Failure> {
        let events = self.kernel.events().map_err(Failure::new)?;
        self.events = Some(EventThread::start(events, self.kernel.clone(), reporter)?);
        tracing::info!("instance `{}` is in force", self.kernel.instance());
        Ok(())
    }

    /// Puts other services in force; those before stay if they can't be.
    pub(crate) fn set_services(&self, services: &[ServiceConfig]) {
        match self.kernel.set_services(services) {
            Ok(()) => tracing::info!(services = services.len(), "services are in force"),
            Err(error) => tracing::error!("services are as they were: {error}"),
        }
    }

    /// Why the workload is not judged any more, if it is not: its cgroup is gone, and with it the programs.
    pub(crate) fn lost(&self) -> Option<String> {
        let cgroup = self.kernel.lost_cgroup()?;
        Some(format!(
            "the workload's cgroup `{}` was removed, and the programs with it; one that is made in its place \
             is not judged\n  hint: start the proxy again when the workload is there, or give the workload a \
             cgroup that stays, such as a slice",
            cgroup.display()
        ))
    }

    /// Says what is left behind.
    pub(crate) fn announce_end(&self) {
        let instance = self.kernel.instance();
        tracing::info!(
            "instance `{instance}` stays in force without a proxy: what needs one is refused until it is \
             back; `portreeve redirect detach --instance {instance}` takes it away"
        );
    }

    /// Takes the last decisions down. Connections have ended, and the access log has not.
    pub(crate) fn finish(self) {
        if let Some(events) = self.events {
            events.stop();
        }
    }
}
