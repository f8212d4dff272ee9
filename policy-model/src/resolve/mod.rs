//! Resolving: the policies that select one workload become its [`EndpointPolicy`].
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | which rules select the workload, and which filters they become |
//! | `filter.rs` | filters: merging, and what can't be merged |
//! | `peers.rs` | selectors of peers as sets of identities |
//! | `spans.rs` | which filter decides on a port |
//! | `sets.rs` | HTTP rule sets: shared, and within a budget |

mod filter;
mod peers;
mod sets;
mod spans;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::filter::{EVERYBODY, Effect, Filter, Filters, Numbered, Parser};
use self::peers::Selectors;
pub(crate) use self::peers::{NamedPorts, Selections, of_service};
pub(crate) use self::sets::Sets;
use self::spans::Compiler;
use crate::compiled::{Classes, Decisions, DirectionPolicy, EndpointPolicy, PortPolicy};
use crate::directory::{Directory, Service};
use crate::endpoint::{Endpoint, NamedPort};
use crate::identity::{
    Identities, Identity, IdentityAllocator, IdentityIndex, InMemoryIdentities, LocalIdentities,
};
use crate::label::{Labels, RESERVED};
use crate::repository::Repository;
use crate::rule::{
    Directed, Entry, L7, Mode, PeerSelector, Peers, Policy, PortRef, PortRule, PortSpec, Ports,
    Protocol, Rule, Subject, TrafficDirection,
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
    /// Policies for nodes are in force (Cilium `enable-host-firewall`); else nodes are open.
    pub host_firewall: bool,
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
    /// Two rules about the same peers and ports exclude each other.
    #[error("{one} and {two} are about the same peers and ports, and have {what}")]
    Conflict {
        /// One rule.
        one: String,
        /// The other.
        two: String,
        /// What does not go together.
        what: String,
    },
    /// Requests are to be judged inside of TLS that does not end here.
    #[error(
        "{rule}: rules and `serverNames` meet on the same peers and ports without \
         `terminatingTLS`; what is said inside of TLS can't be read"
    )]
    Unreadable {
        /// One of the rules.
        rule: String,
    },
    /// A clusterwide policy refers to an object of a namespace.
    #[error(
        "policy `{policy}`, `{section}`: a clusterwide policy can't refer to a CiliumEnvoyConfig, \
         which belongs to a namespace; use a CiliumClusterwideEnvoyConfig"
    )]
    ForeignListener {
        /// The policy.
        policy: String,
        /// The place in it.
        section: String,
    },
    /// There are no numbers left for identities.
    #[error(
        "there are no identities left; policies name too many prefixes, or peers too many labels"
    )]
    OutOfIdentities,
    /// Judging a request could take too long, or the rules need too much memory.
    #[error(
        "policy `{policy}`, `{section}`: with this rule, {rules} HTTP rules on one port cost too \
         much, whatever is asked; let rules begin with different paths, or part them by host"
    )]
    TooExpensive {
        /// The policy.
        policy: String,
        /// The rule with which it becomes too much.
        section: String,
        /// How many rules there are with it.
        rules: usize,
        /// The rule's number.
        id: RuleId,
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
        directory: &Directory,
        options: &Options,
    ) -> Result<Self, ResolveError> {
        let mut numbers = InMemoryIdentities::default();
        let mut local = LocalIdentities::default();
        let mut index = IdentityIndex::default();
        let mut identities = Identities::new(options.single_stack, &mut index);
        let mut add = |labels: &Labels| {
            let built_in = crate::identity::built_in_labels(labels);
            let identity = built_in
                .or_else(|| numbers.acquire(labels))
                .ok_or(ResolveError::OutOfIdentities)?;
            identities.add_labels(identity, labels, &mut index);
            Ok(identity)
        };
        let labels = endpoint.labels.clone().placed(&endpoint.namespace);
        let workload = add(&labels)?;
        for labels in &directory.hypothetical {
            add(labels)?;
        }
        let mut places = Vec::new();
        for peer in &directory.peers {
            let identity = add(&peer.labels.clone().placed(&endpoint.namespace))?;
            places.extend(peer.prefixes.iter().map(|prefix| (*prefix, identity)));
        }
        for address in &endpoint.addresses {
            identities.place((*address).into(), workload);
        }
        for (prefix, identity) in places {
            identities.place(prefix, identity);
        }
        for prefix in repository.prefixes(directory) {
            let host = prefix.prefix_len() == prefix.max_prefix_len();
            let names = if host { directory.names.of(prefix.addr()) } else { Vec::new() };
            identities.add_prefix(prefix, names, &mut local, &mut index);
        }
        let selected = select(repository.policies.iter(), &labels, options);
        let mut ports = NamedPorts::default();
        directory.peers.iter().for_each(|peer| ports.add(&peer.named_ports));
        let surroundings = Surroundings {
            repository,
            options,
            identities: &identities,
            index: &index,
            services: &directory.services,
            ports: &ports,
        };
        let (mut selections, mut sets) = (Selections::default(), Sets::default());
        let caches = Caches { selections: &mut selections, sets: &mut sets };
        let (decisions, _) =
            Resolver::new(endpoint, &labels, surroundings, caches).resolve(&selected)?;
        Ok(Self { workload, identities: Arc::new(identities), decisions: Arc::new(decisions) })
    }
}

