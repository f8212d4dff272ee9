//! The endpoints that the shared proxy knows, as it was told of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use portreeve_core::{EndpointConfig, Endpoints};
use portreeve_policy::EndpointPolicy;

use super::{DatapathError, EndpointId, EndpointSpec};

/// Endpoints by their numbers; the proxy has them by name.
#[derive(Debug)]
pub(crate) struct Registered {
    endpoints: Arc<Endpoints>,
    known: BTreeMap<EndpointId, Known>,
}

/// What the proxy was told last.
#[derive(Debug)]
struct Known {
    config: EndpointConfig,
    policy: EndpointPolicy,
    /// The proxy does not have it at all of its addresses.
    is_lacking: bool,
}

/// Identities of workloads (Cilium `pkg/identity/numericidentity.go`); those of prefixes come after.
const LABELLED: std::ops::Range<u32> = 256..1 << 24;

impl Registered {
    pub(crate) fn new(endpoints: Arc<Endpoints>) -> Self {
        Self { endpoints, known: BTreeMap::new() }
    }

    /// An endpoint is there, and this is its policy.
    ///
    /// # Errors
    /// When the proxy has one of its addresses as another's, whom nobody has told of.
    pub(crate) fn put(
        &mut self,
        endpoint: &EndpointSpec,
        policy: EndpointPolicy,
    ) -> Result<(), DatapathError> {
        self.take_from_others(endpoint);
        let config = EndpointConfig {
            name: endpoint.name.clone(),
            addresses: endpoint.addresses.clone(),
            limits: endpoint.limits.clone(),
        };
        let upserted = self.endpoints.upsert(config.clone(), policy.clone());
        let is_lacking = !upserted.refused.is_empty();
        self.known.insert(endpoint.id, Known { config, policy, is_lacking });
        match upserted.refused.first() {
            None => Ok(()),
            Some(taken) => Err(DatapathError(taken.to_string())),
        }
    }

    /// Who has an address is decided before the proxy is told, which leaves it to whoever has it: one who is
    /// told of later has to give it up first.
    fn take_from_others(&mut self, endpoint: &EndpointSpec) {
        for (_, other) in self.known.iter_mut().filter(|(id, _)| **id != endpoint.id) {
            let before = other.config.addresses.len();
            other.config.addresses.retain(|address| !endpoint.addresses.contains(address));
            if other.config.addresses.len() < before {
                let again = self.endpoints.upsert(other.config.clone(), other.policy.clone());
                other.is_lacking = !again.refused.is_empty();
            }
        }
    }

    /// An endpoint is gone.
    pub(crate) fn remove(&mut self, id: EndpointId) {
        if let Some(gone) = self.known.remove(&id) {
            self.endpoints.remove(&gone.config.name);
        }
    }

    /// Addresses have other identities than before.
    pub(crate) fn addresses_changed(
        &mut self,
        policies: &mut dyn Iterator<Item = (EndpointId, EndpointPolicy)>,
    ) {
        let (mut any, mut all_known) = (None, true);
        for (id, policy) in policies {
            let Some(known) = self.known.get_mut(&id) else {
                all_known = false;
                continue;
            };
            any = Some(policy.clone());
            known.policy = policy.clone();
            // Whoever is known here is known there.
            if self.endpoints.set_policy(&known.config.name, policy.clone()).is_err() {
                let again = self.endpoints.upsert(known.config.clone(), policy);
                known.is_lacking = !again.refused.is_empty();
            }
            all_known &= !known.is_lacking;
        }
        // Where everybody is, all policies know. An address that somebody has left may be on another node by
        // now; but not while it may be that of one who is here and not known to the proxy yet.
        if let Some(policy) = any.filter(|_| all_known) {
            let is_workloads = |address| LABELLED.contains(&policy.identify(address).get());
            self.endpoints.elsewhere(is_workloads);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}
