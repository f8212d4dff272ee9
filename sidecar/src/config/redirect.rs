//! The section `redirect`: programs inside of the kernel that feed the proxy.

use std::net::SocketAddr;
use std::path::PathBuf;

use portreeve_core::{ListenerConfig, Transparent, UpstreamConfig};
use portreeve_policy::TrafficDirection;
use serde::Deserialize;

use super::resolve::{Wrong, wrong};
use crate::redirect::{self, BPFFS, Capacity, InstanceName, Outbound, RunFlags, Settings};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Redirect {
    mode: Mode,
    cgroup: Option<PathBuf>,
    instance: Option<String>,
    bpffs: PathBuf,
    outbound_listen: Option<Vec<SocketAddr>>,
    inbound: bool,
    inbound_listen: Option<Vec<SocketAddr>>,
    loopback: Loopback,
    other_sockets: OtherSockets,
    events: Events,
    sockmap: Sockmap,
    capacity: Room,
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            cgroup: None,
            instance: None,
            bpffs: BPFFS.into(),
            outbound_listen: None,
            inbound: true,
            inbound_listen: None,
            loopback: Loopback::default(),
            other_sockets: OtherSockets::default(),
            events: Events::default(),
            sockmap: Sockmap::default(),
            capacity: Room::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Off,
    Ebpf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Loopback {
    #[default]
    Judge,
    Own,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OtherSockets {
    #[default]
    Deny,
    Allow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Events {
    #[default]
    Denied,
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sockmap {
    #[default]
    Off,
    /// Where the running kernel can.
    Auto,
    On,
}

/// See [`Capacity`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Room {
    policy: Option<u32>,
    services: Option<u32>,
    slots: Option<u32>,
    backends: Option<u32>,
    affinity: Option<u32>,
    reverse: Option<u32>,
    flows: Option<u32>,
    ports: Option<u32>,
    exempt: Option<u32>,
    replies: Option<u32>,
    joined: Option<u32>,
    events: Option<u32>,
}

const OUTBOUND: [&str; 2] = ["127.0.0.1:15001", "[::1]:15001"];
const INBOUND: [&str; 2] = ["127.0.0.1:15006", "[::1]:15006"];

/// Smallest ring buffer: one page, of the largest pages there are.
const LEAST_EVENTS: u32 = 64 * 1024;

impl Redirect {
    /// Whether anything is turned to the proxy.
    fn is_on(&self) -> bool {
        self.mode == Mode::Ebpf
    }

    /// Flags have the last word.
    pub(super) fn apply(&mut self, flags: &RunFlags) -> Result<(), Wrong> {
        let RunFlags { redirect, cgroup, instance, bpffs, loopback } = flags;
        if redirect.is_some() {
            self.mode = Mode::Ebpf;
        }
        let given = [
            ("cgroup", cgroup.is_some()),
            ("instance", instance.is_some()),
            ("bpffs", bpffs.is_some()),
            ("loopback", loopback.is_some()),
        ];
        if !self.is_on()
            && let Some((flag, _)) = given.iter().find(|(_, given)| *given)
        {
            return Err(wrong(*flag, "is about redirection; add `--redirect ebpf`"));
        }
        if let Some(cgroup) = cgroup {
            self.cgroup = Some(cgroup.clone());
        }
        if let Some(instance) = instance {
            self.instance = Some(instance.to_string());
        }
        if let Some(bpffs) = bpffs {
            self.bpffs.clone_from(bpffs);
        }
        match loopback.as_deref() {
            Some("own") => self.loopback = Loopback::Own,
            Some(_) => self.loopback = Loopback::Judge,
            None => {}
        }
        Ok(())
    }

    /// What the programs are told, and the listeners that they feed. `None`: there are none.
    pub(super) fn resolve(&self) -> Result<Option<(redirect::Config, Vec<ListenerConfig>)>, Wrong> {
        if !self.is_on() {
            return Ok(None);
        }
        let Some(cgroup) = self.cgroup.clone() else {
            return Err(wrong("redirect.cgroup", "is missing; name the workload's cgroup"));
        };
        let instance = match &self.instance {
            Some(name) => name.parse().map_err(|error| wrong("redirect.instance", error))?,
            None => InstanceName::of_cgroup(&cgroup),
        };
        let mut listeners = Listeners::default();
        listeners.add("outbound", self.outbound_listen.as_deref(), OUTBOUND)?;
        if self.inbound {
            listeners.add("inbound", self.inbound_listen.as_deref(), INBOUND)?;
        }
        let settings = Settings {
            instance,
            cgroup,
            bpffs: self.bpffs.clone(),
            loopback_is_own: self.loopback == Loopback::Own,
            other_sockets: self.other_sockets == OtherSockets::Allow,
            tell_redirects: self.events == Events::All,
            outbound: Outbound::Own,
            inbound: self.inbound,
            join_sockets: self.sockmap == Sockmap::On,
            capacity: self.capacity.resolve()?,
        };
        let config = redirect::Config {
            settings,
            join_if_possible: self.sockmap == Sockmap::Auto,
            only_with_ipv6: listeners.only_with_ipv6,
        };
        Ok(Some((config, listeners.all)))
    }

    /// How much room there is, whether it is used or not.
    pub(super) fn capacity(&self) -> Result<Capacity, Wrong> {
        self.capacity.resolve()
    }
}

#[derive(Default)]
struct Listeners {
    all: Vec<ListenerConfig>,
    only_with_ipv6: Vec<String>,
}

impl Listeners {
    /// Those that are configured, or the usual ones.
    fn add(
        &mut self,
        name: &str,
        configured: Option<&[SocketAddr]>,
        usual: [&str; 2],
    ) -> Result<(), Wrong> {
        let key = format!("redirect.{name}_listen");
        let usual: Vec<SocketAddr> = usual.iter().filter_map(|text| text.parse().ok()).collect();
        let addresses = configured.unwrap_or(&usual);
        if addresses.is_empty() {
            return Err(wrong(key, "name one address, or one for each address family"));
        }
        for (index, address) in addresses.iter().enumerate() {
            if address.ip().is_unspecified() {
                let message =
                    format!("`{address}`: connections are turned to an address, not to all");
                return Err(wrong(key, message));
            }
            if addresses.iter().take(index).any(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(wrong(key, "name at most one address for each address family"));
            }
            let name = if address.is_ipv4() { name.to_owned() } else { format!("{name}-ipv6") };
            if address.is_ipv6() && configured.is_none() {
                self.only_with_ipv6.push(name.clone());
            }
            self.all.push(ListenerConfig {
                direction: match name.starts_with("inbound") {
                    true => TrafficDirection::Ingress,
                    false => TrafficDirection::Egress,
                },
                upstream: UpstreamConfig::OriginalDestination(Transparent::Ebpf),
                ..ListenerConfig::ingress(name, *address, *address)
            });
        }
        Ok(())
    }
}

impl Room {
    fn resolve(&self) -> Result<Capacity, Wrong> {
        let usual = Capacity::default();
        let positive = |name: &str, given: Option<u32>, usual: u32| match given {
            Some(0) => Err(wrong(format!("redirect.capacity.{name}"), "nothing would fit")),
            given => Ok(given.unwrap_or(usual)),
        };
        let events = positive("events", self.events, usual.events)?;
        if !events.is_power_of_two() || events < LEAST_EVENTS {
            let message = format!("`{events}` is not a power of two from {LEAST_EVENTS} on");
            return Err(wrong("redirect.capacity.events", message));
        }
        Ok(Capacity {
            policy: positive("policy", self.policy, usual.policy)?,
            services: positive("services", self.services, usual.services)?,
            slots: positive("slots", self.slots, usual.slots)?,
            backends: positive("backends", self.backends, usual.backends)?,
            affinity: positive("affinity", self.affinity, usual.affinity)?,
            reverse: positive("reverse", self.reverse, usual.reverse)?,
            flows: positive("flows", self.flows, usual.flows)?,
            ports: positive("ports", self.ports, usual.ports)?,
            exempt: positive("exempt", self.exempt, usual.exempt)?,
            replies: positive("replies", self.replies, usual.replies)?,
            joined: positive("joined", self.joined, usual.joined)?,
            events,
        })
    }
}
