//! An endpoint's policy as the entries of the kernel's trie. Who has an address is not in it: that is
//! said once for all endpoints.

use portreeve_ebpf_common::node::{NodePolicyKey, protocol};
use portreeve_ebpf_common::{Direction, PolicyValue, Verdict};
use portreeve_policy::{ConnectionVerdict, EndpointPolicy, Identity, PortSpan, Protocol};

use crate::policy::classes::{Numbering, engine};
use crate::policy::ports;

/// All entries of one endpoint's trie, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePolicyTable {
    entries: Vec<(NodePolicyKey, PolicyValue)>,
}

/// Protocols that have entries of their own; policies can name the others only all at once, but for
/// these.
const PROTOCOLS: [(Protocol, u8); 12] = [
    (Protocol::Tcp, protocol::TCP),
    (Protocol::Udp, protocol::UDP),
    (Protocol::Sctp, protocol::SCTP),
    (Protocol::Icmp, protocol::ICMP),
    (Protocol::IcmpV6, protocol::ICMPV6),
    (Protocol::Ip(112), 112),
    (Protocol::Ip(2), 2),
    (Protocol::Ip(47), 47),
    (Protocol::Ip(4), 4),
    (Protocol::Ip(41), 41),
    (Protocol::Ip(50), 50),
    (Protocol::Ip(51), 51),
];
/// One that stands for all the others (RFC 3692: for experiments).
const ANOTHER: Protocol = Protocol::Ip(253);
/// One of whom no policy speaks: allocators count from below.
const NOBODY: u32 = u32::MAX;

impl NodePolicyTable {
    /// The entries of a policy. `carried_out` says what becomes of a verdict of the engine; it is to
    /// agree with the proxy.
    pub fn new(
        policy: &EndpointPolicy,
        carried_out: impl Fn(Protocol, ConnectionVerdict) -> Verdict,
    ) -> Self {
        // Those, too, who are nowhere yet: nobody tells this policy when they get an address.
        let mut known = policy.spoken_of();
        known.insert(Identity::UNKNOWN);
        let nobody = Identity::new(NOBODY);
        let numbering = Numbering::of_those(policy, known.iter().copied().chain([nobody]));
        let class = |direction, who| numbering.of(direction, who);
        let classes = |who| (class(Direction::Egress, who), class(Direction::Ingress, who));

        let enforced = |direction| policy.is_enforced(engine(direction));
        // Its revision is the kernel's, which has it when it is put in force.
        let header =
            PolicyValue::header(0, enforced(Direction::Egress), enforced(Direction::Ingress));
        let others = classes(nobody);
        let mut entries = vec![
            (NodePolicyKey::HEADER, header),
            (NodePolicyKey::OTHERS, PolicyValue::identity(0, others.0, others.1)),
        ];
        let spoken_of = known.iter().map(|who| (who.get(), classes(*who)));
        entries.extend(spoken_of.filter(|(_, classes)| *classes != others).map(
            |(who, (egress, ingress))| {
                (NodePolicyKey::identity(who), PolicyValue::identity(who, egress, ingress))
            },
        ));
        for (number, class, classes) in numbering.all() {
            let carried_out = &carried_out;
            let spans = |name| {
                classes.ports(class, name).map(move |PortSpan { first, last, verdict }| {
                    let rule = verdict.rule.and_then(|rule| u32::try_from(rule.index() + 1).ok());
                    let value =
                        PolicyValue::verdict(carried_out(name, verdict), rule.unwrap_or_default());
                    (first, last, value)
                })
            };
            let nothing = PolicyValue::verdict(Verdict::Deny, 0);
            let rest = spans(ANOTHER).next().map_or(nothing, |(.., value)| value);
            if rest != nothing {
                entries.push((NodePolicyKey::other_protocols(number), rest));
            }
            for (name, protocol) in PROTOCOLS {
                add_ports(&mut entries, number, protocol, rest, spans(name));
            }
        }
        entries.into_iter().collect()
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

    /// All entries, under a revision.
    pub(super) fn stamped(
        &self,
        revision: u32,
    ) -> impl ExactSizeIterator<Item = (NodePolicyKey, PolicyValue)> {
        self.entries().map(move |(key, value)| match key {
            NodePolicyKey::HEADER => (key, with_revision(value, revision)),
            _ => (key, value),
        })
    }

    /// All entries, in the order of their keys.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (NodePolicyKey, PolicyValue)> {
        self.entries.iter().copied()
    }
}

/// The same header under another revision.
pub(super) fn with_revision(header: PolicyValue, revision: u32) -> PolicyValue {
    let PolicyValue([_, egress, ingress]) = header;
    PolicyValue([revision, egress, ingress])
}

impl FromIterator<(NodePolicyKey, PolicyValue)> for NodePolicyTable {
    fn from_iter<T: IntoIterator<Item = (NodePolicyKey, PolicyValue)>>(entries: T) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        Self { entries }
    }
}

