//! Services at the system call: programs of a cgroup.

use std::path::Path;

use super::error::NodeError;
use super::kernel::NodeKernel;
use crate::attach::{Target, hold};
use crate::error::SetupError;
use crate::instance::unlink;
use crate::sys::attach_type;

/// What is known of those who are answered is there before they are.
pub(super) const OF_CGROUP: [(&str, u32); 8] = [
    ("portreeve_getpeername4", attach_type::GETPEERNAME4),
    ("portreeve_getpeername6", attach_type::GETPEERNAME6),
    ("portreeve_recvmsg4", attach_type::RECVMSG4),
    ("portreeve_recvmsg6", attach_type::RECVMSG6),
    ("portreeve_post4", attach_type::SENDMSG4),
    ("portreeve_post6", attach_type::SENDMSG6),
    ("portreeve_dial4", attach_type::CONNECT4),
    ("portreeve_dial6", attach_type::CONNECT6),
];

impl NodeKernel {
    /// Connects processes of a cgroup, whatever network namespace they are in, to backends when they ask
    /// for services; those of no other. `None`: nobody; services are answered on the way of packets.
    ///
    /// # Errors
    /// When there is no such cgroup, and when a program can't be attached or detached.
    pub fn set_cgroup(&self, cgroup: Option<&Path>) -> Result<(), NodeError> {
        let Some(cgroup) = cgroup else {
            for (program, _) in OF_CGROUP {
                let path = self.folder.link(program);
                unlink(&path).map_err(SetupError::file("can't remove", &path))?;
            }
            return Ok(());
        };
        let cgroup = Target::cgroup(cgroup)?;
        for (program, kind) in OF_CGROUP {
            let descriptor = self.programs.descriptor(program);
            descriptor
                .and_then(|one| hold(&self.folder.link(program), one, &cgroup, kind))
                .map_err(|source| SetupError::Attach { program, source })?;
        }
        Ok(())
    }
}
