//! What the maps hold, as the kernel has it and in the words of who asks: read from the maps each time,
//! whatever this process believes. It takes no lock of who changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portreeve_ebpf_common::node::{NodePolicyKey, TrackKey, Tracked};
use portreeve_ebpf_common::{Direction, Endpoint, PolicyValue, Verdict};

use super::error::NodeError;
use super::kernel::NodeKernel;
use crate::address::ip;
use crate::error::MapError;

/// The policy of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyContents {
    /// Whose.
    pub endpoint: u32,
    /// The number that the kernel tells it from the next one by.
    pub revision: u32,
    /// By class: which way, and who is in it; `None`: everybody of whom the policy does not speak.
    classes: BTreeMap<u32, (Way, Vec<Option<u32>>)>,
    /// By class.
    ports: BTreeMap<u32, Vec<PortEntry>>,
}

/// Egress comes first.
type Way = u8;

/// What some may do at some ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The IP protocol; `None`: every one that has no entry of its own.
    pub protocol: Option<u8>,
    /// The first port; of ICMP, the first type.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// What happens.
    pub verdict: Verdict,
    /// The index of the rule that says so.
    pub rule: Option<u32>,
}

/// One row of a policy: one peer, and one entry about ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRow {
    /// As the endpoint sees it.
    pub direction: Direction,
    /// Who; `None`: everybody of whom the policy does not speak.
    pub identity: Option<u32>,
    /// What.
    pub entry: PortEntry,
}

impl PolicyContents {
    /// From the entries of a trie.
    fn new(endpoint: u32, entries: &[(NodePolicyKey, PolicyValue)]) -> Self {
        let mut contents = Self { endpoint, ..Self::default() };
        for (key, value) in entries {
            contents.take(*key, *value);
        }
        for (_, identities) in contents.classes.values_mut() {
            // Those that are named come first.
            identities.sort_unstable_by_key(|identity| identity.unwrap_or(u32::MAX));
        }
        for ports in contents.ports.values_mut() {
            ports.sort_unstable_by_key(|entry| {
                (entry.protocol.unwrap_or(u8::MAX), entry.first, entry.last)
            });
        }
        contents
    }

    fn take(&mut self, key: NodePolicyKey, value: PolicyValue) {
        let [kind, second, third] = key.data;
        match (kind, key) {
            (_, NodePolicyKey::HEADER) => self.revision = value.0[0],
            (_, NodePolicyKey::OTHERS) => self.know(value, None),
            (kind, key) if kind == NodePolicyKey::OTHERS.data[0] => {
                self.know(value, Some(u32::from_be(key.data[1])));
            }
            _ => {
                let [protocol, high, low, _] = third.to_ne_bytes();
                let port = u16::from_be_bytes([high, low]);
                let class = NodePolicyKey::other_protocols(0).prefix_len;
                let wild = match key.prefix_len.checked_sub(class + 8) {
                    // It ends behind the class.
                    None => u16::MAX,
                    Some(bits) => u16::MAX.checked_shr(bits).unwrap_or(0),
                };
                self.ports.entry(u32::from_be(second)).or_default().push(PortEntry {
                    protocol: (key.prefix_len > class).then_some(protocol),
                    first: port,
                    last: port | wild,
                    verdict: value.as_verdict(),
                    rule: value.0[1].checked_sub(1),
                });
            }
        }
    }

    fn know(&mut self, value: PolicyValue, identity: Option<u32>) {
        for direction in [Direction::Egress, Direction::Ingress] {
            let class = self.classes.entry(value.class(direction));
            class.or_insert_with(|| (direction as Way, Vec::new())).1.push(identity);
        }
    }

    /// All of it, a row for each peer and entry. Who has no row may do nothing.
    pub fn rows(&self) -> impl Iterator<Item = PolicyRow> {
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(class, (way, _))| (*way, **class));
        classes.into_iter().flat_map(move |(class, (way, identities))| {
            let direction = if *way == Direction::Egress as Way {
                Direction::Egress
            } else {
                Direction::Ingress
            };
            let entries = self.ports.get(class).map_or(&[][..], Vec::as_slice);
            identities.iter().flat_map(move |identity| {
                let row = move |entry: &PortEntry| PolicyRow {
                    direction,
                    identity: *identity,
                    entry: *entry,
                };
                entries.iter().map(row)
            })
        })
    }
}

/// What clients may ask for, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceContents {
    /// The address and port.
    pub frontend: SocketAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// It is what those outside ask for.
    pub external: bool,
    /// Those who get new connections; none: they are refused.
    pub backends: BTreeSet<SocketAddr>,
}

/// All services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancerContents {
    /// In the order of their addresses.
    pub services: Vec<ServiceContents>,
    /// Those who keep what they have, and get nothing new.
    pub draining: BTreeSet<SocketAddr>,
}

