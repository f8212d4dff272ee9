//! What programs tell: events one by one, and counters.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use portreeve_ebpf_common::{Counter, Event};
use serde::Serialize;

use crate::instance::Folder;
use crate::table::read;

/// Events that nobody has read yet. There is one reader: what it takes is gone for others.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn open(folder: &Folder) -> io::Result<Self> {
        let map = MapData::from_pin(folder.map("EVENTS")).map_err(io::Error::other)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(io::Error::other)?;
        Ok(Self { ring })
    }

    /// The oldest event, if there is one; the descriptor is readable when there is another.
    #[expect(clippy::should_implement_trait, reason = "none now does not mean none later")]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            // Of another length there is none: the layout was compared before the programs were loaded.
            if let Some(event) = read(&self.ring.next()?) {
                return Some(event);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// What has been counted since the instance was made, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections and datagrams of the workload that went straight out.
    pub egress_allowed: u64,
    /// Refused.
    pub egress_denied: u64,
    /// Turned to the proxy.
    pub egress_redirected: u64,
    /// Connections and datagrams to the workload that were let in.
    pub ingress_allowed: u64,
    /// Refused.
    pub ingress_denied: u64,
    /// Turned to the proxy.
    pub ingress_redirected: u64,
    /// Events that found no room.
    pub events_lost: u64,
    /// Sent to a backend of a service.
    pub service_translated: u64,
    /// Refused because a map had no room for what has to be kept.
    pub map_full: u64,
    /// Sockets of other kinds that were refused.
    pub sockets_refused: u64,
    /// Messages that went from socket to socket.
    pub messages_joined: u64,
}

impl Counters {
    pub(crate) fn read(folder: &Folder) -> io::Result<Self> {
        let map = MapData::from_pin(folder.map("COUNTERS")).map_err(io::Error::other)?;
        let counters: PerCpuArray<_, u64> =
            Map::PerCpuArray(map).try_into().map_err(io::Error::other)?;
        let sum = |counter: Counter| {
            let values = counters.get(&(counter as u32), 0).map_err(io::Error::other)?;
            Ok::<_, io::Error>(values.iter().sum())
        };
        Ok(Self {
            egress_allowed: sum(Counter::EgressAllowed)?,
            egress_denied: sum(Counter::EgressDenied)?,
            egress_redirected: sum(Counter::EgressRedirected)?,
            ingress_allowed: sum(Counter::IngressAllowed)?,
            ingress_denied: sum(Counter::IngressDenied)?,
            ingress_redirected: sum(Counter::IngressRedirected)?,
            events_lost: sum(Counter::EventsLost)?,
            service_translated: sum(Counter::ServiceTranslated)?,
            map_full: sum(Counter::MapFull)?,
            sockets_refused: sum(Counter::SocketsRefused)?,
            messages_joined: sum(Counter::MessagesJoined)?,
        })
    }
}
