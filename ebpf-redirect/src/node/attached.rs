//! Programs on interfaces: links that are pinned, so that they hold without this process. One that is there
//! gets the new program in the place of the old one; at no time is there none.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::error::NodeError;
use super::kernel::NodeKernel;
use super::programs::{AGAIN, FROM_WORKLOAD, TO_WORKLOAD};
use crate::attach::{Target, hold, pin, pinned};
use crate::error::SetupError;
use crate::sys::{self, LinkTarget, attach_type};

/// The programs of a workload's interface. Those who keep account of what the workload opens come first:
/// what is opened is known when the answers come.
pub(super) const OF_WORKLOAD: [(&str, &str, u32); 2] = [
    ("from", FROM_WORKLOAD, attach_type::TCX_INGRESS),
    ("to", TO_WORKLOAD, attach_type::TCX_EGRESS),
];

/// The link that holds on to the network namespace, which every instance has.
pub(super) const NAMESPACE: &str = "namespace";

impl NodeKernel {
    /// Replaces the programs of an interface that is known; forgets one that is gone. By the number alone
    /// it can't be told: another interface may have it by now. So a link has to hold on to it still.
    pub(super) fn take_over(&self, interface: u32) -> Result<(), NodeError> {
        let mut is_there = false;
        for (end, program, _) in OF_WORKLOAD {
            let link = self.live_link(&link_name(interface, end), interface);
            is_there |=
                link.map_err(|source| NodeError::Attach { program, interface, source })?.is_some();
        }
        if !is_there {
            return self.detach(interface);
        }
        OF_WORKLOAD
            .iter()
            .try_for_each(|(end, program, kind)| self.hold_end(interface, end, program, *kind))
    }

    /// The pinned link, if it holds on to this interface.
    fn live_link(&self, link: &str, interface: u32) -> io::Result<Option<OwnedFd>> {
        let Some(link) = pinned(&self.folder.link(link))? else { return Ok(None) };
        let target = sys::link_target(link.as_fd())?;
        Ok((target == LinkTarget::Interface(interface)).then_some(link))
    }

    pub(super) fn hold_end(
        &self,
        interface: u32,
        end: &str,
        program: &'static str,
        kind: u32,
    ) -> Result<(), NodeError> {
        self.hold(&link_name(interface, end), program, kind, interface)
    }

    /// Has a program on an interface: in the place of the one that is there, if there is one.
    pub(super) fn hold(
        &self,
        link: &str,
        program: &'static str,
        kind: u32,
        interface: u32,
    ) -> Result<(), NodeError> {
        let held = || {
            let path = self.folder.link(link);
            let program = self.programs.descriptor(program)?;
            if let Some(link) = self.live_link(link, interface)? {
                return sys::link_update(link.as_fd(), program);
            }
            fs::create_dir_all(self.folder.links())?;
            let made = sys::link_create_on(program, interface, kind)?;
            pin(&made, &path)
        };
        held().map_err(|source| NodeError::Attach { program, interface, source })
    }

    /// Has first packets find the proxy whose ends another connection still has.
    pub(super) fn hold_namespace(&self) -> Result<(), SetupError> {
        let namespace = Target::namespace()?;
        fs::create_dir_all(self.folder.links())
            .and_then(|()| self.programs.descriptor(AGAIN))
            .and_then(|again| {
                hold(&self.folder.link(NAMESPACE), again, &namespace, attach_type::SK_LOOKUP)
            })
            .map_err(|source| SetupError::Attach { program: AGAIN, source })
    }
}

pub(super) fn link_name(interface: u32, end: &str) -> String {
    format!("{interface}-{end}")
}
