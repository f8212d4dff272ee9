//! Selectors of peers as sets of identities.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use crate::directory::Service;
use crate::endpoint::NamedPort;
use crate::identity::{Identities, Identity, IdentityIndex, Known};
use crate::label::K8S;
use crate::rule::{PeerSelector, Protocol, ServiceRef};
use crate::selector::{Requirement, Selector};

/// Whom each selector selects: computed once, kept up as identities come and go.
#[derive(Debug, Default)]
pub(crate) struct Selections {
    numbers: HashMap<PeerSelector, u32>,
    selections: HashMap<u32, Selection>,
    next: u32,
}

#[derive(Debug)]
struct Selection {
    selector: PeerSelector,
    selected: Arc<[Identity]>,
}

impl Selections {
    /// Everybody that a selector is about, and the selection's number.
    pub(crate) fn of(
        &mut self,
        selector: &PeerSelector,
        identities: &Identities,
        index: &IdentityIndex,
    ) -> (u32, Arc<[Identity]>) {
        if let Some(number) = self.numbers.get(selector)
            && let Some(selection) = self.selections.get(number)
        {
            return (*number, selection.selected.clone());
        }
        let selected: Arc<[Identity]> = identities.select(selector, index).into();
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(selector.clone(), number);
        let selector = selector.clone();
        self.selections.insert(number, Selection { selector, selected: selected.clone() });
        (number, selected)
    }

    /// Somebody has come. Returns the numbers of the selections that he belongs to.
    pub(crate) fn came(&mut self, known: &Known) -> Vec<u32> {
        self.change(
            |selection| known.is_selected(&selection.selector),
            |ids| {
                let place = ids.partition_point(|id| *id < known.identity);
                ids.insert(place, known.identity);
            },
        )
    }

    /// Somebody has gone. Returns the numbers of the selections that he belonged to.
    pub(crate) fn went(&mut self, identity: Identity) -> Vec<u32> {
        self.change(
            |selection| selection.selected.binary_search(&identity).is_ok(),
            |ids| ids.retain(|id| *id != identity),
        )
    }

    fn change(
        &mut self,
        concerns: impl Fn(&Selection) -> bool,
        change: impl Fn(&mut Vec<Identity>),
    ) -> Vec<u32> {
        let mut changed = Vec::new();
        for (number, selection) in &mut self.selections {
            if concerns(selection) {
                let mut ids = selection.selected.to_vec();
                change(&mut ids);
                selection.selected = ids.into();
                changed.push(*number);
            }
        }
        changed
    }

    /// Forgets the selections that nobody uses.
    pub(crate) fn keep(&mut self, used: impl Fn(u32) -> bool) {
        self.selections.retain(|number, _| used(*number));
        self.numbers.retain(|_, number| used(*number));
    }
}

/// The numbers of named ports, of all peers.
#[derive(Debug, Default)]
pub(crate) struct NamedPorts {
    by_name: HashMap<(String, Protocol), BTreeMap<u16, usize>>,
}

impl NamedPorts {
    pub(crate) fn add(&mut self, ports: &[NamedPort]) {
        for port in ports {
            let numbers = self.by_name.entry(key(port)).or_default();
            *numbers.entry(port.port).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, ports: &[NamedPort]) {
        for port in ports {
            if let Some(numbers) = self.by_name.get_mut(&key(port))
                && let Some(count) = numbers.get_mut(&port.port)
            {
                *count -= 1;
                if *count == 0 {
                    numbers.remove(&port.port);
                }
            }
        }
    }

    /// The numbers that a name stands for.
    pub(super) fn of(&self, name: &str, protocol: Protocol) -> Vec<u16> {
        let numbers = self.by_name.get(&(name.to_ascii_lowercase(), protocol));
        numbers.map(|numbers| numbers.keys().copied().collect()).unwrap_or_default()
    }
}

fn key(port: &NamedPort) -> (String, Protocol) {
    (port.name.to_ascii_lowercase(), port.protocol)
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
            return super::filter::EVERYBODY;
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
pub(crate) fn of_service(
    service: &ServiceRef,
    own_namespace: Option<&str>,
    services: &[Service],
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
    services.iter().filter(matches).flat_map(behind).collect()
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
