//! A policy as tables, for a kernel: it can't ask [`EndpointPolicy::connection`], but can look for the
//! longest prefix of an address, and then for what those do who are treated alike. Made of what
//! `connection` itself looks into, so that the two agree.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::endpoint_policy::Alike;
use super::{DirectionPolicy, EndpointPolicy, PortPolicy};
use crate::identity::Identity;
use crate::rule::{Protocol, TrafficDirection};
use crate::verdict::ConnectionVerdict;

/// Identities that one direction of a policy treats alike share a class.
#[derive(Debug)]
pub struct IdentityClasses<'p> {
    policy: &'p DirectionPolicy,
    names: FxHashMap<Alike, Identity>,
}

/// Those who are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdentityClass {
    name: Option<Identity>,
    alike: Alike,
}

/// What happens on the ports `first..=last`.
#[derive(Clone, Debug)]
pub struct PortSpan {
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// What is to happen with connections there.
    pub verdict: ConnectionVerdict,
}

impl EndpointPolicy {
    /// Every prefix and who is there, in no order, each prefix once. The longest one that an address is
    /// in says what [`EndpointPolicy::identify`] says; an IPv4 address in its mapped form is looked for
    /// as an IPv4 address.
    pub fn addresses(&self) -> impl Iterator<Item = (IpNet, Identity)> {
        self.identities.prefixes()
    }

    /// All of whom a direction says something, whether anybody has an address as them by now or not, in
    /// order.
    #[must_use]
    pub fn spoken_of(&self) -> BTreeSet<Identity> {
        let directions = [TrafficDirection::Ingress, TrafficDirection::Egress];
        directions.into_iter().flat_map(|direction| self.direction(direction).spoken_of()).collect()
    }

    /// Whom this direction treats alike.
    #[must_use]
    pub fn classes(&self, direction: TrafficDirection) -> IdentityClasses<'_> {
        let policy = self.direction(direction);
        let mut names = FxHashMap::default();
        for identity in policy.spoken_of().chain([Identity::UNKNOWN]) {
            match names.entry(policy.alike(identity)) {
                Entry::Vacant(unnamed) => {
                    unnamed.insert(identity);
                }
                Entry::Occupied(mut named) => {
                    let first = identity.min(*named.get());
                    named.insert(first);
                }
            }
        }
        IdentityClasses { policy, names }
    }
}

impl DirectionPolicy {
    fn spoken_of(&self) -> impl Iterator<Item = Identity> {
        let tables = [Some(&self.enforced), self.audited.as_ref()].into_iter().flatten();
        tables.flat_map(PortPolicy::identities)
    }
}

impl IdentityClasses<'_> {
    /// The class of an identity.
    #[must_use]
    pub fn of(&self, identity: Identity) -> IdentityClass {
        let alike = self.policy.alike(identity);
        IdentityClass { name: self.names.get(&alike).copied(), alike }
    }

    /// What those of a class may do in a protocol: spans that don't overlap, in order, one for every
    /// port.
    pub fn ports(
        &self,
        class: IdentityClass,
        protocol: Protocol,
    ) -> impl Iterator<Item = PortSpan> {
        let enforced = self.policy.enforced.spans(class.alike.enforced, protocol);
        let audited = self.policy.audited.as_ref();
        let audited =
            audited.map_or(&[][..], |audited| audited.spans(class.alike.audited, protocol));
        let spans = || enforced.iter().chain(audited);
        let after = spans().filter_map(|span| span.last.checked_add(1));
        let mut begins: BTreeSet<u16> = spans().map(|span| span.first).chain(after).collect();
        begins.insert(0);
        let ends = begins.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        let spans: Vec<(u16, u16)> = begins.iter().copied().zip(ends).collect();
        spans.into_iter().map(move |(first, last)| {
            let verdict = self.policy.verdict(class.alike, protocol, first);
            PortSpan { first, last, verdict }
        })
    }
}

