//! A batch of changes, folded into the policy engine.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use portreeve_policy::label::RESERVED;
use portreeve_policy::{Change, Diagnostic, Label, Peer, PolicyName, Severity};

use super::addresses::NODE;
use super::closing::{self, Closing};
use super::leftovers::Unreadable;
use super::people::{endpoint, is_lingering, name, peer};
use super::policy_rows::short;
use super::{Endpoints, Known, News, Node};
use crate::datapath::EndpointSpec;
use crate::objects::{Object, ObjectKey, Workload, is_policy};
use crate::source::{Batch, Event, What};

impl Node {
    /// Takes in what has changed. Nothing is told to the datapath yet: see [`Node::realise`].
    pub fn apply(&mut self, batch: Batch, now: Instant) {
        self.identities.at(now);
        if !self.has_begun {
            self.look_at_node(now);
        }
        for error in batch.unreadable.iter().chain(&batch.doubles) {
            if !self.unreadable.contains(error) && !self.doubles.contains(error) {
                let error = said(error);
                tracing::error!("{error}");
                self.news.tell(|| News::Unreadable { error });
            }
        }
        (self.unreadable, self.doubles) = (batch.unreadable, batch.doubles);
        // However many there are, policies are computed once.
        self.engine.begin_batch();
        for event in batch.events {
            self.take_in(event, now);
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.forget_before(now);
        }
        self.services.settle(&mut self.engine, &self.options.name, &mut |engine_change| {
            note(&mut self.endpoints, &self.news, &engine_change);
        });
        self.end_batch();
    }

    /// Computes what was changed, and what is wanted by that.
    pub(super) fn end_batch(&mut self) {
        let change = self.engine.end_batch();
        self.note(&change);
        let revision = self.engine.addresses_revision();
        if self.ipcache.revision != Some(revision) {
            self.ipcache.want(self.engine.addresses(), revision);
        }
    }

    /// Those who had something in the time before and are not there any more have nothing; of one who can't
    /// be read it is not known.
    fn forget_before(&mut self, now: Instant) {
        let unreadable = self.leftovers.unreadable.values();
        let keep: BTreeSet<String> = unreadable.map(|own| of_key(&own.key)).collect();
        let Endpoints { all, claims, .. } = &mut self.endpoints;
        claims.keep(|name| all.contains_key(name) || keep.contains(name));
        for other in self.addresses.forget_before(&keep) {
            self.place(&other, now);
        }
    }

    fn take_in(&mut self, event: Event, now: Instant) {
        let Event { key, origin, what, diagnostics } = event;
        let (text, place) = (key.to_string(), origin.to_string());
        match what {
            What::Put(object) => {
                self.leftovers.unreadable.retain(|_, own| own.key != key);
                for warning in &diagnostics {
                    tracing::warn!("{}", said(warning));
                }
                let known = Known { origin, is_in_force: true, is_broken: false, diagnostics };
                self.objects.insert(key.clone(), known);
                self.news.tell(|| News::ObjectPut { object: text, origin: place });
                self.open_again(&key);
                self.put(*object, &key, now);
            }
            What::Broken => {
                for found in &diagnostics {
                    match found.severity {
                        Severity::Error => tracing::error!("{}", said(found)),
                        Severity::Warning => tracing::warn!("{}", said(found)),
                    }
                }
                let error = first_error(&diagnostics);
                self.news.tell(|| News::ObjectBroken { object: text, origin: place, error });
                let is_in_force = self.objects.get(&key).is_some_and(|known| known.is_in_force);
                let known = Known { origin, is_in_force, is_broken: true, diagnostics };
                self.objects.insert(key.clone(), known);
                if !is_in_force && !self.has_begun {
                    self.close_for(&key);
                }
            }
            What::Moved => {
                if let Some(known) = self.objects.get_mut(&key) {
                    (known.origin, known.diagnostics) = (origin, diagnostics);
                }
            }
            What::Removed => {
                self.leftovers.unreadable.retain(|_, own| own.key != key);
                self.open_again(&key);
                if self.objects.remove(&key).is_some() {
                    self.news.tell(|| News::ObjectRemoved { object: text });
                    self.remove(&key, now);
                }
            }
        }
    }

    fn put(&mut self, object: Object, key: &ObjectKey, now: Instant) {
        match object {
            Object::Policy(policy) => {
                let change = self.engine.insert(*policy);
                self.note(&change);
            }
            Object::Workload(workload) => self.put_workload(workload, now),
            Object::Namespace(labels) => self.set_namespace(&key.name, Some(labels), now),
            Object::Service(service) => self.services.put(service),
            Object::EndpointSlice(slice) => self.services.put_slice(key.clone(), slice),
        }
    }

