//! What is in force: a policy, and the numbers that it knows peers by.
//!
//! Policy compares numbers, and a number means something to the policy it was given out for. So those
//! of peers that come by label or SPIFFE id are swapped together with the policy.

use std::collections::HashMap;
use std::sync::Arc;

use portreeve_policy::{
    Change, Endpoint, EndpointPolicy, Engine, Identity, Labels, ResolveError, Source,
};

use super::{GuardConfig, Peer};
use crate::policy_loader::{LoadError, unrestricted};
use crate::snapshot::Snapshot;

/// Most sets of labels that peers are known by, beside those configured. A mesh has as many as
/// service accounts; beyond it, new ones are unknown, and denied: whoever makes names up must not make
/// the program hold them.
const MOST_PEERS: usize = 4096;

/// A policy and who it knows. Immutable, swapped whole.
pub(super) struct InForce {
    pub(super) snapshot: Arc<Snapshot>,
    /// By labels, as the program gives them.
    pub(super) by_labels: HashMap<Arc<Labels>, Identity>,
    /// What trusted SPIFFE ids stand for.
    by_spiffe: HashMap<Arc<str>, Arc<Labels>>,
}

impl InForce {
    /// A policy, knowing those who were known before by the numbers they have now.
    pub(super) fn new(snapshot: Snapshot, endpoint: &Endpoint, before: Option<&Self>) -> Self {
        let number = |labels: &Arc<Labels>| {
            snapshot.policy.identity_of(&Labels::clone(labels).placed(&endpoint.namespace))
        };
        let (mut by_labels, mut by_spiffe) = (HashMap::new(), HashMap::new());
        if let Some(before) = before {
            by_labels.extend(before.by_labels.keys().map(|l| (l.clone(), number(l))));
            let named = |(id, labels): (&Arc<str>, &Arc<Labels>)| (id.clone(), labels.clone());
            by_spiffe.extend(before.by_spiffe.iter().map(named));
        }
        Self { snapshot: Arc::new(snapshot), by_labels, by_spiffe }
    }

    /// The same policy with somebody more.
    pub(super) fn with(
        &self,
        policy: EndpointPolicy,
        endpoint: &Endpoint,
        labels: &Arc<Labels>,
        spiffe: Option<&str>,
    ) -> Self {
        let identity = policy.identity_of(&Labels::clone(labels).placed(&endpoint.namespace));
        let (mut by_labels, mut by_spiffe) = (self.by_labels.clone(), self.by_spiffe.clone());
        by_labels.insert(labels.clone(), identity);
        by_spiffe.extend(spiffe.map(|id| (Arc::from(id), labels.clone())));
        Self { snapshot: Arc::new(self.snapshot.knowing(policy)), by_labels, by_spiffe }
    }

    /// Who a peer is. `None`: nobody that was met before.
    pub(super) fn identify(&self, peer: Peer<'_>) -> Option<Identity> {
        match peer {
            Peer::Unknown => Some(Identity::UNKNOWN),
            Peer::Address(address) => Some(self.snapshot.policy.identify(address.ip())),
            Peer::Labels(labels) => self.by_labels.get(labels).copied(),
            Peer::Spiffe(id) => self.by_labels.get(self.by_spiffe.get(id)?).copied(),
        }
    }

    /// Whether there is no room for anybody more.
    pub(super) fn is_full(&self) -> bool {
        self.by_labels.len() >= MOST_PEERS || self.by_spiffe.len() >= MOST_PEERS
    }
}

/// Builds the engine of one workload from documents.
///
/// # Errors
/// [`LoadError::Documents`] or [`LoadError::Resolve`].
pub(super) fn engine<'a>(
    config: &GuardConfig,
    sources: Vec<Source>,
    known: impl Iterator<Item = &'a Arc<Labels>>,
) -> Result<(Engine, EndpointPolicy), LoadError> {
    let mut engine = Engine::new(config.options.clone());
    for (index, peer) in config.peers.iter().enumerate() {
        let labels = peer.labels.clone().placed(&config.endpoint.namespace);
        let peer = portreeve_policy::Peer { labels, ..peer.clone() };
        settled(engine.upsert_peer(&format!("configured-{index}"), peer))?;
    }
    for labels in known {
        settled(introduce(&mut engine, &config.endpoint, labels))?;
    }
    for warning in engine.apply(sources)?.warnings.iter().filter(|warning| !warning.advice) {
        tracing::warn!("{warning}");
    }
    // Last, so that the policy is computed once.
    settled(engine.upsert_endpoint(config.endpoint.clone()))?;
    let policy = engine.policy(&config.endpoint.name).ok_or(ResolveError::OutOfIdentities)?;
    let GuardConfig { endpoint, options, direction, .. } = config;
    if let Some(warning) = unrestricted(&policy, endpoint, options, *direction) {
        tracing::warn!("{warning}");
    }
    Ok((engine, policy))
}

/// Makes a set of labels known to the engine.
pub(super) fn introduce(engine: &mut Engine, endpoint: &Endpoint, labels: &Labels) -> Change {
    let placed = labels.clone().placed(&endpoint.namespace);
    engine.upsert_peer(&format!("labels:{placed}"), portreeve_policy::Peer::new([], placed))
}

/// What has gone wrong in a change, if anything.
pub(super) fn settled(change: Change) -> Result<(), LoadError> {
    match change.errors.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok(()),
    }
}
