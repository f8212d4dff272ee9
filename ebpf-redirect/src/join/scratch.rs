//! The programs that join sockets, with maps of their own and nothing attached to any cgroup: pairs of
//! loopback sockets are enrolled by hand. What the self-test and tests play with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya::maps::Map;
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use portreeve_ebpf_common::{JoinKey, JoinState, KernelLayout};

use super::repair::sequences;
use super::{KERNEL, PROGRAMS, words};
use crate::address::endpoint;
use crate::programs::{OBJECT, chain};
use crate::sys;
use crate::table::Table;

/// Programs and maps.
pub(super) struct Scratch {
    joined: Table<JoinKey, u32>,
    joins: Table<JoinKey, JoinState>,
    listener: TcpListener,
    _object: Ebpf,
}

impl Scratch {
    /// Loads the programs. An error says why that can't be done.
    pub(super) fn load(layout: &KernelLayout) -> Result<Self, String> {
        let mut loader = EbpfLoader::new();
        let layout = words(layout);
        loader.override_global(KERNEL, &layout, true);
        // What these programs don't use takes no memory.
        for map in ["AFFINITY", "REVERSE", "REPLIES"] {
            loader.map_max_entries(map, 1);
        }
        let mut object = loader.load(OBJECT).map_err(|error| chain(&error))?;
        let joined = map(&object, "JOINED").map_err(|error| error.to_string())?;
        for (name, kind) in PROGRAMS {
            attach(&mut object, name, kind, &joined)?;
        }
        let parts = || {
            let joins = Table::new(map(&object, "JOINS")?)?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            io::Result::Ok((Table::new(joined)?, joins, listener))
        };
        let (joined, joins, listener) = parts().map_err(|error| error.to_string())?;
        Ok(Self { joined, joins, listener, _object: object })
    }

    /// Two ends of a connection, both enrolled.
    pub(super) fn pair(&self) -> io::Result<(TcpStream, TcpStream)> {
        let (client, server) = self.plain_pair()?;
        self.enrol(&client)?;
        self.enrol(&server)?;
        Ok((client, server))
    }

    /// Two ends of a connection that is like others.
    pub(super) fn plain_pair(&self) -> io::Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect(self.listener.local_addr()?)?;
        let (server, _) = self.listener.accept()?;
        Ok((client, server))
    }

    /// Enrols a socket as programs do when it is connected.
    pub(super) fn enrol(&self, socket: &TcpStream) -> io::Result<()> {
        self.enrol_before(socket, || Ok(()))
    }

    /// Enrols a socket as of before something was sent over TCP.
    pub(super) fn enrol_before(
        &self,
        socket: &TcpStream,
        send: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let (first, next) = sequences(socket.as_fd())?;
        let state = JoinState::new(first, next);
        send()?;
        self.put(socket, &state)
    }

    fn put(&self, socket: &TcpStream, state: &JoinState) -> io::Result<()> {
        let key = key(socket)?;
        self.joins.put(&key, state)?;
        self.joined.put(&key, &socket.as_raw_fd().unsigned_abs())
    }

    /// Forgets both ends of a connection that is over, as programs do.
    #[cfg(test)]
    pub(super) fn forget(&self, socket: &JoinKey) -> io::Result<()> {
        self.joins.remove(socket)?;
        self.joins.remove(&socket.other_end())
    }

    /// What is kept of a socket that was enrolled.
    pub(super) fn state(&self, socket: &JoinKey) -> io::Result<JoinState> {
        self.joins.get(socket)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A connected socket as it sees itself.
pub(super) fn key(socket: &TcpStream) -> io::Result<JoinKey> {
    let end = |address: SocketAddr| endpoint(address);
    Ok(JoinKey { own: end(socket.local_addr()?), peer: end(socket.peer_addr()?) })
}

fn map(object: &Ebpf, name: &str) -> io::Result<OwnedFd> {
    match object.map(name) {
        Some(Map::SockHash(map) | Map::HashMap(map)) => map.fd().as_fd().try_clone_to_owned(),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn attach(object: &mut Ebpf, name: &str, kind: u32, map: &OwnedFd) -> Result<(), String> {
    let program =
        object.program_mut(name).ok_or_else(|| format!("there is no program `{name}`"))?;
    let loaded = match program {
        Program::SkMsg(program) => program.load(),
        Program::SkSkb(program) => program.load(),
        _ => return Err(format!("`{name}` is of another kind")),
    };
    loaded.map_err(|error| chain(&error))?;
    let descriptor = program.fd().map_err(|error| chain(&error))?;
    sys::program_attach(descriptor.as_fd(), map.as_fd(), kind).map_err(|error| error.to_string())
}
