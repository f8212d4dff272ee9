//! Rule sets for the benches: several ways in which people write many rules.

use std::fmt::Write;

/// A way to write many rules.
#[derive(Clone, Copy)]
pub(crate) enum Mix {
    /// Exact paths, prefixes, expressions and header conditions, each under a path of its own.
    Mixed,
    /// Expressions that share their beginning.
    SharedPrefix,
    /// The same path for everybody, and a host for each.
    Hosts,
    /// Two gaps in every path.
    TwoGaps,
}

impl Mix {
    pub(crate) const ALL: [Self; 4] = [Self::Mixed, Self::SharedPrefix, Self::Hosts, Self::TwoGaps];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::SharedPrefix => "shared_prefix",
            Self::Hosts => "hosts",
            Self::TwoGaps => "two_gaps",
        }
    }

    fn rule(self, i: usize) -> String {
        match (self, i % 4) {
            (Self::Mixed, 0) => format!("{{method: GET, path: /svc-{i}/item}}"),
            (Self::Mixed, 1) => format!("{{path: /svc-{i}/.*}}"),
            (Self::Mixed, 2) => format!("{{method: GET|POST, path: '/svc-{i}/[^/]+/item-[0-9]+'}}"),
            (Self::Mixed, _) => format!("{{path: /svc-{i}/h/.*, headers: ['X-Token: t{i}']}}"),
            (Self::SharedPrefix, _) => format!("{{path: '/api/v1/[a-z]+/item-{i}/.*'}}"),
            (Self::Hosts, _) => {
                format!("{{method: GET, path: /index.*, host: 'svc-{i}[.]example'}}")
            }
            (Self::TwoGaps, _) => format!("{{path: '/.*/svc-{i}/.*/item-{i}'}}"),
        }
    }
}

/// A policy of so many rules.
pub(crate) fn document(mix: Mix, count: usize) -> String {
    let mut text = String::from(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: bench, namespace: \
         default}\nspec:\n  endpointSelector: {matchLabels: {app: shop}}\n  ingress:\n  - toPorts:\n    \
         - ports: [{port: '80', protocol: TCP}]\n      rules:\n        http:\n",
    );
    for i in 0..count {
        // Writing to a string can't fail.
        let _ = writeln!(text, "        - {}", mix.rule(i));
    }
    text
}
