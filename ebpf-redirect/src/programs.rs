//! The programs, what each is attached to, and how they come into the kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::maps::MapError as AyaMapError;
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};
use portreeve_ebpf_common::ListenerSlot;

use crate::error::SetupError;
use crate::instance::Folder;
use crate::join::{self, JOINED};
use crate::preflight::{kernel, load_hint};
use crate::settings::{Outbound, Settings};
use crate::sys::{attach_type, map_kind};
use crate::table::Table;

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The workload's cgroup.
    Workload,
    /// The cgroup of a proxy of another make.
    Proxy,
    /// The workload's cgroup, where sockets are joined.
    JoinedWorkload,
    /// The proxy's cgroup, where sockets are joined.
    JoinedProxy,
    /// This thread's network namespace.
    Namespace,
}

/// A program that is attached by a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Its symbol.
    pub(crate) program: &'static str,
    /// `enum bpf_attach_type`.
    pub(crate) kind: u32,
    /// To what.
    pub(crate) place: Place,
}

const fn at(place: Place, program: &'static str, kind: u32) -> Attachment {
    Attachment { program, kind, place }
}

/// In the order in which they are attached: those that keep account before those that judge by it, so
/// that none of what is judged goes missing.
pub(crate) const ATTACHMENTS: [Attachment; 18] = [
    at(Place::Workload, "portreeve_sock_release", attach_type::SOCK_RELEASE),
    at(Place::Workload, "portreeve_post_bind4", attach_type::POST_BIND4),
    at(Place::Workload, "portreeve_post_bind6", attach_type::POST_BIND6),
    at(Place::JoinedWorkload, "portreeve_setsockopt", attach_type::SETSOCKOPT),
    at(Place::JoinedProxy, "portreeve_setsockopt_proxy", attach_type::SETSOCKOPT),
    at(Place::JoinedProxy, "portreeve_sock_ops_proxy", attach_type::SOCK_OPS),
    at(Place::Workload, "portreeve_sock_ops", attach_type::SOCK_OPS),
    at(Place::Workload, "portreeve_getpeername4", attach_type::GETPEERNAME4),
    at(Place::Workload, "portreeve_getpeername6", attach_type::GETPEERNAME6),
    at(Place::Workload, "portreeve_recvmsg4", attach_type::RECVMSG4),
    at(Place::Workload, "portreeve_recvmsg6", attach_type::RECVMSG6),
    at(Place::Proxy, "portreeve_getsockopt", attach_type::GETSOCKOPT),
    at(Place::Workload, "portreeve_sendmsg4", attach_type::SENDMSG4),
    at(Place::Workload, "portreeve_sendmsg6", attach_type::SENDMSG6),
    at(Place::Workload, "portreeve_connect4", attach_type::CONNECT4),
    at(Place::Workload, "portreeve_connect6", attach_type::CONNECT6),
    at(Place::Workload, "portreeve_sock_create", attach_type::SOCK_CREATE),
    at(Place::Namespace, "portreeve_sk_lookup", attach_type::SK_LOOKUP),
];

/// Whether a program is part of what was asked for.
pub(crate) fn is_wanted(attachment: &Attachment, settings: &Settings) -> bool {
    match attachment.place {
        Place::Workload => true,
        Place::Proxy => matches!(settings.outbound, Outbound::Foreign { .. }),
        Place::JoinedWorkload | Place::JoinedProxy => settings.join_sockets,
        Place::Namespace => settings.inbound,
    }
}

/// All maps that are pinned.
pub(crate) const MAPS: [&str; 17] = [
    "POLICY", "CONFIG", "SERVICES", "SLOTS", "BACKENDS", "AFFINITY", "REVERSE", "SOCKETS", "FLOWS",
    "PORTS", "EXEMPT", LISTENERS, "REPLIES", "EVENTS", "COUNTERS", JOINED, "JOINS",
];

const LISTENERS: &str = "LISTENERS";