    fn remove(&mut self, key: &ObjectKey, now: Instant) {
        let namespace = key.namespace.clone().unwrap_or_default();
        match key.kind.as_str() {
            "Workload" => self.remove_workload(&name(&namespace, &key.name), now),
            "Namespace" => self.set_namespace(&key.name, None, now),
            "Service" => self.services.remove(&namespace, &key.name),
            "EndpointSlice" => self.services.remove_slice(key),
            "CiliumCIDRGroup" => {
                let change = self.engine.remove_group(&key.name);
                self.note(&change);
            }
            kind => {
                let known = crate::objects::POLICY_KINDS.into_iter().find(|known| *known == kind);
                let Some(kind) = known else { return };
                let policy =
                    PolicyName { kind, namespace: key.namespace.clone(), name: key.name.clone() };
                let change = self.engine.remove(&policy);
                self.note(&change);
            }
        }
    }

    fn set_namespace(
        &mut self,
        namespace: &str,
        labels: Option<std::collections::BTreeMap<String, String>>,
        now: Instant,
    ) {
        for workload in self.people.set_namespace(namespace, labels) {
            let full = name(&workload.namespace, &workload.name);
            if self.people.held.get(&full) != Some(&self.people.labels(&workload)) {
                self.put_workload(workload, now);
            }
        }
    }

    fn put_workload(&mut self, workload: Workload, now: Instant) {
        let full = name(&workload.namespace, &workload.name);
        let labels = self.people.labels(&workload);
        // New labels first: whoever has them is known before the old ones are let go.
        for change in self.people.hold(&mut self.engine, &labels) {
            self.note(&change);
        }
        let old = self.people.workloads.insert(full.clone(), workload.clone());
        let others = self.addresses.change(&full, old.as_ref(), Some(&workload));
        let old_labels = self.people.held.insert(full.clone(), labels.clone());
        if let Some(old_labels) = old_labels {
            self.people.let_go(&old_labels, now);
        }
        let was_here = old.is_some_and(|old| old.attachment.is_some());
        if was_here && workload.attachment.is_none() {
            self.remove_endpoint(&full, now);
        }
        self.place(&full, now);
        for other in others {
            self.place(&other, now);
        }
    }

    /// A workload is where it says, with those of its addresses that it has.
    pub(super) fn place(&mut self, full: &str, now: Instant) {
        if full == NODE {
            return self.place_node();
        }
        let workload = self.people.workloads.get(full);
        let (Some(workload), Some(labels)) = (workload, self.people.held.get(full)) else { return };
        let (full, labels) = (full.to_owned(), labels.clone());
        let others: Vec<IpAddr> =
            self.addresses.others(&full, workload).map(|(address, _)| address).collect();
        match &workload.attachment {
            Some(attachment) => {
                let change = self.engine.remove_peer(&full);
                let mut own = endpoint(workload, labels.clone());
                own.addresses.retain(|address| !others.contains(address));
                let addresses = own.addresses.clone();
                let (attachment, limits) = (attachment.clone(), workload.limits.clone());
                self.note(&change);
                let change = self.engine.upsert_endpoint(own);
                self.note(&change);
                let id = match self.endpoints.all.get(&full) {
                    Some(state) => Some(state.spec.id),
                    None => self.ids.acquire(&full, now),
                };
                let Some(id) = id else {
                    tracing::error!(
                        "there is no number left for the endpoint {full}: it is not attached"
                    );
                    self.endpoints.numberless.insert(full);
                    return;
                };
                let policy = self.engine.policy(&full);
                let spec = EndpointSpec {
                    id,
                    name: full,
                    attachment,
                    addresses,
                    identity: policy
                        .map_or(portreeve_policy::Identity::UNKNOWN, |policy| policy.workload()),
                    limits,
                };
                self.endpoints.put(spec, short(&labels), self.engine.revision());
            }
            None => {
                let mut own = peer(workload, labels);
                let is_others =
                    |prefix: &IpNet| others.iter().any(|address| IpNet::from(*address) == *prefix);
                own.prefixes.retain(|prefix| !is_others(prefix));
                let change = self.engine.upsert_peer(&full, own);
                self.note(&change);
            }
        }
    }

    /// Looks which addresses the node has itself: whoever comes from there is `reserved:host`. Whether they are
    /// others than before; call [`Node::realise`] then.
    pub fn look_at_node(&mut self, now: Instant) -> bool {
        let has = match self.datapath.host_addresses() {
            Ok(has) => has,
            Err(error) => {
                if self.node_error.as_ref() != Some(&error) {
                    tracing::error!("can't read which addresses this node has: {error}");
                }
                self.node_error = Some(error);
                return false;
            }
        };
        self.node_error = None;
        let Some(others) = has.and_then(|has| self.addresses.set_node(has)) else { return false };
        self.engine.begin_batch();
        self.place_node();
        for other in others {
            self.place(&other, now);
        }
        self.end_batch();
        true
    }

