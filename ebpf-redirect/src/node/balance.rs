//! Services of a node: what is asked for inside and from outside, and the devices that lead outside.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use portreeve_ebpf_common::node::{Ends, NODE_LAYOUT, NodeConfig, Translation};
use portreeve_ebpf_common::{Endpoint, ServiceKey};

use super::error::NodeError;
use super::kernel::NodeKernel;
use super::programs::{FROM_OUTSIDE, TO_OUTSIDE};
use crate::address::address;
use crate::error::{MapError, SetupError};
use crate::instance::unlink;
use crate::services::ServiceConfig;
use crate::sys::attach_type;

/// Links of the devices that lead outside are called by their number, between these.
const OUTSIDE: &str = "outside-";
/// In the order in which they are attached: what comes back is known before it is asked for.
const OF_OUTSIDE: [(&str, &str, u32); 2] =
    [("to", TO_OUTSIDE, attach_type::TCX_EGRESS), ("from", FROM_OUTSIDE, attach_type::TCX_INGRESS)];

impl NodeKernel {
    /// Puts services in force, all of them. Connections that are open stay with their backends; those that
    /// went to an address before it was a service's are forgotten, so that they go to a backend now.
    ///
    /// # Errors
    /// When services can't be so, and when there is no room: then those before stay in force.
    pub fn set_services(&self, services: &[Arc<ServiceConfig>]) -> Result<(), NodeError> {
        self.maps.services.set(services)?;
        let inside = services.iter().filter(|service| !service.external);
        let now: HashSet<ServiceKey> = inside.flat_map(|service| service.keys()).collect();
        let mut before = self.frontends.lock().unwrap_or_else(PoisonError::into_inner);
        let new: HashSet<_> = now.difference(&before).copied().collect();
        *before = now;
        drop(before);
        if !new.is_empty() {
            self.forget_connections_to(&new)?;
        }
        Ok(())
    }

    /// Services as they are in force, whoever left them there: without names and weights.
    ///
    /// # Errors
    /// When maps can't be read.
    pub fn services(&self) -> Result<Vec<ServiceConfig>, NodeError> {
        Ok(self.maps.services.found()?)
    }

    fn forget_connections_to(&self, services: &HashSet<ServiceKey>) -> Result<(), NodeError> {
        let tracked = &self.maps.tracked;
        for key in tracked.keys().map_err(MapError::system("can't read", "TRACKED"))? {
            let remote = Endpoint::new(key.remote, key.remote_port);
            if services.contains(&ServiceKey::internal(remote, key.protocol)) {
                tracked.remove(&key).map_err(MapError::system("can't write", "TRACKED"))?;
            }
        }
        Ok(())
    }

    /// Says in whose name packets go on to backends on other nodes: an address of this node that they
    /// know. Without it such packets are dropped.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_node_addresses(
        &self,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Result<(), NodeError> {
        let config = NodeConfig {
            layout: NODE_LAYOUT,
            device: self.device.load(Ordering::Relaxed),
            node_v4: v4.map(|v4| address(v4.into())).unwrap_or_default(),
            node_v6: v6.map(|v6| address(v6.into())).unwrap_or_default(),
        };
        let put = self.maps.config.put(&0, &config);
        Ok(put.map_err(MapError::system("can't write", "CONFIG"))?)
    }

    /// Answers for services to those who come by these interfaces, and by no others.
    ///
    /// # Errors
    /// When a program can't be attached or detached.
    pub fn set_outside(&self, interfaces: &BTreeSet<u32>) -> Result<(), NodeError> {
        for interface in interfaces {
            if !self.is_readable(*interface)? {
                return Err(NodeError::NotEthernet { interface: *interface });
            }
            for (end, program, kind) in OF_OUTSIDE {
                self.hold(&link(*interface, end), program, kind, *interface)?;
            }
        }
        let links = self.folder.links();
        let all = match fs::read_dir(&links) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            all => all.map_err(SetupError::file("can't read", &links))?,
        };
        for entry in all {
            let entry = entry.map_err(SetupError::file("can't read", &links))?;
            let name = entry.file_name();
            let Some(interface) = name.to_str().and_then(interface) else { continue };
            if !interfaces.contains(&interface) {
                unlink(&entry.path()).map_err(SetupError::file("can't remove", entry.path()))?;
            }
        }
        Ok(())
    }

    /// What becomes of packets of services, all that is known.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn translations(&self) -> Result<Vec<(Ends, Translation)>, NodeError> {
        let entries = self.maps.translated.entries();
        Ok(entries.map_err(MapError::system("can't read", "TRANSLATED"))?)
    }
}

fn link(interface: u32, end: &str) -> String {
    format!("{OUTSIDE}{interface}-{end}")
}

/// The interface of a link, if it is one of these.
fn interface(link: &str) -> Option<u32> {
    link.strip_prefix(OUTSIDE)?.split_once('-')?.0.parse().ok()
}