/// Brings maps and programs into the kernel: maps that are pinned are taken as they are, others are made
/// and pinned; nothing is attached.
pub(crate) fn load(folder: &Folder, settings: &Settings) -> Result<Programs, SetupError> {
    pin_listeners(&folder.map(LISTENERS), ListenerSlot::COUNT)?;
    let mut loader = EbpfLoader::new();
    for map in MAPS {
        loader.map_pin_path(map, folder.map(map));
    }
    for (map, entries) in settings.capacity.by_map() {
        loader.map_max_entries(map, entries);
    }
    let layout = if settings.join_sockets { Some(join::kernel_words()?) } else { None };
    if let Some(layout) = &layout {
        loader.override_global(join::KERNEL, layout, true);
    }
    let object = loader.load(OBJECT).map_err(maps_refused)?;
    let mut programs = Programs { object };
    for attachment in ATTACHMENTS.iter().filter(|attachment| is_wanted(attachment, settings)) {
        programs.load(attachment.program)?;
    }
    if settings.join_sockets {
        for (program, _) in join::PROGRAMS {
            programs.load(program)?;
        }
    }
    Ok(programs)
}

/// The map of listeners is made here, because its values are 8 bytes: the kernel tells about sockets in
/// it only then.
pub(crate) fn pin_listeners(path: &Path, slots: u32) -> Result<(), SetupError> {
    if path.exists() {
        return Ok(());
    }
    Table::<u32, u64>::create(LISTENERS, map_kind::SOCKMAP, slots, 0)
        .and_then(|map| crate::sys::object_pin(map.as_fd(), path))
        .map_err(|error| SetupError::Maps {
            kernel: kernel(),
            reason: format!("{LISTENERS}: {error}"),
            hint: load_hint(Some(error.kind())),
        })
}

/// Loaded programs.
pub(crate) struct Programs {
    object: Ebpf,
}

impl Programs {
    fn load(&mut self, name: &'static str) -> Result<(), SetupError> {
        let refused = |reason, kind| refused(name, reason, kind);
        let Some(program) = self.object.program_mut(name) else {
            return Err(refused("there is none of this name".to_owned(), None));
        };
        let loaded = match program {
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::SkMsg(program) => program.load(),
            Program::SkSkb(program) => program.load(),
            other => {
                return Err(refused(format!("{:?} is of another kind", other.prog_type()), None));
            }
        };
        loaded.map_err(|error| load_refused(name, &error))
    }

    /// A program that was loaded.
    pub(crate) fn descriptor(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
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

/// The kernel has not taken a program.
pub(crate) fn load_refused(name: &str, error: &ProgramError) -> SetupError {
    let kind = match error {
        ProgramError::LoadError { io_error, .. } => Some(io_error.kind()),
        ProgramError::SyscallError(call) => Some(call.io_error.kind()),
        _ => None,
    };
    refused(name, shortened(error), kind)
}

/// A program that this version needs, and the object does not have.
pub(crate) fn load_absent(name: &str) -> SetupError {
    refused(name, "it is not in the object".to_owned(), None)
}

fn refused(name: &str, reason: String, kind: Option<io::ErrorKind>) -> SetupError {
    let (program, kernel) = (name.to_owned(), kernel());
    SetupError::Load { program, kernel, reason, hint: load_hint(kind) }
}

pub(crate) fn maps_refused(error: EbpfError) -> SetupError {
    let kind = match &error {
        EbpfError::MapError(AyaMapError::CreateError { io_error, .. }) => Some(io_error.kind()),
        _ => None,
    };
    SetupError::Maps { kernel: kernel(), reason: chain(&error), hint: load_hint(kind) }
}

/// The verifier tells the reason at the end of what can be thousands of lines.
fn shortened(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    let log = verifier_log.to_string();
    let told = log.lines().filter(|line| !line.trim().is_empty() && !is_statistics(line));
    let lines: Vec<_> = told.collect();
    let end = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("; ");
    if end.is_empty() { io_error.to_string() } else { format!("{io_error} ({end})") }
}

fn is_statistics(line: &str) -> bool {
    ["verification time", "stack depth", "processed "].iter().any(|start| line.starts_with(start))
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// This thread's network namespace, to attach to.
pub(crate) fn namespace() -> Result<File, SetupError> {
    File::open(OWN_NAMESPACE).map_err(SetupError::file("can't open", OWN_NAMESPACE))
}

pub(crate) const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
const VERIFIER_LINES: usize = 3;

pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/object/portreeve.bpf.o"));