impl NodeKernel {
    /// The policies of everybody, or of one endpoint.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn policy_contents(&self, of: Option<u32>) -> Result<Vec<PolicyContents>, NodeError> {
        let mut endpoints = self.maps.policies.endpoints()?;
        endpoints.sort_unstable();
        endpoints.retain(|endpoint| of.is_none_or(|of| of == *endpoint));
        let mut all = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            // One that goes meanwhile has none.
            if let Some(entries) = self.maps.policies.entries(endpoint)? {
                all.push(PolicyContents::new(endpoint, &entries));
            }
        }
        Ok(all)
    }

    /// Who has which prefix, in order.
    ///
    /// # Errors
    /// When maps can't be read.
    pub fn identity_contents(&self) -> Result<BTreeMap<IpNet, u32>, NodeError> {
        Ok(self.maps.identities.contents()?)
    }

    /// Connections that are kept track of, of everybody or of one endpoint: as many as `limit`, and how many
    /// there are.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn track_contents(
        &self,
        of: Option<u32>,
        limit: usize,
    ) -> Result<(Vec<(TrackKey, Tracked)>, usize), NodeError> {
        let is_wanted = |key: &TrackKey| of.is_none_or(|of| of == key.endpoint);
        let some = self.maps.tracked.some(limit, is_wanted);
        Ok(some.map_err(MapError::system("can't read", "TRACKED"))?)
    }

    /// Services and who answers for them.
    ///
    /// # Errors
    /// When maps can't be read.
    pub fn balancer_contents(&self) -> Result<BalancerContents, NodeError> {
        let (services, slots, backends) = self.maps.services.contents()?;
        let place = |at: &Endpoint| {
            SocketAddr::new(ip(at.address), u16::try_from(at.port).unwrap_or_default())
        };
        let known: BTreeMap<u32, SocketAddr> =
            backends.iter().map(|(number, backend)| (*number, place(&backend.endpoint))).collect();
        let mut of_table: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (key, slot) in slots {
            let chosen = of_table.entry(key.table).or_default();
            chosen.insert(slot.other);
            if slot.threshold > 0 {
                chosen.insert(slot.backend);
            }
        }
        let mut services: Vec<_> = services
            .into_iter()
            .map(|(key, service)| ServiceContents {
                frontend: place(&key.frontend),
                protocol: (key.protocol & 0xff) as u8,
                external: key.is_external(),
                backends: match of_table.get(&service.table) {
                    Some(chosen) if service.slots > 0 => {
                        chosen.iter().filter_map(|number| known.get(number).copied()).collect()
                    }
                    _ => BTreeSet::new(),
                },
            })
            .collect();
        services.sort_by_key(|service| (service.frontend, service.protocol, service.external));
        let draining = backends.iter().filter(|(_, backend)| backend.draining != 0);
        let draining = draining.map(|(_, backend)| place(&backend.endpoint)).collect();
        Ok(BalancerContents { services, draining })
    }
}

/// The prefix of an entry.
pub(super) fn prefix(address: IpAddr, bits: u32) -> Option<IpNet> {
    let bits = match address {
        IpAddr::V4(_) => bits.checked_sub(96)?,
        IpAddr::V6(_) => bits,
    };
    IpNet::new(address, u8::try_from(bits).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: Option<u8>, first: u16, last: u16, verdict: Verdict) -> PortEntry {
        PortEntry { protocol, first, last, verdict, rule: None }
    }

    #[test]
    fn a_trie_is_told_peer_by_peer_and_port_by_port() {
        let (client, server) = (7, 1 << 31 | 9);
        let allow = PolicyValue::verdict(Verdict::Allow, 0);
        let entries = [
            (NodePolicyKey::HEADER, PolicyValue::header(41, false, true)),
            (NodePolicyKey::OTHERS, PolicyValue::identity(0, 1, 2)),
            (NodePolicyKey::identity(300), PolicyValue::identity(300, client, server)),
            (NodePolicyKey::identity(256), PolicyValue::identity(256, client, server)),
            (NodePolicyKey::other_protocols(client), allow),
            (NodePolicyKey::port(server, 6, 8080, 16), PolicyValue::verdict(Verdict::Inspect, 3)),
            (NodePolicyKey::port(server, 17, 64, 10), allow),
            (NodePolicyKey::port(2, 6, 0, 0), PolicyValue::verdict(Verdict::Deny, 1)),
        ];
        let contents = PolicyContents::new(5, &entries);
        assert_eq!((contents.endpoint, contents.revision), (5, 41));
        let inspected = PortEntry { rule: Some(2), ..entry(Some(6), 8080, 8080, Verdict::Inspect) };
        let denied = PortEntry { rule: Some(0), ..entry(Some(6), 0, u16::MAX, Verdict::Deny) };
        let any = entry(None, 0, u16::MAX, Verdict::Allow);
        let some = entry(Some(17), 64, 127, Verdict::Allow);
        let rows: Vec<_> = contents.rows().collect();
        let row = |direction, identity, entry| PolicyRow { direction, identity, entry };
        assert_eq!(
            rows,
            [
                row(Direction::Egress, Some(256), any),
                row(Direction::Egress, Some(300), any),
                row(Direction::Ingress, None, denied),
                row(Direction::Ingress, Some(256), inspected),
                row(Direction::Ingress, Some(256), some),
                row(Direction::Ingress, Some(300), inspected),
                row(Direction::Ingress, Some(300), some),
            ]
        );
    }

    #[test]
    fn a_prefix_of_ipv4_is_told_as_one() {
        let v4 = prefix([10, 0, 0, 0].into(), 104).map(|prefix| prefix.to_string());
        assert_eq!(v4.as_deref(), Some("10.0.0.0/8"));
        let v6 = prefix("fd00::".parse().expect("an address"), 64);
        assert_eq!(v6.map(|prefix| prefix.to_string()).as_deref(), Some("fd00::/64"));
    }
}
