//! One workload's policy: its rules as filters, and the filters as decisions.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::filter::{EVERYBODY, Effect, Filter, Filters, Numbered, Parser};
use super::peers::{NamedPorts, Selections, Selectors, of_service};
use super::{Enforcement, Options, ResolveError, Selected, Sets, is_reserved};
use crate::compiled::{Decisions, DirectionPolicy, PortPolicy};
use crate::directory::Service;
use crate::endpoint::{Endpoint, NamedPort};
use crate::identity::{Identities, IdentityIndex};
use crate::label::Labels;
use crate::repository::Repository;
use crate::rule::{
    Directed, Entry, L7, Mode, PeerSelector, Peers, Policy, PortRef, PortRule, PortSpec, Ports,
    Protocol, TrafficDirection,
};
use crate::selector::Selector;
use crate::verdict::{RuleId, RuleOrigin};

/// What a workload's policy depends on, beside the policies that select it.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) options: &'a Options,
    pub(crate) identities: &'a Identities,
    pub(crate) index: &'a IdentityIndex,
    pub(crate) services: &'a [Service],
    /// There are others, of which nothing is known.
    pub(crate) unknown_services: bool,
    pub(crate) ports: &'a NamedPorts,
}

/// What is kept from one computation to the next.
pub(crate) struct Caches<'a> {
    pub(crate) selections: &'a mut Selections,
    pub(crate) sets: &'a mut Sets,
}

/// What a workload's policy was computed from; when it changes, it is to be computed again.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// Numbers of selections.
    pub(crate) selections: FxHashSet<u32>,
    pub(crate) services: bool,
    pub(crate) groups: bool,
    /// Named ports of peers.
    pub(crate) ports: bool,
}

