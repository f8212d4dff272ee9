//! Resolving: the policies that select one workload become its [`EndpointPolicy`].
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | options, errors, and which rules select the workload |
//! | `resolver.rs` | rules as filters |
//! | `filter.rs` | filters: merging, and what can't be merged |
//! | `peers.rs` | selectors of peers as sets of identities |
//! | `classes.rs` | who is treated alike |
//! | `spans.rs` | which filter decides on a port |
//! | `sets.rs` | HTTP rule sets: shared, and within a budget |

mod classes;
mod filter;
mod peers;
mod resolver;
mod sets;
mod spans;

use std::sync::Arc;

pub(crate) use self::peers::{NamedPorts, Selections, of_service};
pub(crate) use self::resolver::{Caches, Resolver, Surroundings, Uses, requirements_of};
pub(crate) use self::sets::Sets;
use crate::compiled::EndpointPolicy;
use crate::directory::Directory;
use crate::endpoint::Endpoint;
use crate::identity::{Identities, IdentityAllocator, IdentityIndex, InMemoryIdentities};
use crate::label::{Labels, RESERVED};
use crate::repository::Repository;
use crate::rule::{Policy, Rule, Subject};
use crate::verdict::RuleId;

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
            let names = directory.names.of_prefix(prefix);
            identities.add_prefix(prefix, names, &mut numbers, &mut index);
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
            unknown_services: false,
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
