//! Resolving: the policies that select one workload become its [`EndpointPolicy`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use crate::compiled::{
    Class, DirectionPolicy, EndpointPolicy, Grant, HttpRuleSet, PortPolicy, Rules,
};
use crate::endpoint::{Endpoint, NamedPort, Peer};
use crate::identity::{Identities, Identity, Known};
use crate::label::RESERVED;
use crate::repository::Repository;
use crate::rule::{
    Directed, Entry, HttpRule, L7, Mode, PeerSelector, Peers, Policy, PortRef, PortRule, Ports,
    Protocol, Rule, TrafficDirection,
};
use crate::selector::Selector;
use crate::verdict::{RuleId, RuleOrigin};

/// How policy is evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// When a direction is under default deny.
    pub enforcement: Enforcement,
    /// Nothing is denied; what would be is marked.
    pub audit: bool,
    /// The world is one identity, not one for each address family.
    pub single_stack: bool,
    /// The workload's own host may reach every port, but for what deny rules name (Cilium
    /// `allow-localhost: always`).
    pub allow_localhost: bool,
}

/// When a direction is under default deny (Cilium `policyEnforcementMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// When a policy that selects the workload says so.
    #[default]
    Default,
    /// Always, without any policy, too.
    Always,
    /// Never: all policies are ignored, denials too.
    Never,
}

/// Why a workload's policy can't be computed. The one before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// A named port has several numbers.
    #[error(
        "policy `{policy}`, `{section}`: the port name `{port}` stands for {numbers}, depending on \
         the peer; use numbers"
    )]
    AmbiguousPort {
        /// The policy.
        policy: String,
        /// The place in it.
        section: String,
        /// The name.
        port: String,
        /// What it stands for.
        numbers: String,
    },
}

impl EndpointPolicy {
    /// Computes what `endpoint` may do and who may do what with it.
    ///
    /// # Errors
    /// [`ResolveError`] when policies that load one by one make no sense together.
    pub fn resolve(
        repository: &Repository,
        endpoint: &Endpoint,
        peers: &[Peer],
        options: &Options,
    ) -> Result<Self, ResolveError> {
        let labels = endpoint.labels.clone().placed(&endpoint.namespace);
        let selected: Vec<Selected<'_>> = repository
            .policies
            .iter()
            .flat_map(|policy| policy.rules.iter().map(move |rule| Selected { policy, rule }))
            .filter(|selected| selected.rule.subject.matches(&labels))
            .collect();
        let identities = Identities::new(endpoint, peers, named_prefixes(&selected), options);
        let mut resolver = Resolver {
            endpoint,
            peers,
            options,
            identities: &identities,
            initialising: labels.iter().any(|l| l.source == RESERVED && l.key == "init"),
            origins: Vec::new(),
            names: HashMap::new(),
            numbers: HashMap::new(),
        };
        let ingress = resolver.direction(&selected, TrafficDirection::Ingress)?;
        let egress = resolver.direction(&selected, TrafficDirection::Egress)?;
        let origins = resolver.origins;
        Ok(Self { identities, origins, ingress, egress })
    }
}

/// A rule that selects the workload.
#[derive(Clone, Copy)]
struct Selected<'a> {
    policy: &'a Policy,
    rule: &'a Rule,
}

/// Every prefix that a rule names, exceptions too: each is somebody of its own.
fn named_prefixes(selected: &[Selected<'_>]) -> BTreeSet<IpNet> {
    let directions = [TrafficDirection::Ingress, TrafficDirection::Egress];
    let directed =
        selected.iter().flat_map(|selected| directions.map(|d| selected.rule.directed(d)));
    let entries = directed.flat_map(|directed| directed.allow.iter().chain(&directed.deny));
    let mut prefixes = BTreeSet::new();
    for entry in entries {
        let Peers::Of(peers) = &entry.peers else { continue };
        for peer in peers {
            if let PeerSelector::Cidr { prefix, except } = peer {
                prefixes.insert(*prefix);
                prefixes.extend(except);
            }
        }
    }
    prefixes
}

struct Resolver<'a> {
    endpoint: &'a Endpoint,
    peers: &'a [Peer],
    options: &'a Options,
    identities: &'a Identities,
    /// A workload whose labels are not known yet is always under default deny.
    initialising: bool,
    origins: Vec<RuleOrigin>,
    /// One string a policy, shared by all its rules.
    names: HashMap<*const Policy, Arc<str>>,
    /// A rule keeps its number however often it is compiled: once enforced, once audited.
    numbers: HashMap<(Option<*const Policy>, String), RuleId>,
}

