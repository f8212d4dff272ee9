//! Telling the datapath what is wanted and not yet in force. What fails is shown, and tried again later;
//! an endpoint whose policy can't be written is closed meanwhile.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use portreeve_policy::EndpointPolicy;

use super::endpoints::{Attached, EndpointState, Leaving};
use super::services::ServiceState;
use super::{News, Node};
use crate::datapath::{Datapath, DatapathError, EndpointId, EndpointSpec, ServiceName};
use crate::objects::Attachment;

impl Node {
    /// Does what there is to do now. Call it after every change, and when [`Node::next`] says so.
    pub fn realise(&mut self, now: Instant) {
        self.identities.at(now);
        self.forget(now);
        // A number must be on disk before anybody is told of it.
        if !self.save(now) {
            return;
        }
        self.close_leaving(now);
        self.realise_leaving(now);
        self.close_unreadable(now);
        self.realise_endpoints(now);
        // Their interfaces have passed to others.
        self.realise_leaving(now);
        self.realise_addresses(now);
        self.realise_services(now);
        self.take_away(now);
        self.collect(now);
    }

    /// Looks whether endpoints are still attached to the interfaces that they were attached to. Call it
    /// when interfaces have come or gone, and [`Node::realise`] then.
    pub fn look_at_interfaces(&mut self, now: Instant) {
        for id in self.datapath.lost() {
            if let Some(name) = self.endpoints.lost(id) {
                tracing::warn!("endpoint {name}: its interface is gone, or is another by now");
            }
        }
        self.endpoints.hurry_unattached();
        self.look_at_node(now);
        self.look_outside();
    }

    /// Makes anew what leads packets to the proxy, if somebody has taken it away.
    pub fn restore_ways(&mut self) {
        self.datapath.restore_ways();
    }

    /// Looks whether other devices and addresses lead outside than before. Call [`Node::realise`] then.
    pub fn look_outside(&mut self) {
        self.restore_ways();
        if self.datapath.look_outside() {
            for state in self.services.all.values_mut() {
                state.is_realised = false;
                state.backoff.hurry();
            }
        }
    }

