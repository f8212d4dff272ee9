//! What one endpoint may use of the proxy that it shares with the others.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

/// Bounds of one endpoint, over all workers. The first two hold for what it has as a client and for what it
/// has as a server, each by itself. While more than half of either is taken, one client address may have no
/// more than a quarter of what a server has, and one connection hold no more than an eighth of the bytes;
/// but 64 connections, and 128 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Connections at once; beyond it new ones are reset. Default 8,192: a busy workload has hundreds, and
    /// three that misbehave in both roles leave room under
    /// [`Limits::connections`](crate::Limits::connections).
    pub connections: usize,
    /// Bytes that the proxy holds for its connections: what one side has sent and the other has not
    /// taken, denials that wait for their turn, and what the log will say of requests under way. A
    /// connection that would hold more is reset. Default 64 MiB: a thousand slow readers with what a read
    /// brings.
    pub buffered_bytes: usize,
    /// What it gets of a busy worker's time, in proportion to the others' shares. Default 100. What
    /// nobody else wants anyone may have.
    pub cpu_share: u32,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self { connections: 8192, buffered_bytes: 64 * 1024 * 1024, cpu_share: 100 }
    }
}

/// While more than half of a limit is taken, one client address may have no more than a quarter of it, and
/// one connection hold no more than an eighth: who has most finds the door closed, and not who comes next.
/// Nobody is bounded as long as there is room, since many clients may be behind one address.
const CROWDED: usize = 2;
const FOR_AN_ADDRESS: usize = 4;
const FOR_A_CONNECTION: usize = 8;

/// Connections that an address may always have, and bytes that a connection may always hold, as far as the
/// limit itself goes: small limits are not to be cut into pieces that are good for nothing. Bytes: what a
/// read brings, each way.
const CONNECTIONS_AT_LEAST: usize = 64;
const BYTES_AT_LEAST: usize = 128 * 1024;

/// Client addresses are told apart by so many numbers. Two that have the same one are counted as one, which
/// only matters to somebody in a crowd who shares it with one who has a quarter of everything.
const ADDRESSES: usize = 512;

/// Nobody may choose an address that shares another's number.
static NUMBERS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What an endpoint is in a connection. Its limits hold for each of the two by itself: strangers that use
/// up what it has as a server do not take its own connections away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    /// Of the client with this address, in its canonical form.
    Server(IpAddr),
}

/// Where a connection is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    OfClient,
    /// With the number of the client's address.
    OfServer(u16),
}

impl From<Role> for Account {
    fn from(role: Role) -> Self {
        match role {
            Role::Client => Self::OfClient,
            Role::Server(client) => {
                let number = NUMBERS.hash_one(client) % ADDRESSES as u64;
                Self::OfServer(u16::try_from(number).unwrap_or_default())
            }
        }
    }
}

/// How much of it is used.
#[derive(Debug)]
pub(crate) struct Quota {
    as_client: Used,
    as_server: Used,
    /// The second once more, by the number of the client's address; made for the first connection.
    by_address: OnceLock<Box<[Used]>>,
    most_connections: AtomicUsize,
    most_buffered: AtomicUsize,
    cpu_share: AtomicU32,
}

#[derive(Debug, Default)]
struct Used {
    connections: AtomicUsize,
    buffered: AtomicUsize,
}

impl Quota {
    pub(crate) fn new(limits: &EndpointLimits) -> Self {
        let quota = Self {
            as_client: Used::default(),
            as_server: Used::default(),
            by_address: OnceLock::new(),
            most_connections: AtomicUsize::new(0),
            most_buffered: AtomicUsize::new(0),
            cpu_share: AtomicU32::new(0),
        };
        quota.limit(limits);
        quota
    }

    /// Other bounds from now on. What is over them stays.
    pub(super) fn limit(&self, limits: &EndpointLimits) {
        self.most_connections.store(limits.connections, Ordering::Relaxed);
        self.most_buffered.store(limits.buffered_bytes, Ordering::Relaxed);
        self.cpu_share.store(limits.cpu_share.max(1), Ordering::Relaxed);
    }

    /// Takes the place of one connection, if there is one left for it.
    pub(crate) fn enter(&self, account: Account) -> bool {
        let most = self.most_connections.load(Ordering::Relaxed);
        let (all, of_address) = self.used(account);
        let add = |used: &Used| used.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let (all, of_address) = (add(all), of_address.map_or(0, add));
        let fair = (most / FOR_AN_ADDRESS).max(CONNECTIONS_AT_LEAST);
        let enters = all <= most && (all <= most / CROWDED || of_address <= fair);
        if !enters {
            self.leave(account);
        }
        enters
    }

    /// Gives it back.
    pub(crate) fn leave(&self, account: Account) {
        let (all, of_address) = self.used(account);
        for used in [Some(all), of_address].into_iter().flatten() {
            used.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A connection that held `before` bytes holds `now`. `false`: that is more than there may be.
    pub(crate) fn hold(&self, account: Account, before: usize, now: usize) -> bool {
        let (all, of_address) = self.used(account);
        if now <= before {
            for used in [Some(all), of_address].into_iter().flatten() {
                used.buffered.fetch_sub(before - now, Ordering::Relaxed);
            }
            return true;
        }
        let more = now - before;
        let add = |used: &Used| used.buffered.fetch_add(more, Ordering::Relaxed) + more;
        let (all, of_address) = (add(all), of_address.map_or(0, add));
        let most = self.most_buffered.load(Ordering::Relaxed);
        let fair = now <= (most / FOR_A_CONNECTION).max(BYTES_AT_LEAST)
            && of_address <= (most / FOR_AN_ADDRESS).max(BYTES_AT_LEAST);
        all <= most && (all <= most / CROWDED || fair)
    }

    pub(crate) fn cpu_share(&self) -> u32 {
        self.cpu_share.load(Ordering::Relaxed)
    }

    pub(super) fn connections(&self) -> usize {
        let of = |used: &Used| used.connections.load(Ordering::Relaxed);
        of(&self.as_client) + of(&self.as_server)
    }

    pub(crate) fn buffered(&self) -> usize {
        let of = |used: &Used| used.buffered.load(Ordering::Relaxed);
        of(&self.as_client) + of(&self.as_server)
    }

    /// What is used in this role, and of it by this client address.
    fn used(&self, account: Account) -> (&Used, Option<&Used>) {
        match account {
            Account::OfClient => (&self.as_client, None),
            Account::OfServer(number) => {
                let none = || (0..ADDRESSES).map(|_| Used::default()).collect();
                let addresses = self.by_address.get_or_init(none);
                (&self.as_server, addresses.get(usize::from(number)))
            }
        }
    }
}