/// Computes one workload's policy.
pub(crate) struct Resolver<'a> {
    endpoint: &'a Endpoint,
    /// The workload's, with namespace and cluster.
    labels: &'a Labels,
    pub(super) around: Surroundings<'a>,
    pub(super) caches: Caches<'a>,
    pub(super) uses: Uses,
    origins: Vec<RuleOrigin>,
    /// One string a policy, shared by all its rules.
    names: FxHashMap<*const Policy, Arc<str>>,
    /// A rule keeps its number however often it is compiled: once enforced, once audited.
    numbers: FxHashMap<(Option<*const Policy>, *const str), RuleId>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        endpoint: &'a Endpoint,
        labels: &'a Labels,
        around: Surroundings<'a>,
        caches: Caches<'a>,
    ) -> Self {
        Self {
            endpoint,
            labels,
            around,
            caches,
            uses: Uses::default(),
            origins: Vec::new(),
            names: FxHashMap::default(),
            numbers: FxHashMap::default(),
        }
    }

    /// The workload's policy, and what it was computed from.
    pub(crate) fn resolve(
        mut self,
        selected: &[Selected<'_>],
    ) -> Result<(Decisions, Uses), ResolveError> {
        let ingress = self.direction(selected, TrafficDirection::Ingress);
        let egress = ingress
            .and_then(|ingress| Ok((ingress, self.direction(selected, TrafficDirection::Egress)?)));
        let (ingress, egress) = egress.map_err(|error| self.named(error))?;
        Ok((Decisions { origins: self.origins, ingress, egress }, self.uses))
    }

    /// An error that knows a rule by its number only gets its policy's name.
    fn named(&self, error: ResolveError) -> ResolveError {
        match error {
            ResolveError::TooExpensive { section, rules, id, .. } => {
                let origin = self.origins.get(id.index());
                let policy = origin.map(|origin| origin.policy().to_owned()).unwrap_or_default();
                ResolveError::TooExpensive { policy, section, rules, id }
            }
            error => error,
        }
    }

    fn direction(
        &mut self,
        selected: &[Selected<'_>],
        direction: TrafficDirection,
    ) -> Result<DirectionPolicy, ResolveError> {
        let has_audit = selected.iter().any(|selected| {
            let directed = selected.rule.directed(direction);
            let entries = || directed.entries().any(|(entry, _)| entry.mode == Mode::Audit);
            (selected.rule.mode == Mode::Audit && directed.has_entries()) || entries()
        });
        Ok(match (self.around.options.audit, has_audit) {
            (true, _) => DirectionPolicy {
                enforced: PortPolicy::Open,
                audited: Some(self.port_policy(selected, direction, Mode::Audit)?),
            },
            (false, false) => DirectionPolicy {
                enforced: self.port_policy(selected, direction, Mode::Enforce)?,
                audited: None,
            },
            (false, true) => DirectionPolicy {
                enforced: self.port_policy(selected, direction, Mode::Enforce)?,
                audited: Some(self.port_policy(selected, direction, Mode::Audit)?),
            },
        })
    }

    /// What would be in force with everything up to `mode`: only what is enforced, or that and what
    /// is audited.
    fn port_policy(
        &mut self,
        selected: &[Selected<'_>],
        direction: TrafficDirection,
        mode: Mode,
    ) -> Result<PortPolicy, ResolveError> {
        if self.around.options.enforcement == Enforcement::Never {
            return Ok(PortPolicy::Open);
        }
        let counts = |own: Mode| own == Mode::Enforce || mode == Mode::Audit;
        let speaking: Vec<(&Policy, &Directed)> = selected
            .iter()
            .filter(|selected| counts(selected.rule.mode))
            .map(|selected| (selected.policy, selected.rule.directed(direction)))
            .filter(|(_, directed)| directed.entries().any(|(entry, _)| counts(entry.mode)))
            .collect();
        let seen: Vec<(&Policy, &Directed)> = selected
            .iter()
            .map(|selected| (selected.policy, selected.rule.directed(direction)))
            .filter(|(_, directed)| !directed.visibility.is_empty())
            .collect();
        // A workload whose labels are not known yet is always under default deny.
        let initialising = is_reserved(self.labels, "init");
        let always = self.around.options.enforcement == Enforcement::Always || initialising;
        if speaking.is_empty() && !always && seen.is_empty() {
            return Ok(PortPolicy::Open);
        }
        let wanted = speaking.iter().any(|(_, directed)| directed.default_deny.unwrap_or(true));
        let default_deny = wanted || always;
        let mut building = Building {
            filters: Filters::default(),
            selectors: Selectors::default(),
            requires: requirements_of(speaking.iter().map(|(_, directed)| *directed)),
            direction,
            default_deny,
        };
        for (policy, directed) in &speaking {
            for (entry, denies) in directed.entries().filter(|(entry, _)| counts(entry.mode)) {
                self.entry(policy, entry, denies, &mut building)?;
            }
        }
        if !default_deny {
            // No rule wants default deny: all that is not denied passes.
            let why = if speaking.is_empty() { "visibility" } else { "enableDefaultDeny" };
            let rule = self.origin(None, why);
            self.add(Filter::of_everything(EVERYBODY, Effect::Allow, rule), &mut building)?;
        }
        if self.around.options.allow_localhost && direction == TrafficDirection::Ingress {
            let rule = self.origin(None, "allowLocalhost");
            let host = PeerSelector::Labels(Selector::reserved("host"));
            let host = building.selectors.number(host);
            self.add(Filter::of_everything(host, Effect::Allow, rule), &mut building)?;
        }
        for (policy, directed) in seen {
            for visibility in &directed.visibility {
                let rule = self.origin(Some(policy), &visibility.section);
                let see = Filter::of_everything(EVERYBODY, Effect::See, rule);
                self.on_ports(policy, &visibility.section, &visibility.ports, &see, &mut building)?;
            }
        }
        building.filters.check(|id| self.describe(id))?;
        let enforced = !speaking.is_empty() || always;
        self.compile(building, enforced).map(PortPolicy::Classes)
    }

    /// Turns an entry into filters: one for each group of peers and each port.
    fn entry(
        &mut self,
        policy: &Policy,
        entry: &Entry,
        denies: bool,
        building: &mut Building,
    ) -> Result<(), ResolveError> {
        let effect = if denies { Effect::Deny } else { Effect::Allow };
        let requires = if denies { &building.requires.1 } else { &building.requires.0 };
        let selectors = match &entry.peers {
            Peers::Unsaid => vec![PeerSelector::All],
            Peers::Of(peers) => {
                let concrete = |peer| self.concrete(peer, requires, policy, denies);
                peers.iter().flat_map(concrete).collect::<Vec<_>>()
            }
        };
        let mut numbers: Vec<usize> =
            selectors.into_iter().map(|selector| building.selectors.number(selector)).collect();
        numbers.dedup();
        let rules = match &entry.ports {
            Ports::All => {
                let rule = self.origin(Some(policy), &entry.section);
                for peer in numbers {
                    let filter = Filter::of_everything(peer, effect, rule);
                    let filter = Filter { authentication: entry.authentication, ..filter };
                    self.add(filter, building)?;
                }
                return Ok(());
            }
            Ports::Of(rules) => rules,
        };
        for rule in rules {
            let filter = self.filter(policy, rule, effect, building.default_deny)?;
            for &peer in &numbers {
                let authentication = entry.authentication;
                let filter = Filter { peer, authentication, ..filter.clone() };
                self.on_ports(policy, &rule.section, &rule.ports, &filter, building)?;
            }
        }
        Ok(())
    }

    /// What an item of `toPorts` says, of no port yet.
    fn filter(
        &mut self,
        policy: &Policy,
        rule: &PortRule,
        effect: Effect,
        default_deny: bool,
    ) -> Result<Filter, ResolveError> {
        if let Some(listener) = &rule.listener
            && policy.name.namespace.is_none()
            && listener.kind == "CiliumEnvoyConfig"
        {
            return Err(ResolveError::ForeignListener {
                policy: policy.name.to_string(),
                section: rule.section.clone(),
            });
        }
        let id = self.origin(Some(policy), &rule.section);
        let named = !rule.server_names.is_empty() || !rule.tls.is_empty();
        let parser = match &rule.rules {
            L7::Opaque => match &rule.listener {
                Some(listener) => Parser::Listener(listener.clone()),
                None if named => Parser::Tls,
                None => Parser::None,
            },
            L7::Http(rules) => Parser::Http(vec![self.numbered(policy, rules)]),
            L7::Kafka(rules) => Parser::Kafka(vec![self.numbered(policy, rules)]),
            L7::Dns(rules) => Parser::Dns(vec![self.numbered(policy, rules)]),
            L7::Generic { protocol, rules } => {
                Parser::Generic(protocol.clone(), vec![self.numbered(policy, rules)])
            }
        };
        let allows_all = match &rule.rules {
            L7::Opaque => false,
            // A protocol without any rules is read, and everything in it is allowed.
            L7::Generic { rules, .. } if rules.is_empty() => true,
            // Where nothing is denied by default, rules say what is seen, not what is refused.
            _ => !default_deny,
        };
        let filter = Filter::of_everything(EVERYBODY, effect, id);
        Ok(Filter {
            open: allows_all.then_some(id),
            parser,
            server_names: rule.server_names.clone(),
            tls: rule.tls.clone(),
            ..filter
        })
    }

    /// Rules with their numbers.
    fn numbered<R: Placed>(&mut self, policy: &Policy, rules: &[Arc<R>]) -> Numbered<R> {
        let number = |rule: &Arc<R>| (self.origin(Some(policy), rule.section()), rule.clone());
        rules.iter().map(number).collect()
    }

    /// Puts a filter on each of some ports.
    fn on_ports(
        &mut self,
        policy: &Policy,
        section: &str,
        ports: &[PortSpec],
        filter: &Filter,
        building: &mut Building,
    ) -> Result<(), ResolveError> {
        for port in ports {
            let protocols = match &port.protocol {
                Some(protocol) => std::slice::from_ref(protocol),
                None => &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..],
            };
            for &protocol in protocols {
                let icmp = matches!(protocol, Protocol::Icmp | Protocol::IcmpV6);
                let (first, last) = match &port.port {
                    PortRef::Numbers(0, _) if !icmp => (0, u16::MAX),
                    PortRef::Numbers(first, last) => (*first, *last),
                    PortRef::Named(name) => {
                        let number =
                            self.named_port(policy, section, name, protocol, building.direction)?;
                        let Some(number) = number else { continue };
                        (number, number)
                    }
                };
                let protocol = Some(protocol);
                self.add(Filter { protocol, first, last, ..filter.clone() }, building)?;
            }
        }
        Ok(())
    }

    fn add(&self, filter: Filter, building: &mut Building) -> Result<(), ResolveError> {
        building.filters.add(filter, |id| self.describe(id))
    }

    /// The number of a named port: the workload's own for ingress, its peers' for egress. An
    /// unknown name grants nothing.
    fn named_port(
        &mut self,
        policy: &Policy,
        section: &str,
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
                self.uses.ports = true;
                self.around.ports.of(name, protocol).into_iter().collect()
            }
        };
        if numbers.len() > 1 {
            let numbers: Vec<_> = numbers.iter().map(u16::to_string).collect();
            return Err(ResolveError::AmbiguousPort {
                policy: policy.name.to_string(),
                section: section.to_owned(),
                port: name.to_owned(),
                numbers: numbers.join(" or "),
            });
        }
        Ok(numbers.first().copied())
    }

    /// The selectors that a peer of a rule stands for now.
    fn concrete(
        &mut self,
        peer: &PeerSelector,
        requires: &Selector,
        policy: &Policy,
        denies: bool,
    ) -> Vec<PeerSelector> {
        match peer {
            PeerSelector::Endpoints(selector) => {
                vec![PeerSelector::Labels(selector.and(requires).canonical())]
            }
            PeerSelector::Labels(selector) => {
                vec![PeerSelector::Labels(selector.clone().canonical())]
            }
            PeerSelector::CidrGroup { group, except } => {
                self.uses.groups = true;
                let prefixes = self.around.repository.group(group);
                let cidr = |prefix| PeerSelector::Cidr { prefix, except: except.clone() };
                prefixes.map(cidr).collect()
            }
            PeerSelector::Service(service) => {
                self.uses.services = true;
                if denies && self.around.unknown_services {
                    // Anybody may stand behind it.
                    return vec![PeerSelector::All];
                }
                of_service(service, policy.name.namespace.as_deref(), self.around.services)
            }
            peer => vec![peer.clone()],
        }
    }

    /// A rule, for an error.
    fn describe(&self, id: RuleId) -> String {
        let origin = self.origins.get(id.index());
        origin.map_or_else(String::new, |origin| {
            format!("policy `{}`, `{}`", origin.policy(), origin.section())
        })
    }

    fn origin(&mut self, policy: Option<&Policy>, section: &str) -> RuleId {
        // Sections live as long as their policies, so their place is as good a name as their text.
        let key = (policy.map(std::ptr::from_ref), std::ptr::from_ref(section));
        if let Some(id) = self.numbers.get(&key) {
            return *id;
        }
        let name = match policy {
            None => "".into(),
            Some(policy) => self
                .names
                .entry(std::ptr::from_ref(policy))
                .or_insert_with(|| policy.name.to_string().into())
                .clone(),
        };
        let id = RuleId(number(self.origins.len()));
        self.numbers.insert(key, id);
        let kind = policy.map_or("", |policy| policy.name.kind);
        self.origins.push(RuleOrigin::new(name, kind, section));
        id
    }
}

