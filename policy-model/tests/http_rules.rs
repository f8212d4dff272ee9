//! HTTP rules as a connection meets them: which rule decides, what audit means, what header
//! conditions do, and that deciding allocates nothing.
#![expect(clippy::unwrap_used, reason = "a failing test may panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use portreeve_policy::{
    Action, ConnectionVerdict, Endpoint, EndpointPolicy, HeaderEdit, HttpRequest, Inspection,
    Options, Outcome, Peer, Protocol, Reason, Repository, RequestVerdict, Source, TrafficDirection,
};

struct Get<'a> {
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

impl HttpRequest for Get<'_> {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn host(&self) -> &[u8] {
        b"shop:80"
    }
    fn header_values<'v>(&'v self, name: &'v str) -> impl Iterator<Item = &'v [u8]> {
        let named = move |(n, _): &&(&str, &str)| n.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| value.as_bytes())
    }
}

/// A policy around `rules.http`, in either kind.
fn document(kind: &str, name: &str, mode: &str, http: &str) -> String {
    let version = if kind == "TrafficPolicy" { "portreeve.dev/v1alpha1" } else { "cilium.io/v2" };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         {mode}\n  endpointSelector: {{}}\n  ingress:\n  - toPorts:\n    - ports: [{{port: '80', \
         protocol: TCP}}]\n      rules: {{http: {http}}}\n"
    )
}

fn resolve(documents: &[String], options: &Options) -> EndpointPolicy {
    let source = Source::new("test.yaml", documents.join("---\n"));
    let repository = Repository::parse([source]).unwrap_or_else(|errors| panic!("{errors}"));
    let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
    let client = Peer::new(["10.0.0.0/8".parse().unwrap()], "app=client".parse().unwrap());
    EndpointPolicy::resolve(&repository, &shop, &vec![client].into(), options).unwrap()
}

fn connect(policy: &EndpointPolicy) -> ConnectionVerdict {
    let who = policy.identify([10, 0, 0, 1].into());
    policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 80)
}

fn ask(policy: &EndpointPolicy, request: &Get<'_>) -> (RequestVerdict, Vec<String>) {
    let Action::Inspect(Inspection::Http(rules)) = connect(policy).action else {
        panic!("the connection is not inspected")
    };
    let mut edits = Vec::new();
    let verdict = rules.decide(request, &mut |edit| {
        edits.push(match edit {
            HeaderEdit::Add { name, value } => format!("add {name}: {value}"),
            HeaderEdit::Remove { name } => format!("remove {name}"),
            HeaderEdit::Replace { name, value } => format!("replace {name}: {value}"),
        })
    });
    (verdict, edits)
}

fn outcome(policy: &EndpointPolicy, path: &str, headers: &[(&str, &str)]) -> Outcome {
    ask(policy, &Get { path, headers }).0.outcome
}

#[test]
fn the_first_rule_that_matches_is_the_one_that_decided() {
    let http = "[{path: /b}, {path: '/a/.*'}, {path: /a/x}, {}]";
    let policy = resolve(&[document("CiliumNetworkPolicy", "p", "", http)], &Options::default());
    let rule = |path| {
        let verdict = ask(&policy, &Get { path, headers: &[] }).0;
        policy.rule(verdict.rule.unwrap()).section().to_owned()
    };
    assert_eq!(rule("/a/x"), "spec.ingress[0].toPorts[0].rules.http[1]");
    assert_eq!(rule("/c"), "spec.ingress[0].toPorts[0].rules.http[3]");
}

#[test]
fn a_token_must_match_as_a_whole_and_only_once() {
    let demo = include_str!("../../examples/demo/policy.yaml")
        .replace("namespace: demo", "namespace: default");
    let policy = resolve(&[demo], &Options::default());
    for (path, headers, expected) in [
        ("/public/a", &[("x-token", "12")][..], Outcome::Allow),
        ("/public/a", &[], Outcome::Deny),
        ("/public/a", &[("X-Token", "12a")], Outcome::Deny),
        ("/public/a", &[("X-Token", "1"), ("X-Token", "2")], Outcome::Deny),
        ("/private", &[("X-Token", "12")], Outcome::Deny),
    ] {
        assert_eq!(outcome(&policy, path, headers), expected, "{path} {headers:?}");
    }
}

#[test]
fn our_own_header_conditions_need_our_own_kind() {
    let http = "[{headerMatches: [{name: A, regex: '[0-9]+'}]}]";
    let source = Source::new("t.yaml", document("CiliumNetworkPolicy", "p", "", http));
    let errors = Repository::parse([source]).unwrap_err().to_string();
    assert!(errors.contains("unknown field `regex`"), "{errors}");
}

#[test]
fn a_mismatch_action_lets_the_request_pass_and_changes_it() {
    let http = "[{headerMatches: [{name: A, value: x, mismatch: REPLACE}, {name: B, value: v, \
                mismatch: ADD}, {name: C, value: z, mismatch: DELETE}, {name: D, value: w, mismatch: LOG}]}]";
    let policy = resolve(&[document("CiliumNetworkPolicy", "p", "", http)], &Options::default());
    let (verdict, edits) = ask(&policy, &Get { path: "/", headers: &[("C", "q")] });
    assert_eq!(verdict.outcome, Outcome::Allow);
    assert_eq!(edits, ["replace A: x", "add B: v", "remove C"]);
    let met = &[("A", "x"), ("B", "v"), ("C", "z"), ("D", "w")];
    assert_eq!(ask(&policy, &Get { path: "/", headers: met }).1, [""; 0]);
}

