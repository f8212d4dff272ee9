//! Workloads: who is an endpoint of this node, who a peer elsewhere, and identities that linger.
//!
//! The identity of labels that nobody has any more stays in the policies for a while, held by a peer
//! without addresses: while address entries and policies are written one after the other, nobody is
//! met by a policy that does not know him.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portreeve_policy::label::{K8S, NAMESPACE_LABELS, RESERVED};
use portreeve_policy::{Change, Endpoint, Engine, Label, Labels, Peer};

use crate::objects::Workload;

/// The label of every namespace with its own name (Kubernetes: `kubernetes.io/metadata.name`).
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Workloads, namespaces, and label sets.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) workloads: BTreeMap<String, Workload>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    lingering: HashMap<Labels, Holders>,
    /// The labels by which workloads are known to the engine.
    pub(super) held: HashMap<String, Labels>,
}

/// Who has a set of labels.
#[derive(Clone, Copy, Debug)]
struct Holders {
    count: usize,
    /// When the last one went.
    left: Option<Instant>,
}

/// The name of a workload in the engine.
pub(super) fn name(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl People {
    /// The labels that policies see: its own, its namespace's, and where it is.
    pub(super) fn labels(&self, workload: &Workload) -> Labels {
        let mut labels = workload.labels.clone();
        if labels.has_source(RESERVED) {
            return labels;
        }
        let namespace = &workload.namespace;
        let mut add = |key: &str, value: &str| {
            labels.insert(Label::new(K8S, &format!("{NAMESPACE_LABELS}{key}"), value));
        };
        add(NAMESPACE_NAME, namespace);
        for (key, value) in self.namespaces.get(namespace).into_iter().flatten() {
            add(key, value);
        }
        labels.placed(namespace)
    }

    /// A namespace has these labels. Returns the workloads in it.
    pub(super) fn set_namespace(
        &mut self,
        namespace: &str,
        labels: Option<BTreeMap<String, String>>,
    ) -> Vec<Workload> {
        match labels {
            Some(labels) => self.namespaces.insert(namespace.to_owned(), labels),
            None => self.namespaces.remove(namespace),
        };
        self.workloads.values().filter(|own| own.namespace == namespace).cloned().collect()
    }

    /// Somebody has these labels.
    pub(super) fn hold(&mut self, engine: &mut Engine, labels: &Labels) -> Vec<Change> {
        if labels.has_source(RESERVED) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let holders = self.lingering.entry(labels.clone()).or_insert_with(|| {
            let nowhere = Peer::new([], labels.clone());
            changes.push(engine.upsert_peer(&lingering_name(labels), nowhere));
            Holders { count: 0, left: None }
        });
        holders.count += 1;
        holders.left = None;
        changes
    }

    /// One who had these labels is gone.
    pub(super) fn let_go(&mut self, labels: &Labels, now: Instant) {
        if let Some(holders) = self.lingering.get_mut(labels) {
            holders.count = holders.count.saturating_sub(1);
            holders.left = (holders.count == 0).then_some(now);
        }
    }

    /// Forgets labels that nobody has had for so long.
    pub(super) fn forget(
        &mut self,
        engine: &mut Engine,
        now: Instant,
        linger: Duration,
    ) -> Vec<Change> {
        let is_over = |holders: &Holders| {
            holders.left.is_some_and(|left| now.saturating_duration_since(left) >= linger)
        };
        let over: Vec<Labels> = self
            .lingering
            .iter()
            .filter(|(_, holders)| is_over(holders))
            .map(|(labels, _)| labels.clone())
            .collect();
        let forget = |labels: &Labels| {
            self.lingering.remove(labels);
            engine.remove_peer(&lingering_name(labels))
        };
        over.iter().map(forget).collect()
    }

    /// When there is something to forget next.
    pub(super) fn next(&self, linger: Duration) -> Option<Instant> {
        self.lingering.values().filter_map(|holders| holders.left).min().map(|left| left + linger)
    }
}

/// What those without addresses are called in the engine. No workload can be called so.
const LINGERING: &str = "labels ";

fn lingering_name(labels: &Labels) -> String {
    format!("{LINGERING}{labels}")
}

/// Whether one of the engine's names is that of labels that linger.
pub(super) fn is_lingering(name: &str) -> bool {
    name.starts_with(LINGERING)
}

/// The workload as the engine knows one that is attached here.
pub(super) fn endpoint(workload: &Workload, labels: Labels) -> Endpoint {
    Endpoint {
        name: name(&workload.namespace, &workload.name),
        namespace: workload.namespace.clone(),
        labels,
        addresses: workload.addresses().collect(),
        named_ports: workload.named_ports.clone(),
    }
}

/// The workload as the engine knows one that is elsewhere.
pub(super) fn peer(workload: &Workload, labels: Labels) -> Peer {
    let prefixes: Vec<IpNet> = workload.prefixes.clone();
    Peer { prefixes, labels, named_ports: workload.named_ports.clone() }
}
