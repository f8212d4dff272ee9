//! A workload's policy as the entries of the kernel's trie, and what a program finds there.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | [`PolicyTable`]: made of an [`EndpointPolicy`], asked as a program asks, compared |
//! | `classes.rs` | numbers for those who are treated alike |
//! | `ports.rs` | spans of ports as prefixes |

pub(crate) mod classes;
pub(crate) mod ports;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portreeve_ebpf_common::{Address, Direction, PolicyKey, PolicyValue, Verdict, protocol};
use portreeve_policy::{Action, ConnectionVerdict, EndpointPolicy, PortSpan, Protocol};

use self::classes::Numbering;
use crate::address::address;

/// All entries of the trie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTable {
    /// By key; no key twice.
    entries: Vec<(PolicyKey, PolicyValue)>,
}

/// What a program finds out about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who the peer is.
    pub identity: u32,
    /// What happens.
    pub verdict: Verdict,
    /// The index of the rule that decided.
    pub rule: Option<u32>,
}

/// One step from a table to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now.
    Put(PolicyKey, PolicyValue),
    /// The key is gone.
    Remove(PolicyKey),
}

/// Protocols that programs judge, as the trie calls them.
const PROTOCOLS: [(Protocol, u8); 2] =
    [(Protocol::Tcp, protocol::TCP), (Protocol::Udp, protocol::UDP)];

/// What a program does with a connection on which the proxy comes to this verdict. One over TCP that an
/// audit would deny goes to the proxy, which lets it pass and tells of it; a kernel could only let it
/// pass.
#[must_use]
pub fn kernel_verdict(protocol: Protocol, verdict: &ConnectionVerdict) -> Verdict {
    match verdict.action {
        Action::Allow if verdict.audited && protocol == Protocol::Tcp => Verdict::Inspect,
        Action::Allow => Verdict::Allow,
        Action::Inspect(_) if protocol == Protocol::Tcp => Verdict::Inspect,
        _ => Verdict::Deny,
    }
}

/// Of a key that comes twice, the last value counts.
impl FromIterator<(PolicyKey, PolicyValue)> for PolicyTable {
    fn from_iter<T: IntoIterator<Item = (PolicyKey, PolicyValue)>>(entries: T) -> Self {
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        Self { entries: entries.into_iter().collect() }
    }
}

impl PolicyTable {
    /// The entries of a policy. `carried_out` says what becomes of a verdict of the engine; it is to
    /// agree with the proxy.
    pub fn new(
        policy: &EndpointPolicy,
        revision: u64,
        carried_out: impl Fn(Protocol, ConnectionVerdict) -> Verdict,
    ) -> Self {
        let numbering = Numbering::new(policy);
        let is_enforced = |direction| policy.is_enforced(classes::engine(direction));
        let header = PolicyValue::header(
            // Programs tell policies apart by it; they don't compare.
            u32::try_from(revision & u64::from(u32::MAX)).unwrap_or_default(),
            is_enforced(Direction::Egress),
            is_enforced(Direction::Ingress),
        );
        let mut entries = vec![(PolicyKey::HEADER, header)];
        entries.extend(policy.addresses().map(|(prefix, who)| {
            let class = |direction| numbering.of(direction, who);
            let (egress, ingress) = (class(Direction::Egress), class(Direction::Ingress));
            (prefix_key(prefix), PolicyValue::identity(who.get(), egress, ingress))
        }));
        for (number, class, classes) in numbering.all() {
            for (name, protocol) in PROTOCOLS {
                let spans = classes.ports(class, name).map(|PortSpan { first, last, verdict }| {
                    let rule = verdict.rule.and_then(|rule| u32::try_from(rule.index() + 1).ok());
                    let value =
                        PolicyValue::verdict(carried_out(name, verdict), rule.unwrap_or_default());
                    (first, last, value)
                });
                ports(&mut entries, number, protocol, spans);
            }
        }
        Self::sorted(entries)
    }

    /// Nobody may do anything.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// For a proxy that judges by itself: it gets every TCP connection that the workload opens, and
    /// everything else passes.
    #[must_use]
    pub fn everything_inspected() -> Self {
        const EGRESS: u32 = 0;
        const INGRESS: u32 = 1;
        let pass = PolicyValue::verdict(Verdict::Allow, 0);
        let inspect = PolicyValue::verdict(Verdict::Inspect, 0);
        Self::sorted(vec![
            (PolicyKey::HEADER, PolicyValue::header(0, false, false)),
            (
                PolicyKey::address(Address::UNSPECIFIED, 0),
                PolicyValue::identity(0, EGRESS, INGRESS),
            ),
            (PolicyKey::port(EGRESS, protocol::TCP, 0, 0), inspect),
            (PolicyKey::port(EGRESS, protocol::UDP, 0, 0), pass),
            (PolicyKey::port(INGRESS, protocol::TCP, 0, 0), pass),
            (PolicyKey::port(INGRESS, protocol::UDP, 0, 0), pass),
        ])
    }

