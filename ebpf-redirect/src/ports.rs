//! Ports that the workload held before anything was attached: no program has seen them bound. Each such
//! socket is marked as programs mark those they see, so that it is counted once, whoever sees it first,
//! and counted off when it is closed.
//!
//! A count that is too high means that policy judges a port it need not; one that is too low, that
//! nobody judges one: where two could write at once, the mistake is the former.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use portreeve_ebpf_common::{PortKey, SocketState, protocol};
use rustix::net::sockopt::{socket_acceptconn, socket_protocol};
use rustix::net::{getpeername, getsockname, ipproto};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::address::endpoint;
use crate::error::MapError;
use crate::maps::Maps;
use crate::sys::namespace_cookie;

/// What a look at the workload's sockets has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Processes whose sockets can't be seen: it takes `CAP_SYS_PTRACE` for those that have more rights,
    /// and those of another PID namespace are not even named.
    pub(crate) unseen: usize,
}

/// Counts the ports that the cgroup's processes hold in the network namespace `namespace`. Programs may
/// count at the same time.
pub(crate) fn scan(maps: &Maps, cgroup: &Path, namespace: u64) -> Result<Scan, MapError> {
    let mut scan = Scan::default();
    let mut seen = BTreeSet::new();
    let mut found: HashMap<PortKey, u32> = HashMap::new();
    for process in processes(cgroup) {
        let sockets = process.ok_or(io::ErrorKind::NotFound.into());
        let Ok(sockets) = sockets.and_then(|process| sockets_of(process, &mut seen)) else {
            scan.unseen += 1;
            continue;
        };
        for socket in sockets {
            if let Some(port) = held(&socket, namespace)
                && claim(maps, &socket, port)?
            {
                *found.entry(port).or_default() += 1;
            }
        }
    }
    for (port, count) in found {
        add(maps, &port, count)?;
    }
    Ok(scan)
}

/// Marks a socket as one that is counted; whether it was not.
fn claim(maps: &Maps, socket: &OwnedFd, port: PortKey) -> Result<bool, MapError> {
    let failed = |error| MapError::system("can't write", "SOCKETS")(error);
    let key = socket.as_raw_fd();
    let state = SocketState { holds_port: 1, bound: port, ..SocketState::default() };
    if maps.sockets.put_new(&key, &state).map_err(failed)? {
        return Ok(true);
    }
    match maps.sockets.get(&key).map_err(failed)? {
        Some(known) if known.holds_port == 0 => {
            maps.sockets
                .put(&key, &SocketState { holds_port: 1, bound: port, ..known })
                .map_err(failed)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn add(maps: &Maps, port: &PortKey, count: u32) -> Result<(), MapError> {
    let failed = |error| MapError::system("can't write", "PORTS")(error);
    if maps.ports.put_new(port, &count).map_err(failed)? {
        return Ok(());
    }
    // A program may count in between, and what it adds be lost: one more makes up for it. What it is
    // just taking away is nobody's.
    let known = maps.ports.get(port).map_err(failed)?.filter(|known| *known < 1 << 31);
    let known = known.unwrap_or(0);
    maps.ports.put(port, &known.saturating_add(count).saturating_add(1)).map_err(failed)
}

/// Processes of a cgroup and of those below it; none for one of a PID namespace that can't be seen from
/// here. What goes away meanwhile, holds no port.
fn processes(cgroup: &Path) -> Vec<Option<Pid>> {
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let numbers = procs.lines().filter_map(|line| line.trim().parse().ok());
    let mut processes: Vec<_> = numbers.map(Pid::from_raw).collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes.extend(self::processes(&entry.path()));
        }
    }
    processes
}

/// A process's sockets that were not seen with another one.
fn sockets_of(process: Pid, seen: &mut BTreeSet<String>) -> io::Result<Vec<OwnedFd>> {
    let folder = format!("/proc/{}/fd", process.as_raw_nonzero());
    let handle = match pidfd_open(process, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(Vec::new()),
        handle => handle?,
    };
    let mut sockets = Vec::new();
    let entries = match fs::read_dir(folder) {
        // The process has ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let Ok(entry) = entry else { continue };
        let target = match fs::read_link(entry.path()) {
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            target => target?,
        };
        let target = target.to_string_lossy().into_owned();
        let number = entry.file_name().to_string_lossy().parse();
        let (true, Ok(number)) = (target.starts_with("socket:"), number) else { continue };
        if seen.contains(&target) {
            continue;
        }
        match pidfd_getfd(handle.as_fd(), number, PidfdGetfdFlags::empty()) {
            Ok(socket) => {
                seen.insert(target);
                sockets.push(socket);
            }
            Err(rustix::io::Errno::BADF | rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sockets)
}

/// The port that a socket holds: TCP that listens, or is bound and may yet; UDP that is bound.
fn held(socket: &OwnedFd, namespace: u64) -> Option<PortKey> {
    if namespace_cookie(socket.as_fd()).ok()? != namespace {
        return None;
    }
    let protocol = match socket_protocol(socket).ok()?? {
        ipproto::TCP => protocol::TCP,
        ipproto::UDP => protocol::UDP,
        _ => return None,
    };
    let local = SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
    let listens = socket_acceptconn(socket).ok()?;
    let is_open = protocol == protocol::UDP || listens || getpeername(socket).is_err();
    (local.port() != 0 && is_open)
        .then(|| PortKey { local: endpoint(local), protocol: u32::from(protocol) })
}
