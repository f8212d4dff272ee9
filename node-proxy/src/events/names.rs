//! What the numbers of an event stand for. Written by who tells the kernel, read by who reads events.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portreeve_policy::EndpointPolicy;
use rustix::time::{ClockId, clock_gettime};

use crate::datapath::EndpointId;

/// Names of endpoints, and their policies in force in the kernel.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<Known>,
    completed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    endpoints: BTreeMap<EndpointId, Endpoint>,
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Endpoint {
    name: Arc<str>,
    policy: Option<InForce>,
    /// It is put in force just now: what is told is of either.
    next: Option<InForce>,
}

#[derive(Debug)]
struct InForce {
    /// The first number that events name it by. It may get higher ones, and so does what comes after it.
    first: u32,
    policy: EndpointPolicy,
}

impl Names {
    /// An endpoint is called so.
    pub(crate) fn endpoint(&self, id: EndpointId, name: &str) {
        let mut known = self.lock();
        let endpoint = known.endpoints.entry(id).or_default();
        if *endpoint.name != *name {
            *endpoint = Endpoint { name: name.into(), ..Endpoint::default() };
        }
    }

    /// This policy will be in force in the kernel in a moment, and events name it by this number or a higher
    /// one.
    pub(crate) fn announced(&self, id: EndpointId, first: u32, policy: &EndpointPolicy) {
        let next = Some(InForce { first, policy: policy.clone() });
        self.lock().endpoints.entry(id).or_default().next = next;
    }

    /// The one that was announced is in force now, or is not going to be.
    pub(crate) fn settled(&self, id: EndpointId, is_in_force: bool) {
        if let Some(endpoint) = self.lock().endpoints.get_mut(&id)
            && let Some(next) = endpoint.next.take()
            && is_in_force
        {
            endpoint.policy = Some(next);
        }
    }

    /// Nothing is in force for it any more, or something else in a moment. What it was called is
    /// remembered until another is called so, or the number is given up: events come late.
    pub(crate) fn no_policy(&self, id: EndpointId) {
        if let Some(endpoint) = self.lock().endpoints.get_mut(&id) {
            (endpoint.policy, endpoint.next) = (None, None);
        }
    }

    /// Nobody has had these numbers for so long that no event of theirs is to come.
    pub(crate) fn forget(&self, ids: &[EndpointId]) {
        let mut known = self.lock();
        for id in ids {
            known.endpoints.remove(id);
        }
    }

    /// Everything there is has a name now.
    pub(crate) fn complete(&self) {
        self.lock().is_complete = true;
        self.completed.notify_all();
    }

    /// Waits until everything has a name, for so long: events of the time before have to be read, too.
    pub(super) fn wait(&self, longest: Duration) {
        let known = self.lock();
        let waited = self.completed.wait_timeout_while(known, longest, |known| !known.is_complete);
        drop(waited);
    }

    /// What an endpoint is called, and the policy that has decided an event of this revision, if that is
    /// the one in force, or the one that comes into force.
    pub(crate) fn of(
        &self,
        id: EndpointId,
        revision: u32,
    ) -> Option<(Arc<str>, Option<EndpointPolicy>)> {
        let known = self.lock();
        let endpoint = known.endpoints.get(&id)?;
        let decided = |found: &&InForce| found.first <= revision;
        let both = [&endpoint.next, &endpoint.policy].into_iter().flatten();
        let policy = both.into_iter().find(decided).map(|found| found.policy.clone());
        Some((endpoint.name.clone(), policy))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, on the clock of events.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use portreeve_policy::{Directory, Endpoint as Workload, Options, Repository};

    use super::*;

    fn policy() -> EndpointPolicy {
        let repository = Repository::parse([]).unwrap();
        let endpoint = Workload::new("w", "default", "app=w".parse().unwrap());
        let (nobody, options) = (Directory::default(), Options::default());
        EndpointPolicy::resolve(&repository, &endpoint, &nobody, &options).unwrap()
    }

    #[test]
    fn a_policy_is_known_by_its_revision_while_it_is_in_force() {
        let names = Names::default();
        names.endpoint(1, "default/shop");
        assert!(names.of(1, 8).unwrap().1.is_none());
        names.announced(1, 8, &policy());
        let (name, decided) = names.of(1, 8).unwrap();
        assert_eq!((&*name, decided.is_some()), ("default/shop", true), "events may be first");
        names.settled(1, true);
        assert!(names.of(1, 8).unwrap().1.is_some());
        assert!(names.of(1, 7).unwrap().1.is_none(), "that was before");
        assert!(names.of(1, 9).unwrap().1.is_some(), "it was given another number");
        assert!(names.of(1, 0).unwrap().1.is_none(), "no policy was asked");
        names.announced(1, 10, &policy());
        assert!(names.of(1, 8).unwrap().1.is_some(), "until then it is in force");
        names.settled(1, false);
        assert!(names.of(1, 10).unwrap().1.is_some(), "that of before was given another number");
        names.announced(1, 10, &policy());
        names.settled(1, true);
        assert!(names.of(1, 8).unwrap().1.is_none(), "it was replaced");
        names.no_policy(1);
        let (name, decided) = names.of(1, 10).unwrap();
        assert_eq!((&*name, decided.is_some()), ("default/shop", false));
        assert!(names.of(2, 1).is_none());
        names.forget(&[1, 2]);
        assert!(names.of(1, 10).is_none());
    }

    #[test]
    fn a_number_that_another_has_now_brings_no_policy_along() {
        let names = Names::default();
        names.endpoint(1, "default/shop");
        names.announced(1, 7, &policy());
        names.settled(1, true);
        names.endpoint(1, "default/shop");
        assert!(names.of(1, 8).unwrap().1.is_some(), "it is the same");
        names.endpoint(1, "default/other");
        let (name, decided) = names.of(1, 8).unwrap();
        assert_eq!((&*name, decided.is_some()), ("default/other", false));
    }
}
