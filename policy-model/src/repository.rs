//! All policies by name: what a set of files says, as one.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use crate::diagnostic::{Diagnostic, Diagnostics, Position, Severity};
use crate::directory::Directory;
use crate::document::{self, Features, Objects};
use crate::lint;
use crate::rule::{CidrGroup, GroupRef, Mode, PeerSelector, Peers, Policy, PolicyName};
use crate::source::Source;

/// Policies that were read together and had no errors.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    pub(crate) policies: Vec<Policy>,
    pub(crate) groups: Vec<CidrGroup>,
    summaries: Vec<PolicySummary>,
    warnings: Vec<Diagnostic>,
}

/// One policy, as a person would list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySummary {
    /// Kind, namespace and name.
    pub name: PolicyName,
    /// Whether its denials are carried out.
    pub mode: Mode,
    /// How many rules it has (`spec` and `specs`).
    pub rules: usize,
    /// The file it was read from.
    pub source: String,
    /// The line it begins at.
    pub line: u32,
}

impl Repository {
    /// Reads policies, with what is known by default.
    ///
    /// # Errors
    /// All errors of all sources at once, with the warnings; nothing is loaded then.
    pub fn parse(sources: impl IntoIterator<Item = Source>) -> Result<Self, Diagnostics> {
        Self::parse_with(sources, Features::default())
    }

    /// Reads policies.
    ///
    /// # Errors
    /// As [`Repository::parse`].
    pub fn parse_with(
        sources: impl IntoIterator<Item = Source>,
        features: Features,
    ) -> Result<Self, Diagnostics> {
        let mut found = Vec::new();
        let mut objects = Objects::default();
        let sources: Vec<Source> = sources.into_iter().collect();
        for source in &sources {
            objects.append(document::read(source, features, &mut found));
        }
        Self::of(objects, &sources, found)
    }

    /// Objects that were read, with what was found on the way.
    pub(crate) fn of(
        objects: Objects,
        sources: &[Source],
        mut found: Vec<Diagnostic>,
    ) -> Result<Self, Diagnostics> {
        let Objects { policies, groups } = objects;
        find_doubles(&policies, &groups, &mut found);
        lint::warn(&policies, sources, &mut found);
        // Errors first, each kind in the order of the files and their lines.
        let order = |name: &str| sources.iter().position(|source| source.name == name);
        found.sort_by_key(|found| {
            let warning = found.severity == Severity::Warning;
            (warning, order(&found.source), found.line, found.column)
        });
        let found = Diagnostics(found);
        if found.has_errors() {
            return Err(found);
        }
        let summaries = policies.iter().map(summary).collect();
        Ok(Self { policies, groups, summaries, warnings: found.0 })
    }

    /// Calls every policy otherwise: so that a program's own can have names that no document can have.
    #[must_use]
    pub fn renamed(mut self, name: impl Fn(&PolicyName) -> PolicyName) -> Self {
        for policy in &mut self.policies {
            policy.name = name(&policy.name);
        }
        self.summaries = self.policies.iter().map(summary).collect();
        self
    }

    /// Adds a policy, or puts it in the place of the one of its kind and name, which is returned.
    pub(crate) fn insert(&mut self, policy: Policy) -> Option<Policy> {
        let summary = summary(&policy);
        match self.policies.iter().position(|own| own.name == policy.name) {
            Some(place) => {
                self.summaries[place] = summary;
                Some(std::mem::replace(&mut self.policies[place], policy))
            }
            None => {
                self.summaries.push(summary);
                self.policies.push(policy);
                None
            }
        }
    }

    /// Removes a policy.
    pub(crate) fn remove(&mut self, name: &PolicyName) -> Option<Policy> {
        let place = self.policies.iter().position(|own| own.name == *name)?;
        self.summaries.remove(place);
        Some(self.policies.remove(place))
    }

