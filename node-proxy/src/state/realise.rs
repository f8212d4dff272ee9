//! Telling the datapath what is wanted and not yet in force. What fails is shown, and tried again later;
//! an endpoint whose policy can't be written is closed meanwhile.

use std::time::Instant;

use super::{News, Node};

impl Node {
    /// Does what there is to do now. Call it after every change, and when [`Node::next`] says so.
    pub fn realise(&mut self, now: Instant) {
        self.identities.at(now);
        self.forget(now);
        // A number must be on disk before anybody is told of it.
        if !self.save(now) {
            return;
        }
        self.realise_leaving(now);
        let pending: Vec<String> = self.endpoints.pending.iter().cloned().collect();
        for name in pending {
            self.realise_endpoint(&name, now);
        }
        self.realise_addresses(now);
        self.realise_services(now);
        if self.is_settled() {
            self.sync(now);
            // Nothing is in force any more that is older than the engine's view.
            self.collect(now);
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
        let leaving = self.endpoints.leaving.values().filter_map(|leaving| leaving.backoff.again());
        let services = self.services.all.values().map(|state| &state.backoff);
        let services = services.chain(self.services.leaving.values());
        endpoints
            .chain(leaving)
            .chain(services.filter_map(|backoff| backoff.again()))
            .chain(self.ipcache.backoff.again())
            .chain(self.syncing.again().filter(|_| self.is_settled()))
            .chain(self.people.next(self.options.identity_linger))
            .min()
    }

    /// Whether everything that is wanted is in force.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.endpoints.is_settled()
            && self.ipcache.pending.is_empty()
            && self.services.is_settled()
            && self.saving.error.is_none()
    }

    /// Forgets labels that nobody has had for long.
    fn forget(&mut self, now: Instant) {
        let linger = self.options.identity_linger;
        for change in self.people.forget(&mut self.engine, now, linger) {
            self.note(&change);
        }
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

    fn realise_leaving(&mut self, now: Instant) {
        let ids: Vec<_> = self.endpoints.leaving.keys().copied().collect();
        for id in ids {
            let Some(leaving) = self.endpoints.leaving.get_mut(&id) else { continue };
            if !leaving.backoff.is_due(now) {
                continue;
            }
            self.proxy.endpoint_removed(id);
            let endpoint = leaving.name.clone();
            match self.datapath.endpoint_removed(id) {
                Ok(()) => {
                    self.endpoints.leaving.remove(&id);
                    self.news.tell(|| News::EndpointRemoved { endpoint, id });
                }
                Err(error) => {
                    let error = error.to_string();
                    if leaving.backoff.failed(error.clone(), now) {
                        tracing::error!("endpoint {endpoint} can't be removed: {error}");
                        self.news.tell(|| News::EndpointFailed { endpoint, id, error });
                    }
                }
            }
        }
    }

    fn realise_endpoint(&mut self, name: &str, now: Instant) {
        let Some(state) = self.endpoints.all.get_mut(name) else { return };
        if !state.backoff.is_due(now) {
            return;
        }
        let Some(policy) = self.engine.policy(name) else { return };
        let (id, revision) = (state.spec.id, state.wanted);
        let attached = match state.is_attached {
            true => Ok(()),
            false => self.datapath.endpoint_put(&state.spec),
        };
        state.is_attached = attached.is_ok();
        let done = attached
            .and_then(|()| self.proxy.policy_set(&state.spec, revision, policy.clone()))
            .and_then(|()| self.datapath.policy_set(id, revision, &policy));
        let endpoint = name.to_owned();
        match done {
            Ok(()) => {
                state.realised = Some(revision);
                if state.backoff.worked() {
                    tracing::info!("endpoint {name} is in order again");
                }
                self.endpoints.pending.remove(name);
                self.news.tell(|| News::EndpointRealised { endpoint, id, revision });
            }
            Err(error) => {
                // What it had may allow what is denied by now.
                let closed = self.datapath.endpoint_closed(id);
                state.realised = None;
                let error = match closed {
                    Ok(()) => format!("{error}; the endpoint is closed"),
                    Err(other) => format!("{error}; and it can't be closed: {other}"),
                };
                if state.backoff.failed(error.clone(), now) {
                    tracing::error!("endpoint {name}: {error}");
                    self.news.tell(|| News::EndpointFailed { endpoint, id, error });
                }
            }
        }
    }

    fn realise_addresses(&mut self, now: Instant) {
        let ipcache = &mut self.ipcache;
        if ipcache.pending.is_empty() || !ipcache.backoff.is_due(now) {
            return;
        }
        let endpoints = &self.endpoints.all;
        let engine = &self.engine;
        let policies = endpoints
            .iter()
            .filter_map(|(name, state)| Some((state.spec.id, engine.policy(name)?)));
        self.proxy.addresses_changed(&mut policies.into_iter());
        let (put, remove) = ipcache.work();
        ipcache.pending.clear();
        let (mut written, mut removed, mut failed) = (0, 0, None);
        for (prefix, identity) in put {
            match self.datapath.ipcache_put(prefix, identity) {
                Ok(()) => {
                    ipcache.realised.insert(prefix, identity);
                    written += 1;
                }
                Err(error) => {
                    ipcache.pending.insert(prefix);
                    failed = Some(format!("{prefix}: {error}"));
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
                    failed = Some(format!("{prefix}: {error}"));
                }
            }
        }
        self.news.tell(|| News::Addresses { put: written, removed });
        match failed {
            None => {
                ipcache.backoff.worked();
            }
            Some(error) => {
                if ipcache.backoff.failed(error.clone(), now) {
                    tracing::error!("addresses: {error}");
                    let what = "writing addresses".to_owned();
                    self.news.tell(|| News::Failed { what, error });
                }
            }
        }
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
        for (name, state) in &mut self.services.all {
            if state.is_realised || !state.backoff.is_due(now) {
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
        for name in gone {
            let Some(backoff) = self.services.leaving.get_mut(&name) else { continue };
            if let Err(error) = &done {
                service_failed(backoff, &name, error, now, &self.news);
                continue;
            }
            self.services.leaving.remove(&name);
            self.news.tell(|| News::ServiceRemoved { service: name.to_string() });
        }
        for name in put {
            let Some(state) = self.services.all.get_mut(&name) else { continue };
            if let Err(error) = &done {
                service_failed(&mut state.backoff, &name, error, now, &self.news);
                continue;
            }
            state.is_realised = true;
            state.backoff.worked();
            self.news.tell(|| News::ServiceRealised { service: name.to_string() });
        }
    }

    /// The first time that everything is in force, what is left of the time before may go.
    fn sync(&mut self, now: Instant) {
        if self.is_synced || !self.has_begun || !self.syncing.is_due(now) {
            return;
        }
        match self.datapath.synced() {
            Ok(()) => {
                self.is_synced = true;
                self.syncing.worked();
                self.news.tell(|| News::Synced);
            }
            Err(error) => {
                let error = error.to_string();
                if self.syncing.failed(error.clone(), now) {
                    tracing::error!("what is left of the time before can't be removed: {error}");
                    let what = "removing what is left".to_owned();
                    self.news.tell(|| News::Failed { what, error });
                }
            }
        }
    }

    fn collect(&mut self, now: Instant) {
        if !self.is_synced {
            return;
        }
        let linger = self.options.identity_linger;
        for (labels, identity) in self.identities.collect(linger) {
            let (identity, labels) = (identity.get(), labels.short());
            self.news.tell(|| News::IdentityCollected { identity, labels });
        }
        self.ids.collect(now, linger);
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
