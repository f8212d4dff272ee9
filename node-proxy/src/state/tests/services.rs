//! Services: what the datapath is told of them, and what they mean to policies.

use super::*;

#[test]
fn services_are_what_their_slices_say() {
    let mut bench = Bench::new();
    bench.write("service.yaml", SERVICE);
    assert!(bench.step().contains(&"service default/shop".to_owned()));
    bench.write("slice.yaml", SLICE);
    assert_eq!(bench.step(), ["service default/shop"]);
    let rows = bench.node.services();
    assert_eq!(rows[0].frontends, ["10.96.0.10:80", "*:30080 (node)"]);
    assert_eq!(rows[0].backends, ["10.0.0.7:8080 (ready, here)", "10.0.0.9:8080 (terminating)"]);
    assert_eq!(rows[0].options, ["externalTrafficPolicy=Local", "affinity=10800s"]);
    assert_eq!((rows[1].port.as_str(), rows[1].backends.len()), ("dns", 0));
    // The same in other words: nothing to tell.
    bench.write("slice.yaml", &SLICE.replace("serving: true, ", "serving: true,    "));
    assert_eq!(bench.step(), NOTHING);
    // While a backend moves to another slice it is in both.
    bench.write("slice2.yaml", &SLICE.replace("shop-1", "shop-2").replace("ready: false, ", ""));
    assert_eq!(bench.step(), NOTHING);
    bench.remove("slice.yaml");
    bench.remove("slice2.yaml");
    assert_eq!(bench.step(), ["service default/shop"]);
    bench.remove("service.yaml");
    assert_eq!(bench.step(), ["service default/shop removed"]);
}

#[test]
fn a_service_without_selector_is_its_backends_for_policies() {
    let mut bench = Bench::new();
    two(&bench);
    let service = SERVICE.replace("  selector: {app: shop}\n", "");
    bench.write("service.yaml", &service);
    bench.write("slice.yaml", &SLICE.replace("10.0.0.7", "192.0.2.7"));
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: \
                  default}\nspec:\n  endpointSelector: {matchLabels: {app: bank}}\n  egress: \
                  [{toServices: [{k8sService: {serviceName: shop, namespace: default}}]}]\n";
    bench.write("policy.yaml", policy);
    bench.step();
    let bank = bench.node.engine.policy("default/bank").unwrap();
    let may = |address: &str| {
        let who = bank.identify(address.parse().unwrap());
        let verdict = bank.connection(TrafficDirection::Egress, who, Protocol::Tcp, 8080);
        !matches!(verdict.action, Action::Deny)
    };
    assert!(may("192.0.2.7") && !may("192.0.2.8"));
}

#[test]
fn services_that_change_together_may_change_places() {
    let mut bench = Bench::new();
    let other = SERVICE.replace("name: shop", "name: bank");
    let other = other.replace("10.96.0.10", "10.96.0.11").replace("30080", "30081");
    bench.write("shop.yaml", SERVICE);
    bench.write("bank.yaml", &other);
    assert!(bench.step().contains(&"services default/bank,default/shop change".to_owned()));
    bench.write("shop.yaml", &other.replace("name: bank", "name: shop"));
    bench.write("bank.yaml", &SERVICE.replace("name: shop", "name: bank"));
    assert_eq!(
        bench.step(),
        [
            "services default/bank,default/shop change",
            "service default/bank",
            "service default/shop"
        ]
    );
}