    /// Adds a group, or puts it in the place of the one of its name, which is returned.
    pub(crate) fn insert_group(&mut self, group: CidrGroup) -> Option<CidrGroup> {
        let old = self.remove_group(&group.name);
        self.groups.push(group);
        old
    }

    /// Removes a group.
    pub(crate) fn remove_group(&mut self, name: &str) -> Option<CidrGroup> {
        let place = self.groups.iter().position(|own| own.name == name)?;
        Some(self.groups.remove(place))
    }

    /// The prefixes of the groups that a rule refers to.
    pub(crate) fn group(&self, group: &GroupRef) -> impl Iterator<Item = IpNet> {
        let meant = move |known: &&CidrGroup| match group {
            GroupRef::Name(name) => known.name == *name,
            GroupRef::Labels(selector) => selector.matches(&known.labels),
        };
        self.groups.iter().filter(meant).flat_map(|group| group.prefixes.iter().copied())
    }

    /// Every prefix that rules, groups, services and names are about, exceptions too: each is
    /// somebody of its own.
    pub(crate) fn prefixes(&self, directory: &Directory) -> BTreeSet<IpNet> {
        let mut prefixes: BTreeSet<IpNet> = self.policies.iter().flat_map(named).collect();
        prefixes.extend(self.groups.iter().flat_map(|group| &group.prefixes));
        let behind = directory.services.iter().flat_map(|service| &service.backends);
        prefixes.extend(behind.map(|address| IpNet::from(*address)));
        prefixes.extend(directory.names.iter().map(|(address, _)| IpNet::from(address)));
        prefixes
    }

    /// What is legal and surely not meant.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The policies, in the order they were read.
    pub fn policies(&self) -> impl Iterator<Item = &PolicySummary> {
        self.summaries.iter()
    }
}

fn summary(policy: &Policy) -> PolicySummary {
    PolicySummary {
        name: policy.name.clone(),
        mode: policy.mode(),
        rules: policy.rules.len(),
        source: policy.source.clone(),
        line: policy.line,
    }
}

/// The prefixes that the rules of a policy name.
pub(crate) fn named(policy: &Policy) -> impl Iterator<Item = IpNet> {
    let directed = policy.rules.iter().flat_map(|rule| [&rule.ingress, &rule.egress]);
    let entries = directed.flat_map(|directed| directed.entries().map(|(entry, _)| entry));
    let peers = entries.flat_map(|entry| match &entry.peers {
        Peers::Unsaid => &[],
        Peers::Of(peers) => peers.as_slice(),
    });
    peers.flat_map(|peer| match peer {
        PeerSelector::Cidr { prefix, except } => {
            except.iter().copied().chain([*prefix]).collect::<Vec<_>>()
        }
        PeerSelector::CidrGroup { except, .. } => except.clone(),
        _ => Vec::new(),
    })
}

/// Two objects of one name: which of them is meant can't be known.
fn find_doubles(policies: &[Policy], groups: &[CidrGroup], found: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for policy in policies {
        let name = (policy.name.kind, policy.name.to_string());
        double(&mut seen, name, (&policy.source, policy.line), found);
    }
    for group in groups {
        let name = ("CiliumCIDRGroup", group.name.clone());
        double(&mut seen, name, (&group.source, group.line), found);
    }
}

fn double<'p>(
    seen: &mut HashMap<(&'static str, String), (&'p String, u32)>,
    name: (&'static str, String),
    here: (&'p String, u32),
    found: &mut Vec<Diagnostic>,
) {
    let (kind, text) = name.clone();
    if let Some((source, line)) = seen.insert(name, here) {
        let at = Position { line: here.1, column: 1 };
        let own = Source::new(here.0.as_str(), "");
        let mut error = Diagnostic::new(Severity::Error, &own, at, "metadata.name");
        error.message = format!("{kind} `{text}` was already read from {source}:{line}");
        error.hint = Some("rename one of them, or remove it".to_owned());
        found.push(error);
    }
}
