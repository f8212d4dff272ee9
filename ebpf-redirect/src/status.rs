//! What is set up on this host, seen from outside: by what is pinned, whether a proxy runs or not. And
//! taking it away.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use portreeve_ebpf_common::{
    Config, Direction, Endpoint, LAYOUT, ListenerSlot, PolicyValue, flags,
};
use serde::Serialize;

use crate::attach::pinned;
use crate::events::Counters;
use crate::instance::{Folder, InstanceName};
use crate::join::JOINED;
use crate::maps::{listens, socket_address};
use crate::policy_map::{header, trie_in_force};
use crate::preflight::cgroup2_mount;
use crate::programs::{ATTACHMENTS, Place};
use crate::sys::{self, LinkTarget};
use crate::table::{self, Table};

/// Why an instance can't be looked at or taken away.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// There is none.
    #[error("there is no instance `{instance}` below `{}`", bpffs.display())]
    Unknown {
        /// The name that was asked for.
        instance: InstanceName,
        /// Where it was looked for.
        bpffs: PathBuf,
    },
    /// A file can't be used.
    #[error("instance `{instance}`: {source}")]
    File {
        /// The instance.
        instance: InstanceName,
        /// Why not.
        source: io::Error,
    },
    /// The bpf file system can't be read.
    #[error("can't read `{}`: {source}", bpffs.display())]
    Bpffs {
        /// Where it should be.
        bpffs: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Its name.
    pub instance: InstanceName,
    /// How it is, in short.
    pub condition: Condition,
    /// The workload's cgroup, if it is still there and in sight.
    pub cgroup: Option<PathBuf>,
    /// Its number.
    pub cgroup_id: Option<u64>,
    /// The process that has the instance.
    pub owner: Option<u32>,
    /// The policy in force.
    pub policy: Option<PolicyStatus>,
    /// Where the workload's connections are turned to.
    pub proxy: Vec<SocketAddr>,
    /// The proxy's sockets that listen.
    pub listeners: Vec<&'static str>,
    /// Programs, whether attached or not.
    pub programs: Vec<ProgramStatus>,
    /// Maps, and how full they are.
    pub maps: Vec<MapStatus>,
    /// What has been counted since it was made.
    pub counters: Option<Counters>,
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Policy is carried out, and the proxy listens.
    InForce,
    /// Policy is carried out, and what needs the proxy is refused.
    NoProxy,
    /// Everything is refused.
    NoPolicy,
    /// It was begun, and not all of it is attached.
    HalfBuilt,
    /// The workload's cgroup is no more.
    WorkloadGone,
    /// It was set up by another version.
    OtherVersion,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::InForce => "in force",
            Self::NoProxy => "closed to what the proxy has to read: no proxy listens",
            Self::NoPolicy => "closed: there is no policy",
            Self::HalfBuilt => "half built: start the proxy again, or detach it",
            Self::WorkloadGone => {
                "the workload's cgroup is gone: start the proxy again, or detach it"
            }
            Self::OtherVersion => "set up by another version: detach it",
        })
    }
}

/// The policy in force; what can't be read without `CAP_SYS_ADMIN`, is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// Its revision.
    pub revision: Option<u32>,
    /// Whether it restricts what the workload opens.
    pub egress: Option<bool>,
    /// Whether it restricts what is opened to the workload.
    pub ingress: Option<bool>,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    /// Its name.
    pub program: &'static str,
    /// What its link says.
    pub state: ProgramState,
}

/// Whether a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramState {
    /// It is.
    Attached,
    /// It was, to something that is no more.
    Gone,
    /// It isn't.
    Absent,
}

/// A map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapStatus {
    /// Its name.
    pub map: &'static str,
    /// How many entries it has; none if that can't be known.
    pub entries: Option<usize>,
    /// How many it takes.
    pub capacity: u32,
}

/// All instances below a bpf file system.
///
/// # Errors
/// [`InstanceError::Bpffs`] if it can't be read.
pub fn instances(bpffs: &Path) -> Result<Vec<InstanceStatus>, InstanceError> {
    let folders = Folder::all(bpffs)
        .map_err(|source| InstanceError::Bpffs { bpffs: bpffs.to_owned(), source })?;
    Ok(folders.iter().map(look_at).collect())
}

/// One instance.
///
/// # Errors
/// [`InstanceError::Unknown`] if there is none of this name.
pub fn status(bpffs: &Path, instance: &InstanceName) -> Result<InstanceStatus, InstanceError> {
    existing(bpffs, instance).map(|folder| look_at(&folder))
}

/// What was taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detached {
    /// The instance.
    pub instance: InstanceName,
    /// Programs that were attached.
    pub programs: Vec<String>,
    /// Maps that were pinned.
    pub maps: Vec<String>,
    /// The process that still has the instance: it should be ended, for it redirects nothing any more.
    pub owner: Option<u32>,
}

/// Takes an instance away, whoever has it and however much of it there is: the workload is free, and
/// what was pinned is gone.
///
/// # Errors
/// [`InstanceError`].
pub fn detach(bpffs: &Path, instance: &InstanceName) -> Result<Detached, InstanceError> {
    let folder = existing(bpffs, instance)?;
    let owner = folder.holder();
    let removed = folder
        .remove()
        .map_err(|source| InstanceError::File { instance: instance.clone(), source })?;
    Ok(Detached { instance: instance.clone(), programs: removed.links, maps: removed.maps, owner })
}

fn existing(bpffs: &Path, instance: &InstanceName) -> Result<Folder, InstanceError> {
    let folder = Folder::new(bpffs, instance);
    match folder.exists() {
        true => Ok(folder),
        false => {
            Err(InstanceError::Unknown { instance: instance.clone(), bpffs: bpffs.to_owned() })
        }
    }
}