    fn place_node(&mut self) {
        let labels = [Label::new(RESERVED, "host", "")].into_iter().collect();
        let prefixes: Vec<IpNet> = self.addresses.of_node().map(IpNet::from).collect();
        let change = self.engine.upsert_peer(NODE, Peer::new(prefixes, labels));
        self.note(&change);
    }

    fn remove_workload(&mut self, full: &str, now: Instant) {
        let workload = self.people.workloads.remove(full);
        let others = self.addresses.change(full, workload.as_ref(), None);
        match workload.map(|workload| workload.attachment) {
            Some(None) => {
                let change = self.engine.remove_peer(full);
                self.note(&change);
            }
            // One that could not be read since the start may have been one of ours.
            Some(Some(_)) | None => self.remove_endpoint(full, now),
        }
        if let Some(labels) = self.people.held.remove(full) {
            self.people.let_go(&labels, now);
        }
        for other in others {
            self.place(&other, now);
        }
    }

    fn remove_endpoint(&mut self, full: &str, now: Instant) {
        let change = self.engine.remove_endpoint(full);
        self.note(&change);
        if self.endpoints.remove(full) {
            self.ids.release(full, now);
        }
    }

    /// An object that could not be read when the node started, and may have denied anything: what it could
    /// be about is closed until it can be read, or is gone.
    fn close_for(&mut self, key: &ObjectKey) {
        let namespace = key.namespace.as_deref();
        match key.kind.as_str() {
            "Workload" => {
                // It may be attached since before; what it may do, and who it is, is not known.
                let full = of_key(key);
                if let Some(id) = self.ids.known(&full) {
                    self.leftovers.unreadable.insert(id, Unreadable::new(key.clone()));
                }
            }
            "Namespace" => {
                self.close(key, closing::of_a_namespaces_peers(&key.name));
                self.close(key, closing::of_subjects(Some(&key.name)));
            }
            "Service" | "EndpointSlice" => {
                tracing::error!(
                    "{key} can't be read: whoever may not talk to some services may talk to nobody, and \
                     services that the kernel has stay, until it is mended"
                );
                self.unknown_services.insert(key.clone());
                let change = self.engine.set_unknown_services(true);
                self.note(&change);
            }
            kind if is_policy(kind) => self.close(key, closing::of_subjects(namespace)),
            _ => {}
        }
    }

    /// Puts a policy in force that closes, until `key` can be read.
    fn close(&mut self, key: &ObjectKey, closing: Closing) {
        match closing.instead_of(key) {
            Ok((policies, name, who)) => {
                let change = self.engine.insert(policies);
                self.note(&change);
                tracing::error!("{key} can't be read: {who} until it is mended");
                self.closed.entry(key.clone()).or_default().push(name);
            }
            Err(errors) => tracing::error!("can't close what {key} is about: {errors}"),
        }
    }

    fn open_again(&mut self, key: &ObjectKey) {
        for policy in self.closed.remove(key).into_iter().flatten() {
            let change = self.engine.remove(&policy);
            self.note(&change);
        }
        if self.unknown_services.remove(key) && self.unknown_services.is_empty() {
            let change = self.engine.set_unknown_services(false);
            self.note(&change);
        }
    }

    pub(super) fn note(&mut self, change: &Change) {
        note(&mut self.endpoints, &self.news, change);
    }
}

/// The name of a workload in the engine.
fn of_key(key: &ObjectKey) -> String {
    name(key.namespace.as_deref().unwrap_or_default(), &key.name)
}

/// The policies of some endpoints have changed, others could not be computed.
fn note(endpoints: &mut super::Endpoints, news: &super::NewsSender, change: &Change) {
    for endpoint in &change.endpoints {
        endpoints.policy_changed(endpoint, change.revision);
    }
    // Of labels that linger, whoever has them says so himself.
    let errors = change.errors.iter().filter(|(name, _)| !is_lingering(name));
    for (endpoint, error) in errors {
        tracing::error!("endpoint {endpoint} keeps the policy it had: {error}");
        let (endpoint, error) = (endpoint.clone(), error.to_string());
        news.tell(|| News::PolicyRefused { endpoint, error });
    }
}

fn first_error(diagnostics: &[Diagnostic]) -> String {
    let error = diagnostics.iter().find(|found| found.severity == Severity::Error);
    error.map(said).unwrap_or_default()
}

/// Where it is said already how bad it is.
fn said(found: &Diagnostic) -> String {
    let text = found.to_string();
    let bare = text.strip_prefix(found.severity.as_str()).and_then(|text| text.strip_prefix(": "));
    bare.map_or_else(|| text.clone(), str::to_owned)
}
