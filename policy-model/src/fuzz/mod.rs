//! What the fuzz targets run, as ordinary functions: stable tests replay the corpora through them.

pub mod random;

use std::fmt::Write as _;

use crate::{
    Action, Directory, Endpoint, EndpointPolicy, HttpRequest, Inspection, Options, Pattern, Peer,
    Protocol, Repository, Source, TrafficDirection,
};

/// Any text is a policy or a list of errors, each with a place in the text; and what loads also
/// resolves and answers.
///
/// # Panics
/// When an invariant does not hold.
pub fn policy_documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A carriage return ends a line, too (YAML 1.2 section 5.4).
    let lines = text.bytes().filter(|b| matches!(b, b'\r' | b'\n')).count() as u64 + 2;
    match Repository::parse([Source::new("fuzz.yaml", text)]) {
        Err(errors) => {
            assert!(errors.has_errors());
            for error in &errors.0 {
                assert!(u64::from(error.line) <= lines, "{error}");
                assert!(!error.message.is_empty());
            }
            let mut shown = String::new();
            let _ = write!(shown, "{errors}");
        }
        Ok(repository) => {
            let subject = Endpoint::new("fuzz", "default", "app=fuzz".parse().unwrap_or_default());
            let peer = Peer::new(
                ["10.0.0.0/8".parse().ok()].into_iter().flatten(),
                "app=a".parse().unwrap_or_default(),
            );
            let resolved = EndpointPolicy::resolve(
                &repository,
                &subject,
                &vec![peer].into(),
                &Options::default(),
            );
            let Ok(policy) = resolved else { return };
            for direction in [TrafficDirection::Ingress, TrafficDirection::Egress] {
                for address in [[10, 0, 0, 1], [192, 0, 2, 1]] {
                    let who = policy.identify(address.into());
                    let _ = policy.connection(direction, who, Protocol::Tcp, 80);
                }
            }
        }
    }
}

/// A rule with any pattern decides any request as the pattern alone does, whatever stands beside
/// it. Input: patterns, a line each, then the path as the last line.
///
/// # Panics
/// When an invariant does not hold.
pub fn policy_http_rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((patterns, path)) = text.rsplit_once('\n') else { return };
    let patterns: Vec<&str> = patterns
        .lines()
        .filter(|line| {
            !line.is_empty() && !line.contains(|c: char| c.is_control() || c == '\u{feff}')
        })
        .take(16)
        .filter(|line| Pattern::new(line).is_ok())
        .collect();
    if patterns.is_empty() {
        return;
    }
    let expected = patterns
        .iter()
        .any(|pattern| Pattern::new(pattern).is_ok_and(|p| p.matches(path.as_bytes())));
    let Some(policy) = policy_of(&patterns) else { return };
    let who = policy.identify([192, 0, 2, 1].into());
    let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80);
    let Action::Inspect(Inspection::Http(rules)) = verdict.action else {
        panic!("a connection under HTTP rules is inspected")
    };
    let verdict = rules.decide(&Get(path.as_bytes()), &mut |_| {});
    let allowed = verdict.outcome == crate::Outcome::Allow;
    assert_eq!(allowed, expected, "{patterns:?} {path:?}");
}

fn policy_of(paths: &[&str]) -> Option<EndpointPolicy> {
    let mut text = String::from(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: f}\nspec:\n  \
         endpointSelector: {}\n  ingress:\n  - toPorts:\n    - ports: [{port: '80', protocol: TCP}]\n      \
         rules:\n        http:\n",
    );
    for path in paths {
        writeln!(text, "        - path: '{}'", path.replace('\'', "''")).ok()?;
    }
    let repository = Repository::parse([Source::new("fuzz.yaml", text)]);
    let repository = match repository {
        Ok(repository) => repository,
        Err(errors) => panic!("{errors}"),
    };
    let subject = Endpoint::new("fuzz", "default", "app=fuzz".parse().ok()?);
    EndpointPolicy::resolve(&repository, &subject, &Directory::default(), &Options::default()).ok()
}

struct Get<'a>(&'a [u8]);

impl HttpRequest for Get<'_> {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn path(&self) -> &[u8] {
        self.0
    }
    fn host(&self) -> &[u8] {
        b"fuzz"
    }
    fn header_values<'v>(&'v self, _: &'v str) -> impl Iterator<Item = &'v [u8]> {
        std::iter::empty()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn http_rules_agree_with_their_patterns() {
        for case in [
            "/a\n/a",
            "/a/.*\n/a/b\n.*c\n/a/b",
            "/x|/y\n/y",
            "(?i)/A\n/a",
            "[0-9]+\n77",
            "/a'b\n/a'b",
        ] {
            super::policy_http_rules(case.as_bytes());
        }
    }
}
