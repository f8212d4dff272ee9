//! Policies that close, in the place of objects that could not be read when the node started.

use portreeve_policy::label::NAMESPACE;
use portreeve_policy::{Diagnostics, PolicyName, Repository, Source};
use serde_json::{Value, json};

use crate::objects::ObjectKey;

/// A policy that closes.
pub(super) struct Closing {
    namespace: Option<String>,
    spec: Value,
    who: String,
}

/// Whoever is subject to policies of a namespace, or of all, may do nothing.
pub(super) fn of_subjects(namespace: Option<&str>) -> Closing {
    let who = namespace.map_or("all workloads".to_owned(), |namespace| {
        format!("all workloads of namespace {namespace}")
    });
    Closing {
        namespace: namespace.map(str::to_owned),
        spec: json!({
            "endpointSelector": {},
            "ingressDeny": [{ "fromEntities": ["all"] }],
            "egressDeny": [{ "toEntities": ["all"] }],
        }),
        who: format!("{who} are closed"),
    }
}

/// Nobody may have to do with those of a namespace, wherever they are: which labels it has is not known,
/// and whom they would have been denied.
pub(super) fn of_a_namespaces_peers(namespace: &str) -> Closing {
    let peers = json!([{ "matchLabels": { (format!("k8s:{NAMESPACE}")): namespace } }]);
    Closing {
        namespace: None,
        spec: json!({
            "endpointSelector": {},
            "enableDefaultDeny": { "ingress": false, "egress": false },
            "ingressDeny": [{ "fromEndpoints": peers }],
            "egressDeny": [{ "toEndpoints": peers }],
        }),
        who: format!("nobody may talk to those of namespace {namespace}"),
    }
}

impl Closing {
    /// The policy, its name, and whom it closes, in the place of `key`. No document has a name with a space
    /// in it: nobody's policy takes its place, or is taken away for it.
    pub(super) fn instead_of(
        self,
        key: &ObjectKey,
    ) -> Result<(Repository, PolicyName, String), Diagnostics> {
        let Self { namespace, spec, who } = self;
        let kind = match namespace {
            Some(_) => "CiliumNetworkPolicy",
            None => "CiliumClusterwideNetworkPolicy",
        };
        let mut metadata = json!({ "name": "closed" });
        if let Some(namespace) = &namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let document = json!({
            "apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec,
        });
        let name = PolicyName { kind, namespace, name: format!("closed for {key}") };
        let read = Repository::parse([Source::new("portreeve-node", document.to_string())])?;
        Ok((read.renamed(|_| name.clone()), name, who))
    }
}