#[test]
fn a_rule_that_does_not_match_changes_nothing() {
    let http = "[{path: /a, headerMatches: [{name: A, value: x, mismatch: ADD}]}, {path: /b}]";
    let policy = resolve(&[document("CiliumNetworkPolicy", "p", "", http)], &Options::default());
    assert_eq!(ask(&policy, &Get { path: "/b", headers: &[] }).1, [""; 0]);
}

#[test]
fn a_policy_in_audit_mode_denies_nothing_and_grants_nothing() {
    let enforced = document("CiliumNetworkPolicy", "a", "", "[{path: '/a.*'}]");
    let audited = document("TrafficPolicy", "b", "mode: audit", "[{path: /b}]");
    let policy = resolve(&[enforced, audited.clone()], &Options::default());
    assert_eq!(outcome(&policy, "/a", &[]), Outcome::Allow);
    assert_eq!(outcome(&policy, "/b", &[]), Outcome::Deny, "audit grants nothing");
    let policy = resolve(&[audited], &Options::default());
    assert_eq!(outcome(&policy, "/b", &[]), Outcome::Allow);
    assert_eq!(outcome(&policy, "/c", &[]), Outcome::Audit);
}

#[test]
fn with_audit_for_all_nothing_is_denied() {
    let documents = [document("CiliumNetworkPolicy", "a", "", "[{path: /a}]")];
    let policy = resolve(&documents, &Options { audit: true, ..Options::default() });
    assert_eq!(outcome(&policy, "/a", &[]), Outcome::Allow);
    assert_eq!(outcome(&policy, "/b", &[]), Outcome::Audit);
    let who = policy.identify([10, 0, 0, 1].into());
    let verdict = policy.connection(TrafficDirection::Ingress, who, Protocol::Tcp, 81);
    assert!(matches!(verdict.action, Action::Allow) && verdict.audited);
}

#[test]
fn a_secret_that_can_not_be_read_matches_nothing_and_is_warned_of() {
    let http = "[{headerMatches: [{name: A, value: x, secret: {name: s, namespace: n}}]}]";
    let text = document("CiliumNetworkPolicy", "p", "", http);
    let repository = Repository::parse([Source::new("t.yaml", text.clone())]).unwrap();
    assert_eq!(repository.warnings().len(), 1);
    let policy = resolve(&[text], &Options::default());
    assert_eq!(outcome(&policy, "/", &[("A", "x")]), Outcome::Deny);
}

#[test]
fn a_denied_port_says_which_rule_denies_it() {
    let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: d, namespace: \
                default}\nspec:\n  endpointSelector: {}\n  ingress: [{fromEntities: [all]}]\n  \
                ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}]\n";
    let policy = resolve(&[text.to_owned()], &Options::default());
    let verdict = connect(&policy);
    assert!(matches!(verdict.action, Action::Deny));
    assert_eq!(verdict.reason, Reason::RuleDenies);
    let rule = policy.rule(verdict.rule.unwrap());
    assert_eq!((rule.policy(), rule.section()), ("default/d", "spec.ingressDeny[0]"));
}

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches only a
// thread-local that needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn deciding_allocates_nothing() {
    let many: Vec<String> = (0..300)
        .map(|i| {
            format!(
                "{{path: '/svc{i}/[a-z]+/.*', headerMatches: [{{name: X-Token, regex: '[0-9]+'}}]}}"
            )
        })
        .collect();
    let http = format!("[{}]", many.join(", "));
    let policy = resolve(&[document("TrafficPolicy", "p", "", &http)], &Options::default());
    let Action::Inspect(Inspection::Http(rules)) = connect(&policy).action else { panic!() };
    let before = ALLOCATIONS.with(Cell::get);
    for path in ["/svc299/abc/x", "/svc1/abc/y", "/other"] {
        for token in ["12", "x"] {
            let request = Get { path, headers: &[("X-Token", token)] };
            std::hint::black_box(rules.decide(&request, &mut |_| {}));
        }
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}

#[test]
fn a_rule_set_whose_worst_request_costs_too_much_is_refused() {
    let rule = |i: usize| format!("{{path: '/.*/svc-{i}/.*'}}");
    let rules = |count: usize| (0..count).map(rule).collect::<Vec<_>>().join(", ");
    let resolve = |count: usize| {
        let text = document("CiliumNetworkPolicy", "many", "", &format!("[{}]", rules(count)));
        let repository = Repository::parse([Source::new("many.yaml", text)]).unwrap();
        let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap());
        EndpointPolicy::resolve(&repository, &shop, &vec![].into(), &Options::default())
    };
    assert!(resolve(500).is_ok());
    let error = resolve(5_000).unwrap_err().to_string();
    let named = "policy `default/many`, `spec.ingress[0].toPorts[0].rules.http[";
    assert!(error.starts_with(named), "{error}");
    assert!(error.contains("cost too much"), "{error}");
}