    /// When there is something to do again without any change.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        // Nothing else is done before that works.
        if let Some(again) = self.saving.again() {
            return Some(again);
        }
        let endpoints = self.endpoints.pending.iter().filter_map(|name| {
            self.endpoints.all.get(name).and_then(|state| state.backoff.again())
        });
        let awaited = self.endpoints.awaited();
        let leaving = self.endpoints.leaving.values().filter(|leaving| {
            // It waits for another.
            !(leaving.is_closed && awaited.contains(&leaving.attachment))
        });
        let leaving = leaving.filter_map(|leaving| leaving.backoff.again());
        let services = self.services.all.values().map(|state| &state.backoff);
        let services = services.chain(self.services.leaving.values());
        endpoints
            .chain(leaving)
            .chain(services.filter_map(|backoff| backoff.again()))
            .chain(self.ipcache.backoff.again())
            .chain(self.next_of_leftovers())
            .chain(self.people.next(self.options.identity_linger))
            .min()
    }

    /// Whether everything that is wanted is in force.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.endpoints.is_settled()
            && self.ipcache.is_settled()
            && self.services.is_settled()
            && self.saving.error.is_none()
            && self.proxy.health().is_ok()
    }

    /// Forgets labels that nobody has had for long.
    fn forget(&mut self, now: Instant) {
        let linger = self.options.identity_linger;
        self.engine.begin_batch();
        for change in self.people.forget(&mut self.engine, now, linger) {
            self.note(&change);
        }
        let change = self.engine.end_batch();
        self.note(&change);
    }

    fn save(&mut self, now: Instant) -> bool {
        if !self.saving.is_due(now) {
            return false;
        }
        match self.identities.save().and_then(|()| self.ids.save()) {
            Ok(()) => {
                self.saving.worked();
                true
            }
            Err(error) => {
                let error = error.to_string();
                if self.saving.failed(error.clone(), now) {
                    tracing::error!("nothing new comes into force: {error}");
                    let what = "keeping identities".to_owned();
                    self.news.tell(|| News::Failed { what, error });
                }
                false
            }
        }
    }

    /// Closes those that are gone and at whose interface another is to be: it is judged all the time.
    fn close_leaving(&mut self, now: Instant) {
        let awaited: BTreeSet<Attachment> = self.endpoints.awaited().into_iter().cloned().collect();
        for (id, leaving) in &mut self.endpoints.leaving {
            let is_due = !leaving.is_closed && leaving.backoff.is_due(now);
            if !is_due || !awaited.contains(&leaving.attachment) {
                continue;
            }
            self.proxy.endpoint_removed(*id);
            match self.datapath.endpoint_closed(*id) {
                Ok(()) => {
                    leaving.is_closed = true;
                    leaving.backoff.worked();
                }
                Err(error) => leaving_failed(*id, leaving, &error, now, &self.news),
            }
        }
    }

    fn realise_leaving(&mut self, now: Instant) {
        let awaited = self.endpoints.awaited();
        let ready = self.endpoints.leaving.iter().filter(|(_, leaving)| {
            leaving.backoff.is_due(now) && !awaited.contains(&leaving.attachment)
        });
        let ready: Vec<EndpointId> = ready.map(|(id, _)| *id).collect();
        for id in ready {
            let Some(leaving) = self.endpoints.leaving.get_mut(&id) else { continue };
            if !leaving.is_closed {
                self.proxy.endpoint_removed(id);
            }
            let endpoint = leaving.name.clone();
            match self.datapath.endpoint_removed(id) {
                Ok(()) => {
                    self.endpoints.leaving.remove(&id);
                    self.news.tell(|| News::EndpointRemoved { endpoint, id });
                }
                Err(error) => leaving_failed(id, leaving, &error, now, &self.news),
            }
        }
    }

    fn realise_endpoints(&mut self, now: Instant) {
        self.attach_endpoints(now);
        while self.pass_addresses_on(now) {
            self.attach_endpoints(now);
        }
    }

    fn attach_endpoints(&mut self, now: Instant) {
        let pending: Vec<String> = self.endpoints.pending.iter().cloned().collect();
        let (mut names, mut policies) = (Vec::new(), Vec::new());
        for name in pending {
            match self.attach_endpoint(&name, now) {
                Some(Ok((id, revision, policy))) => {
                    names.push(name);
                    policies.push((id, revision, policy));
                }
                Some(Err(error)) => self.endpoint_failed(&name, &error, now),
                None => {}
            }
        }
        let results = self.datapath.policies_set(&policies);
        for ((name, (id, revision, _)), result) in names.into_iter().zip(policies).zip(results) {
            match result {
                Ok(()) => self.endpoint_realised(name, id, revision),
                Err(error) => self.endpoint_failed(&name, &error, now),
            }
        }
    }

    /// All but the kernel's policy: that is returned.
    fn attach_endpoint(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Option<Result<(EndpointId, u64, EndpointPolicy), DatapathError>> {
        let state = self.endpoints.all.get_mut(name)?;
        if !state.backoff.is_due(now) {
            return None;
        }
        let policy = self.engine.policy(name)?;
        let (id, revision) = (state.spec.id, state.wanted);
        let mut attached = Ok(());
        if state.attached != Attached::Whole {
            self.leftovers.of_endpoints = true;
            if let Some(error) = self.take_sides(name) {
                return Some(Err(error));
            }
            let state = self.endpoints.all.get_mut(name)?;
            attached = self.datapath.endpoint_put(&state.spec);
            match &attached {
                Ok(()) => {
                    state.attached = Attached::Whole;
                    self.addresses.attached(name, &state.spec.addresses);
                }
                // That there is no room for an address must not leave its interface open.
                Err(_) => drop(attach_closed(&mut *self.datapath, state)),
            }
            if state.attached != Attached::No {
                self.endpoints.claims.claim(&state.spec);
            }
        }
        let state = self.endpoints.all.get_mut(name)?;
        // Wherever it is attached: connections that the proxy has are judged by it.
        let proxied = self.proxy.policy_set(&state.spec, revision, policy.clone());
        (state.is_proxied, state.proxy_is_behind) = (true, proxied.is_err());
        Some(attached.and(proxied).map(|()| (id, revision, policy)))
    }

    /// Whether another has what an endpoint names. If it is an address alone, it is attached without any.
    fn take_sides(&mut self, name: &str) -> Option<DatapathError> {
        let state = self.endpoints.all.get_mut(name)?;
        let interface = self.endpoints.claims.conflict(&state.spec);
        let is_interface = interface.is_some();
        let address = || self.addresses.conflict(name, self.people.workloads.get(name)?);
        let conflict = interface.or_else(address);
        state.waits_for = conflict.as_ref().map(|conflict| conflict.holder.clone());
        let mut error = conflict?.to_string();
        // Nothing is judged by its policy: neither may the proxy think so.
        if std::mem::take(&mut state.is_proxied) {
            self.proxy.endpoint_removed(state.spec.id);
        }
        state.proxy_is_behind = false;
        if is_interface {
            state.attached = Attached::No;
        } else if state.attached == Attached::No {
            match attach_closed(&mut *self.datapath, state) {
                Ok(()) => self.endpoints.claims.claim(&state.spec),
                Err(other) => error = format!("{error}; {other}"),
            }
        }
        Some(DatapathError(error))
    }

    /// One who names an address first, and whose interface is not there, leaves it to one whose is.
    fn pass_addresses_on(&mut self, now: Instant) -> bool {
        let mut passed: Vec<(IpAddr, String, String)> = Vec::new();
        let is_idle = |name: &str| {
            let state = self.endpoints.all.get(name);
            state.is_some_and(|own| own.attached == Attached::No && own.backoff.error.is_some())
        };
        for name in &self.endpoints.pending {
            let state = self.endpoints.all.get(name);
            if state.is_none_or(|state| state.attached != Attached::Closed) {
                continue;
            }
            let Some(workload) = self.people.workloads.get(name) else { continue };
            let others = self.addresses.others(name, workload);
            let free = others.filter(|(address, holder)| {
                is_idle(holder)
                    && !self.addresses.is_firm(*address)
                    && !passed.iter().any(|(other, ..)| other == address)
            });
            let free: Vec<_> =
                free.map(|(at, holder)| (at, name.clone(), holder.to_owned())).collect();
            passed.extend(free);
        }
        if passed.is_empty() {
            return false;
        }
        self.engine.begin_batch();
        for (address, name, holder) in passed {
            self.addresses.pass_on(address, &name);
            self.place(&name, now);
            self.place(&holder, now);
        }
        self.end_batch();
        true
    }

    fn endpoint_realised(&mut self, name: String, id: EndpointId, revision: u64) {
        let Some(state) = self.endpoints.all.get_mut(&name) else { return };
        (state.realised, state.is_closed) = (Some(revision), false);
        if state.backoff.worked() {
            tracing::info!("endpoint {name} is in order again");
        }
        self.endpoints.pending.remove(&name);
        self.news.tell(|| News::EndpointRealised { endpoint: name, id, revision });
    }

    fn endpoint_failed(&mut self, name: &str, error: &DatapathError, now: Instant) {
        let Some(state) = self.endpoints.all.get_mut(name) else { return };
        let id = state.spec.id;
        // What it had may allow what is denied by now.
        let closed = self.datapath.endpoint_closed(id);
        state.realised = None;
        state.is_closed = closed.is_ok() && !state.proxy_is_behind;
        let error = match closed {
            Ok(()) if state.attached != Attached::No => format!("{error}; the endpoint is closed"),
            Ok(()) => format!("{error}; it is not attached: its policy judges nothing"),
            Err(other) => format!("{error}; and it can't be closed: {other}"),
        };
        if state.backoff.failed(error.clone(), now) {
            tracing::error!("endpoint {name}: {error}");
            let endpoint = name.to_owned();
            self.news.tell(|| News::EndpointFailed { endpoint, id, error });
        }
    }

    fn realise_addresses(&mut self, now: Instant) {
        if self.ipcache.is_settled() || !self.ipcache.backoff.is_due(now) {
            return;
        }
        if !self.ipcache.pending.is_empty() {
            let endpoints = &self.endpoints.all;
            let engine = &self.engine;
            let policies = endpoints
                .iter()
                .filter_map(|(name, state)| Some((state.spec.id, engine.policy(name)?)));
            self.proxy.addresses_changed(&mut policies.into_iter());
        }
        let mut result = self.write_addresses();
        if self.ipcache.is_unjudged {
            match self.datapath.rejudge() {
                Ok(()) => self.ipcache.is_unjudged = false,
                Err(error) => {
                    result = Err(format!("open connections are not judged anew: {error}"))
                }
            }
        }
        match result {
            Ok(()) => {
                self.ipcache.backoff.worked();
            }
            Err(error) => {
                if self.ipcache.backoff.failed(error.clone(), now) {
                    tracing::error!("addresses: {error}");
                    let what = "writing addresses".to_owned();
                    self.news.tell(|| News::Failed { what, error });
                }
            }
        }
    }

    /// Writes what is to be written. What can't be, stays to be written; the last error.
    fn write_addresses(&mut self) -> Result<(), String> {
        let ipcache = &mut self.ipcache;
        let (put, remove) = ipcache.work();
        ipcache.pending.clear();
        let (mut written, mut removed, mut result) = (0, 0, Ok(()));
        for (prefix, identity) in put {
            match self.datapath.ipcache_put(prefix, identity) {
                Ok(()) => {
                    ipcache.realised.insert(prefix, identity);
                    written += 1;
                }
                Err(error) => {
                    ipcache.pending.insert(prefix);
                    result = Err(format!("{prefix}: {error}"));
                }
            }
        }
        for prefix in remove {
            match self.datapath.ipcache_removed(prefix) {
                Ok(()) => {
                    ipcache.realised.remove(&prefix);
                    removed += 1;
                }
                Err(error) => {
                    ipcache.pending.insert(prefix);
                    result = Err(format!("{prefix}: {error}"));
                }
            }
        }
        ipcache.is_unjudged |= written + removed > 0;
        if written + removed > 0 {
            self.news.tell(|| News::Addresses { put: written, removed });
        }
        result
    }

    fn realise_services(&mut self, now: Instant) {
        let (mut gone, mut put) = (Vec::new(), Vec::new());
        for (name, backoff) in &mut self.services.leaving {
            if !backoff.is_due(now) {
                continue;
            }
            match self.datapath.service_removed(name) {
                Ok(()) => gone.push(name.clone()),
                Err(error) => service_failed(backoff, name, &error, now, &self.news),
            }
        }
        // Who stands behind them is not known: they stay as they are.
        let held: BTreeSet<String> = self.held_services().map(str::to_owned).collect();
        let is_due = |name: &ServiceName, state: &ServiceState| {
            !state.is_realised && state.backoff.is_due(now) && !held.contains(&name.namespace)
        };
        let due = self.services.all.iter().filter(|(name, state)| is_due(name, state));
        let due: Vec<ServiceName> = due.map(|(name, _)| name.clone()).collect();
        if due.len() > 1 {
            self.datapath.services_change(&due);
        }
        for (name, state) in &mut self.services.all {
            if !is_due(name, state) {
                continue;
            }
            match self.datapath.service_put(&state.spec) {
                Ok(()) => put.push(name.clone()),
                Err(error) => service_failed(&mut state.backoff, name, &error, now, &self.news),
            }
        }
        if gone.is_empty() && put.is_empty() {
            return;
        }
        let done = self.datapath.services_done();
        let failure = |name: &ServiceName| match &done {
            Ok(failures) => failures.get(name).cloned(),
            Err(error) => Some(error.clone()),
        };
        for name in gone {
            let Some(backoff) = self.services.leaving.get_mut(&name) else { continue };
            if let Some(error) = failure(&name) {
                service_failed(backoff, &name, &error, now, &self.news);
                continue;
            }
            self.services.leaving.remove(&name);
            // It may have been in force from before, and nothing else.
            self.leftovers.of_services = true;
            self.news.tell(|| News::ServiceRemoved { service: name.to_string() });
        }
        for name in put {
            let Some(state) = self.services.all.get_mut(&name) else { continue };
            if let Some(error) = failure(&name) {
                service_failed(&mut state.backoff, &name, &error, now, &self.news);
                continue;
            }
            state.is_realised = true;
            state.backoff.worked();
            // What it was before may be elsewhere.
            self.leftovers.of_services = true;
            self.news.tell(|| News::ServiceRealised { service: name.to_string() });
        }
    }
}

