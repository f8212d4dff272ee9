//! The node's programs, on their way into the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use portreeve_ebpf_common::ListenerSlot;

use super::dial::OF_CGROUP;
use super::maps::SHAPES;
use super::settings::NodeCapacity;
use crate::error::SetupError;
use crate::instance::Folder;
use crate::programs::{load_absent, load_refused, maps_refused, pin_listeners};

/// What the workload sends.
pub(super) const FROM_WORKLOAD: &str = "portreeve_from_workload";
/// What is sent to the workload.
pub(super) const TO_WORKLOAD: &str = "portreeve_to_workload";
/// The device that leads to the proxy.
pub(super) const TO_PROXY: &str = "portreeve_to_proxy";
/// Asked, in the host's network namespace, who listens.
pub(super) const AGAIN: &str = "portreeve_again";

/// What comes to the node from outside.
pub(super) const FROM_OUTSIDE: &str = "portreeve_from_outside";
/// What leaves the node for outside.
pub(super) const TO_OUTSIDE: &str = "portreeve_to_outside";

/// Loaded programs.
pub(super) struct Programs {
    pub(super) object: Ebpf,
}

impl Programs {
    /// Brings maps and programs into the kernel: maps that are pinned are taken as they are, others are
    /// made and pinned; nothing is attached.
    pub(super) fn load(folder: &Folder, capacity: &NodeCapacity) -> Result<Self, SetupError> {
        pin_listeners(&folder.map("LISTENERS"), ListenerSlot::COUNT)?;
        let mut loader = EbpfLoader::new();
        for (map, ..) in SHAPES {
            loader.map_pin_path(map, folder.map(map));
        }
        for (map, entries) in capacity.by_map() {
            loader.map_max_entries(map, entries);
        }
        let mut object = loader.load(OBJECT).map_err(maps_refused)?;
        let of_cgroup = OF_CGROUP.map(|(name, _)| name);
        let of_host = [FROM_WORKLOAD, TO_WORKLOAD, TO_PROXY, AGAIN, FROM_OUTSIDE, TO_OUTSIDE];
        for name in of_host.into_iter().chain(of_cgroup) {
            let loaded = match object.program_mut(name) {
                Some(Program::SchedClassifier(program)) => program.load(),
                Some(Program::CgroupSockAddr(program)) => program.load(),
                Some(Program::SkLookup(program)) => program.load(),
                _ => return Err(load_absent(name)),
            };
            loaded.map_err(|error| load_refused(name, &error))?;
        }
        Ok(Self { object })
    }

    /// A program that was loaded.
    pub(super) fn descriptor(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        let absent = || io::Error::new(io::ErrorKind::NotFound, "the program is not loaded");
        let program = self.object.program(name).ok_or_else(absent)?;
        program.fd().map(|fd| fd.as_fd()).map_err(|_| absent())
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Programs").finish_non_exhaustive()
    }
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/object/portreeve-node.bpf.o"
));
