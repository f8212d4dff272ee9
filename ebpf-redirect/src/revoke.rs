//! Connections that a new policy no longer allows as they are. The programs judge what is opened; what is
//! open already never comes by them again, so it is looked for, and ended.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use portreeve_ebpf_common::{Direction, Verdict, protocol};

use crate::policy::PolicyTable;
use crate::sock_diag::{LISTEN, SockDiag, Socket};

/// Whose connections are looked at.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    /// The workload's cgroup; those below it belong to it.
    pub(crate) cgroup: &'a Path,
    /// Where the proxy listens: what goes there is the proxy's to judge.
    pub(crate) proxy: &'a [SocketAddr],
    /// Connections to the workload are judged, too.
    pub(crate) inbound: bool,
    /// Loopback is not judged.
    pub(crate) loopback_is_own: bool,
}

/// Ends every connection of the workload that goes by the proxy's side although this policy denies it, or
/// wants it read. Returns how many.
///
/// # Errors
/// When sockets can't be listed, or one can't be ended; the others are.
pub(crate) fn revoke(scope: &Scope<'_>, policy: &PolicyTable) -> io::Result<usize> {
    let diag = SockDiag::open()?;
    let cgroups = cgroups(scope.cgroup);
    let (mut ended, mut failed) = (0, None);
    for number in [protocol::TCP, protocol::UDP] {
        let sockets = diag.sockets(number)?;
        let connections = Connections::of(&sockets, &cgroups);
        for socket in sockets.iter().filter(|socket| !connections.may_stay(socket, scope, policy)) {
            match diag.destroy(socket) {
                Ok(()) => ended += 1,
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(ended), Err)
}

/// The cgroup's number and those of all below it.
fn cgroups(root: &Path) -> HashSet<u64> {
    let mut found: HashSet<u64> = fs::metadata(root).map(|meta| meta.ino()).into_iter().collect();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(cgroups(&entry.path()));
        }
    }
    found
}

/// The sockets of one protocol.
struct Connections<'a> {
    cgroups: &'a HashSet<u64>,
    /// Ports that the workload listens on.
    listening: HashSet<u16>,
    /// Both ends of connections that this process has.
    own: HashMap<(SocketAddr, SocketAddr), u32>,
}

impl<'a> Connections<'a> {
    fn of(sockets: &[Socket], cgroups: &'a HashSet<u64>) -> Self {
        let workload = |socket: &&Socket| cgroups.contains(&socket.cgroup);
        let listening = sockets.iter().filter(workload).filter(|socket| socket.state == LISTEN);
        let files = own_sockets();
        let own = sockets.iter().filter(|socket| files.contains(&socket.inode));
        Self {
            cgroups,
            listening: listening.map(|socket| socket.local.port()).collect(),
            own: own.map(|socket| ((socket.local, socket.remote), socket.inode)).collect(),
        }
    }

    fn may_stay(&self, socket: &Socket, scope: &Scope<'_>, policy: &PolicyTable) -> bool {
        let Socket { local, remote, protocol, state, .. } = *socket;
        if state == LISTEN || remote.port() == 0 || !self.cgroups.contains(&socket.cgroup) {
            return true;
        }
        let with_proxy = scope.proxy.contains(&remote) || self.own.contains_key(&(remote, local));
        if with_proxy || (scope.loopback_is_own && remote.ip().is_loopback()) {
            return true;
        }
        let opened_to_it = protocol == protocol::TCP && self.listening.contains(&local.port());
        if opened_to_it && !scope.inbound {
            return true;
        }
        let (direction, port) = match opened_to_it {
            true => (Direction::Ingress, local.port()),
            false => (Direction::Egress, remote.port()),
        };
        policy.lookup(direction, remote.ip(), protocol, port).verdict == Verdict::Allow
    }
}

/// The inodes of this process's sockets.
fn own_sockets() -> HashSet<u32> {
    let files = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    let inode =
        |target: &Path| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    targets.filter_map(|target| inode(&target)).collect()
}