    /// All entries, in the order of their keys.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (PolicyKey, PolicyValue)> {
        self.entries.iter().copied()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none: nobody may do anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a program finds, step by step as it looks: the longest prefix of the address, then the
    /// longest of the port.
    #[must_use]
    pub fn lookup(&self, direction: Direction, peer: IpAddr, protocol: u8, port: u16) -> Answer {
        let closed = Answer { identity: 0, verdict: Verdict::Deny, rule: None };
        let peer = PolicyKey::address(address(peer), PolicyKey::WHOLE_ADDRESS);
        let Some(who) = self.longest(peer) else { return closed };
        let closed = Answer { identity: who.0[0], ..closed };
        let port = PolicyKey::port(who.class(direction), protocol, port, 16);
        let Some(found) = self.longest(port) else { return closed };
        Answer { verdict: found.as_verdict(), rule: found.0[1].checked_sub(1), ..closed }
    }

    /// What turns this table into a newer one. The header, which tells the newer one's revision, comes
    /// last.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> Vec<Change> {
        let (mut changes, mut header) = (Vec::new(), None);
        let mut put = |key, value| match key == PolicyKey::HEADER {
            true => header = Some(Change::Put(key, value)),
            false => changes.push(Change::Put(key, value)),
        };
        let mut removed = Vec::new();
        let (mut old, mut new) = (&self.entries[..], &newer.entries[..]);
        loop {
            let order = match (old.first(), new.first()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            if order.is_le()
                && let Some(((key, value), rest)) = old.split_first()
            {
                old = rest;
                match new.first() {
                    _ if order.is_lt() => removed.push(Change::Remove(*key)),
                    Some((_, newer)) if newer != value => put(*key, *newer),
                    _ => {}
                }
            }
            if order.is_ge()
                && let Some(((key, value), rest)) = new.split_first()
            {
                new = rest;
                if order.is_gt() {
                    put(*key, *value);
                }
            }
        }
        changes.extend(removed);
        changes.extend(header);
        changes
    }

    /// Takes one step.
    pub(crate) fn apply(&mut self, change: Change) {
        let (Change::Put(key, _) | Change::Remove(key)) = change;
        let place = self.entries.binary_search_by_key(&key, |(key, _)| *key);
        match (change, place) {
            (Change::Put(_, value), Ok(place)) => self.entries[place].1 = value,
            (Change::Put(_, value), Err(place)) => self.entries.insert(place, (key, value)),
            (Change::Remove(_), Ok(place)) => drop(self.entries.remove(place)),
            (Change::Remove(_), Err(_)) => {}
        }
    }

    fn sorted(mut entries: Vec<(PolicyKey, PolicyValue)>) -> Self {
        entries.sort_unstable_by_key(|(key, _)| *key);
        Self { entries }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: PolicyKey) -> Option<PolicyValue> {
        let place = self.entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.entries.get(place).map(|(_, value)| *value)
    }

    /// What the kernel's trie answers.
    fn longest(&self, key: PolicyKey) -> Option<PolicyValue> {
        let mut limit = key.prefix_len + 1;
        loop {
            let shorter = self.entries.partition_point(|(own, _)| own.prefix_len < limit);
            let (longest, _) = self.entries.get(shorter.checked_sub(1)?)?;
            limit = longest.prefix_len;
            if let Some(value) = self.get(cut(key, limit)) {
                return Some(value);
            }
        }
    }
}

/// Entries of the ports of a class. What is denied by no rule is left out: a program takes what it does
/// not find for that.
fn ports(
    entries: &mut Vec<(PolicyKey, PolicyValue)>,
    class: u32,
    protocol: u8,
    spans: impl Iterator<Item = (u16, u16, PolicyValue)>,
) {
    let mut merged: Vec<(u16, u16, PolicyValue)> = Vec::new();
    for (first, last, value) in spans {
        match merged.last_mut() {
            Some((_, end, same)) if *same == value => *end = last,
            _ => merged.push((first, last, value)),
        }
    }
    let nothing = PolicyValue::verdict(Verdict::Deny, 0);
    for (first, last, value) in merged.into_iter().filter(|(.., value)| *value != nothing) {
        let prefixes = ports::prefixes(first, last);
        let key = |(port, bits)| (PolicyKey::port(class, protocol, port, bits), value);
        entries.extend(prefixes.map(key));
    }
}

fn prefix_key(prefix: IpNet) -> PolicyKey {
    let bits = u32::from(prefix.prefix_len());
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    PolicyKey::address(address(prefix.network()), mapped + bits)
}

/// The first `bits` bits of a key.
fn cut(key: PolicyKey, bits: u32) -> PolicyKey {
    let mut cut = PolicyKey { prefix_len: bits, ..key };
    for (word, before) in cut.data.iter_mut().zip((0..).step_by(32)) {
        let zeroes = 32 - bits.saturating_sub(before).min(32);
        *word &= u32::MAX.checked_shl(zeroes).unwrap_or_default().to_be();
    }
    cut
}