fn look_at(folder: &Folder) -> InstanceStatus {
    let config = Table::<u32, Config>::open(&folder.map("CONFIG")).and_then(|table| table.get(&0));
    let policy = policy(folder);
    let listeners = listeners(folder);
    let links = links(folder);
    let cgroup_id = links.iter().find_map(|&(_, place, target)| match (place, target) {
        (Place::Workload, Some(LinkTarget::Cgroup(id))) => Some(id),
        _ => None,
    });
    InstanceStatus {
        instance: folder.name().clone(),
        condition: condition(&config, policy.as_ref(), &listeners, &links),
        cgroup: cgroup_id.and_then(cgroup_path),
        cgroup_id,
        owner: folder.holder(),
        policy,
        proxy: config.ok().flatten().map(|config| proxies(&config)).unwrap_or_default(),
        listeners,
        programs: links.iter().map(program).collect(),
        maps: maps(folder),
        counters: Counters::read(folder).ok(),
    }
}

type Link = (&'static str, Place, Option<LinkTarget>);

fn links(folder: &Folder) -> Vec<Link> {
    ATTACHMENTS
        .iter()
        .map(|attachment| {
            let link = pinned(&folder.link(attachment.program)).ok().flatten();
            let target = link.and_then(|link| sys::link_target(link.as_fd()).ok());
            (attachment.program, attachment.place, target)
        })
        .collect()
}

fn program(&(program, _, target): &Link) -> ProgramStatus {
    let state = match target {
        None => ProgramState::Absent,
        Some(LinkTarget::Gone) => ProgramState::Gone,
        Some(_) => ProgramState::Attached,
    };
    ProgramStatus { program, state }
}

fn condition(
    config: &io::Result<Option<Config>>,
    policy: Option<&PolicyStatus>,
    listeners: &[&str],
    links: &[Link],
) -> Condition {
    let workload = || links.iter().filter(|(_, place, _)| *place == Place::Workload);
    let config = match config {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Condition::HalfBuilt,
        Err(_) => return Condition::OtherVersion,
        Ok(None) => return Condition::HalfBuilt,
        Ok(Some(config)) => config,
    };
    let is_foreign = config.flags & flags::FOREIGN_PROXY != 0;
    if config.layout != LAYOUT {
        Condition::OtherVersion
    } else if workload().any(|(_, _, target)| *target == Some(LinkTarget::Gone)) {
        Condition::WorkloadGone
    } else if workload().any(|(_, _, target)| target.is_none()) {
        Condition::HalfBuilt
    } else if policy.is_none() {
        Condition::NoPolicy
    } else if listeners.is_empty() && !is_foreign {
        Condition::NoProxy
    } else {
        Condition::InForce
    }
}

fn policy(folder: &Folder) -> Option<PolicyStatus> {
    let path = folder.map("POLICY");
    let number = Table::<u32, u32>::open(&path).and_then(|outer| outer.get(&0)).ok().flatten();
    number?;
    let header: Option<PolicyValue> = header(&path).ok().flatten();
    Some(PolicyStatus {
        revision: header.map(|header| header.0[0]),
        egress: header.map(|header| header.is_enforced(Direction::Egress)),
        ingress: header.map(|header| header.is_enforced(Direction::Ingress)),
    })
}

fn listeners(folder: &Folder) -> Vec<&'static str> {
    let Ok(table) = Table::<u32, u64>::open(&folder.map("LISTENERS")) else { return Vec::new() };
    SLOTS
        .into_iter()
        .filter(|&(slot, _)| listens(&table, slot) == Some(true))
        .map(|(_, name)| name)
        .collect()
}

fn proxies(config: &Config) -> Vec<SocketAddr> {
    [config.proxy_v4, config.proxy_v6]
        .into_iter()
        .filter(|proxy: &Endpoint| proxy.port != 0)
        .map(socket_address)
        .collect()
}

fn maps(folder: &Folder) -> Vec<MapStatus> {
    let mut maps = Vec::new();
    if let Ok(Some(trie)) = trie_in_force(&folder.map("POLICY")) {
        let entries = table::count(trie.as_fd()).ok();
        maps.push(MapStatus { map: "POLICY", entries, capacity: trie.capacity() });
    }
    for map in COUNTED {
        let Ok(pinned) = sys::object_get(&folder.map(map)) else { continue };
        let Ok(info) = sys::map_info(pinned.as_fd()) else { continue };
        let entries = table::count(pinned.as_fd()).ok();
        maps.push(MapStatus { map, entries, capacity: info.max_entries });
    }
    maps
}

/// Where a cgroup is: its number is its directory's inode.
fn cgroup_path(id: u64) -> Option<PathBuf> {
    let mount = cgroup2_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
    find(&mount.at, id)
}

fn find(folder: &Path, id: u64) -> Option<PathBuf> {
    if fs::metadata(folder).is_ok_and(|file| file.ino() == id) {
        return Some(folder.to_owned());
    }
    let below = fs::read_dir(folder).ok()?.flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| find(&entry.path(), id))
}

const SLOTS: [(ListenerSlot, &str); 4] = [
    (ListenerSlot::InboundV4, "inbound IPv4"),
    (ListenerSlot::InboundV6, "inbound IPv6"),
    (ListenerSlot::OutboundV4, "outbound IPv4"),
    (ListenerSlot::OutboundV6, "outbound IPv6"),
];

/// Maps whose entries can be counted.
const COUNTED: [&str; 10] = [
    "SERVICES", "SLOTS", "BACKENDS", "AFFINITY", "REVERSE", "FLOWS", "PORTS", "EXEMPT", "REPLIES",
    JOINED,
];
