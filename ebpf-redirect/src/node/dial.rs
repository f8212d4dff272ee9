//! Services at the system call: programs of a cgroup.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::NodeError;
use super::kernel::NodeKernel;
use crate::attach::{pin, pinned};
use crate::error::SetupError;
use crate::instance::unlink;
use crate::sys::{self, LinkTarget, attach_type};

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
        let opened = File::open(cgroup).and_then(|file| Ok((file.metadata()?.ino(), file)));
        let (number, file) = opened.map_err(SetupError::file("can't open", cgroup))?;
        for (name, kind) in OF_CGROUP {
            let attached = || {
                let (path, program) = (self.folder.link(name), self.programs.descriptor(name)?);
                if let Some(link) = pinned(&path)?
                    && sys::link_target(link.as_fd())? == LinkTarget::Cgroup(number)
                {
                    return sys::link_update(link.as_fd(), program);
                }
                pin(&sys::link_create(program, file.as_fd(), kind)?, &path)
            };
            attached().map_err(|source| SetupError::Attach { program: name, source })?;
        }
        Ok(())
    }
}