/// A direction while it is put together.
pub(super) struct Building {
    pub(super) filters: Filters,
    pub(super) selectors: Selectors,
    /// What peers must fulfil, of all rules together: for what is allowed, and for what is denied.
    requires: (Selector, Selector),
    direction: TrafficDirection,
    default_deny: bool,
}

/// The requirements of all rules together (Cilium `fromRequires`, `toRequires`): for what is allowed,
/// and for what is denied.
pub(crate) fn requirements_of<'d>(
    directed: impl Iterator<Item = &'d Directed>,
) -> (Selector, Selector) {
    let (mut allow, mut deny) = (Selector::default(), Selector::default());
    for (entry, denies) in directed.flat_map(Directed::entries) {
        let joined = if denies { &mut deny } else { &mut allow };
        for own in &entry.requires {
            *joined = joined.and(own);
        }
    }
    (allow, deny)
}

/// What has a place in a document.
trait Placed {
    fn section(&self) -> &str;
}

macro_rules! placed {
    ($($rule:ty),*) => {
        $(impl Placed for $rule {
            fn section(&self) -> &str {
                &self.section
            }
        })*
    };
}

placed!(
    crate::rule::HttpRule,
    crate::rule::KafkaRule,
    crate::rule::DnsRule,
    crate::rule::GenericRule
);

/// An index; memory ends long before these numbers do.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
