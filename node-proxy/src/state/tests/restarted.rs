//! What a node knows, and does not know, when it has been started again.

use super::*;
use crate::datapath::NumbersInUse;

#[test]
fn a_workload_that_can_not_be_read_at_the_start_is_closed_and_nothing_is_taken_for_left_over() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    let shop = workload("shop", "shop", SHOP);
    bench.write("shop.yaml", &shop.replace("addresses:", "adresses:"));
    assert_eq!(bench.step(), NOTHING, "the version before stays");
    bench.restart();
    let told = bench.step();
    assert_eq!(told[0], "endpoint 2 closed", "{told:?}");
    assert!(!told.iter().any(|line| line.starts_with("keep")), "{told:?}");
    let status = bench.node.status();
    assert!(!status.synced);
    let error = "Workload default/shop can't be read, and may be one of them";
    assert!(status.errors.iter().any(|line| line.contains(error)), "{:?}", status.errors);
    bench.write("shop.yaml", &shop);
    let told = bench.step();
    for line in [
        "endpoint 2 default/shop at veth0 identity 257",
        "policy 2",
        "keep endpoints 1,2",
        "keep addresses",
    ] {
        assert!(told.iter().any(|told| told == line), "{line} in {told:?}");
    }
    assert!(bench.node.status().synced && bench.node.status().errors.is_empty());
}

#[test]
fn a_workload_that_can_not_be_read_and_is_removed_then_is_left_over() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.write("shop.yaml", &workload("shop", "shop", SHOP).replace("addresses:", "adresses:"));
    bench.restart();
    bench.step();
    bench.remove("shop.yaml");
    assert_eq!(bench.step(), ["keep endpoints 1", "keep addresses"]);
}