impl Resolver<'_> {
    fn direction(
        &mut self,
        selected: &[Selected<'_>],
        direction: TrafficDirection,
    ) -> Result<DirectionPolicy, ResolveError> {
        let enforces = |selected: &&Selected<'_>| selected.policy.mode == Mode::Enforce;
        let enforced: Vec<_> = selected.iter().filter(enforces).copied().collect();
        let all_enforced = enforced.len() == selected.len();
        Ok(match (self.options.audit, all_enforced) {
            (true, _) => DirectionPolicy {
                enforced: PortPolicy::Open,
                audited: Some(self.port_policy(selected, direction)?),
            },
            (false, true) => {
                DirectionPolicy { enforced: self.port_policy(selected, direction)?, audited: None }
            }
            (false, false) => DirectionPolicy {
                enforced: self.port_policy(&enforced, direction)?,
                audited: Some(self.port_policy(selected, direction)?),
            },
        })
    }

    fn port_policy(
        &mut self,
        selected: &[Selected<'_>],
        direction: TrafficDirection,
    ) -> Result<PortPolicy, ResolveError> {
        let speaking: Vec<(&Policy, &Directed)> = selected
            .iter()
            .map(|selected| (selected.policy, selected.rule.directed(direction)))
            .filter(|(_, directed)| directed.has_entries())
            .collect();
        let wanted = speaking.iter().any(|(_, directed)| directed.wants_default_deny());
        let always = match self.options.enforcement {
            Enforcement::Never => return Ok(PortPolicy::Open),
            Enforcement::Default => self.initialising,
            Enforcement::Always => true,
        };
        if speaking.is_empty() && !always {
            return Ok(PortPolicy::Open);
        }
        let default_deny = wanted || always;
        let mut filters = Filters::default();
        for (policy, directed) in speaking {
            for (entries, denies) in [(&directed.allow, false), (&directed.deny, true)] {
                for entry in entries {
                    self.filter(policy, entry, denies, direction, &mut filters)?;
                }
            }
        }
        if !default_deny {
            // Rules exist, and none of them wants default deny: all that is not denied passes.
            let rule = self.origin(None, "enableDefaultDeny");
            filters.select(&PeerSelector::All, filters.grants.len()..filters.grants.len() + 1);
            filters.grants.push(Grant::of_everything(rule, false));
        }
        if self.options.allow_localhost && direction == TrafficDirection::Ingress {
            let rule = self.origin(None, "allowLocalhost");
            let host = PeerSelector::Labels(Selector::reserved("host"));
            filters.select(&host, filters.grants.len()..filters.grants.len() + 1);
            filters.grants.push(Grant::of_everything(rule, false));
        }
        Ok(PortPolicy::Rules(filters.compile(self.identities)))
    }

    /// Turns an entry into grants, one for each port, and notes whom they are for.
    fn filter(
        &mut self,
        policy: &Policy,
        entry: &Entry,
        denies: bool,
        direction: TrafficDirection,
        filters: &mut Filters,
    ) -> Result<(), ResolveError> {
        let begin = filters.grants.len();
        match &entry.ports {
            Ports::All => {
                let rule = self.origin(Some(policy), &entry.section);
                filters.grants.push(Grant::of_everything(rule, denies));
            }
            Ports::Of(rules) => {
                for rule in rules {
                    self.port_rule(policy, rule, denies, direction, filters)?;
                }
            }
        }
        let grants = begin..filters.grants.len();
        match &entry.peers {
            Peers::Unsaid => filters.everybody.extend(grants),
            Peers::Of(peers) => {
                for peer in peers {
                    filters.select(peer, grants.clone());
                }
            }
        }
        Ok(())
    }

    fn port_rule(
        &mut self,
        policy: &Policy,
        port_rule: &PortRule,
        denies: bool,
        direction: TrafficDirection,
        filters: &mut Filters,
    ) -> Result<(), ResolveError> {
        let rule = self.origin(Some(policy), &port_rule.section);
        let http = match &port_rule.rules {
            L7::Opaque => None,
            L7::Http(rules) => {
                let indices = rules.iter().map(|http| {
                    filters.http.push((self.origin(Some(policy), &http.section), http.clone()));
                    number(filters.http.len() - 1)
                });
                Some(indices.collect::<Arc<[u32]>>())
            }
        };
        for port in &port_rule.ports {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                if port.protocol.is_some_and(|own| own != protocol) {
                    continue;
                }
                let (first, last) = match &port.port {
                    PortRef::Numbers(0, _) => (0, u16::MAX),
                    PortRef::Numbers(first, last) => (*first, *last),
                    PortRef::Named(name) => {
                        match self.named_port(policy, port_rule, name, protocol, direction)? {
                            Some(number) => (number, number),
                            None => continue,
                        }
                    }
                };
                let (protocol, http) = (Some(protocol), http.clone());
                filters.grants.push(Grant { protocol, first, last, denies, http, rule });
            }
        }
        Ok(())
    }

    /// The number of a named port: the workload's own for ingress, its peers' for egress. An
    /// unknown name grants nothing.
    fn named_port(
        &self,
        policy: &Policy,
        rule: &PortRule,
        name: &str,
        protocol: Protocol,
        direction: TrafficDirection,
    ) -> Result<Option<u16>, ResolveError> {
        let of = |ports: &[NamedPort]| {
            let named = |port: &&NamedPort| {
                port.name.eq_ignore_ascii_case(name) && port.protocol == protocol
            };
            ports.iter().filter(named).map(|port| port.port).collect::<Vec<_>>()
        };
        let numbers: BTreeSet<u16> = match direction {
            TrafficDirection::Ingress => of(&self.endpoint.named_ports).into_iter().collect(),
            TrafficDirection::Egress => {
                self.peers.iter().flat_map(|peer| of(&peer.named_ports)).collect()
            }
        };
        if numbers.len() > 1 {
            let numbers: Vec<_> = numbers.iter().map(u16::to_string).collect();
            return Err(ResolveError::AmbiguousPort {
                policy: policy.name.to_string(),
                section: rule.section.clone(),
                port: name.to_owned(),
                numbers: numbers.join(" or "),
            });
        }
        Ok(numbers.first().copied())
    }

    fn origin(&mut self, policy: Option<&Policy>, section: &str) -> RuleId {
        let name = match policy {
            None => "".into(),
            Some(policy) => self
                .names
                .entry(std::ptr::from_ref(policy))
                .or_insert_with(|| policy.name.to_string().into())
                .clone(),
        };
        let next = RuleId(number(self.origins.len()));
        let id = *self
            .numbers
            .entry((policy.map(std::ptr::from_ref), section.to_owned()))
            .or_insert(next);
        if id == next {
            self.origins.push(RuleOrigin::new(name, section));
        }
        id
    }
}

