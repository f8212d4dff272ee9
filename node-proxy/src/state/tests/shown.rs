//! What a node says of itself.

use super::*;
use crate::api::{Answer, Request, answer};

#[test]
fn while_it_ends_the_status_says_so_and_not_that_the_proxy_is_unwell() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    assert_eq!(bench.node.status().draining, None);
    bench.node.drain();
    bench.told.fail("proxy health");
    let status = bench.node.status();
    assert_eq!((status.draining, &status.errors[..]), (Some(0), &[][..]));
    let said = crate::render::status(&serde_json::to_value(&status).unwrap());
    assert!(said.contains("State:      ending, waits for 0 connections, revision "), "{said}");
}

#[test]
fn nobody_and_several_of_a_name_are_told_apart() {
    let mut bench = Bench::new();
    two(&bench);
    let other = workload("shop", "shop", "addresses: [10.0.0.9], interface: veth2");
    bench.write("other.yaml", &other.replace("labels:", "namespace: red, labels:"));
    bench.step();
    let asked = |endpoint: &str| {
        let request = Request::EndpointGet { endpoint: endpoint.to_owned() };
        match answer(&bench.node, &request) {
            Answer::Ok(detail) => detail["name"].as_str().unwrap_or_default().to_owned(),
            Answer::Error(refusal) => refusal.message,
        }
    };
    assert_eq!(asked("bank"), "default/bank");
    assert_eq!(asked("red/shop"), "red/shop");
    let nobody = asked("shpo");
    assert!(nobody.starts_with("there is no endpoint `shpo`\n  hint: "), "{nobody}");
    let several = asked("shop");
    assert!(several.starts_with("several endpoints are called `shop`: "), "{several}");
    assert!(several.contains("default/shop, red/shop\n  hint: "), "{several}");
}

#[test]
fn what_no_policy_says_has_a_rule_without_a_policys_name() {
    let (objects, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = "apiVersion: portreeve.dev/v1alpha1\nkind: Workload\nmetadata: {name: host, labels: \
                {'reserved:host': ''}}\nspec: {addresses: [10.0.0.1]}\n---\n";
    let shop = workload("shop", "shop", SHOP) + host + &policy("p", "shop", "bank");
    fs::write(objects.path().join("all.yaml"), shop).unwrap();
    let options = NodeOptions {
        name: "node-1".to_owned(),
        policy: Options { allow_localhost: true, ..Options::default() },
        identity_linger: LINGER,
    };
    let (proxy, now) = (Box::new(Recording::default()), Instant::now());
    let datapath = Box::new(Recording::default());
    let mut node = Node::open(options, state.path(), datapath, proxy, now).unwrap();
    node.apply(Folder::new(objects.path()).read().unwrap(), now);
    let rules: Vec<_> =
        node.policy("shop").unwrap().into_iter().filter_map(|row| row.rule).collect();
    assert!(rules.iter().any(|rule| rule == "allowLocalhost"), "{rules:?}");
    let rules = node.endpoint("shop").unwrap().rules;
    assert!(rules.iter().any(|rule| rule == "allowLocalhost"), "{rules:?}");
}
