//! From what policy says of a connection to what happens: the proxy asks here for every connection,
//! and so does who tells a kernel of policy beforehand.

use portreeve_policy::{Action, ConnectionVerdict, Inspection, Protocol, Reason};

/// A verdict as far as this proxy can carry it out. What it can't do for a connection is a denial: to
/// have the peer prove who it is, and to judge protocols that it does not read, which is all of them
/// where the connection is not one of TCP. The rule that decided stays.
#[must_use]
pub fn carried_out(protocol: Protocol, verdict: ConnectionVerdict) -> ConnectionVerdict {
    let tcp = protocol == Protocol::Tcp;
    match verdict.action {
        Action::Deny => verdict,
        _ if verdict.needs_authentication() => verdict.refused(Reason::AuthenticationRequired),
        Action::Allow => verdict,
        Action::Inspect(Inspection::Http(_) | Inspection::Kafka(_)) if tcp => verdict,
        Action::Inspect(ref as_what) if as_what.is_observed_only() => verdict.passed_unread(),
        _ => verdict.refused(Reason::NotInspectable),
    }
}

#[cfg(test)]
mod tests {
    use portreeve_policy::{
        Directory, Endpoint, EndpointPolicy, Options, Repository, Source, TrafficDirection,
    };

    use super::*;

    /// What happens on a port of a policy with these ports.
    fn on(port: &str, protocol: Protocol, mode: &str) -> (bool, bool, Reason) {
        let policy = format!(
            "{{apiVersion: portreeve.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: \
             default}}, spec: {{endpointSelector: {{}}, mode: {mode}, egress: [{{toPorts: [{port}]}}]}}}}"
        );
        let repository = Repository::parse([Source::new("p.yaml", policy)]).unwrap();
        let workload = Endpoint::new("w", "default", "app=w".parse().unwrap());
        let directory = Directory::default();
        let policy =
            EndpointPolicy::resolve(&repository, &workload, &directory, &Options::default());
        let policy = policy.unwrap();
        let peer = policy.identify([192, 0, 2, 1].into());
        let verdict = policy.connection(TrafficDirection::Egress, peer, protocol, 80);
        let rule = verdict.rule;
        let verdict = carried_out(protocol, verdict);
        assert_eq!(verdict.rule, rule);
        let passes = !matches!(verdict.action, Action::Deny);
        (passes, matches!(verdict.action, Action::Inspect(_)), verdict.reason)
    }

    #[test]
    fn what_is_not_read_here_is_refused_where_it_is_enforced() {
        let http = "{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /a}]}}";
        assert_eq!(on(http, Protocol::Tcp, "enforce"), (true, true, Reason::RuleAllows));
        let dns = "{ports: [{port: '80', protocol: ANY}], rules: {dns: [{matchName: a.example}]}}";
        let refused = (false, false, Reason::NotInspectable);
        assert_eq!(on(dns, Protocol::Tcp, "enforce"), refused);
        assert_eq!(on(dns, Protocol::Udp, "enforce"), refused);
        let unread = (true, false, Reason::NotInspectable);
        assert_eq!(on(dns, Protocol::Tcp, "audit"), unread);
        assert_eq!(on(dns, Protocol::Udp, "audit"), unread);
    }
}
