//! Who is where: what resolving a policy needs to know of the world around a workload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::endpoint::Peer;
use crate::label::Labels;

/// Peers, services and DNS names, as somebody who watches them reports them.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Who has which addresses.
    pub peers: Vec<Peer>,
    /// What `toServices` refers to.
    pub services: Vec<Service>,
    /// What `toFQDNs` refers to.
    pub names: Names,
    /// Identities that nobody has: to ask what would be if somebody had them.
    pub hypothetical: Vec<Labels>,
}

impl From<Vec<Peer>> for Directory {
    fn from(peers: Vec<Peer>) -> Self {
        Self { peers, ..Self::default() }
    }
}

/// A Kubernetes service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its own labels, for `k8sServiceSelector`.
    pub labels: Labels,
    /// The labels of its pods. Empty: it has none, and `backends` say what stands behind it.
    pub selector: BTreeMap<String, String>,
    /// The addresses behind a service without selector. They never select pods.
    pub backends: Vec<IpAddr>,
}

/// Which names stand for which addresses, as learnt from the DNS answers that a workload got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    by_address: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl Names {
    /// An answer: `name` stands for `addresses`, beside what it stood for before. Returns whether
    /// anything was new.
    pub fn learn(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let name = canonical(name);
        let mut new = false;
        for address in addresses {
            new |= self.by_address.entry(address).or_default().insert(name.clone());
        }
        new
    }

    /// An answer's time is over: `name` no longer stands for `addresses`. Returns whether anything
    /// was forgotten.
    pub fn forget(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let name = canonical(name);
        let mut forgotten = false;
        for address in addresses {
            if let Some(names) = self.by_address.get_mut(&address) {
                forgotten |= names.remove(&name);
                if names.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        forgotten
    }

    /// Every address and the names that stand for it: lower case, without the final dot.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Vec<String>)> {
        self.by_address.iter().map(|(address, names)| (*address, names.iter().cloned().collect()))
    }

    /// The names that stand for a prefix: for one address, that is.
    pub(crate) fn of_prefix(&self, prefix: IpNet) -> Vec<String> {
        match prefix.prefix_len() == prefix.max_prefix_len() {
            true => self.of(prefix.addr()),
            false => Vec::new(),
        }
    }

    /// The names that stand for an address.
    pub(crate) fn of(&self, address: IpAddr) -> Vec<String> {
        self.by_address.get(&address).map(|n| n.iter().cloned().collect()).unwrap_or_default()
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
