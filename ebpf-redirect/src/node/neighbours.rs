//! Instances beside this one, whose programs judge the same packets.

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::attached::NAMESPACE;
use super::error::NodeError;
use super::kernel::NodeKernel;
use crate::attach::{Target, pinned};
use crate::error::SetupError;
use crate::instance::{Folder, InstanceName};
use crate::sys::{self, LinkTarget};

/// Another instance that is attached in the same network namespace, whether anybody has it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub instance: InstanceName,
    /// Where it is pinned.
    pub path: PathBuf,
    /// The process that has it, if there is one in sight.
    pub holder: Option<u32>,
}

impl NodeKernel {
    /// The instances of the same bpf file system that are attached here, too, as it is now. Where two have
    /// programs on one interface, those that were attached first decide.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn neighbours(&self) -> Result<Vec<Neighbour>, NodeError> {
        let here = Target::namespace()?.number;
        let others = self.folder.neighbours();
        let others = others.map_err(SetupError::file("can't list", self.folder.path()))?;
        let others = others.into_iter().filter(|other| is_attached(other, here));
        let neighbour = |other: Folder| Neighbour {
            instance: other.name().clone(),
            path: other.path().to_owned(),
            holder: other.holder(),
        };
        Ok(others.map(neighbour).collect())
    }
}

/// Whether an instance has programs in a network namespace, as far as it can be told: nodes in namespaces of
/// their own may share a bpf file system.
fn is_attached(folder: &Folder, here: LinkTarget) -> bool {
    let link = pinned(&folder.link(NAMESPACE));
    match link.map(|link| link.map(|link| sys::link_target(link.as_fd()))) {
        Ok(Some(Ok(LinkTarget::Gone))) => false,
        Ok(Some(Ok(target))) => target == here,
        _ => folder.has_links(),
    }
}