/// Has nothing pass where an endpoint is that can't be attached as it is to be.
fn attach_closed(
    datapath: &mut dyn Datapath,
    state: &mut EndpointState,
) -> Result<(), DatapathError> {
    let bare = EndpointSpec { addresses: Vec::new(), ..state.spec.clone() };
    let done = datapath.endpoint_put(&bare);
    state.attached = if done.is_ok() { Attached::Closed } else { Attached::No };
    done
}

fn leaving_failed(
    id: EndpointId,
    leaving: &mut Leaving,
    error: &DatapathError,
    now: Instant,
    news: &super::NewsSender,
) {
    let (endpoint, error) = (leaving.name.clone(), error.to_string());
    if leaving.backoff.failed(error.clone(), now) {
        tracing::error!("endpoint {endpoint} can't be removed: {error}");
        news.tell(|| News::EndpointFailed { endpoint, id, error });
    }
}

fn service_failed(
    backoff: &mut super::Backoff,
    name: &crate::datapath::ServiceName,
    error: &crate::datapath::DatapathError,
    now: Instant,
    news: &super::NewsSender,
) {
    let error = error.to_string();
    if backoff.failed(error.clone(), now) {
        tracing::error!("service {name}: {error}");
        news.tell(|| News::Failed { what: format!("service {name}"), error });
    }
}
