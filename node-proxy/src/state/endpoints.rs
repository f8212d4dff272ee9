//! Endpoints: what is wanted, and what is in force.

use std::collections::{BTreeMap, BTreeSet};

use super::backoff::Backoff;
use super::claims::Claims;
use crate::datapath::{EndpointId, EndpointSpec};
use crate::objects::Attachment;

/// All endpoints of the node, and those that are going.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// By `namespace/name`.
    pub(super) all: BTreeMap<String, EndpointState>,
    /// Those of whom the datapath is to be told something.
    pub(super) pending: BTreeSet<String>,
    /// Those that are gone, and of which something may be left.
    pub(super) leaving: BTreeMap<EndpointId, Leaving>,
    /// Those for which there is no number.
    pub(super) numberless: BTreeSet<String>,
    /// Which interfaces those that are attached have.
    pub(super) claims: Claims,
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) spec: EndpointSpec,
    pub(super) labels: String,
    pub(super) attached: Attached,
    /// The proxy knows it,
    pub(super) is_proxied: bool,
    /// and may judge it by a policy that is none any more.
    pub(super) proxy_is_behind: bool,
    /// The revision of the policy that it is to have.
    pub(super) wanted: u64,
    /// The revision of the policy that it has; none: nothing passes.
    pub(super) realised: Option<u64>,
    /// Nothing of an older policy is in force.
    pub(super) is_closed: bool,
    /// Who has what this one names, too.
    pub(super) waits_for: Option<String>,
    pub(super) backoff: Backoff,
}

/// Whether programs are on an endpoint's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// Not as far as is known.
    No,
    /// They are, and the endpoint has none of its addresses: nothing passes.
    Closed,
    /// They are, and the datapath knows the endpoint as it is.
    Whole,
}

/// An endpoint that is gone.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) name: String,
    /// Where it was.
    pub(super) attachment: Attachment,
    /// Nothing of its policy is in force.
    pub(super) is_closed: bool,
    pub(super) backoff: Backoff,
}

impl Endpoints {
    /// An endpoint is there, or is another than before.
    pub(super) fn put(&mut self, spec: EndpointSpec, labels: String, revision: u64) {
        let name = spec.name.clone();
        self.leaving.remove(&spec.id);
        match self.all.get_mut(&name) {
            Some(state) => {
                if state.spec != spec {
                    state.attached = Attached::No;
                    state.waits_for = None;
                    self.claims.release(&name, Some(&spec.attachment));
                }
                (state.spec, state.labels, state.wanted) = (spec, labels, revision);
                state.backoff.hurry();
            }
            None => {
                // What it had in the time before it may have no longer.
                self.claims.release(&name, Some(&spec.attachment));
                let state = EndpointState {
                    spec,
                    labels,
                    attached: Attached::No,
                    is_proxied: false,
                    proxy_is_behind: false,
                    wanted: revision,
                    realised: None,
                    is_closed: false,
                    waits_for: None,
                    backoff: Backoff::default(),
                };
                self.all.insert(name.clone(), state);
            }
        }
        self.pending.insert(name.clone());
        self.hurry_those_who_wait_for(&name);
    }

    /// An endpoint is gone. Returns whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.pending.remove(name);
        self.numberless.remove(name);
        self.claims.release(name, None);
        let Some(state) = self.all.remove(name) else { return false };
        self.hurry_those_who_wait_for(name);
        let EndpointSpec { id, attachment, .. } = state.spec;
        let (name, backoff) = (name.to_owned(), Backoff::default());
        self.leaving.insert(id, Leaving { name, attachment, is_closed: false, backoff });
        true
    }

    /// Where those are to be attached who are not yet.
    pub(super) fn awaited(&self) -> BTreeSet<&Attachment> {
        let pending = self.pending.iter().filter_map(|name| self.all.get(name));
        let waiting = pending.filter(|state| state.attached == Attached::No);
        waiting.map(|state| &state.spec.attachment).collect()
    }

    /// An endpoint's policy is another than before.
    pub(super) fn policy_changed(&mut self, name: &str, revision: u64) {
        if let Some(state) = self.all.get_mut(name) {
            state.wanted = revision;
            state.backoff.hurry();
            self.pending.insert(name.to_owned());
        }
    }

    /// One who had what others name, too, may not have it any more.
    fn hurry_those_who_wait_for(&mut self, name: &str) {
        for state in self.all.values_mut() {
            if state.waits_for.as_deref() == Some(name) {
                state.backoff.hurry();
            }
        }
    }

    /// An endpoint is no longer attached by itself.
    pub(super) fn lost(&mut self, id: EndpointId) -> Option<&str> {
        let (name, state) = self.all.iter_mut().find(|(_, state)| state.spec.id == id)?;
        state.attached = Attached::No;
        self.pending.insert(name.clone());
        Some(name)
    }

    /// Interfaces have come or gone: those who wait for one need not wait longer.
    pub(super) fn hurry_unattached(&mut self) {
        for name in &self.pending {
            if let Some(state) =
                self.all.get_mut(name).filter(|state| state.attached == Attached::No)
            {
                state.backoff.hurry();
            }
        }
    }

    /// Whether those of whom something is not in force are closed.
    pub(super) fn pending_are_closed(&self) -> bool {
        self.pending.iter().all(|name| self.all.get(name).is_none_or(|state| state.is_closed))
    }

    /// Whether everything that is wanted is in force.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.leaving.is_empty()
    }
}