/// Entries of the ports of a class. What is as in all the other protocols, is left out.
fn add_ports(
    entries: &mut Vec<(NodePolicyKey, PolicyValue)>,
    class: u32,
    protocol: u8,
    rest: PolicyValue,
    spans: impl Iterator<Item = (u16, u16, PolicyValue)>,
) {
    let mut merged: Vec<(u16, u16, PolicyValue)> = Vec::new();
    for (first, last, value) in spans {
        match merged.last_mut() {
            Some((_, end, same)) if *same == value => *end = last,
            _ => merged.push((first, last, value)),
        }
    }
    for (first, last, value) in merged.into_iter().filter(|(.., value)| *value != rest) {
        let key = |(port, bits)| (NodePolicyKey::port(class, protocol, port, bits), value);
        entries.extend(ports::prefixes(first, last).map(key));
    }
}

#[cfg(test)]
mod tests {
    use portreeve_core::carried_out;
    use portreeve_policy::TrafficDirection;
    use portreeve_policy::fuzz::random::{Dice, Scenario};

    use super::*;
    use crate::kernel_verdict;

    fn judged(protocol: Protocol, verdict: ConnectionVerdict) -> Verdict {
        kernel_verdict(protocol, &carried_out(protocol, verdict))
    }

    /// What a trie finds: the longest of the keys that `key` begins with.
    fn longest(table: &NodePolicyTable, key: NodePolicyKey) -> Option<PolicyValue> {
        let number = |key: NodePolicyKey| {
            key.data.iter().fold(0_u128, |all, word| all << 32 | u128::from(u32::from_be(*word)))
        };
        let begins = |own: NodePolicyKey| {
            let rest = 96 - own.prefix_len;
            own.prefix_len <= key.prefix_len && number(own) >> rest == number(key) >> rest
        };
        let found = table.entries().filter(|(own, _)| begins(*own));
        found.max_by_key(|(own, _)| own.prefix_len).map(|(_, value)| value)
    }

    #[test]
    fn the_trie_says_what_the_policy_says() {
        const ASKED: [(Protocol, u8); 7] = [
            (Protocol::Tcp, 6),
            (Protocol::Udp, 17),
            (Protocol::Sctp, 132),
            (Protocol::Icmp, 1),
            (Protocol::IcmpV6, 58),
            (Protocol::Ip(47), 47),
            (Protocol::Ip(89), 89),
        ];
        let mut dice = Dice::new(31);
        for _ in 0..60 {
            let scenario = Scenario::any(&mut dice);
            let table = NodePolicyTable::new(&scenario.policy, judged);
            // Some of them have no address, and may get one.
            let spoken_of: Vec<Identity> = scenario.policy.spoken_of().into_iter().collect();
            let nobody = Identity::new(NOBODY);
            for _ in 0..60 {
                let question = scenario.question(&mut dice);
                let (name, number) = ASKED[dice.below(ASKED.len())];
                let (direction, port) = match question.direction {
                    TrafficDirection::Egress => (Direction::Egress, question.port),
                    TrafficDirection::Ingress => (Direction::Ingress, question.port),
                };
                let port = if matches!(name, Protocol::Ip(_)) { 0 } else { port };
                let who = match dice.once_in(2) {
                    true => scenario.policy.identify(question.address),
                    false => {
                        spoken_of.get(dice.below(spoken_of.len() + 1)).copied().unwrap_or(nobody)
                    }
                };
                let class = longest(&table, NodePolicyKey::identity(who.get()));
                let class = class.expect("everybody has a class").class(direction);
                let found = longest(&table, NodePolicyKey::port(class, number, port, 16));
                let verdict = scenario.policy.connection(question.direction, who, name, port);
                let expected = judged(name, verdict);
                let found = found.map_or(Verdict::Deny, PolicyValue::as_verdict);
                assert_eq!(found, expected, "{name} {question:?}\n{}", scenario.text);
            }
        }
    }

    #[test]
    fn of_whom_nothing_is_said_there_is_one_entry() {
        let mut dice = Dice::new(32);
        for _ in 0..60 {
            let table = NodePolicyTable::new(&Scenario::any(&mut dice).policy, judged);
            let of = |key: NodePolicyKey| {
                table.entries().find(|(own, _)| *own == key).map(|(_, value)| value)
            };
            let others = of(NodePolicyKey::OTHERS).expect("it is there");
            let classes = |value: PolicyValue| (value.0[1], value.0[2]);
            for (key, value) in table.entries() {
                if key.prefix_len == 64 && key.data[0] == NodePolicyKey::OTHERS.data[0] {
                    assert_ne!(classes(value), classes(others), "{key:?}");
                }
            }
        }
    }

    #[test]
    fn a_revision_changes_nothing_but_the_header() {
        let table = NodePolicyTable::new(&Scenario::any(&mut Dice::new(33)).policy, judged);
        let stamped: Vec<_> = table.stamped(7).collect();
        let (header, plain) = (stamped[0].1, table.entries().next().expect("a header").1);
        assert_eq!((header.0[0], header.0[1..] == plain.0[1..]), (7, true));
        assert!(stamped.into_iter().skip(1).eq(table.entries().skip(1)));
    }
}