/// Grants, and who they are for.
#[derive(Default)]
struct Filters {
    grants: Vec<Grant>,
    http: Vec<(RuleId, Arc<HttpRule>)>,
    /// Grants for anybody.
    everybody: Vec<usize>,
    by_labels: HashMap<Selector, Vec<usize>>,
    by_prefix: HashMap<IpNet, Vec<(Vec<IpNet>, usize)>>,
}

impl Filters {
    fn select(&mut self, peer: &PeerSelector, grants: std::ops::Range<usize>) {
        match peer {
            PeerSelector::All => self.everybody.extend(grants),
            PeerSelector::Labels(selector) => {
                self.by_labels.entry(selector.clone()).or_default().extend(grants);
            }
            PeerSelector::Cidr { prefix, except } => {
                let except = |grant| (except.clone(), grant);
                self.by_prefix.entry(*prefix).or_default().extend(grants.map(except));
            }
        }
    }

    /// Joins the grants of every identity; identities with the same grants share a class, and
    /// classes with the same HTTP rules share a set.
    fn compile(&self, identities: &Identities) -> Rules {
        let mut rules = Rules::default();
        let mut classes: HashMap<Vec<usize>, u32> = HashMap::new();
        let mut sets: HashMap<Vec<u32>, Arc<HttpRuleSet>> = HashMap::new();
        for known in identities.iter() {
            let granted = self.granted(known);
            let class = *classes.entry(granted).or_insert_with_key(|granted| {
                let grants: Vec<&Grant> = granted.iter().map(|i| &self.grants[*i]).collect();
                rules.classes.push(Class::new(&grants, |indices| self.set(indices, &mut sets)));
                number(rules.classes.len() - 1)
            });
            rules.by_identity.insert(known.identity, class);
        }
        debug_assert!(!rules.by_identity.contains_key(&Identity::UNKNOWN));
        rules
    }

    /// The grants of an identity, in the order of the policies.
    fn granted(&self, known: &Known) -> Vec<usize> {
        let mut granted = self.everybody.clone();
        for (selector, grants) in &self.by_labels {
            if selector.matches(&known.labels) {
                granted.extend(grants);
            }
        }
        if let Some(inside) = own_prefix(known) {
            for length in 0..=inside.prefix_len() {
                let Ok(outer) = IpNet::new(inside.addr(), length) else { continue };
                let about = self.by_prefix.get(&outer.trunc()).into_iter().flatten();
                let taken_out = |except: &[IpNet]| except.iter().any(|e| e.contains(&inside));
                granted.extend(about.filter(|(e, _)| !taken_out(e)).map(|(_, grant)| *grant));
            }
        }
        granted.sort_unstable();
        granted.dedup();
        granted
    }

    fn set(
        &self,
        indices: Vec<u32>,
        sets: &mut HashMap<Vec<u32>, Arc<HttpRuleSet>>,
    ) -> Arc<HttpRuleSet> {
        let compile = |indices: &Vec<u32>| {
            let rules = indices.iter().map(|index| self.http[*index as usize].clone());
            Arc::new(HttpRuleSet::new(rules))
        };
        sets.entry(indices).or_insert_with_key(compile).clone()
    }
}

/// An index; memory ends long before these numbers do.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The prefix by which CIDR rules see an identity: its own, or all of its family for the world.
fn own_prefix(known: &Known) -> Option<IpNet> {
    known.prefix.or_else(|| match known.labels.to_string().as_str() {
        "reserved:world-ipv4" => "0.0.0.0/0".parse().ok(),
        "reserved:world-ipv6" => "::/0".parse().ok(),
        // One world for both families counts as the family that clusters of one family have.
        "reserved:world" => "0.0.0.0/0".parse().ok(),
        _ => None,
    })
}
