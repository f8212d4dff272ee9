//! Label selectors: Kubernetes' `matchLabels` and `matchExpressions`, with label sources.

use std::fmt;

use crate::label::{CLUSTER, K8S, LOCAL_CLUSTER, Labels, NAMESPACE, NAMESPACE_LABELS, RESERVED};

/// A query that a set of labels fulfils or not. Requirements are ANDed; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selector {
    pub(crate) requirements: Vec<Requirement>,
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Requirement {
    /// `None`: from any source.
    pub(crate) source: Option<String>,
    pub(crate) key: String,
    pub(crate) operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operator {
    In(Vec<String>),
    /// Fulfilled, too, when the key is absent.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// A selector of one built-in identity.
    pub(crate) fn reserved(name: &str) -> Self {
        Self { requirements: vec![Requirement::exists(Some(RESERVED), name)] }
    }

    /// A selector of everything in the cluster that has labels.
    pub(crate) fn in_cluster() -> Self {
        Self { requirements: vec![Requirement::equals(Some(K8S), CLUSTER, LOCAL_CLUSTER)] }
    }

    /// The subject of a namespaced policy: the namespace is forced. What was written as
    /// `k8s:io.kubernetes.pod.namespace` is replaced; anything else about namespaces must be
    /// fulfilled, too.
    pub(crate) fn force_namespace(&mut self, namespace: &str) {
        let replaced = |requirement: &Requirement| {
            let one = matches!(&requirement.operator, Operator::In(values) if values.len() == 1);
            requirement.key == NAMESPACE && requirement.source.as_deref() == Some(K8S) && one
        };
        self.requirements.retain(|requirement| !replaced(requirement));
        self.requirements.push(Requirement::equals(Some(K8S), NAMESPACE, namespace));
    }

    /// A peer of a policy: it lives in the policy's own namespace unless the selector says
    /// otherwise; for a clusterwide policy, in any namespace.
    pub(crate) fn scope(&mut self, namespace: Option<&str>) {
        let placed = self.requirements.iter().any(|requirement| {
            requirement.is_about_namespace()
                || requirement.key.starts_with(NAMESPACE_LABELS)
                || requirement.source.as_deref() == Some(RESERVED)
        });
        if placed {
            return;
        }
        self.requirements.push(match namespace {
            Some(namespace) => Requirement::equals(Some(K8S), NAMESPACE, namespace),
            None => Requirement::exists(Some(K8S), NAMESPACE),
        });
    }

    /// Whether this is about workloads whose labels are not known yet.
    pub(crate) fn names_init(&self) -> bool {
        self.requirements.iter().any(|requirement| {
            requirement.source.as_deref() == Some(RESERVED) && requirement.key == "init"
        })
    }

    /// Those that fulfil both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let requirements = self.requirements.iter().chain(&other.requirements).cloned().collect();
        Self { requirements }
    }

    /// The one way to write it: selectors that say the same in another order are the same.
    pub(crate) fn canonical(mut self) -> Self {
        for requirement in &mut self.requirements {
            if let Operator::In(values) | Operator::NotIn(values) = &mut requirement.operator {
                values.sort_unstable();
                values.dedup();
            }
        }
        self.requirements.sort_unstable();
        self.requirements.dedup();
        self
    }

    /// Whether the written namespace differs from the policy's own.
    pub(crate) fn names_other_namespace(&self, namespace: &str) -> bool {
        self.requirements.iter().any(|requirement| {
            requirement.is_about_namespace()
                && requirement.operator != Operator::In(vec![namespace.to_owned()])
        })
    }
}

impl fmt::Display for Selector {
    /// As `kubectl` writes selectors: `app=shop,env in (a,b),!debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("anything");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_deref().map(|source| format!("{source}:")).unwrap_or_default();
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{source}{key}={}", values[0]),
            Operator::In(values) => write!(f, "{source}{key} in ({})", values.join(",")),
            Operator::NotIn(values) => write!(f, "{source}{key} notin ({})", values.join(",")),
            Operator::Exists => write!(f, "{source}{key}"),
            Operator::DoesNotExist => write!(f, "!{source}{key}"),
        }
    }
}

impl Requirement {
    pub(crate) fn equals(source: Option<&str>, key: &str, value: &str) -> Self {
        Self {
            source: source.map(str::to_owned),
            key: key.to_owned(),
            operator: Operator::In(vec![value.to_owned()]),
        }
    }

    pub(crate) fn exists(source: Option<&str>, key: &str) -> Self {
        Self { source: source.map(str::to_owned), key: key.to_owned(), operator: Operator::Exists }
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        let mut values = labels
            .iter()
            .filter(|label| {
                label.key == self.key
                    && self.source.as_ref().is_none_or(|source| *source == label.source)
            })
            .map(|label| &label.value);
        match &self.operator {
            Operator::In(wanted) => values.any(|value| wanted.contains(value)),
            Operator::NotIn(unwanted) => !values.any(|value| unwanted.contains(value)),
            Operator::Exists => values.next().is_some(),
            Operator::DoesNotExist => values.next().is_none(),
        }
    }

    fn is_about_namespace(&self) -> bool {
        self.key == NAMESPACE && self.source.as_deref().is_none_or(|source| source == K8S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(requirement: Requirement, labels: &str) -> bool {
        Selector { requirements: vec![requirement] }.matches(&labels.parse().unwrap())
    }

    #[test]
    fn not_in_is_fulfilled_by_an_absent_key() {
        let operator = Operator::NotIn(vec!["prod".to_owned()]);
        let not_prod = Requirement { source: None, key: "env".to_owned(), operator };
        assert!(matches(not_prod.clone(), "app=a"));
        assert!(matches(not_prod.clone(), "env=dev"));
        assert!(!matches(not_prod, "env=prod"));
    }

    #[test]
    fn a_source_in_the_selector_binds_and_its_absence_does_not() {
        assert!(matches(Requirement::equals(None, "app", "a"), "container:app=a"));
        assert!(!matches(Requirement::equals(Some("k8s"), "app", "a"), "container:app=a"));
    }

    #[test]
    fn a_peer_without_namespace_is_scoped_and_a_reserved_one_is_not() {
        let mut peer = Selector::default();
        peer.scope(Some("shop"));
        assert!(!peer.matches(&"app=a".parse::<Labels>().unwrap().placed("other")));
        let mut world = Selector::reserved("world");
        world.scope(Some("shop"));
        assert!(world.matches(&"reserved:world".parse().unwrap()));
    }
}