#[test]
fn a_namespace_that_can_not_be_read_at_the_start_closes_what_is_in_it_and_what_it_may_be_denied() {
    let mut bench = Bench::new();
    two(&bench);
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: red, labels: {team: red}}\n";
    let denied = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: \
                  p}\nspec:\n  endpointSelector: {matchLabels: {app: shop}}\n  ingress: \
                  [{fromEntities: [all]}]\n  ingressDeny: [{fromEndpoints: [{matchLabels: \
                  {\"k8s:io.cilium.k8s.namespace.labels.team\": red}}]}]\n";
    let in_red =
        |name, spec| workload(name, name, spec).replace("labels:", "namespace: red, labels:");
    bench.write("policy.yaml", denied);
    bench.write("peer.yaml", &in_red("peer", "addresses: [10.1.0.1]"));
    bench.write("own.yaml", &in_red("own", "addresses: [10.0.0.9], interface: veth2"));
    bench.write("namespace.yaml", namespace);
    bench.step();
    assert!(!bench.allows("default/shop", "10.1.0.1") && bench.allows("red/own", "10.0.0.8"));
    bench.write("namespace.yaml", &namespace.replace("team: red", "team: [red]"));
    assert_eq!(bench.step(), NOTHING);
    assert!(bench.allows("red/own", "10.0.0.8"), "the version before is in force");

    bench.restart();
    let told = bench.step();
    assert!(!told.iter().any(|line| line.starts_with("keep")), "{told:?}");
    assert!(!bench.allows("red/own", "10.0.0.8"), "it is not known what it would be");
    assert!(!bench.allows("default/shop", "10.1.0.1"), "nor whom it would be denied");
    assert!(bench.allows("default/shop", "10.0.0.8"), "others are not concerned");
    assert!(bench.allows("default/bank", "192.0.2.1"), "nor are directions that were open");
    assert!(bench.node.object_errors()[0].closed_for_it);
    bench.write("namespace.yaml", namespace);
    let told = bench.step();
    assert!(told.contains(&"keep addresses".to_owned()), "{told:?}");
    assert!(!bench.allows("default/shop", "10.1.0.1") && bench.allows("red/own", "10.0.0.8"));
    assert_eq!(bench.node.status().policies, 1);
}

#[test]
fn numbers_begin_above_those_that_the_kernel_has_when_the_folder_is_empty() {
    let mut bench = Bench::new();
    two(&bench);
    bench.step();
    bench.state = tempfile::tempdir().unwrap();
    bench.told.in_use(NumbersInUse {
        endpoints: [1, 2].into(),
        identities: [9, 256, 257, 1 << 24].into(),
        ..NumbersInUse::default()
    });
    bench.restart();
    let told = bench.step();
    for line in [
        "endpoint 3 default/bank at veth1 identity 258",
        "endpoint 4 default/shop at veth0 identity 259",
        "keep endpoints 3,4",
    ] {
        assert!(told.iter().any(|told| told == line), "{line} in {told:?}");
    }
    // Those of the folder stay as they are.
    bench.restart();
    let told = bench.step();
    assert!(told.contains(&"endpoint 3 default/bank at veth1 identity 258".to_owned()), "{told:?}");
}

#[test]
fn a_service_that_can_not_be_read_at_the_start_opens_nothing() {
    let mut bench = Bench::new();
    two(&bench);
    let service = SERVICE.replace("  selector: {app: shop}\n", "");
    let slice = SLICE.replace("10.0.0.7", "192.0.2.7");
    let denied = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: \
                  default}\nspec:\n  endpointSelector: {matchLabels: {app: bank}}\n  egress: \
                  [{toEntities: [all]}]\n  egressDeny: [{toServices: [{k8sService: {serviceName: shop, \
                  namespace: default}}]}]\n";
    bench.write("policy.yaml", denied);
    bench.write("service.yaml", &service);
    bench.write("slice.yaml", &slice);
    bench.step();
    let may = |bench: &Bench, who: &str| {
        let policy = bench.node.engine.policy(who).unwrap();
        let to = policy.identify("192.0.2.7".parse().unwrap());
        let verdict = policy.connection(TrafficDirection::Egress, to, Protocol::Tcp, 8080);
        !matches!(verdict.action, Action::Deny)
    };
    assert!(!may(&bench, "default/bank") && may(&bench, "default/shop"));
    assert_eq!(bench.told.services_kept(), Some(0));
    for (file, good, bad) in [
        ("service.yaml", &service, service.replace("clusterIP: 10", "clusterIP: ten")),
        ("slice.yaml", &slice, slice.replace("192.0.2.7", "192.0.2.seven")),
    ] {
        bench.write(file, &bad);
        bench.restart();
        let told = bench.step();
        assert!(!told.contains(&"service default/shop".to_owned()), "{file}: it may lack somebody");
        assert_eq!(bench.told.services_kept(), None, "{file}: the kernel's may be its");
        let told = &bench.node.status().errors[0];
        assert!(told.contains("stay as they were"), "{file}: {told}");
        assert!(!may(&bench, "default/bank"), "{file}: anybody may be behind it");
        assert!(may(&bench, "default/shop"), "{file}: nobody forbids it");
        let error = &bench.node.object_errors()[0];
        assert!(error.services_stay && !error.closed_for_it, "{file}: nobody is closed for it");
        let status = crate::render::status(&serde_json::to_value(bench.node.status()).unwrap());
        assert!(status.contains("services that the kernel has stay"), "{file}: {status}");
        assert!(!status.contains("are closed"), "{file}: {status}");
        let rows = bench.node.services();
        assert!(!rows.is_empty(), "{file}: it is not gone");
        for row in rows {
            assert_eq!((&*row.name, row.realised), ("default/shop", false), "{file}");
            assert!(row.error.as_ref().unwrap().contains("can't be read"), "{file}: {row:?}");
        }
        bench.write(file, good);
        bench.step();
        assert!(!may(&bench, "default/bank") && bench.node.object_errors().is_empty());
        assert_eq!(bench.told.services_kept(), Some(0), "{file}");
    }
}

#[test]
fn a_policy_may_be_called_as_it_likes_and_what_closes_stays_closed() {
    let mut bench = Bench::new();
    two(&bench);
    let broken = policy("p", "shop", "bank").replace("ingress:", "ingres:");
    let open = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: closed-0, \
                namespace: default}\nspec:\n  endpointSelector: {}\n  ingress: [{fromEntities: [all]}]\n";
    bench.write("broken.yaml", &broken);
    bench.write("z.yaml", open);
    bench.step();
    assert!(!bench.allows("default/shop", "10.0.0.8"), "it is not known what it would say");
    assert_eq!(bench.node.status().policies, 1);
    let names: Vec<_> =
        bench.node.engine.repository().policies().map(|own| own.name.to_string()).collect();
    let closed = "default/closed for CiliumNetworkPolicy default/p";
    assert!(names.iter().any(|name| name == closed), "{names:?}");
    bench.remove("broken.yaml");
    bench.step();
    assert!(bench.allows("default/shop", "10.0.0.8"), "by the one that is called so");
    assert_eq!(bench.node.status().policies, 1);
}