/// A rule that selects the workload.
#[derive(Clone, Copy)]
pub(crate) struct Selected<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) rule: &'a Rule,
}

/// The rules that select a workload, or a node.
pub(crate) fn select<'a>(
    policies: impl Iterator<Item = &'a Policy>,
    labels: &Labels,
    options: &Options,
) -> Vec<Selected<'a>> {
    policies
        .flat_map(|policy| policy.rules.iter().map(move |rule| Selected { policy, rule }))
        .filter(|selected| selects(&selected.rule.subject, labels, options))
        .collect()
}

pub(crate) fn selects(subject: &Subject, labels: &Labels, options: &Options) -> bool {
    match (subject, is_reserved(labels, "host")) {
        (Subject::Endpoints(selector), false) => selector.matches(labels),
        (Subject::Nodes(selector), true) => options.host_firewall && selector.matches(labels),
        _ => false,
    }
}

fn is_reserved(labels: &Labels, name: &str) -> bool {
    labels.iter().any(|label| label.source == RESERVED && label.key == name)
}

/// What a workload's policy depends on, beside the policies that select it.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) options: &'a Options,
    pub(crate) identities: &'a Identities,
    pub(crate) index: &'a IdentityIndex,
    pub(crate) services: &'a [Service],
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
    around: Surroundings<'a>,
    caches: Caches<'a>,
    uses: Uses,
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
            // Rules exist, and none of them wants default deny: all that is not denied passes.
            let rule = self.origin(None, "enableDefaultDeny");
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
                let concrete = |peer| self.concrete(peer, requires, policy);
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
            L7::Opaque if rule.listener.is_some() => Parser::Listener,
            L7::Opaque if named => Parser::Tls,
            L7::Opaque => Parser::None,
            L7::Http(rules) => Parser::Http(vec![self.numbered(policy, rules)]),
            L7::Kafka(rules) => Parser::Kafka(vec![self.numbered(policy, rules)]),
            L7::Dns(rules) => Parser::Dns(vec![self.numbered(policy, rules)]),
            L7::Generic { protocol, rules } => {
                Parser::Generic(protocol.clone(), vec![self.numbered(policy, rules)])
            }
        };
        let filter = Filter::of_everything(EVERYBODY, effect, id);
        Ok(Filter {
            // Where nothing is denied by default, rules say what is seen, not what is refused.
            open: (!default_deny && !matches!(rule.rules, L7::Opaque)).then_some(id),
            parser,
            server_names: rule.server_names.clone(),
            tls: rule.tls.clone(),
            listener: rule.listener.clone(),
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

    /// Joins the filters of every identity; identities with the same filters share a class.
    fn compile(&mut self, building: Building, enforced: bool) -> Result<Classes, ResolveError> {
        let Building { filters, selectors, .. } = building;
        let mut by_selector: Vec<Vec<usize>> = vec![Vec::new(); selectors.len()];
        for (index, filter) in filters.list.iter().enumerate() {
            by_selector[filter.peer].push(index);
        }
        // Who is selected by the same selectors is of the same class. Each step from one combination of
        // selectors to the next is remembered, so that an identity costs a look-up a selector.
        let mut combinations: Vec<Vec<usize>> = vec![Vec::new()];
        let mut steps: FxHashMap<(u32, usize), u32> = FxHashMap::default();
        let mut of: FxHashMap<Identity, u32> = FxHashMap::default();
        for (selector_number, selector) in selectors.iter() {
            let (used, identities) =
                self.caches.selections.of(selector, self.around.identities, self.around.index);
            self.uses.selections.insert(used);
            for identity in identities.iter() {
                let combination = of.entry(*identity).or_insert(0);
                *combination = *steps.entry((*combination, selector_number)).or_insert_with(|| {
                    let mut next = combinations[*combination as usize].clone();
                    next.push(selector_number);
                    combinations.push(next);
                    number(combinations.len() - 1)
                });
            }
        }
        let mut compiler =
            Compiler { filters: &filters.list, sets: self.caches.sets, compiled: HashMap::new() };
        let mut classes = Classes { enforced, ..Classes::default() };
        let everybody = std::mem::take(&mut by_selector[EVERYBODY]);
        classes.classes.push(compiler.class(&everybody)?);
        let mut known: Vec<Option<u32>> = vec![None; combinations.len()];
        for combination in of.values_mut() {
            let place = *combination as usize;
            *combination = match known[place] {
                Some(class) => class,
                None => {
                    let own = combinations[place].iter().flat_map(|number| &by_selector[*number]);
                    let mut about: Vec<usize> = everybody.iter().chain(own).copied().collect();
                    about.sort_unstable();
                    classes.classes.push(compiler.class(&about)?);
                    let class = number(classes.classes.len() - 1);
                    known[place] = Some(class);
                    class
                }
            };
        }
        classes.by_identity = of;
        Ok(classes)
    }

    /// The selectors that a peer of a rule stands for now.
    fn concrete(
        &mut self,
        peer: &PeerSelector,
        requires: &Selector,
        policy: &Policy,
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
struct Building {
    filters: Filters,
    selectors: Selectors,
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
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
