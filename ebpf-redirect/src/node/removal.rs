//! What is needed before anything is set up, and taking away all that was.

use std::path::Path;

use super::device;
use super::error::NodeError;
use super::grace::Expedited;
use crate::error::SetupError;
use crate::instance::{Folder, InstanceName};
use crate::preflight::{self, Missing};

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRemoved {
    /// Programs that were attached to interfaces, by the names of their links.
    pub programs: Vec<String>,
    /// Maps.
    pub maps: Vec<String>,
    /// The device, the rules and the routes that lead packets to the proxy.
    pub device: bool,
    /// The device is there still: it is used by an instance that is pinned elsewhere, or beside this one.
    pub device_is_anothers: bool,
    /// The instances that are pinned beside this one.
    pub neighbours: Vec<InstanceName>,
}

impl NodeRemoved {
    /// Whether there was nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { programs, maps, device, device_is_anothers: _, neighbours: _ } = self;
        programs.is_empty() && maps.is_empty() && !device
    }
}

/// What has to be there first: privileges, and a bpf file system at `bpffs`.
#[must_use]
pub fn missing(bpffs: &Path) -> Vec<Missing> {
    preflight::missing_on_a_node(bpffs)
}

/// See [`NodeKernel::remove`](super::NodeKernel::remove).
pub(super) fn remove(bpffs: &Path, instance: &InstanceName) -> Result<NodeRemoved, NodeError> {
    let folder = Folder::of_node(bpffs, instance);
    let _owner = folder.exists().then(|| folder.take()).transpose()?;
    take_away(&folder)
}

/// The same, by who has the instance.
pub(super) fn take_away(folder: &Folder) -> Result<NodeRemoved, NodeError> {
    let mut removed = NodeRemoved::default();
    if folder.exists() {
        Expedited::put_back(folder);
        let unpinned = folder.remove().map_err(SetupError::file("can't remove", folder.path()))?;
        (removed.programs, removed.maps) = (unpinned.links, unpinned.maps);
    }
    let neighbours = folder.neighbours().map_err(SetupError::file("can't list", folder.path()))?;
    removed.neighbours = neighbours.iter().map(|other| other.name().clone()).collect();
    // Nothing of this instance is attached to the device any more: what is, is another's, wherever that is
    // pinned; and the folder above is there as long as another instance is.
    let has_neighbours = folder.path().parent().is_some_and(Path::exists);
    removed.device_is_anothers = device::is_used()?;
    if !has_neighbours && !removed.device_is_anothers {
        removed.device = device::remove()?;
    }
    Ok(removed)
}
