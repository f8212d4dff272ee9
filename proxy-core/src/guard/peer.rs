//! Who asks, as the one who has read the request knows it.

use std::net::SocketAddr;

use portreeve_policy::label::{K8S, NAMESPACE};
use portreeve_policy::{Label, Labels};

/// The label that carries a workload's service account (Cilium's).
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";

/// Who is on the other side.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// Somebody of whom the program knows the labels, from a source that it trusts. Without a
    /// namespace label they are in the workload's namespace.
    Labels(&'a Labels),
    /// Who has proved to be this SPIFFE id. Unknown, if it is malformed or of a foreign trust domain.
    Spiffe(&'a str),
    /// Who is at this address: one of the configured peers, a prefix that policy names, or the world.
    Address(SocketAddr),
    /// Nobody known: denied wherever policy says anything at all.
    Unknown,
}

impl Peer<'_> {
    /// The address, if that is how the peer is known.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            _ => None,
        }
    }
}

/// Why a SPIFFE id names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// It does not have the form.
    #[error("`{0}` is not of the form `spiffe://<trust domain>/ns/<namespace>/sa/<account>`")]
    Malformed(String),
    /// Who vouches for it is not trusted.
    #[error("`{0}` is of a trust domain that is not among the trusted ones")]
    ForeignTrustDomain(String),
}

/// The labels that a SPIFFE id stands for: `spiffe://TRUST/ns/NS/sa/SA` (the form that Istio and
/// SPIRE's Kubernetes registrar give out) is `k8s:io.kubernetes.pod.namespace=NS` and
/// `k8s:io.cilium.k8s.policy.serviceaccount=SA`, as Cilium labels the same workload.
///
/// # Errors
/// [`SpiffeError`]. Two trust domains may give out the same name, so an id of a domain that is not
/// listed is nobody.
pub fn spiffe_labels(id: &str, trust_domains: &[String]) -> Result<Labels, SpiffeError> {
    let malformed = || SpiffeError::Malformed(id.to_owned());
    let rest = id.strip_prefix("spiffe://").ok_or_else(malformed)?;
    let mut parts = rest.split('/');
    let ids = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) = ids else {
        return Err(malformed());
    };
    if !trust_domains.iter().any(|trusted| trusted == domain) {
        return Err(SpiffeError::ForeignTrustDomain(id.to_owned()));
    }
    let label = |key: &str, value: &str| match value.is_empty() {
        true => Err(malformed()),
        // The text is read again to have its syntax checked.
        false => Label::new(K8S, key, value).to_string().parse().map_err(|_| malformed()),
    };
    [label(NAMESPACE, namespace), label(SERVICE_ACCOUNT, account)].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_stands_for_namespace_and_service_account() {
        let trusted = ["cluster.local".to_owned()];
        let labels = spiffe_labels("spiffe://cluster.local/ns/shop/sa/frontend", &trusted);
        assert_eq!(
            labels.map(|labels| labels.to_string()).as_deref(),
            Ok("k8s:io.cilium.k8s.policy.serviceaccount=frontend,\
                k8s:io.kubernetes.pod.namespace=shop")
        );
    }

    #[test]
    fn a_spiffe_id_of_any_other_form_names_nobody() {
        let trusted = ["cluster.local".to_owned(), String::new()];
        for id in [
            "",
            "spiffe://",
            "spiffe://cluster.local",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns//sa/frontend",
            "spiffe://cluster.local/ns/shop/sa/frontend/",
            "spiffe://cluster.local/ns/shop/sa/frontend/more",
            "spiffe://cluster.local/sa/frontend/ns/shop",
            "spiffe://cluster.local/ns/shop/sa/a=b",
            "spiffe://cluster.local/ns/shop/sa/a%2Fb",
            "spiffe://cluster.local/ns/sh op/sa/a",
            "SPIFFE://cluster.local/ns/shop/sa/frontend",
            "https://cluster.local/ns/shop/sa/frontend",
            "CN=frontend",
        ] {
            let error = spiffe_labels(id, &trusted).expect_err(id);
            assert!(matches!(error, SpiffeError::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn the_same_name_of_another_trust_domain_is_somebody_else() {
        for domain in ["evil.example", "cluster.local.evil.example", "Cluster.local", ""] {
            let id = format!("spiffe://{domain}/ns/shop/sa/frontend");
            let error = spiffe_labels(&id, &["cluster.local".to_owned()]).expect_err("a stranger");
            assert!(matches!(error, SpiffeError::ForeignTrustDomain(_)), "{error}");
        }
    }
}
