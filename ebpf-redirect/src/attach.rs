//! Attaching: links that are pinned, so that they hold without this process. A link that is there gets
//! the new program in the old one's place; at no time is there none.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::SetupError;
use crate::instance::{Folder, unlink};
use crate::join::{self, JOINED};
use crate::preflight::own_cgroup;
use crate::programs::{ATTACHMENTS, Attachment, Place, Programs, is_wanted, namespace};
use crate::settings::{Outbound, Settings};
use crate::sys::{self, LinkTarget};

/// All that programs are attached to.
#[derive(Debug)]
pub(crate) struct Targets {
    workload: Target,
    proxy: Option<Target>,
    namespace: Target,
}

/// What a program is attached to, open.
#[derive(Debug)]
pub(crate) struct Target {
    file: File,
    pub(crate) number: LinkTarget,
}

impl Targets {
    pub(crate) fn open(settings: &Settings) -> Result<Self, SetupError> {
        let proxy = match &settings.outbound {
            Outbound::Own if settings.join_sockets => Some(Target::cgroup(&own_cgroup()?)?),
            Outbound::Own => None,
            Outbound::Foreign { proxy_cgroup, .. } => Some(Target::cgroup(proxy_cgroup)?),
        };
        let workload = Target::cgroup(&settings.cgroup)?;
        Ok(Self { workload, proxy, namespace: Target::namespace()? })
    }

    fn of(&self, place: Place) -> Option<&Target> {
        match place {
            Place::Workload | Place::JoinedWorkload => Some(&self.workload),
            Place::Proxy | Place::JoinedProxy => self.proxy.as_ref(),
            Place::Namespace => Some(&self.namespace),
        }
    }
}

impl Target {
    pub(crate) fn cgroup(path: &Path) -> Result<Self, SetupError> {
        let failed = |error| SetupError::file("can't open", path)(error);
        let file = File::open(path).map_err(failed)?;
        let number = LinkTarget::Cgroup(file.metadata().map_err(failed)?.ino());
        Ok(Self { file, number })
    }

    /// This thread's network namespace.
    pub(crate) fn namespace() -> Result<Self, SetupError> {
        let file = namespace()?;
        let inode = file.metadata().ok().and_then(|file| u32::try_from(file.ino()).ok());
        Ok(Self { file, number: LinkTarget::Namespace(inode.unwrap_or_default()) })
    }
}

/// Refuses an instance that is attached to a cgroup which is there and not this one.
pub(crate) fn check_links(folder: &Folder, targets: &Targets) -> Result<(), SetupError> {
    for attachment in ATTACHMENTS.iter().filter(|one| one.place == Place::Workload) {
        let path = folder.link(attachment.program);
        let target = pinned(&path)
            .and_then(|link| link.map(|link| sys::link_target(link.as_fd())).transpose())
            .map_err(SetupError::file("can't open", &path))?;
        if let Some(LinkTarget::Cgroup(cgroup)) = target
            && target != Some(targets.workload.number)
        {
            return Err(SetupError::OtherCgroup { instance: folder.name().to_string(), cgroup });
        }
    }
    Ok(())
}

/// Attaches the programs that are wanted for a place, or all but those if `but` says so.
pub(crate) fn attach(
    folder: &Folder,
    programs: &Programs,
    targets: &Targets,
    attachment: &Attachment,
) -> Result<(), SetupError> {
    let failed = |source| SetupError::Attach { program: attachment.program, source };
    let Some(target) = targets.of(attachment.place) else { return Ok(()) };
    let program = programs.descriptor(attachment.program).map_err(failed)?;
    hold(&folder.link(attachment.program), program, target, attachment.kind).map_err(failed)
}

/// Has a program at a target, by the link that is pinned at a path: in the place of the one that is there,
/// if there is one.
pub(crate) fn hold(
    path: &Path,
    program: BorrowedFd<'_>,
    target: &Target,
    kind: u32,
) -> io::Result<()> {
    if let Some(link) = pinned(path)?
        && sys::link_target(link.as_fd())? == target.number
    {
        return sys::link_update(link.as_fd(), program);
    }
    pin(&sys::link_create(program, target.file.as_fd(), kind)?, path)
}

/// Has messages of joined sockets pass by the programs that join them.
pub(crate) fn attach_to_sockets(folder: &Folder, programs: &Programs) -> Result<(), SetupError> {
    let path = folder.map(JOINED);
    let map = sys::object_get(&path).map_err(SetupError::file("can't open", &path))?;
    for (program, kind) in join::PROGRAMS {
        let attached = programs
            .descriptor(program)
            .and_then(|descriptor| sys::program_attach(descriptor, map.as_fd(), kind));
        attached.map_err(|source| SetupError::Attach { program, source })?;
    }
    Ok(())
}

/// Takes away what was attached by other settings and is not wanted now.
pub(crate) fn detach_unwanted(folder: &Folder, settings: &Settings) -> Result<(), SetupError> {
    for attachment in ATTACHMENTS.iter().filter(|attachment| !is_wanted(attachment, settings)) {
        let path = folder.link(attachment.program);
        unlink(&path).map_err(SetupError::file("can't remove", &path))?;
    }
    Ok(())
}

/// The link that is pinned at a path.
pub(crate) fn pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    match sys::object_get(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pins a link, in the place of one whose cgroup or namespace is another or gone.
pub(crate) fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!("{name}+new"));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sys::object_pin(link.as_fd(), &beside)?;
    fs::rename(&beside, path)
}
