//! `portreeve policy …`: checked, tested, explained and compared as a user does it, with the exit codes
//! and the output that scripts rely on.

use std::fs;
use std::path::PathBuf;

use portreeve_tests::sidecar::portreeve;
use serde_json::Value;
use tempfile::TempDir;

/// Exit code, standard output, standard error.
fn policy(arguments: &[&str]) -> (i32, String, String) {
    portreeve(&[&["policy"], arguments].concat())
}

fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn lines(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

const SHOP: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: shop, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: shop}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http:
        - {method: GET, path: /public/.*, headers: ['X-Token: 12']}
        - {method: POST, path: /order$}
";

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[test]
fn all_policy_cases_pass_with_the_binary() {
    let mut files: Vec<String> = fs::read_dir(project("policy-model/tests/cases"))
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .collect();
    files.sort();
    let mut arguments = vec!["test", "--output", "json"];
    arguments.extend(files.iter().map(String::as_str));
    let (code, output, errors) = policy(&arguments);
    let failed: Vec<Value> =
        lines(&output).into_iter().filter(|line| line["passed"] != Value::Bool(true)).collect();
    assert!(failed.is_empty() && code == 0, "{code} {failed:?} {errors}");
    let lines = lines(&output);
    let cases = lines.iter().filter(|line| line["query"].is_null()).count();
    assert!(cases >= 150 && lines.len() >= 400, "{cases} cases, {} lines", lines.len());
    // In detail, too: `expected` is what a case says, `got` is what came.
    let detail = |line: &&Value| !line["query"].is_null() && line["expected"] != line["got"];
    let differing: Vec<&Value> = lines.iter().filter(detail).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn a_failing_policy_test_says_what_was_expected_and_which_rule_decided() {
    let folder = TempDir::new().expect("a folder");
    file(&folder, "shop.yaml", SHOP);
    let tests = "
policies: [shop.yaml]
endpoints:
- {name: shop, labels: ['k8s:app=shop']}
- {name: client, labels: ['k8s:app=client']}
cases:
- id: orders
  title: clients may not order
  queries:
  - {direction: ingress, subject: shop, peer: {endpoint: client}, port: 80, l7: {http: {method: POST, path: /order}}, expect: l7-deny}
";
    let path = file(&folder, "tests.yaml", tests);
    let (code, output, _) = policy(&["test", &path]);
    assert_eq!(code, 1);
    let expected = "\x20 FAIL orders  clients may not order
       FAIL [0] ingress of shop from client, TCP 80, POST /order: l7-deny expected, l7-allow got \
(default/shop ingress[0].toPorts[0].rules.http[1])

1 case, 1 question: 0 passed, 1 failed
";
    assert_eq!(output, format!("{path}\n{expected}"));
    let (code, output, _) = policy(&["test", "--output", "json", &path]);
    assert_eq!(code, 1);
    let lines = lines(&output);
    assert_eq!(lines[0]["got"], "ok");
    assert_eq!(lines[1]["rule"]["policy"], "default/shop");
    assert_eq!(lines[1]["rule"]["rule"], 0);
    assert_eq!(lines[1]["rule"]["entry"], "ingress[0].toPorts[0].rules.http[1]");
    assert_eq!(lines[1]["effective"], "allow");
}

#[test]
fn the_examples_pass_their_tests() {
    let path = project("examples/tests/get-public-only.yaml").display().to_string();
    let (code, output, errors) = policy(&["test", &path]);
    assert_eq!(code, 0, "{output}{errors}");
}

#[test]
fn check_tells_errors_warnings_and_good_files_apart_by_exit_code() {
    let folder = TempDir::new().expect("a folder");
    let good = file(&folder, "good.yaml", SHOP);
    let (code, output, _) = policy(&["check", &good]);
    assert_eq!((code, output.as_str()), (0, "good: 1 policy in 1 file\n"));
    let bad = file(&folder, "bad.yaml", &SHOP.replace("ingress:", "ingres:").replace("'80'", "80"));
    let (code, output, _) = policy(&["check", "--output", "json", &bad]);
    assert_eq!(code, 1);
    let first = &lines(&output)[0];
    assert_eq!(first["severity"], "error");
    assert_eq!((&first["line"], &first["path"]), (&7.into(), &"spec".into()));
    assert_eq!(first["hint"], "did you mean `ingress`?");
    let (code, _, errors) = policy(&["check"]);
    assert_eq!(code, 2, "{errors}");
    let (code, _, errors) = policy(&["check", "/nonexistent.yaml"]);
    assert_eq!(code, 1);
    assert!(errors.contains("/nonexistent.yaml"), "{errors}");
}

#[test]
fn check_finds_policies_that_make_no_sense_together() {
    let folder = TempDir::new().expect("a folder");
    let http = file(&folder, "http.yaml", SHOP);
    let rules = SHOP.split("      rules:").next().expect("the ports");
    let kafka = format!("{rules}      rules: {{kafka: [{{topic: t}}]}}\n");
    let kafka = file(&folder, "kafka.yaml", &kafka.replace("name: shop", "name: kafka"));
    assert_eq!(policy(&["check", &kafka]).0, 0);
    let (code, output, _) = policy(&["check", &http, &kafka]);
    assert_eq!(code, 1);
    let expected = "error: workload default/app=shop: policy `default/shop`, \
                    `spec.ingress[0].toPorts[0]` and policy `default/kafka`, \
                    `spec.ingress[0].toPorts[0]` are about the same peers and ports, and have rules of \
                    different protocols (HTTP rules and Kafka rules)";
    assert!(output.starts_with(expected), "{output}");
}

#[test]
fn explain_shows_the_way_to_the_answer_and_the_nearest_rule() {
    let folder = TempDir::new().expect("a folder");
    let shop = file(&folder, "shop.yaml", SHOP);
    let question = [
        "explain",
        "--policy",
        &shop,
        "--workload-labels",
        "app=shop",
        "--peer-labels",
        "app=client",
        "--port",
        "80",
        "--path",
        "/public/a",
    ];
    let (code, output, errors) = policy(&question);
    assert_eq!(code, 0, "{errors}");
    for part in [
        "answer: l7-deny (no_rule_allows)",
        "looked into as HTTP because of default/shop `spec.ingress[0].toPorts[0]`",
        "http[0]: header `X-Token` is not there",
        "http[1]: method `GET` does not match `POST`; path `/public/a` does not match `/order$`",
        "the nearest rule is default/shop ingress[0].toPorts[0].rules.http[0]",
    ] {
        assert!(output.contains(part), "{part} is not in\n{output}");
    }
    let json: Vec<&str> = question.iter().copied().chain(["--output", "json"]).collect();
    let (_, output, _) = policy(&json);
    let found = &lines(&output)[0];
    assert_eq!(found["answer"], "l7-deny");
    assert_eq!(
        found["entries"][0]["requests"][0]["mismatches"][0],
        "header `X-Token` is not there"
    );
    let nobody = ["explain", "--policy", &shop, "--workload-labels", "app=shop", "--port", "80"];
    assert_eq!(policy(&nobody).0, 2);
}

#[test]
fn diff_shows_who_gains_and_who_loses() {
    let folder = TempDir::new().expect("a folder");
    let old = file(&folder, "old.yaml", SHOP);
    let new = file(&folder, "new.yaml", &SHOP.replace("POST", "PUT"));
    let (code, output, _) = policy(&["diff", &old, &new]);
    assert_eq!(code, 1);
    let expected = "\
gains  ingress of default/app=shop from default/app=client, TCP 80, PUT /order
       was l7-deny, becomes l7-allow by default/shop ingress[0].toPorts[0].rules.http[1]
loses  ingress of default/app=shop from default/app=client, TCP 80, POST /order
       was l7-allow by default/shop ingress[0].toPorts[0].rules.http[1], becomes l7-deny
";
    assert!(output.starts_with(expected), "{output}");
    assert_eq!(policy(&["diff", &old, &old]).0, 0);
}

#[test]
fn the_schemas_are_printed() {
    for kind in ["CiliumNetworkPolicy", "TrafficPolicy"] {
        let (code, output, _) = policy(&["schema", kind]);
        assert_eq!(code, 0);
        let schema: Value = serde_json::from_str(&output).expect("a schema");
        assert_eq!(schema["title"], kind);
    }
}