impl IdentityClass {
    /// What it is called: by the smallest number of an identity in it that policy speaks of, so that it
    /// keeps its name while others come and go. [`Identity::UNKNOWN`] is among those spoken of; all of
    /// whom nothing is said have no name.
    #[must_use]
    pub fn name(self) -> Option<Identity> {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;
    use std::net::IpAddr;

    use super::*;
    use crate::fuzz::random::{Dice, Question, Scenario};
    use crate::{Action, Authentication, Directory, Endpoint, Options, Peer, Reason, RuleId};

    /// All that two verdicts are compared by.
    fn told(
        verdict: &ConnectionVerdict,
    ) -> (String, bool, Option<Authentication>, Option<RuleId>, Reason) {
        let action = match &verdict.action {
            Action::Inspect(as_what) => {
                format!("{:?} {}", discriminant(as_what), as_what.is_observed_only())
            }
            other => format!("{other:?}"),
        };
        (action, verdict.audited, verdict.authentication, verdict.rule, verdict.reason)
    }

    /// The longest prefix, without any of the ways in which `identify` looks for it.
    fn longest(addresses: &[(IpNet, Identity)], address: IpAddr) -> Identity {
        let address = address.to_canonical();
        let inside = addresses.iter().filter(|(prefix, _)| prefix.contains(&address));
        inside.max_by_key(|(prefix, _)| prefix.prefix_len()).unwrap().1
    }

    #[test]
    fn tables_say_what_the_policy_says() {
        let mut dice = Dice::new(1);
        let mut seen = BTreeSet::new();
        for _ in 0..300 {
            let scenario = Scenario::any(&mut dice);
            let policy = &scenario.policy;
            let addresses: Vec<_> = policy.addresses().collect();
            let mut prefixes: Vec<IpNet> = addresses.iter().map(|(prefix, _)| *prefix).collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            assert_eq!(prefixes.len(), addresses.len(), "a prefix is there twice");
            for _ in 0..100 {
                let question = scenario.question(&mut dice);
                let Question { direction, address, protocol, port } = question;
                let who = longest(&addresses, address);
                assert_eq!(who, policy.identify(address), "{question:?}\n{}", scenario.text);
                let classes = policy.classes(direction);
                let spans: Vec<_> = classes.ports(classes.of(who), protocol).collect();
                let here: Vec<_> =
                    spans.iter().filter(|span| (span.first..=span.last).contains(&port)).collect();
                let [span] = here[..] else { panic!("{question:?}: {here:?}") };
                let expected = told(&policy.connection(direction, who, protocol, port));
                assert_eq!(told(&span.verdict), expected, "{question:?}\n{}", scenario.text);
                seen.insert(format!("{} {} {:?}", expected.0, expected.1, expected.4));
            }
        }
        // Everything that can be said has been said.
        assert!(seen.len() > 15, "{seen:#?}");
    }

    #[test]
    fn nobody_known_is_of_a_class_of_its_own_where_policy_is_enforced() {
        let mut dice = Dice::new(2);
        for _ in 0..100 {
            let Scenario { policy, .. } = Scenario::any(&mut dice);
            for direction in [TrafficDirection::Ingress, TrafficDirection::Egress] {
                let classes = policy.classes(direction);
                let unknown = classes.of(Identity::UNKNOWN);
                assert_eq!(unknown.name(), Some(Identity::UNKNOWN));
                let [span] = &classes.ports(unknown, Protocol::Tcp).collect::<Vec<_>>()[..] else {
                    panic!("one answer for all ports")
                };
                let expected = policy.connection(direction, Identity::UNKNOWN, Protocol::Tcp, 80);
                assert_eq!(told(&span.verdict), told(&expected));
            }
        }
    }

    #[test]
    fn classes_with_one_name_are_one() {
        let mut dice = Dice::new(3);
        for _ in 0..100 {
            let Scenario { policy, .. } = Scenario::any(&mut dice);
            let classes = policy.classes(TrafficDirection::Egress);
            let mut by_name = FxHashMap::default();
            for (_, identity) in policy.addresses() {
                let class = classes.of(identity);
                assert_eq!(*by_name.entry(class.name()).or_insert(class), class);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_peers_are_listed_at_once() {
        let peer = |number: u32| {
            let prefix = IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
            Peer::new([prefix], format!("n=n{number}").parse().unwrap())
        };
        let directory = Directory::from((0..100_000).map(peer).collect::<Vec<_>>());
        let policy = EndpointPolicy::resolve(
            &crate::Repository::default(),
            &Endpoint::new("w", "default", "app=w".parse().unwrap()),
            &directory,
            &Options::default(),
        )
        .unwrap();
        assert_eq!(policy.addresses().count(), 100_002);
    }
}
