//! Selectors of peers as sets of identities.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::directory::{Directory, Service};
use crate::identity::{Identities, Identity};
use crate::label::K8S;
use crate::rule::{PeerSelector, ServiceRef};
use crate::selector::{Requirement, Selector};

/// Whom each selector selects: computed once, kept while identities stay.
#[derive(Debug, Default)]
pub(crate) struct Selections {
    selected: HashMap<PeerSelector, Arc<[Identity]>>,
}

impl Selections {
    /// Everybody that a selector is about.
    pub(crate) fn of(
        &mut self,
        selector: &PeerSelector,
        identities: &Identities,
    ) -> Arc<[Identity]> {
        if let Some(known) = self.selected.get(selector) {
            return known.clone();
        }
        let selected: Arc<[Identity]> = identities.select(selector).into();
        self.selected.insert(selector.clone(), selected.clone());
        selected
    }
}

/// The selectors of one direction, numbered. The first is everybody.
#[derive(Default)]
pub(super) struct Selectors {
    numbers: HashMap<PeerSelector, usize>,
    list: Vec<PeerSelector>,
}

impl Selectors {
    pub(super) fn number(&mut self, selector: PeerSelector) -> usize {
        if selector == PeerSelector::All {
            return super::EVERYBODY;
        }
        let next = self.list.len() + 1;
        *self.numbers.entry(selector).or_insert_with_key(|selector| {
            self.list.push(selector.clone());
            next
        })
    }

    /// How many there are, with everybody.
    pub(super) fn len(&self) -> usize {
        self.list.len() + 1
    }

    /// All but everybody.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &PeerSelector)> {
        self.list.iter().enumerate().map(|(index, selector)| (index + 1, selector))
    }
}

/// What stands behind a service: its pods, or, where it has none, addresses.
pub(super) fn of_service(
    service: &ServiceRef,
    own_namespace: Option<&str>,
    directory: &Directory,
) -> Vec<PeerSelector> {
    let matches = |known: &&Service| match service {
        ServiceRef::Name { namespace, name } => {
            let namespace = namespace.as_deref().or(own_namespace);
            known.name == *name && namespace.is_none_or(|own| own == known.namespace)
        }
        ServiceRef::Labels { namespace, selector } => {
            namespace.as_ref().is_none_or(|own| *own == known.namespace)
                && selector.matches(&known.labels)
        }
    };
    directory.services.iter().filter(matches).flat_map(behind).collect()
}

fn behind(service: &Service) -> Vec<PeerSelector> {
    if service.selector.is_empty() {
        let cidr =
            |address| PeerSelector::Cidr { prefix: IpNet::from(address), except: Vec::new() };
        return service.backends.iter().copied().map(cidr).collect();
    }
    let label = |(key, value): (&String, &String)| Requirement::equals(Some(K8S), key, value);
    let mut pods = Selector { requirements: service.selector.iter().map(label).collect() };
    pods.force_namespace(&service.namespace);
    vec![PeerSelector::Labels(pods.canonical())]
}
